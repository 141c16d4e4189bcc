"""`isr demo` from end to end: a real server, a photograph, and headless Chromium."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

import isr_jax
from isr_jax import cli
from isr_jax.checkpoint import write_generator
from isr_jax.models import generator

SMALL = {"name": "rrdbnet", "width": 8, "growth": 4, "blocks": 1, "doublings": 1}
START = "import sys; from isr_jax.cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def photo():
    data = pytest.importorskip("skimage.data", reason="needs scikit-image's photographs")
    return data.chelsea()[60:180, 90:250]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photo):
    """Photographs, good and bad, and a run folder."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "tmp").mkdir()
    Image.fromarray(photo).save(folder / "my cat.png")
    Image.fromarray(photo).resize((900, 600)).save(folder / "large.png")
    Image.fromarray(photo).save(folder / "cut.jpg", quality=95)
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:4000])
    (folder / "text.jpg").write_text("no image")
    (folder / "heavy.png").write_bytes(b"0" * 1_100_000)
    network = generator(SMALL, scale=2)
    config = {"scale": 2, "generator": SMALL}
    write_generator(folder / "runs" / "tiny", *network.init(jax.random.key(0)), config)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    """The running command, and the address that it prints."""
    pytest.importorskip("starlette", reason="needs pip install 'isr-jax[demo]'")
    pytest.importorskip("uvicorn", reason="needs pip install 'isr-jax[demo]'")
    paths = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    options = ("demo", "--port", "0", "--max-megapixels", "0.5", "--max-upload", "1")
    with subprocess.Popen(
        [sys.executable, "-c", START, *options],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        line = process.stdout.readline()
        if not line.startswith("isr demo: http://127.0.0.1:"):
            process.kill()
            pytest.fail(f"{line}{process.stderr.read()}")
        yield process, line.split()[2]
        process.kill()


def enlarged(page, model, scale, saved):
    """Enlarge on the page, and the pixels and name of what it lets one save."""
    page.select_option("#model", label=model)
    if page.is_enabled("#scale"):
        page.select_option("#scale", str(scale))
    page.click("#go")
    page.wait_for_selector("#result:not([hidden])", timeout=20_000)
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(saved)
    with Image.open(saved) as image:
        return np.array(image), download.value.suggested_filename


@pytest.mark.slow
def test_a_photo_is_enlarged_compared_and_saved(server, browser, folder, photo):
    process, address = server
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    wrong, asked = [], []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.set_input_files("#file", folder / "my cat.png")
    page.wait_for_selector("#go:not([disabled])")

    result, name = enlarged(page, "bicubic (interpolation)", 3, folder / "saved.png")
    assert name == "my cat_x3.png"
    np.testing.assert_array_equal(result, isr_jax.load("bicubic", scale=3)(photo))
    widths = [
        page.evaluate(f"document.querySelector('{x}').naturalWidth") for x in ("#before", "#after")
    ]
    assert widths == [160, 480]

    def divider():
        """Where it is: what is shown of the image before, in parts of the image's width."""
        handle, image = (
            page.locator(".handle").bounding_box(),
            page.locator("#after").bounding_box(),
        )
        return (handle["x"] + handle["width"] / 2 - image["x"]) / image["width"]

    assert divider() == pytest.approx(0.5, abs=0.01)
    page.focus("#at")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert divider() == pytest.approx(0.6, abs=0.01)
    assert "40%" in page.evaluate("getComputedStyle(document.querySelector('#before')).clipPath")
    box = page.locator("#after").bounding_box()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 40, steps=3)
    page.mouse.up()
    assert divider() == pytest.approx(0.25, abs=0.01)

    page.select_option("#model", index=0)
    assert page.is_disabled("#scale")
    page.select_option("#tile", "64")
    result, name = enlarged(page, "runs/tiny (\u00d72)", 2, folder / "saved.png")
    assert name == "my cat_x2.png"
    model = isr_jax.load(folder / "runs" / "tiny", tile=64)
    # Two processes may round a sum of floats in another order.
    off = np.abs(result.astype(int) - model(photo))
    assert off.max() <= 1
    assert (off > 0).mean() < 1e-3

    for file, message in {
        "text.jpg": "text.jpg: unreadable: not a PNG, JPEG, WebP, TIFF, BMP or GIF image",
        "cut.jpg": "cut.jpg: unreadable: image file is truncated",
        "large.png": "large.png has 0.54 megapixels; a photo can have 0.5 (--max-megapixels)",
        "heavy.png": "heavy.png has 1.1 MB; a file can have 1 MB (--max-upload)",
    }.items():
        page.set_input_files("#file", folder / file)
        page.wait_for_selector(f'#message:has-text("{file}")')
        assert page.inner_text("#message").startswith(message)
        assert page.is_disabled("#go")
    page.set_input_files("#file", folder / "my cat.png")
    page.wait_for_selector("#go:not([disabled])")
    assert page.is_hidden("#message")

    (kept,) = (folder / "tmp").glob("isr-demo-*")
    assert len(list(kept.iterdir())) == 1
    page.close(run_before_unload=False)
    for _ in range(50):
        if not list(kept.iterdir()):
            break
        time.sleep(0.1)
    assert not list(kept.iterdir())
    assert wrong == []
    assert {url.split("/")[2] for url in asked if not url.startswith("data:")} == {
        address.split("/")[2]
    }
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")
    assert not list((folder / "tmp").glob("isr-demo-*"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--port", "99999"), 2, "is no port"),
        (("--max-megapixels", "none"), 2, "is no number above 0"),
        (("--port", "0", "--model", "none"), 1, "there is no model none"),
        (("--port", "0", "--host", "no.such.host.invalid"), 1, "cannot listen on no.such.host"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, code, message):
    pytest.importorskip("uvicorn", reason="needs pip install 'isr-jax[demo]'")
    try:
        found = cli.main(["demo", *arguments])
    except SystemExit as stop:
        found = stop.code
    out, err = capsys.readouterr()
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_missing_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "isr_jax.demo.server", None)
    monkeypatch.delitem(sys.modules, "isr_jax.demo.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["demo"]) == 1
    assert "pip install 'isr-jax[demo]'" in capsys.readouterr().err
