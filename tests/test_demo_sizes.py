"""The page of `isr demo` asked for any size, in headless Chromium."""

import numpy as np
import pytest
from PIL import Image

import isr_jax
from isr_jax.demo.models import Choice, Limits
from isr_jax.resize import resize_uint8
from tests.helpers.demo_page import choose, serving, start, upscaled
from tests.helpers.image_files import noise

BICUBIC = "bicubic (interpolation)"


@pytest.mark.parametrize("viewport", [(1280, 900), (390, 844)])
def test_any_size_on_the_page(tmp_path, browser, viewport):
    photo, saved = noise(20, 33, 3), tmp_path / "saved.png"
    Image.fromarray(photo).save(tmp_path / "a.png")
    (tmp_path / "served").mkdir()
    choices = [Choice("compact-x2", 2), Choice("bicubic", None)]
    with serving(tmp_path / "served", choices, Limits(0.5, 1)) as (_, (_, port)):
        width, height = viewport
        context = browser.new_context(viewport={"width": width, "height": height})
        page, wrong = context.new_page(), []
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}")
        assert page.input_value("#size") == "4"
        choose(page, tmp_path / "a.png")
        assert page.inner_text("#hint").startswith("The result will have 132 \u00d7 80 pixels.")
        for asked, name, size in (
            (("scale", 2.5), "a_x2.5.png", (50, 83)),
            (("width", 71), "a_w71.png", (43, 71)),
            (("height", 71), "a_h71.png", (71, 117)),
            (("fit", 99, 50), "a_99x50.png", (50, 83)),
            (("megapixels", 0.01), "a_0.01mp.png", (78, 128)),
        ):
            result, given = upscaled(page, BICUBIC, asked, saved)
            assert given == name
            np.testing.assert_array_equal(result, resize_uint8(photo, size=size))
            told = f"The result will have {size[1]} \u00d7 {size[0]} pixels."
            assert page.inner_text("#hint").startswith(told)
            assert f"\u2192 {size[1]} \u00d7 {size[0]} pixels" in page.inner_text("#caption")
        # The kind of size and its number stay, a model begins with its own factor.
        page.select_option("#model", label="automatic")
        assert (page.input_value("#size"), page.input_value("#value")) == ("megapixels", "0.01")
        page.select_option("#size", "8")
        page.select_option("#model", label="compact-x2 (\u00d72)")
        assert page.input_value("#size") == "2"
        start(page, "compact-x2 (\u00d72)", 3)
        page.wait_for_selector("#result:not([hidden])")
        told = "Compact-x2 upscaled by 2, and bicubic interpolation to the size."
        assert told in page.inner_text("#caption")
        result, _ = upscaled(page, "automatic", ("width", 61), saved)
        expected = isr_jax.load_any_size(model="compact-x2")(photo, width=61)
        np.testing.assert_array_equal(result, expected)
        # What is no size is not sent.
        page.click("#go", trial=True)
        for value in ("", "0", "1.5"):
            page.fill("#value", value)
            page.click("#go")
            assert not page.evaluate("$('form').checkValidity()")
            assert page.is_hidden("#working")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert wrong == []
        context.close()
