"""Write image files: whole or not at all, with everything that the format can hold."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from isr_jax.errors import UserError
from isr_jax.files import replacing
from isr_jax.photo import avif, gif, jpeg, jxl, png, png_chunks, tiff
from isr_jax.photo.contents import Metadata, Photo
from isr_jax.photo.exif import exif_bytes
from isr_jax.photo.formats import FORMATS
from isr_jax.photo.metadata import losses, packet_for, resized
from isr_jax.photo.pixels import Page, Pixels, as_image, colours_in_srgb, over_white, to_8_bits

QUALITY = 95  # of lossy files where none is given


def check_fits(format: str, width: int, height: int, channels: int) -> None:
    """Raise a UserError where an image is too large for a format."""
    title, longest = FORMATS[format].title, FORMATS[format].longest
    size = f"the upscaled image has {width}x{height}; choose another, such as --format tiff"
    if max(width, height) > longest:
        raise UserError(f"{title} holds at most {longest} pixels a side, and {size}")
    if format == "avif" and width * height > avif.AREA:
        raise UserError(f"AVIF holds at most {avif.AREA} pixels, and {size}")
    if format == "bmp" and height * -(-width * channels // 4) * 4 > 2**32 - 2048:
        raise UserError(f"BMP holds at most 4 GiB, and {size}")


def fit(page: Page, format: str) -> tuple[Page, tuple[str, ...]]:
    """Return a page as a format can hold it, and a notice for each thing that was lost."""
    (pixels, icc), holds, notices = page, FORMATS[format], []
    if pixels.dtype == np.uint16 and holds.bits == 8:
        notices.append(f"16 bits per channel became 8: {holds.title} holds no more")
        pixels = to_8_bits(pixels)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4) and not holds.alpha:
        peak = np.iinfo(pixels.dtype).max
        if (pixels[..., -1] != peak).any():
            notices.append(f"transparency was composed over white: {holds.title} holds none")
        pixels = over_white(pixels)
    if format == "gif":
        notices.append("a frame's colours were reduced to 256 where it had more: GIF holds no more")
        if pixels.ndim == 3 and pixels.shape[2] in (2, 4) and (pixels[..., -1] % 255 > 0).any():
            notices.append("partial transparency became none or full: GIF holds no other")
    if icc and format == "png" and len(icc) > png_chunks.MOST:
        notices.append(
            "a colour profile of more than 1 MiB was left out: other programs refuse such a PNG"
        )
        icc = None
    if icc and not holds.icc:
        notice = f"colours became sRGB: {holds.title} holds no colour profile"
        try:
            pixels = colours_in_srgb(pixels, icc)
        except (ImageCms.PyCMSError, OSError, RuntimeError):  # OSError: no profile at all
            notice = "a damaged colour profile was left out, and the colours stayed as they are"
        notices.append(notice)
        icc = None
    return Page(pixels, icc), tuple(notices)


def write_png(image: Pixels, file: Path) -> None:
    """Write a PNG of pixels alone, whole or not at all; the folders above it are made."""
    with replacing(file) as unfinished, open(unfinished, "wb") as out:
        png.write_png(out, image)


def write_photo(
    file: Path, format: str, pages: Iterator[Page], photo: Photo, *, quality: int | None = None
) -> None:
    """Write an image file, whole or not at all; the folders above it are made.

    Args:
        file: where to.
        format: a key of FORMATS.
        pages: upscaled and passed through `fit`: all of them where the format holds them, else
            one. Each is asked for when the one before is written, except the frames of a PNG.
        photo: the file that they come from.
        quality: of JPEG, WebP, AVIF and JPEG XL, 1 to 100, at which all but JPEG are lossless; None
            for QUALITY, or for a lossless file where the photo is one. Chroma is not subsampled
            where the format allows that.

    Raises:
        OSError: it cannot be written.
    """
    if quality is None:
        quality = 100 if photo.lossless and FORMATS[format].lossless else QUALITY
    first = next(pages)
    pages = itertools.chain([first], pages)
    metadata = resized(photo.metadata, first.pixels.shape[1], first.pixels.shape[0])
    icc = first.icc or b""
    with replacing(file) as unfinished:
        if format == "tiff":
            size = first.pixels.nbytes * photo.page_count
            tiff.write_tiff(unfinished, pages, metadata, size=size)
            return
        with open(unfinished, "wb") as out:
            if format == "gif":
                gif.write_gif(out, pages, photo)
            elif photo.page_count > 1 and holds_all(format, photo):
                _write_frames(out, format, pages, photo, quality, icc, metadata)
            elif format == "png":
                png.write_png(out, first.pixels, icc_profile=icc, metadata=metadata)
            elif format == "jpeg":
                jpeg.write_jpeg(
                    out, first.pixels, quality=quality, icc_profile=icc, metadata=metadata
                )
            elif format == "webp":
                as_image(first.pixels).save(out, "WEBP", **_webp(quality, icc, metadata))
            elif format in ("avif", "jxl"):
                held = {
                    "exif": exif_bytes(metadata.exif, order=metadata.order),
                    "xmp": packet_for(format, metadata.xmp)[0],
                }
                if format == "jxl":
                    jxl.write_jxl(out, first.pixels, quality=quality, **held)
                else:
                    depth = 10 if photo.depth == 10 else avif.BITS
                    held["icc_profile"] = icc
                    avif.write_avif(out, first.pixels, quality=quality, depth=depth, **held)
            else:
                as_image(first.pixels).save(out, "BMP", dpi=metadata.dpi or (0, 0))


def holds_all(format: str, photo: Photo) -> bool:
    """Return whether a format can hold all the pages or frames of a file."""
    multiple = FORMATS[format].multiple
    return photo.page_count == 1 or multiple == "pages" or (multiple == "frames" and photo.animated)


def lost(photo: Photo, format: str) -> tuple[str, ...]:
    """Return a notice for pages, frames and metadata that a format cannot hold."""
    title, notices = FORMATS[format].title, []
    if not holds_all(format, photo):
        notices.append(f"only the first page was upscaled: {title} holds one")
    elif photo.animated and FORMATS[format].multiple == "pages":
        notices.append(f"frames became pages without durations: {title} holds none")
    elif photo.animated and photo.loop and format == "avif":
        notices.append("the number of repetitions was left out: an AVIF repeats for ever")
    if photo.depth > FORMATS[format].bits > 8:
        bits = FORMATS[format].bits
        notices.append(f"{photo.depth} bits per channel became {bits}: {title} holds no more")
    return (*notices, *losses(photo.metadata, format))


def _webp(quality: int, icc: bytes, metadata: Metadata) -> dict[str, Any]:
    """Return Pillow's options; for lossless files, its quality is the effort."""
    how = {"lossless": True, "quality": 50} if quality == 100 else {"quality": quality}
    held = {"icc_profile": icc, "exif": exif_bytes(metadata.exif, order=metadata.order)}
    held["xmp"] = packet_for("webp", metadata.xmp)[0]
    return {"exact": True, **how, **{name: value for name, value in held.items() if value}}


def _write_frames(
    out: IO[bytes],
    format: str,
    pages: Iterator[Page],
    photo: Photo,
    quality: int,
    icc: bytes,
    metadata: Metadata,
) -> None:
    """Write an animated WebP, PNG or AVIF."""
    told: dict[str, Any] = {"duration": list(photo.durations), "loop": photo.loop}
    told |= {"save_all": True, "icc_profile": icc or None}
    if format == "webp":
        frames = _Frames(pages, photo.page_count)
        frames.save(out, "WEBP", **told | _webp(quality, icc, metadata))
        return
    # Pillow goes through them more than once.
    first, *others = (_frame(page) for page in pages)
    if format == "avif":
        told |= {"quality": quality, "subsampling": "4:4:4", "speed": avif.SPEED}
        told |= {
            "exif": exif_bytes(metadata.exif, order=metadata.order),
            "xmp": packet_for("avif", metadata.xmp)[0],
        }
        first.save(out, "AVIF", append_images=others, **told)
    else:
        with_chunks: Any = _AfterHeader(out, png.chunks_of(metadata))
        first.save(with_chunks, "PNG", append_images=others, **told)


def _frame(page: Page) -> Image.Image:
    """Return a frame as RGB or RGBA."""
    image = as_image(page.pixels)
    return image.convert("RGBA" if image.mode in ("LA", "RGBA") else "RGB")


class _AfterHeader:
    """A file for Pillow's PNG writer, which writes only some kinds of chunks: puts them in."""

    def __init__(self, out: IO[bytes], chunks: list[png.Chunk]) -> None:
        self._out, self._chunks = out, chunks

    def write(self, data: bytes) -> int:
        """Write data, and the chunks behind the header."""
        written = self._out.write(data)
        if self._out.tell() == png.HEADER_BYTES:
            for name, content in self._chunks:
                PngImagePlugin.putchunk(self._out, name, content)
        return written

    def flush(self) -> None:
        """Write what is in memory."""
        self._out.flush()


class _Frames(Image.Image):
    """Frames for Pillow's WebP writer, which asks for them in order; one is in memory."""

    def __init__(self, pages: Iterator[Page], count: int) -> None:
        super().__init__()
        self.n_frames, self._pages, self._at = count, pages, -1
        self.seek(0)

    def seek(self, frame: int) -> None:
        """Advance to a frame; the writer's return to the first at its end is ignored."""
        if frame >= self.n_frames:
            raise EOFError
        while self._at < frame:
            image = _frame(next(self._pages))
            self.im, self._mode, self._size = image.im, image.mode, image.size
            self._at += 1

    def tell(self) -> int:
        """Return the number of the current frame."""
        return self._at
