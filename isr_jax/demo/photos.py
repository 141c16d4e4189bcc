"""What `isr demo` does to a photo, in processes of its own: read it, show it, upscale it.

Reading needs no JAX, which is therefore imported where a photo is upscaled.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from isr_jax.demo.models import MEGA, Choice
from isr_jax.errors import UserError, one_line
from isr_jax.photo.pixels import Page, as_image, to_8_bits
from isr_jax.photo.reading import OpenPhoto, Photo, open_photo
from isr_jax.photo.writing import fit, lost, write_photo
from isr_jax.upscaling.sizes import Target
from isr_jax.upscaling.tasks import is_bug

if TYPE_CHECKING:
    from isr_jax.upscaling.any_size import AnySizeUpscaler

Progress = Callable[..., None]

# Browsers on phones show no larger images.
LARGEST_VIEW = 24 * MEGA


class View(NamedTuple):
    """A PNG file for the page to show, and how many times smaller it is than what it shows."""

    file: Path
    smaller: int


class Uploaded(NamedTuple):
    """A photo that can be upscaled: its upright width and height, a view, and what was left out."""

    size: tuple[int, int]
    view: View
    notices: tuple[str, ...]


class Upscaled(NamedTuple):
    """The PNG file, a view of it, the seconds that the model took, and how the size was reached."""

    file: Path
    view: View
    seconds: float
    notices: tuple[str, ...]


def take(
    file: Path, name: str, *, most: float, progress: Progress = lambda **event: None
) -> Uploaded:
    """Read a file that a visitor sent, and write a view beside it.

    Args:
        file: where it is.
        name: what its owner calls it.
        most: the megapixels that it may have.
        progress: not called, because decoders give no sign.

    Raises:
        UserError: it cannot be read, or has more.
    """
    try:
        opened = open_photo(file, max_pixels=sys.maxsize)
        head = opened.head
        width, height = head.sizes[0]
        if width * height > most * MEGA:
            opened.close()
            raise UserError(
                f"{name} has {width * height / MEGA:.3g} megapixels; a photo can have {most:g} "
                "(--max-megapixels)"
            )
        photo, page = first_page(opened)
        size = page.pixels.shape[1], page.pixels.shape[0]
        page, too_much = fit(page, "png")
        notices = (*photo.notices, *lost(photo, "png"), *too_much)
        if len(head.sizes) > 1:
            notices += (f"the first of {len(head.sizes)} pages or frames",)
        return Uploaded(size, write_view(file.with_name("before.png"), page, photo), notices)
    except (UserError, MemoryError, OSError) as error:
        text = one_line(error).replace(str(file), name)
        raise UserError(text if name in text else f"{name}: {text}") from error


def first_page(opened: OpenPhoto) -> tuple[Photo, Page]:
    """Decode the first page of a file, as if it were the only one."""
    photo = opened.read(first_only=True)
    return photo, next(photo.pages)


def write_view(file: Path, page: Page, photo: Photo) -> View:
    """Write a PNG file that browsers can show."""
    pixels, smaller = page.pixels, 1
    while pixels.shape[0] * pixels.shape[1] > LARGEST_VIEW * smaller**2:
        smaller += 1
    if smaller > 1:
        pixels = np.array(as_image(to_8_bits(pixels)).reduce(smaller))
    write_photo(file, "png", iter([Page(pixels, page.icc)]), photo)
    return View(file, smaller)


@lru_cache(maxsize=8)
def cached(model: str | None, tile: int | None) -> "AnySizeUpscaler":
    """Load a model, once for each tile size."""
    from isr_jax.upscaling.any_size import load_any_size

    return load_any_size(model=model, tile=tile)


def upscale(
    file: Path, choice: Choice, *, target: Target, tile: int | None, progress: Progress
) -> Upscaled:
    """Upscale a photo into a new folder beside it.

    Args:
        file: the photo.
        choice: the model.
        target: the size of the result.
        tile: side of a tile, pixels; None for one that fits the device.
        progress: called with step, or with done and total; what it raises ends the work.

    Raises:
        UserError: it cannot be upscaled.
    """
    try:
        return _upscale(file, choice, target, tile, progress)
    except Exception as error:
        if is_bug(error):
            raise
        raise UserError(one_line(error)) from error


def _upscale(
    file: Path, choice: Choice, target: Target, tile: int | None, progress: Progress
) -> Upscaled:
    progress(step="Loading the model")
    upscaler = cached(choice.model, None if choice.scale is None else tile).at(target)
    photo, page = first_page(open_photo(file, max_pixels=sys.maxsize))
    notices = upscaler.size_remarks((page.pixels.shape[0], page.pixels.shape[1]))
    progress(step="Computing the first tile" if choice.scale else "Computing")
    begin = time.monotonic()
    pixels = upscaler(page.pixels, progress=lambda done, total: progress(done=done, total=total))
    seconds = time.monotonic() - begin
    progress(step="Writing the PNG file")
    result = Path(tempfile.mkdtemp(dir=file.parent)) / "result.png"
    large, _ = fit(Page(pixels, page.icc), "png")
    write_photo(result, "png", iter([large]), photo)
    view = View(result, 1)
    if pixels.shape[0] * pixels.shape[1] > LARGEST_VIEW:
        view = write_view(result.with_name("view.png"), large, photo)
    return Upscaled(result, view, seconds, notices)
