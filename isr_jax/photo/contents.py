"""What is read from an image file: what its header says, and its pages with all about them."""

from collections.abc import Callable, Generator
from typing import NamedTuple

from PIL import Image

from isr_jax.photo.pixels import Page, Pixels


class Head(NamedTuple):
    """What a file's header says.

    Attributes:
        format: a key of FORMATS.
        sizes: width and height of each page.
        channels: of the first page, 1 to 4.
        bits: per channel, 8 or 16.
        depth: bits per channel of the file, such as 10; 0 where that is `bits`.
    """

    format: str
    sizes: tuple[tuple[int, int], ...]
    channels: int
    bits: int
    depth: int = 0

    @property
    def pixel_bytes(self) -> int:
        """Bytes per pixel of the first page."""
        return self.channels * self.bits // 8


class Still(NamedTuple):
    """A file that Pillow does not decode, and whose header has been read.

    Attributes:
        head: what it says.
        decode: return the pixels, turned already where `info` has no EXIF that says how.
        info: of Pillow's image: exif and icc_profile.
        lossless: whether the file was compressed without loss.
        notices: a line for each thing that is left out.
    """

    head: Head
    decode: Callable[[], Pixels]
    info: dict[str, bytes]
    lossless: bool
    notices: tuple[str, ...] = ()


class Photo(NamedTuple):
    """A file whose first page is decoded.

    Attributes:
        pages: all of them; each after the first is decoded when it is asked for. The file closes
            with the last, or with `pages.close()`.
        depth: bits per channel of the file.
        first_bytes: size of the first page's pixels.
        page_count: number of pages.
        animated: whether the pages are frames of an animation.
        durations: of each frame, in ms.
        loop: how often the animation runs; 0 for forever.
        exif: without the orientation, which has been applied.
        dpi: pixels per inch, across and down.
        lossless: whether the file was compressed without loss.
        notices: a line for each thing in the file that was left out.
    """

    pages: Generator[Page]
    depth: int
    first_bytes: int
    page_count: int
    animated: bool
    durations: tuple[int, ...]
    loop: int
    exif: Image.Exif
    dpi: tuple[float, float] | None
    lossless: bool
    notices: tuple[str, ...]
