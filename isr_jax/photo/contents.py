"""What is read from an image file: its header, its metadata, and its pages with all about them."""

from collections.abc import Callable, Generator
from typing import NamedTuple

from isr_jax.photo.exif import Directory, Order
from isr_jax.photo.pixels import Page, Pixels
from isr_jax.photo.xmp import Xmp


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


class Metadata(NamedTuple):
    """What a photo holds beside its pixels.

    Attributes:
        exif: without the orientation, which has been applied.
        xmp: as the file has it.
        iptc: IPTC's records.
        comments: of a JPEG or GIF.
        texts: of a PNG, chunk by chunk.
        colour: a PNG's chunks that say what the values of the pixels mean.
        dpi: pixels per inch, across and down.
        density: pixels across and down per an unknown unit, where that is all that is known.
        size: width and height of the upright photo.
        profile: whether it has an ICC profile.
        order: of the bytes of EXIF in the file, < or >.
    """

    exif: Directory
    xmp: Xmp = Xmp()
    iptc: bytes = b""
    comments: tuple[bytes, ...] = ()
    texts: tuple[tuple[bytes, bytes], ...] = ()
    colour: tuple[tuple[bytes, bytes], ...] = ()
    dpi: tuple[float, float] | None = None
    density: tuple[float, float] | None = None
    size: tuple[int, int] = (1, 1)
    profile: bool = False
    order: Order = "<"


# What a photo without metadata has.
NOTHING = Metadata({})


class Photo(NamedTuple):
    """A file whose first page is decoded.

    Attributes:
        pages: all of them; each after the first is decoded when it is asked for. The file closes
            with the last, or with `pages.close()`.
        depth: bits per channel of the file.
        page_count: number of pages.
        animated: whether the pages are frames of an animation.
        durations: of each frame, in ms.
        loop: how often the animation runs; 0 for forever.
        metadata: what the file holds beside the pixels.
        lossless: whether the file was compressed without loss.
        notices: a line for each thing in the file that was left out.
        jpeg_quality: 1 to 100, about what libjpeg would call it; None for other formats.
    """

    pages: Generator[Page]
    depth: int
    page_count: int
    animated: bool
    durations: tuple[int, ...]
    loop: int
    metadata: Metadata
    lossless: bool
    notices: tuple[str, ...]
    jpeg_quality: int | None
