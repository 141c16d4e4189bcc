"""Decode image files, once for everyone: upright pixels with all their bits, and their metadata.

`open_photo` opens a file once and reads its header; `OpenPhoto.read` decodes it through that same
handle, and `metadata` reads what it holds beside its pixels. `decode_rgb` gives what training and
evaluation want of a file: 8 bits, opaque.

Pillow reads everything that it reads losslessly; 16-bit PNG and TIFF, of which it would drop the
low byte, are read by imagecodecs and tifffile. Formats are always named, so that no other decoder
of Pillow's runs (its EPS reader would start Ghostscript).
"""

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import UInt8, UInt16
from PIL import Image

from isr_jax.errors import UserError, one_line
from isr_jax.photo import png_chunks
from isr_jax.photo.avif_reading import open_avif
from isr_jax.photo.contents import NOTHING, Head, Photo, Still
from isr_jax.photo.formats import KINDS
from isr_jax.photo.gif_reading import canvas
from isr_jax.photo.heic_reading import open_heic
from isr_jax.photo.iso_boxes import kind_of
from isr_jax.photo.jpeg_reading import open_jpeg, quality_of
from isr_jax.photo.jxl_header import is_jxl
from isr_jax.photo.jxl_reading import open_jxl
from isr_jax.photo.limits import MAX_PIXELS, check, check_page_count, own_limits
from isr_jax.photo.metadata import Read, of_info, of_jpeg, of_png, of_tiff
from isr_jax.photo.pixels import Page, make_page, over_white, pillow_page, to_8_bits, upright
from isr_jax.photo.png_reading import decode_png
from isr_jax.photo.tiff_reading import (
    check_directories,
    is_for_pillow,
    is_tiff,
    notices_of,
    read_page,
    result_bits,
    result_channels,
)
from isr_jax.photo.webp_reading import is_lossless

READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")

_COPY = 1 | 4  # of TIFF's kinds of pages: one of fewer pixels, and a mask of transparency


class OpenPhoto:
    """An open image file: its `head`, and `read` to decode it. It closes with its last page."""

    def __init__(
        self,
        file: BufferedIOBase,
        name: str,
        *,
        max_pixels: int = MAX_PIXELS,
        bands: Sequence[int] | None = None,
    ) -> None:
        """Read the header of an open file, and check that decoding it takes no more than it may.

        Args:
            file: open for reading at its start.
            name: stands for it in messages.
            max_pixels: the most that its pages may have together.
            bands: as of `open_photo`.

        Raises:
            UserError: it is not an image that can be read, or too large; the file is closed then.
        """
        self.name = name
        self._file: Any = file  # Pillow and tifffile are annotated with typing.IO
        self._stack = ExitStack()
        self._stack.callback(file.close)
        self._bands, self._decoded_bytes = bands, 0
        self._image: Image.Image | None = None
        self._tiff: tifffile.TiffFile | None = None
        self._still: Still | None = None
        self._png: png_chunks.Contents | None = None
        self._cut_off = False
        self._kept: tuple[int, ...] = ()  # the pages of a TIFF that are no copies of others
        self._orientation = 1
        try:
            with own_limits():
                self.head = self._read_head()
            self._file_bytes, self._max_pixels = file.seek(0, os.SEEK_END), max_pixels
            self._check(self.head.sizes)
        except Exception as error:  # Pillow and tifffile can raise anything
            self.close()
            raise unreadable(name, error) from error

    def _check(self, sizes: tuple[tuple[int, int], ...]) -> None:
        check(
            self.head.format,
            sizes,
            pixel_bytes=max(self.head.pixel_bytes, self._decoded_bytes),
            file_bytes=self._file_bytes,
            most=self._max_pixels,
        )

    def close(self) -> None:
        """Close the file; the pages that are not decoded yet are lost."""
        self._stack.close()
        self._image = self._still = None  # closed, Pillow keeps the pixels

    def read(self, *, first_only: bool = False) -> Photo:
        """Decode the first page, and read the metadata.

        Args:
            first_only: whether to read the file as if its first page were the only one.

        Raises:
            UserError: the file is damaged or truncated; `pages` raise it too.
        """
        with own_limits():
            return self._read(1 if first_only else len(self.head.sizes))

    def _read(self, count: int) -> Photo:
        try:
            metadata, self._orientation, notices = self._metadata()
            notices += self._still.notices if self._still else ()
            lossless = self._is_lossless()
            quality = quality_of(self._pillow()) if self.head.format == "jpeg" else None
            animated = self._tiff is None and count > 1
            durations, loop = self._timing() if animated else ((), 0)
            pages = self._named(self._tiff_pages() if self._tiff else self._pages())
            first = next(pages)
            if self._tiff:
                notices += notices_of(self._tiff.pages[self._kept[0]].aspage(), self._bands)
            size = first.pixels.shape[1], first.pixels.shape[0]
            metadata = metadata._replace(size=size, profile=bool(first.icc))
            if count == 1:
                self.close()
                pages.close()  # where Pillow's copy of the pixels would stay beside the result
        except BaseException as error:
            self.close()
            if not isinstance(error, Exception):
                raise
            raise unreadable(self.name, error) from error
        if self.head.bits == 16 and first.pixels.dtype == np.uint8:
            kind = "an animated PNG" if animated else "CMYK"
            notices += (f"the 16 bits of {kind} were read as 8",)
        return Photo(
            _from_first(first, pages),
            depth=self.head.depth or self.head.bits,
            page_count=count,
            animated=animated,
            durations=durations,
            loop=loop,
            metadata=metadata,
            lossless=lossless,
            notices=notices,
            jpeg_quality=quality,
        )

    def _pillow(self, formats: tuple[str, ...] = READABLE) -> Image.Image:
        """Return the file as Pillow's image, made at the first call."""
        if self._image is None:
            self._file.seek(0)
            jpeg = self._file.read(3) == b"\xff\xd8\xff"
            self._file.seek(0)
            image = open_jpeg(self._file) if jpeg else Image.open(self._file, formats=formats)
            self._image = self._stack.enter_context(image)
        return self._image

    def _read_head(self) -> Head:
        start = self._file.read(64)
        self._file.seek(0)
        if is_tiff(start):
            self._cut_off = check_directories(self._file)
            tiff = self._tiff = self._stack.enter_context(tifffile.TiffFile(self._file))
            every = [page.aspage() for page in tiff.pages]
            whole = tuple(i for i, page in enumerate(every) if not page.subfiletype & _COPY)
            self._kept = whole or tuple(range(len(every)))
            pages = [every[i] for i in self._kept]
            sizes = tuple((page.imagewidth, page.imagelength) for page in pages)
            first = pages[0]
            itemsize = np.dtype(first.dtype).itemsize if first.dtype else 1
            self._decoded_bytes = first.samplesperpixel * itemsize
            channels = result_channels(first, self._bands)
            return Head("tiff", sizes, channels, result_bits(first))
        if start.startswith(png_chunks.MAGIC):
            self._png = png_chunks.read_contents(self._file)
            self._file = png_chunks.without(self._file, self._png.dropped)
        kind = kind_of(start)
        if is_jxl(start) or kind == "heic":
            self._still = (open_heic if kind else open_jxl)(self._content())
            # Pillow's image, for what is said of the photo.
            image = self._image = Image.new("L", (1, 1))
            image.info.update(self._still.info)
            return self._still.head
        image = self._pillow()
        if kind == "avif" and getattr(image, "n_frames", 1) == 1:
            self._still = open_avif(self._content(), image)
            return self._still.head
        name = str(image.format).lower()
        size = image.size
        if name == "gif":
            self._file.seek(0)
            size = canvas(self._file)
        deep = name == "png" and start[24] == 16
        count = getattr(image, "n_frames", 1) - bool(image.info.get("default_image"))
        check_page_count(count)
        return Head(name, (size,) * count, len(image.getbands()), 16 if deep else 8)

    def _is_lossless(self) -> bool:
        if self._still:
            return self._still.lossless
        place = self._file.tell()
        lossless = is_lossless(self._file) if self.head.format == "webp" else True
        self._file.seek(place)
        return lossless and self.head.format not in ("jpeg", "avif")

    def _content(self) -> bytes:
        """Return the whole file; Pillow's place in it stays."""
        place = self._file.tell()
        self._file.seek(0)
        content = self._file.read()
        self._file.seek(place)
        return content

    def _named(self, pages: Iterator[Page]) -> Generator[Page]:
        """Yield the pages, name the file where one is damaged, and close it at the end."""
        try:
            while True:
                with own_limits():
                    page = next(pages, None)
                if page is None:
                    return
                yield page
                del page  # or it would lie beside the next one
        except Exception as error:
            raise unreadable(self.name, error) from error
        finally:
            self.close()

    def _pages(self) -> Iterator[Page]:
        """Yield the pages of anything but TIFF."""
        image, count = self._pillow(), len(self.head.sizes)
        if self._still:
            # Only of AVIF it is still to be done.
            orientation = self._orientation if self.head.format == "avif" else 1
            pixels = upright(self._still.decode(), orientation=orientation)
            yield make_page(pixels, image.info.get("icc_profile"))
            return
        if self.head.bits == 16 and count == 1:
            pixels = upright(decode_png(self._content()), orientation=self._orientation)
            yield make_page(pixels, image.info.get("icc_profile"))
            return
        # The default image of an animated PNG is for programs that cannot show the animation.
        start = int(bool(image.info.get("default_image")))
        alpha = image.format == "GIF" and count > 1
        for i in range(start, start + count):
            image.seek(i)
            self._check_page(image)
            page = pillow_page(image, orientation=self._orientation, alpha=alpha)
            alpha = alpha or (count > 1 and page.pixels.shape[2:] in ((2,), (4,)))
            yield page

    def _tiff_pages(self) -> Iterator[Page]:
        """Yield the pages of a TIFF file, by tifffile or, where that cannot, by Pillow."""
        assert self._tiff
        for i in self._kept:
            page = self._tiff.pages[i].aspage()
            result_bits(page)
            if not is_for_pillow(page):
                yield read_page(page, self._bands)
                continue
            image = self._pillow(("TIFF",))
            image.seek(i)
            self._check_page(image)
            yield pillow_page(image, orientation=1)  # Pillow turns a TIFF itself

    def _check_page(self, image: Image.Image) -> None:
        """Refuse a page that is larger than the header says, before memory is taken for it."""
        if image.size not in self.head.sizes:
            self._check((image.size,))

    def _timing(self) -> tuple[tuple[int, ...], int]:
        """Return the duration of each frame in ms, and the number of loops; 0 for forever."""
        image = self._pillow()
        # A GIF without a count runs once, and its count is of repetitions.
        loop = image.info.get("loop", 1 if image.format == "GIF" else 0)
        loop += image.format == "GIF" and loop != 0 and "loop" in image.info
        start = int(bool(image.info.get("default_image")))
        durations = []
        for i in range(start, start + len(self.head.sizes)):
            image.seek(i)
            self._check_page(image)
            image.load()  # WebP knows it only then
            durations.append(round(image.info.get("duration", 0)))
        return tuple(durations), loop

    def _metadata(self) -> Read:
        """Return the metadata; the decoders' place in the file stays."""
        place = self._file.tell()
        try:
            if self._tiff:
                read = self._tiff_metadata(self._tiff)
            elif self._png:
                read = of_png(self._png, self._pillow().info)
            elif self.head.format == "jpeg":
                read = of_jpeg(self._file, self._pillow().info)
            else:
                read = of_info(self._pillow().info)
        except (ValueError, OSError):
            read = Read(NOTHING, 1, ("metadata was left out because it cannot be read",))
        self._file.seek(place)
        return read

    def _tiff_metadata(self, tiff: tifffile.TiffFile) -> Read:
        page = tiff.pages[self._kept[0]].aspage()
        stated = (*page.resolution, page.resolutionunit) if 282 in page.tags else None
        read = of_tiff(self._file, page.offset, stated)
        if self._cut_off:
            line = "what follows the last page that is whole was left out: it is missing or damaged"
            read = read._replace(notices=(*read.notices, line))
        if len(self._kept) < len(tiff.pages):
            line = "smaller copies and masks among a file's pages were left out"
            read = read._replace(notices=(*read.notices, line))
        return read


def open_photo(
    path: Path, *, max_pixels: int = MAX_PIXELS, bands: Sequence[int] | None = None
) -> OpenPhoto:
    """Open an image file and read its header.

    Args:
        path: the file.
        max_pixels: the most that its pages may have together.
        bands: of a multispectral TIFF file, those to take, counted from 1: one for gray, or three
            for red, green and blue. None for the colours that it declares.

    Raises:
        UserError: the file is not an image that can be read, or declares a larger one.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 (OpenPhoto closes it)
    except OSError as error:
        raise unreadable(str(path), error) from error
    return OpenPhoto(file, str(path), max_pixels=max_pixels, bands=bands)


def decode_rgb(
    file: BufferedIOBase, *, name: str, keep_gray: bool = False, keep_bits: bool = False
) -> UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"]:
    """Decode an image file's first page into upright, opaque 8-bit RGB, [h, w, 3].

    Gray, palette and CMYK become RGB, 16 bits are rounded to 8, and transparency is composed over
    white. An RGB colour profile is ignored, as the loaders of published code do.

    Args:
        file: open for reading at its start; it is closed.
        name: what to call it in messages.
        keep_gray: return [h, w] where the file has one channel of gray.
        keep_bits: return uint16 where the file has 16 bits per channel.

    Raises:
        UserError: the file is not an image, or a truncated or corrupt one.
    """
    photo = OpenPhoto(file, name)
    try:
        pixels = over_white(next(photo.read(first_only=True).pages).pixels)
    finally:
        photo.close()
    pixels = pixels if keep_bits else to_8_bits(pixels)
    return pixels if keep_gray or pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)


def _from_first(first: Page, others: Iterator[Page]) -> Generator[Page]:
    yield first
    del first
    yield from others


def unreadable(name: str, error: Exception) -> UserError:
    """Return the error that says why a file cannot be read."""
    if isinstance(error, UserError):
        text = str(error)
        return error if text.startswith(name) else UserError(f"{name}: {text}")
    known = isinstance(error, OSError) and error.strerror
    reason = known or one_line(error)
    if isinstance(error, Image.UnidentifiedImageError):
        reason = f"not a {KINDS} image, or the start of one is damaged"
    return UserError(f"{name}: unreadable: {reason}")
