"""`isr demo` from end to end: a real server, a photograph, and headless Chromium."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from http.client import HTTPConnection

import imagecodecs
import jax
import numpy as np
import pytest
import tifffile
from PIL import Image

import isr_jax
from isr_jax.checkpoints.runs import write_generator
from isr_jax.demo.models import Choice, Limits
from isr_jax.models import generator
from isr_jax.photo.formats import KINDS
from tests.helpers.demo_page import (
    Gate,
    choose,
    divider,
    post,
    repeated,
    save,
    serving,
    start,
    until,
    upscaled,
)

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
    Image.fromarray(photo[:, ::-1]).save(folder / "mirrored.png")
    Image.fromarray(photo).resize((900, 600)).save(folder / "large.png")
    Image.fromarray(photo).save(folder / "cut.jpg", quality=95)
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:4000])
    (folder / "text.jpg").write_text("no image")
    (folder / "heavy.png").write_bytes(b"0" * 1_100_000)
    network = generator(SMALL, scale=2)
    config = {"scale": 2, "generator": SMALL}
    write_generator(folder / "runs" / "tiny", *network.init(jax.random.key(0)), config)
    return folder


@pytest.fixture
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


@pytest.fixture
def gate(monkeypatch):
    """A closed `Gate` before the models of `local`."""
    gate = Gate()
    monkeypatch.setattr("isr_jax.demo.photos.cached", gate.cached)
    yield gate
    gate.open.set()


@pytest.fixture
def local(folder, tmp_path, monkeypatch):
    """A server in this process: the object behind its routes, and its address."""
    monkeypatch.setattr("isr_jax.demo.sessions.SWEEP", 0.05)
    choices = [Choice(str(folder / "runs" / "tiny"), 2), Choice("nearest", None)]
    with serving(tmp_path, choices, Limits(0.5, 1)) as (server, (_, port)):
        yield server, f"http://127.0.0.1:{port}"


@pytest.fixture
def visit(local, browser):
    """A function that opens the page of `local` as another user, without errors on the page."""
    contexts, wrong = [], []

    def visit(**options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(local[1])
        return page

    yield visit
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.mark.slow
def test_a_photo_is_upscaled_compared_and_saved(server, browser, folder, photo):
    process, address = server
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    wrong, asked = [], []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    choose(page, folder / "my cat.png")

    result, name = upscaled(page, "bicubic (interpolation)", 3, folder / "saved.png")
    assert name == "my cat_x3.png"
    np.testing.assert_array_equal(result, isr_jax.load("bicubic", scale=3)(photo))
    widths = [
        page.evaluate(f"document.querySelector('{x}').naturalWidth") for x in ("#before", "#after")
    ]
    assert widths == [160, 480]

    assert divider(page) == pytest.approx(0.5, abs=0.01)
    page.focus("#at")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert divider(page) == pytest.approx(0.6, abs=0.01)
    assert "40%" in page.evaluate("getComputedStyle(document.querySelector('#before')).clipPath")
    box = page.locator("#after").bounding_box()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 40, steps=3)
    page.mouse.up()
    assert divider(page) == pytest.approx(0.25, abs=0.01)

    assert page.input_value("#size") == "3"
    page.select_option("#model", label="compact-x4 (\u00d74)")
    assert page.input_value("#size") == "4"  # its own
    page.select_option("#tile", "64")
    result, name = upscaled(page, "runs/tiny (\u00d72)", 2, folder / "saved.png")
    assert name == "my cat_x2.png"
    model = isr_jax.load(folder / "runs" / "tiny", tile=64)
    # Two processes may round a sum of floats in another order.
    off = np.abs(result.astype(int) - model(photo))
    assert off.max() <= 1
    assert (off > 0).mean() < 1e-3

    for file, message in {
        "text.jpg": f"text.jpg: unreadable: not a {KINDS} image",
        "cut.jpg": "cut.jpg: unreadable: image file is truncated",
        "large.png": "large.png has 0.54 megapixels; a photo can have 0.5 (--max-megapixels)",
        "heavy.png": "heavy.png has 1.1 MB; a file can have 1 MB (--max-upload)",
    }.items():
        page.set_input_files("#file", folder / file)
        page.wait_for_selector(f'#message:has-text("{file}")')
        assert page.inner_text("#message").startswith(message)
        assert page.is_disabled("#go")
    choose(page, folder / "my cat.png")
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


def test_after_cancel_photos_are_upscaled_as_before(local, gate, visit, folder, photo):
    page = visit()
    choose(page, folder / "my cat.png")
    page.select_option("#tile", "32")
    start(page, 0, 2)
    page.wait_for_selector("#step:has-text('Tile')")
    page.click("#cancel")
    page.wait_for_selector("#go:not([disabled])")
    assert [page.is_visible(name) for name in ("#working", "#message", "#result")] == [False] * 3
    assert gate.stopped.wait(20)

    gate.open.set()
    result, _ = upscaled(page, 0, 2, folder / "saved.png")
    model = isr_jax.load(folder / "runs" / "tiny", tile=32)
    np.testing.assert_array_equal(result, model(photo))
    choose(page, folder / "mirrored.png")
    result, name = upscaled(page, "nearest (interpolation)", 3, folder / "saved.png")
    assert name == "mirrored_x3.png"
    np.testing.assert_array_equal(result, repeated(photo[:, ::-1], 3))
    assert local[0].queue == []


def test_cancel_does_not_wait_for_the_result_to_be_loaded(visit, folder):
    page = visit()
    held = []
    page.route("**/files/**", lambda route: held.append(route))
    choose(page, folder / "my cat.png")
    with page.expect_request("**/files/**"):
        start(page, "nearest (interpolation)", 2)
    page.click("#cancel")
    page.wait_for_selector("#go:not([disabled])")
    for route in held:
        with page.expect_response(route.request.url):
            route.continue_()
    page.unroute("**/files/**")
    assert [page.is_visible(name) for name in ("#working", "#message", "#result")] == [False] * 3
    start(page, "nearest (interpolation)", 3)
    page.wait_for_selector("#result:not([hidden])")
    assert page.evaluate("$('after').naturalWidth") == 480


def test_users_take_turns_and_get_their_own(local, gate, visit, folder, photo):
    first, second = visit(), visit()
    choose(first, folder / "my cat.png")
    choose(second, folder / "mirrored.png")
    start(first, "nearest (interpolation)", 2)
    until(lambda: gate.working)
    start(second, "nearest (interpolation)", 3)
    second.wait_for_selector("#step:has-text('Queued: 1 ahead of this one')")
    second.click("#cancel")
    second.wait_for_selector("#go:not([disabled])")
    until(lambda: len(local[0].queue) == 1)
    start(second, "nearest (interpolation)", 3)
    second.wait_for_selector("#step:has-text('Queued: 1 ahead of this one')")
    gate.open.set()
    names = save(second, folder / "second.png"), save(first, folder / "first.png")
    assert names == ("mirrored_x3.png", "my cat_x2.png")
    np.testing.assert_array_equal(imagecodecs.imread(folder / "first.png"), repeated(photo, 2))
    mirrored = repeated(photo[:, ::-1], 3)
    np.testing.assert_array_equal(imagecodecs.imread(folder / "second.png"), mirrored)
    assert gate.most == 1
    assert not gate.stopped.is_set()


def test_deep_and_transparent_photos_keep_their_bits_and_alpha(visit, folder, photo):
    rng = np.random.default_rng(0)
    deep = photo * np.uint16(256) + rng.integers(256, size=photo.shape, dtype=np.uint16)
    tifffile.imwrite(folder / "deep.tif", deep, photometric="rgb")
    alpha = np.tile(np.arange(160, dtype=np.uint8), (120, 1))
    clear = np.dstack([photo, alpha])
    Image.fromarray(clear).save(folder / "clear.png")
    model = isr_jax.load(folder / "runs" / "tiny", tile=32)
    page = visit()
    page.select_option("#tile", "32")
    for file, image in {"deep.tif": deep, "clear.png": clear}.items():
        choose(page, folder / file)
        result, name = upscaled(page, "nearest (interpolation)", 3, folder / "saved.png")
        assert name == f"{file.partition('.')[0]}_x3.png"
        assert result.dtype == image.dtype
        # The colours of what is wholly transparent, the first column, become those next to them.
        seen = np.s_[:, 3:] if file == "clear.png" else np.s_[:]
        np.testing.assert_array_equal(result[seen], repeated(image, 3)[seen])
        np.testing.assert_array_equal(result[..., 3:], repeated(image, 3)[..., 3:])
        result, _ = upscaled(page, 0, 2, folder / "saved.png")
        assert result.dtype == image.dtype
        np.testing.assert_array_equal(result, model(image))


def test_the_divider_follows_a_finger(visit, folder):
    page = visit(viewport={"width": 390, "height": 600}, has_touch=True, is_mobile=True)
    finger = page.context.new_cdp_session(page)

    def drag(element, right, down=0.0, *, at=0.5):
        """By parts of the width of an element, from a part of it, half-way down."""
        box = page.locator(element).bounding_box()
        x, y = box["x"] + at * box["width"], box["y"] + box["height"] / 2
        for part in np.linspace(0, box["width"], 9):
            point = {"x": x + part * right, "y": y + part * down}
            kind = "touchMove" if part else "touchStart"
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    choose(page, folder / "my cat.png")
    start(page, "nearest (interpolation)", 4)
    page.wait_for_selector("#result:not([hidden])")
    drag("#compare", -0.3)
    until(lambda: divider(page) == pytest.approx(0.2, abs=0.01))
    drag("#compare", 0.3, at=0.2)
    until(lambda: divider(page) == pytest.approx(0.5, abs=0.01))

    # Down the image, it scrolls the page.
    top = page.evaluate("scrollY")
    drag("#compare", 0.02, 0.3, at=0.8)
    until(lambda: page.evaluate("scrollY") < top - 50)
    assert divider(page) == pytest.approx(0.8, abs=0.03)

    # Pixel for pixel, it moves the divider by the handle, and scrolls the image.
    page.tap("#whole")
    left = page.evaluate("$('scroll').scrollLeft")
    assert left == pytest.approx((640 - page.evaluate("$('scroll').clientWidth")) / 2, abs=1)
    drag(".handle", 1)
    until(lambda: divider(page) == pytest.approx(0.5 + 44 / 640, abs=0.01))
    assert page.evaluate("$('scroll').scrollLeft") == left
    drag("#scroll", -0.2, at=0.3)
    until(lambda: page.evaluate("$('scroll').scrollLeft") > left + 50)
    assert divider(page) == pytest.approx(0.5 + 44 / 640, abs=0.01)


def test_sessions_of_silent_pages_end(local, gate, visit, folder):
    from isr_jax.demo.sessions import IDLE

    server, address = local
    gone, busy, open_page = visit(), visit(), visit()
    tokens = [page.evaluate("settings.session") for page in (gone, busy, open_page)]

    def age(token):
        server.sessions.pages[token].seen -= IDLE + 1

    def folders():
        return len(list(server.folder.iterdir()))

    for page in (gone, busy, open_page):
        choose(page, folder / "my cat.png")
    start(busy, "nearest (interpolation)", 2)
    until(lambda: gate.working)
    gone.evaluate("navigator.sendBeacon = () => true")
    gone.close()
    age(tokens[1])
    age(tokens[0])
    until(lambda: folders() == 2)
    assert list(server.sessions.pages) == tokens[1:]

    # Work keeps a page, until it ends.
    busy.click("#cancel")
    until(lambda: folders() == 1)
    assert list(server.sessions.pages) == tokens[2:]
    busy.click("#go")
    busy.wait_for_selector("#message:has-text('this page has been idle too long; reload it')")

    gate.open.set()
    start(open_page, "nearest (interpolation)", 2)
    open_page.wait_for_selector("#result:not([hidden])")
    address += open_page.get_attribute("#save", "href")
    assert open_page.request.get(address).status == 200
    age(tokens[2])
    until(lambda: folders() == 0)
    # Anything else would be saved as the photo.
    assert open_page.request.get(address).status == 404


def test_a_signal_ends_it_at_work_and_leaves_nothing(server, folder):
    process, address = server
    with closing(HTTPConnection(address.removeprefix("http://"), timeout=20)) as connection:
        connection.request("GET", "/")
        home = connection.getresponse().read().decode()
        settings = json.loads(re.search('id="settings">(.*)</script>', home)[1])
        session = settings["session"]
        (tiny,) = (i for i, m in enumerate(settings["models"]) if m["model"] == "runs/tiny")
        photo = (folder / "my cat.png").read_bytes()
        with post(connection, "/photo?name=a.png", photo, session) as answer:
            assert json.load(answer)["size"] == [160, 120]
        wanted = json.dumps({"model": tiny, "size": {"scale": 2}, "tile": 32})
        with post(connection, "/upscale", wanted, session) as answer:
            # It may have to wait for its turn.
            lines = iter(answer.readline, b"")
            assert any(json.loads(line) == {"step": "Loading the model"} for line in lines)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (128 + signal.SIGTERM, "", "")
    assert not list((folder / "tmp").glob("isr-demo-*"))
