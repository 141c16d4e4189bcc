"""The report of a study in headless Chromium: images load, sliders move, nothing overflows."""

import json

import numpy as np
import pytest

from isr_jax import config as base
from isr_jax.data.examples import ImagePair
from isr_jax.loss_study import report
from isr_jax.loss_study.results import Scored, summarise
from isr_jax.resize import resize_uint8

NAMES = ["psnr", "ssim", "ms_ssim"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The report of a made-up study: three losses, of which one diverged, and two photographs."""
    rng, run = np.random.default_rng(0), tmp_path_factory.mktemp("study")
    losses = {"l1": {"l1": 1.0}, "mse & more": {"mse": 1.0, "ssim": 0.1}, "bad": {"l1": 1.0}}
    candidates = {name: base.candidate(loss={"content": w}) for name, w in losses.items()}
    config = base.with_study(base.small(), candidates)
    config.study.seeds = (0, 1, 2)
    photos, judged = [], []
    for i in range(2):
        hr = resize_uint8(rng.integers(0, 256, (15, 20, 3)).astype(np.uint8), scale=8)
        photos.append(ImagePair(f"photo{i}.png", hr, resize_uint8(hr, scale=0.25)))
    pictures = {}
    for n, name in enumerate(losses):
        pictures[name] = [np.roll(photo.hr, n + 1, axis=1) for photo in photos]
        start = np.full((3, 2, 3), [27.0, 0.75, 0.94])
        curve = [
            {"step": s, "scores": (start + s / 1e4 * (n + 1) * rng.random((3, 2, 3))).tolist()}
            for s in (0, 100, 200)
        ]
        scores = dict.fromkeys(NAMES, 0.5)
        tried = [
            {"value": 1e-3, "finished": 3, "allowed": True, "score": 0.25, "scores": scores},
            {"value": 1e-1, "finished": 0, "allowed": True, "score": None, "scores": {}},
        ]
        search = {"of": "learning rate", "by": "fidelity", "chosen": 1e-3, "edge": True}
        search["tried"] = [
            one | {"seconds": 9.0, "trial": f"{name}{one['value']}"} for one in tried
        ]
        search["notes"] = ["the best is at the edge of what was tried"]
        bad = name == "bad"
        if name == "l1":  # one seed ends below where it began, and further below its best
            curve[1]["scores"][2] = (np.array(curve[1]["scores"][2]) + 1).tolist()
            curve[2]["scores"][2] = (np.array(curve[0]["scores"][2]) - 0.2).tolist()
        outcome = {
            "learning_rate": 1e-3,
            "searches": [search],
            "notes": ["learning rate: the best is at the edge"] if bad else [],
            "seeds": [0, 1, 2],
            "failed": {"1": 7, "2": 8} if bad else {},
            "diverged": "2 of 3 seeds; seed 1 was not finite at update 7" if bad else None,
            "curve": curve,
            "seconds_per_update": 0.01 * (n + 1),
            "seconds": 1800.0,
        }
        content = config.loss.content.to_dict() | losses[name]
        judged.append(Scored(name, config.loss.to_dict() | {"content": content}, outcome))
    bicubic = np.full((2, 3), [27.0, 0.75, 0.94])
    results = summarise(judged, bicubic, NAMES, [p.name for p in photos], config)
    del pictures["bad"]
    report.write(run, results, photos, pictures)
    return run


def test_the_files_say_the_same(run):
    results = json.loads((run / "results.json").read_text())
    page, markdown = (run / "report.html").read_text(), (run / "report.md").read_text()
    assert results["verdict"] in markdown
    assert results["verdict"].replace("&", "&amp;") in page
    assert results["winner"] == "mse & more"
    l1 = results["candidates"]["l1"]
    assert l1["below_bicubic"] == {"2": pytest.approx(0.2)} and list(l1["fell_back"]) == ["2"]
    assert l1["fell_back"]["2"] > 1 and results["candidates"]["mse & more"]["fell_back"] == {}
    mean, low, high = results["candidates"]["mse & more"]["gain"]["psnr"]
    for text in (page.replace("\n[", " ["), markdown):
        assert f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]" in text
        assert "seed 1 was not finite at update 7" in text
        assert "bad: learning rate: the best is at the edge." in text
        assert "chosen, the best is at the edge of what was tried" in text
        assert "The study took 1.5 hours: 1 minute of tuning and 1.5 hours" in text


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (390, "dark")])
def test_the_page_in_a_browser(run, browser, width, scheme):
    context = browser.new_context(
        viewport={"width": width, "height": 850}, color_scheme=scheme, has_touch=width < 500
    )
    page = context.new_page()
    faults = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or faults.append(r.url))
    page.goto((run / "report.html").as_uri())

    # Every image is there, and nothing is wider than the screen.
    images = page.locator("img")
    assert images.count() == 2 * (2 + 4)
    assert all(images.evaluate_all("all => all.map(i => i.complete && i.naturalWidth > 0)"))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Text stands out from the paper, also within a drawing.
    for place in ("body", ".charts svg text"):
        colour = page.locator(place).first.evaluate("e => getComputedStyle(e).color")
        fill = page.locator(place).first.evaluate("e => getComputedStyle(e).fill")
        channels = (fill if place != "body" else colour).removeprefix("rgb(").split(",")[0]
        assert (int(channels) > 128) == (scheme == "dark"), place

    image = page.locator(".image").first
    slider, stage = image.locator("input[type=range]"), image.locator(".stage")

    def divider():
        handle, whole = image.locator(".handle").bounding_box(), stage.bounding_box()
        return (handle["x"] + handle["width"] / 2 - whole["x"]) / whole["width"]

    assert divider() == pytest.approx(0.5, abs=0.01)
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert divider() == pytest.approx(0.6, abs=0.01)
    page.keyboard.press("Home")
    assert divider() == pytest.approx(0, abs=0.01)
    box = stage.bounding_box()
    middle = box["y"] + box["height"] / 2
    if width < 500:
        page.touchscreen.tap(box["x"] + 0.75 * box["width"], middle)
    else:
        page.mouse.move(box["x"] + 0.3 * box["width"], middle)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.75 * box["width"], middle, steps=5)
        page.mouse.up()
    assert divider() == pytest.approx(0.75, abs=0.05)
    clip = image.locator(".after").evaluate("e => getComputedStyle(e).clipPath")
    assert clip.startswith("inset(0px 0px 0px 7")

    # A picture that is pressed goes to the right, a choice to its own side.
    cells = image.locator(".cells button")
    cells.nth(0).click()
    source = "e => e.src"
    hr = cells.nth(0).locator("img").evaluate(source)
    assert image.locator(".after").evaluate(source) == hr
    assert image.locator("select.right").input_value() == "0"
    image.locator("select.left").select_option(label="mse & more")
    chosen = cells.nth(2).locator("img").evaluate(source)
    assert "mse & more" in cells.nth(2).inner_text()
    assert image.locator(".before").evaluate(source) == chosen
    assert faults == []
    context.close()
