"""The photos in scikit-image's wheel, and what is done to copies of photos."""

import io
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from tests.helpers.encoded import encode

NAMES = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png",
    "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "page.png", "rocket.jpg",
)  # fmt: skip


def scenes():
    """Twelve photos of different things by name, with three channels."""
    found = {}
    for name in NAMES:
        with Image.open(Path(skimage.data.__file__).parent / name) as image:
            found[name] = np.array(image.convert("RGB"))
    return found


def write(file, pixels):
    file.parent.mkdir(parents=True, exist_ok=True)
    options = {"compress_level": 1} if file.suffix == ".png" else {}
    Image.fromarray(pixels).save(file, **options)


def half(pixels):
    image = Image.fromarray(pixels)
    size = image.width // 2, image.height // 2
    return np.array(image.resize(size, Image.Resampling.LANCZOS))


def jpeg(pixels, quality):
    with Image.open(io.BytesIO(encode(pixels, "JPEG", quality=quality))) as image:
        return np.array(image)
