"""GIF, written by Pillow: colours as they are where a frame has 256 of them or fewer."""

from collections.abc import Iterator
from typing import IO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from isr_jax.photo.contents import Photo
from isr_jax.photo.pixels import Page, as_image

_MOST = 256


def write_gif(out: IO[bytes], pages: Iterator[Page], photo: Photo) -> None:
    """Write a GIF, animated where there are several pages.

    A pixel is transparent where its alpha is less than half.

    Args:
        out: open for writing.
        pages: of 8 bits.
        photo: the file that they come from, for its times.
    """
    first, *others = (_frame(page.pixels) for page in pages)
    options = {}
    if others:
        # A count is of repetitions; without one, it runs once.
        loop = {} if photo.loop == 1 else {"loop": max(0, photo.loop - 1)}
        times = list(photo.durations) or 100
        options = {"save_all": True, "append_images": others, "duration": times, "disposal": 2}
        options |= loop
    first.save(out, "GIF", optimize=False, **options)


def _frame(pixels: UInt8[np.ndarray, "h w *c"]) -> Image.Image:
    """Return pixels as an image with a palette."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    clear = pixels[..., -1] < 128 if channels in (2, 4) else None
    colour = pixels[..., :-1] if clear is not None else pixels.reshape(*pixels.shape[:2], channels)
    rgb = np.repeat(colour, 3, axis=2) if colour.shape[2] == 1 else colour
    if clear is not None:
        rgb = np.where(clear[..., None], np.uint8(0), rgb)
    most = _MOST - (clear is not None)
    packed = rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, places = np.unique(packed, return_inverse=True)
    if len(colours) <= most:
        palette = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1)
        indices = places.reshape(packed.shape).astype(np.uint8)
    else:
        reduced = as_image(np.ascontiguousarray(rgb)).quantize(most)
        palette = np.reshape(reduced.getpalette() or [], (-1, 3))
        indices = np.array(reduced)
    if clear is not None:
        indices = np.where(clear, np.uint8(len(palette)), indices)
    image = Image.fromarray(indices, "P")
    entries = np.vstack([palette, np.zeros((1, 3), int)]) if clear is not None else palette
    image.putpalette(entries.astype(np.uint8).tobytes())
    if clear is not None:
        image.info["transparency"] = len(palette)
    return image
