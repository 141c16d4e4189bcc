"""`isr upscale` with several models, and its page of before/after sliders."""

import base64
import io
import os
import re
from functools import partial
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from isr_jax import cli
from isr_jax.cli import options
from isr_jax.progress import SparseLog
from isr_jax.resize import resize_uint8
from isr_jax.upscaling import folders, report, several
from isr_jax.upscaling.folders import upscale_files
from isr_jax.upscaling.upscaler import Upscaler
from tests.helpers.image_files import files_in, noise, read
from tests.test_evaluate import photo


def upscale(capsys, *arguments):
    """Exit code and the lines of standard error of `isr upscale`."""
    try:
        code = cli.main(["upscale", *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err, err
    return code, [line.removeprefix("isr upscale: ") for line in err.splitlines()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two photos, one of them below."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in/below").mkdir(parents=True)
    for i, name in enumerate(("a.png", "below/b & é.bmp")):
        Image.fromarray(photo(24, 32, seed=i)).save(tmp_path / "in" / name)
    return tmp_path


BOTH = ("--model", "nearest", "lanczos", "--scale", 2)


def test_several_models_write_a_photo_once_each(folder, capsys):
    assert upscale(capsys, "in", *BOTH) == (0, ["4 upscaled, 0 skipped, 0 failed"])
    made = [f"{stem}_x2_{name}{end}" for stem, end in (("a", ".png"), ("below/b & é", ".bmp"))
            for name in ("lanczos", "nearest")]  # fmt: skip
    assert files_in(folder / "in") == sorted(["a.png", "below/b & é.bmp", *made])
    for method in ("nearest", "lanczos"):
        expected = resize_uint8(read("in/a.png"), scale=2, method=method)
        np.testing.assert_array_equal(read(f"in/a_x2_{method}.png"), expected)
    # What is there is skipped, and no output is an input of another run, of whatever models.
    again = "(already exist; --overwrite replaces them)"
    assert upscale(capsys, "in", *BOTH) == (0, [f"0 upscaled, 4 skipped {again}, 0 failed"])
    os.remove("in/a_x2_nearest.png")
    assert upscale(capsys, "in", *BOTH)[1] == [f"1 upscaled, 3 skipped {again}, 0 failed"]
    left = "the output of an earlier run was left out; name it alone to upscale it (4 images)"
    one = ("--model", "bilinear", "--scale", 3)
    assert upscale(capsys, "in", *one) == (0, [left, "2 upscaled, 0 skipped, 0 failed"])
    assert upscale(capsys, "in", *BOTH, "--overwrite")[1][-1] == "4 upscaled, 0 skipped, 0 failed"
    assert upscale(capsys, "in", *BOTH, "--out", "out", "--suffix=-big")[0] == 0
    assert files_in(folder / "out")[:2] == ["a-big_lanczos.png", "a-big_nearest.png"]


def test_a_photo_that_is_only_named_like_an_output_is_upscaled(folder, capsys):
    Image.fromarray(photo(31, 31)).save("in/a_x2_friends.png")  # not twice as large as a.png
    code, lines = upscale(capsys, "in", "--model", "nearest", "--scale", 2)
    assert (code, lines) == (0, ["3 upscaled, 0 skipped, 0 failed"])


def test_models_with_scales_of_their_own(folder):
    upscalers = {
        name: Upscaler(name, scale, partial(resize_uint8, scale=scale))
        for name, scale in (("two", 2), ("four", 4))
    }
    outcome = upscale_files(upscalers, ["in/a.png"])
    assert outcome[:3] == (2, 0, [])
    assert read("in/a_x2_two.png").shape == (48, 64, 3)
    assert read("in/a_x4_four.png").shape == (96, 128, 3)
    names = {name: name for name in upscalers}
    assert report.write_report("page.html", outcome, models=names) == []
    page = (folder / "page.html").read_text()
    assert "32x24, shown at 128x96" in page and "64x48, shown at 128x96" in page
    assert page.index('data-name="two"') < page.index('data-name="four"')


def test_a_photo_that_cannot_be_read_is_one_line(folder, capsys):
    """Though it fails by each model, and all the same the others are upscaled."""
    (folder / "in/bad.png").write_bytes(b"no image")
    code, lines = upscale(capsys, "in", *BOTH, "--report", "page.html")
    assert code == 1
    assert lines[0].startswith("in/bad.png: unreadable")
    assert lines[1:] == ["4 upscaled, 0 skipped, 2 failed"]
    page = (folder / "page.html").read_text()
    assert (page.count("in/bad.png: unreadable"), page.count("data-name")) == (1, 6)


def pictures(page):
    """The pictures of a page's sliders, by photo and version, decoded; PNG ones are exact."""
    found = re.findall(
        r'data-name="([^"]*)" src="data:image/(\w+);base64,([^"]*)" alt="([^"]*),', page
    )
    return {
        (alt, name): np.array(Image.open(io.BytesIO(base64.b64decode(data))))
        for name, form, data, alt in found
        if form == "png" or pytest.fail(f"{alt} is {form}")
    }


def test_the_report_shows_what_was_made(folder, capsys, monkeypatch):
    monkeypatch.setattr(report, "_FORMS", (("PNG", {}),))
    (folder / "pages").mkdir()
    page = folder / "pages/page.html"
    code, lines = upscale(capsys, "in", *BOTH, "--report", page)
    assert (code, lines) == (0, ["4 upscaled, 0 skipped, 0 failed"])
    html = page.read_text()
    shown = pictures(html)
    assert [name for _, name in shown] == ["before", "nearest", "lanczos"] * 2
    source = read("in/a.png")
    for name, method in (("before", "bicubic"), ("nearest", "nearest"), ("lanczos", "lanczos")):
        expected = resize_uint8(source, scale=2, method=method)
        np.testing.assert_array_equal(shown["in/a.png", name], expected)
    links = [unquote(link) for link in re.findall(r'<a href="([^"]*)"', html)]
    assert len(links) == 6 and all((page.parent / link).is_file() for link in links)
    assert "../in/below/b & é_x2_nearest.bmp" in links
    assert "the whole of" not in html
    # A second run, which makes nothing, shows the same.
    before = page.read_bytes()
    assert upscale(capsys, "in", *BOTH, "--report", page)[0] == 0
    assert page.read_bytes() == before


@pytest.mark.parametrize("form", ["webp", "avif", "jxl", "tiff", "bmp"])
def test_lossless_outputs_of_every_format_are_shown(folder, capsys, monkeypatch, form):
    monkeypatch.setattr(report, "_FORMS", (("PNG", {}),))
    arguments = ("in/a.png", "--model", "nearest", "--scale", 2, "--format", form)
    assert upscale(capsys, *arguments, "--report", "page.html")[0] == 0
    expected = resize_uint8(read("in/a.png"), scale=2, method="nearest")
    shown = pictures((folder / "page.html").read_text())
    np.testing.assert_array_equal(shown["in/a.png", "nearest"], expected)


def test_of_a_large_photo_the_part_with_most_detail(folder, capsys, monkeypatch):
    monkeypatch.setattr(report, "_FORMS", (("PNG", {}),))
    pixels = np.full((300, 700, 4), 200, np.uint8)
    pixels[200:260, 500:600, :3] = noise(60, 100, 3)
    Image.fromarray(pixels).save("large.png")
    nearest = ("--model", "nearest", "--scale", 3)
    assert upscale(capsys, "large.png", *nearest, "--report", "page.html")[0] == 0
    html = (folder / "page.html").read_text()
    ((_, before), (key, after)) = pictures(html).items()
    assert key == ("large.png", "nearest")
    assert before.shape == after.shape == (*report.PARTS[0], 3)
    left, top, width, height = map(
        float, re.findall(r"(?:left|top|width|height):([\d.]+)%", html)[-4:]
    )
    assert (left <= 100 * 500 / 700 and left + width >= 100 * 600 / 700) and top + height >= 86
    row, column = round(top * 9), round(left * 21)
    over_white = (pixels[..., :3].astype(int) * 200 + 55 * 255 + 127) // 255
    whole = np.repeat(np.repeat(over_white, 3, 0), 3, 1)
    np.testing.assert_allclose(after, whole[row : row + 480, column : column + 640], atol=1)
    assert 'alt="the whole of large.png"' in html
    assert (folder / "page.html").stat().st_size < 3_000_000


@pytest.mark.parametrize("pages", [1, 3])
@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "P", "CMYK", "RGBA"])
def test_every_kind_of_photo_is_shown(folder, capsys, monkeypatch, mode, pages):
    monkeypatch.setattr(report, "_FORMS", (("PNG", {}),))
    image = Image.fromarray(photo(24, 20)).convert(
        "L" if mode == "I;16" else mode.replace("LA", "L")
    )
    image = image.convert(mode)
    more = [image] * (pages - 1)
    image.save("one.tif", save_all=True, append_images=more)
    for form in ("same", "webp", "png"):
        nearest = ("--model", "nearest", "--scale", 2, "--format", form, "--quality", 100)
        assert upscale(capsys, "one.tif", *nearest, "--report", "page.html")[0] == 0
        shown = pictures((folder / "page.html").read_text())
        expected = np.array(image.convert("RGB"))
        if mode in ("I;16", "CMYK"):
            continue  # of other values
        given = shown["one.tif", "nearest"]
        given = np.stack([given] * 3, -1) if given.ndim == 2 else given
        np.testing.assert_array_equal(given, expected.repeat(2, 0).repeat(2, 1))


def test_a_page_of_many_photos_is_bounded(folder, capsys, monkeypatch):
    monkeypatch.setattr(report, "MOST", 1)
    code, lines = upscale(capsys, "in", *BOTH, "--report", "page.html")
    assert (code, lines[0]) == (0, "the report shows the first 1 of 2 photos")
    assert (folder / "page.html").read_text().count("data-name") == 3


def test_a_report_that_cannot_be_written_keeps_the_photos(folder, capsys):
    (folder / "file").touch()
    code, lines = upscale(capsys, "in", *BOTH, "--report", "file/page.html")
    assert code == 1
    assert lines[0].startswith("--report file/page.html: ")
    assert lines[1:] == ["4 upscaled, 0 skipped, 1 failed"]
    Image.fromarray(photo(24, 32)).save("in/a_x2_nearest.png")
    (folder / "in/a_x2_nearest.png").write_bytes(b"no image")
    code, lines = upscale(capsys, "in", *BOTH, "--report", "page.html")
    assert code == 0 and "in/a_x2_nearest.png" in lines[0] and len(lines) == 2
    assert (folder / "page.html").read_text().count("data-name") == 3


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(folder, capsys, browser, width):
    assert upscale(capsys, "in", *BOTH, "--report", "page.html")[0] == 0
    context = browser.new_context(viewport={"width": width, "height": 800}, has_touch=width < 500)
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or faults.append(r.url))
    page.goto((folder / "page.html").as_uri())
    images = page.locator("img")
    assert all(images.evaluate_all("all => all.map(i => i.complete && i.naturalWidth > 0)"))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    stage = page.locator(".stage").first
    assert stage.bounding_box()["width"] == 64  # a pixel of the result on one of the page

    def sides():
        names = ("left", "right")
        shown = [stage.locator(f"img.{side}").get_attribute("data-name") for side in names]
        assert page.locator(".names span").all_text_contents()[:2] == shown
        return shown

    def divider():
        handle, whole = page.locator(".handle").first.bounding_box(), stage.bounding_box()
        return (handle["x"] + handle["width"] / 2 - whole["x"]) / whole["width"]

    assert sides() == ["before", "nearest"]
    page.locator("select").first.select_option("lanczos")
    assert sides() == ["lanczos", "nearest"]
    stage.locator("input").focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert divider() == pytest.approx(0.6, abs=0.02)
    box = stage.bounding_box()
    if width < 500:
        page.touchscreen.tap(box["x"] + 0.25 * box["width"], box["y"] + 20)
    else:
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 30)
        page.mouse.up()
        page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 30)
    assert divider() == pytest.approx(0.25, abs=0.02)
    assert float(stage.locator("input").input_value()) == pytest.approx(25, abs=2)
    assert faults == []
    context.close()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("in", *BOTH, "--report", "in/a.png"), 2, "in/a.png is an HTML page: name a .html file"),
        (("in", *BOTH, "--report", "mine.html"), 1, "mine.html exists and is not a report"),
        (("in", *BOTH, "--report", "x.html", "--shard", "1/2"), 2, "run it without shards"),
        (("in", *BOTH, "--out", "one.png"), 2, "name a folder"),
        (("in/a.png", *BOTH, "--out", "one.png"), 2, "one file, but there are 2 models"),
        (("in", "--model", "nearest", "nearest", "--scale", 2), 1, "two models are called nearest"),
        (("in", "--model", "nearest", "none.pth", "--scale", 2), 1, "none.pth"),
        ((*BOTH,), 2, "required: IN"),
    ],
)
def test_mistakes_are_one_line(folder, capsys, arguments, code, message):
    (folder / "mine.html").write_text("<p>precious</p>")
    before = files_in(folder)
    found, (line,) = upscale(capsys, *arguments)
    assert found == code
    assert message in line
    assert files_in(folder) == before
    assert (folder / "mine.html").read_text() == "<p>precious</p>"


def test_inputs_may_follow_the_models(tmp_path):
    (tmp_path / "config.json").touch()
    run = str(tmp_path)
    for models, expected in (
        (["m.pth", "a.png", "b.png"], (["m.pth"], ["a.png", "b.png"])),
        (["compact-x4", "bicubic", "in"], (["compact-x4", "bicubic"], ["in"])),
        (["a", "b.PTH", run, "in", "c.pth"], (["a", "b.PTH", run], ["in", "c.pth"])),
        (["runs/a", "runs/b/checkpoints/20", "in"], (["runs/a", "runs/b/checkpoints/20"], ["in"])),
        (["compact-x4", "compact-x2"], (["compact-x4", "compact-x2"], [])),
        ([], ([], [])),
    ):  # fmt: skip
        assert options.split_models(models, []) == expected
    assert options.split_models(["a", "b"], ["in"]) == (["a", "b"], ["in"])
    assert options.split_models(["a", "b", "c.JPG"], ["in"]) == (["a", "b"], ["in", "c.JPG"])


def test_models_are_called_by_their_files_and_folders(tmp_path):
    (tmp_path / "runs/msssim/checkpoints/20").mkdir(parents=True)
    (tmp_path / "x4.plus.pth").touch()
    for model, name in {
        "compact-x4": "compact-x4",
        tmp_path / "x4.plus.pth": "x4.plus",
        tmp_path / "runs/msssim": "msssim",
        f"{tmp_path}/runs/msssim/": "msssim",
        tmp_path / "runs/msssim/checkpoints/20": "msssim-20",
    }.items():
        assert several.name_of(model) == name


def test_a_log_is_sparse(capsys):
    now = [0.0]
    log = SparseLog(1000, shown=True, clock=lambda: now[0])
    for i in range(1000):
        now[0] += 9.0
        log.advance(failed=i // 100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 999 // 7  # 63 seconds are 7 images
    assert lines[0] == "isr upscale: 7 of 1000 images done, 0 failed, 2 h 29 min left"
    assert lines[-1] == "isr upscale: 994 of 1000 images done, 9 failed, 1 min left"
    SparseLog(2, shown=False, every=0.0, clock=lambda: now[0]).advance(failed=0)
    assert capsys.readouterr().err == ""


def test_a_run_without_a_terminal_has_a_log(folder, capsys, monkeypatch):
    monkeypatch.setattr(folders, "SparseLog", partial(SparseLog, every=0.0))
    code, lines = upscale(capsys, "in", *BOTH)
    said = [f"{i} of 4 images done, 0 failed, 0 min left" for i in (1, 2, 3)]
    assert (code, lines) == (0, [*said, "4 upscaled, 0 skipped, 0 failed"])
