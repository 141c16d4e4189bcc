"""`isr upscale` to a scale, width, height, box or megapixels: names, notices and mistakes."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

import isr_jax
from isr_jax.checkpoints.runs import write_generator
from isr_jax.resize import resize_uint8
from isr_jax.upscaling import any_size
from isr_jax.upscaling.upscaler import load
from tests.helpers.command import run
from tests.helpers.drawn import CASES, drawn
from tests.helpers.image_files import check_exif, exif, files_in, noise, png, read


def upscale(capsys, *arguments):
    """Exit code, and the lines of standard error."""
    code, out, lines = run(capsys, "upscale", *arguments)
    assert out == ""
    return code, [line.removeprefix("isr upscale: ") for line in lines]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Small generators in place of those shipped, by scale; each is loaded once."""
    folder = tmp_path_factory.mktemp("runs")
    for case in ("concat", "equivariant", "small"):
        options, scale = CASES[case]
        _, _, params, stats = drawn(case)
        config = {"scale": scale, "generator": {"name": "resnet"} | options}
        write_generator(folder / f"tiny-x{scale}", params, stats, config)
    with pytest.MonkeyPatch.context() as patch:
        names = {scale: folder / f"tiny-x{scale}" for scale in (2, 3, 4)}
        patch.setattr(any_size, "SHIPPED", names)
        loaded = cache(lambda model, scale: load(model, scale=scale, tile=16))
        patch.setattr(
            any_size, "load", lambda model, scale=None, **options: loaded(str(model), scale)
        )
        yield names


def test_the_smallest_shipped_model_reaches_it(tmp_path, capsys, networks):
    photo = noise(11, 15, 3)
    Image.fromarray(photo).save(tmp_path / "a.png", dpi=(300, 300))
    for options, name, size, scale in (
        (("--scale", "2.5"), "x2.5", (28, 38), 3),
        (("--scale", "3.0"), "x3", (33, 45), 3),
        (("--width", "30"), "w30", (22, 30), 2),
        (("--height", "41"), "h41", (41, 56), 4),
        (("--fit", "50x40"), "50x40", (37, 50), 4),
        (("--megapixels", "0.001"), "0.001mp", (27, 37), 3),
    ):
        code, lines = upscale(capsys, tmp_path / "a.png", *options)
        assert (code, lines) == (0, ["1 upscaled, 0 skipped, 0 failed"])
        sr = read(tmp_path / f"a_{name}.png")
        assert sr.shape == (*size, 3)
        expected = isr_jax.load_any_size(model=networks[scale])(photo, fit=size[::-1])
        np.testing.assert_array_equal(sr, expected)
        with Image.open(tmp_path / f"a_{name}.png") as written:
            assert written.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_a_width_is_that_of_the_upright_photo(tmp_path, capsys):
    image, data = Image.fromarray(noise(10, 14, 3)), exif(Make="A maker", Orientation=6)
    image.save(tmp_path / "a.png", exif=data)
    assert upscale(capsys, tmp_path / "a.png", "--model", "nearest", "--width", 20)[0] == 0
    check_exif(tmp_path / "a_w20.png", (20, 28))
    with Image.open(tmp_path / "a.png") as image:
        upright = np.array(ImageOps.exif_transpose(image))
    wanted = upright.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(read(tmp_path / "a_w20.png"), wanted)
    # JPEG holds 65500 pixels a side: what is too long is seen before and after it is upright.
    Image.fromarray(noise(2, 3)).save(tmp_path / "b.jpg", exif=data)
    options = ("--model", "nearest", "--width", 50_000)
    code, lines = upscale(capsys, tmp_path / "b.jpg", *options)
    assert code == 1
    assert "b.jpg: JPEG holds at most 65500 pixels a side" in lines[0]
    assert "50000x75000" in lines[0]
    assert upscale(capsys, tmp_path / "b.jpg", "--model", "nearest", "--height", 60)[0] == 0
    assert read(tmp_path / "b_h60.jpg").shape == (60, 40)


def test_every_image_of_a_folder_and_every_page(tmp_path, capsys, networks):
    folder = tmp_path / "in"
    folder.mkdir()
    small, large, deep = noise(6, 8, 3), noise(30, 40, 3), noise(12, 16, 3, dtype=np.uint16)
    Image.fromarray(small).save(folder / "small.png")
    Image.fromarray(large).save(folder / "large.png")
    (folder / "deep.png").write_bytes(png(deep))
    with tifffile.TiffWriter(folder / "pages.tif") as tiff:
        for page in (small, large):
            tiff.write(page, photometric="rgb", metadata=None)
    code, lines = upscale(capsys, folder, "--width", 20)
    assert code == 0
    (line, total) = lines
    assert line == (
        "no network was needed: the image already has this size or a larger one, and was resized "
        "by bicubic interpolation (2 images)"
    )
    assert total == "4 upscaled, 0 skipped, 0 failed"
    down = resize_uint8(large, size=(15, 20))
    up = isr_jax.load_any_size(model=networks[3])(small, width=20)
    np.testing.assert_array_equal(read(folder / "large_w20.png"), down)
    np.testing.assert_array_equal(read(folder / "small_w20.png"), up)
    with tifffile.TiffFile(folder / "pages_w20.tif") as tiff:
        for page, wanted in zip(tiff.pages, (up, down), strict=True):
            np.testing.assert_array_equal(page.asarray(), wanted)
    # Another size in the same folder: outputs are no inputs.
    code, lines = upscale(capsys, folder, "--model", "bicubic", "--scale", 2)
    left_out = "the output of an earlier run was left out; name it alone to upscale it (4 images)"
    assert (code, lines) == (0, [left_out, "4 upscaled, 0 skipped, 0 failed"])
    again = "(already exist; --overwrite replaces them)"
    code, lines = upscale(capsys, folder, "--width", 20)
    assert (code, lines) == (0, [left_out, f"0 upscaled, 4 skipped {again}, 0 failed"])
    assert len(files_in(folder)) == 12
    lone = ("--model", "nearest", "--height", 30)
    assert upscale(capsys, folder / "small_w20.png", *lone)[0] == 0
    assert (folder / "small_w20_h30.png").exists()


def test_what_is_beyond_the_models_is_told(tmp_path, capsys, networks):
    photo = noise(5, 6, 3)
    Image.fromarray(photo).save(tmp_path / "a.png")
    code, lines = upscale(capsys, tmp_path / "a.png", "--model", networks[2], "--scale", 3)
    told = "tiny-x2 upscaled by 2, and bicubic interpolation to the size (1 image)"
    assert (code, lines[0].rpartition("/")[2]) == (0, told)
    assert read(tmp_path / "a_x3.png").shape == (15, 18, 3)
    assert upscale(capsys, tmp_path / "a.png", "--scale", 8)[1] == [
        "1 upscaled, 0 skipped, 0 failed"
    ]
    expected = isr_jax.load_any_size()(photo, scale=8)
    np.testing.assert_array_equal(read(tmp_path / "a_x8.png"), expected)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--scale", "2", "--width", "9"), 2, "--width: not allowed with argument --scale"),
        (("--fit", "9x9", "--megapixels", "9"), 2, "not allowed with argument --fit"),
        (("--scale", "0"), 2, "'0' is not a number such as 2.5"),
        (("--scale", "-2"), 2, "'-2' is not a number such as 2.5"),
        (("--scale", "x2"), 2, "'x2' is not a number such as 2.5"),
        (("--scale", "nan"), 2, "'nan' is not a number such as 2.5"),
        (("--scale", "9" * 400), 2, "is not a number such as 2.5"),
        (("--width", "0"), 2, "'0' is not an integer of 1 or more"),
        (("--fit", "1920"), 2, "'1920' is not a size WxH such as 1920x1080"),
        (("--fit", "0x9"), 2, "'0x9' is not a size WxH"),
        (("--megapixels", "1e9"), 2, "'1e9' is not a number such as 2.5"),
        (("--model", "bicubic"), 1, "bicubic has no scale of its own: give one"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noise(4, 2)).save("a.png")
    found, lines = upscale(capsys, "a.png", *arguments)
    assert found == code
    assert message in lines[0]
    assert files_in(Path()) == ["a.png"]
