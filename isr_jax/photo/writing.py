"""Write image files: whole or not at all, with everything that the format can hold."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from isr_jax.errors import UserError
from isr_jax.files import replacing
from isr_jax.photo import avif, gif, jpeg, jxl, png, tiff
from isr_jax.photo.contents import Photo
from isr_jax.photo.formats import FORMATS
from isr_jax.photo.pixels import Page, Pixels, as_image, colours_in_srgb, over_white, to_8_bits

QUALITY = 95  # of lossy files where none is given

_EXIF, _GPS = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo


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
    exif = _sized(photo.exif, first.pixels.shape[1], first.pixels.shape[0])
    metadata: dict[str, Any] = {"icc_profile": first.icc, "dpi": photo.dpi}
    if exif_fits(format, exif):
        metadata["exif"] = _bytes_of(exif)
    metadata = {name: value for name, value in metadata.items() if value}
    with replacing(file) as unfinished:
        if format == "tiff":
            tiff.write_tiff(
                unfinished, pages, photo, exif, size=first.pixels.nbytes * photo.page_count
            )
            return
        with open(unfinished, "wb") as out:
            if format == "gif":
                gif.write_gif(out, pages, photo)
            elif photo.page_count > 1 and holds_all(format, photo):
                _write_frames(out, format, pages, photo, quality, metadata)
            elif format == "png":
                png.write_png(out, first.pixels, **metadata)
            elif format == "jpeg":
                jpeg.write_jpeg(out, first.pixels, quality=quality, **metadata)
            elif format == "webp":
                as_image(first.pixels).save(out, "WEBP", exact=True, **_webp(quality), **metadata)
            elif format == "avif":
                metadata.pop("dpi", None)
                depth = 10 if photo.depth == 10 else avif.BITS
                avif.write_avif(out, first.pixels, quality=quality, depth=depth, **metadata)
            elif format == "jxl":
                exif = metadata.get("exif", b"")
                jxl.write_jxl(out, first.pixels, quality=quality, exif=exif)
            else:
                as_image(first.pixels).save(out, "BMP", dpi=photo.dpi or (0, 0))


def holds_all(format: str, photo: Photo) -> bool:
    """Return whether a format can hold all the pages or frames of a file."""
    multiple = FORMATS[format].multiple
    return photo.page_count == 1 or multiple == "pages" or (multiple == "frames" and photo.animated)


def exif_fits(format: str, exif: Image.Exif) -> bool:
    """Return whether a format has room for the EXIF: one segment of a JPEG."""
    return format != "jpeg" or len(_bytes_of(exif)) <= jpeg.SEGMENT


def _sized(exif: Image.Exif, width: int, height: int) -> Image.Exif:
    """Return the EXIF for an image of another size."""
    sizes = {ExifTags.Base.ExifImageWidth: width, ExifTags.Base.ExifImageHeight: height}
    sized = Image.Exif()
    sized.update(exif)
    for place in (_EXIF, _GPS):
        if directory := dict(exif.get_ifd(place)):
            directory.update({tag: size for tag, size in sizes.items() if tag in directory})
            sized.get_ifd(place).update(directory)
    return sized


def _bytes_of(exif: Image.Exif) -> bytes:
    """Return EXIF as files hold it; b"" where it is empty."""
    return exif.tobytes() if len(exif) or exif.get_ifd(_EXIF) or exif.get_ifd(_GPS) else b""


def _webp(quality: int) -> dict[str, Any]:
    """Return Pillow's options; for lossless files, its quality is the effort."""
    return {"lossless": True, "quality": 50} if quality == 100 else {"quality": quality}


def _write_frames(
    out: IO[bytes],
    format: str,
    pages: Iterator[Page],
    photo: Photo,
    quality: int,
    metadata: dict[str, Any],
) -> None:
    """Write an animated WebP, PNG or AVIF."""
    metadata |= {"save_all": True, "duration": list(photo.durations), "loop": photo.loop}
    if format == "webp":
        _Frames(pages, photo.page_count).save(out, "WEBP", exact=True, **_webp(quality), **metadata)
        return
    # Pillow goes through them more than once.
    first, *others = (_frame(page) for page in pages)
    if format == "avif":
        metadata |= {"quality": quality, "subsampling": "4:4:4", "speed": avif.SPEED}
    first.save(out, format.upper(), append_images=others, **metadata)


def _frame(page: Page) -> Image.Image:
    """Return a frame as RGB or RGBA."""
    image = as_image(page.pixels)
    return image.convert("RGBA" if image.mode in ("LA", "RGBA") else "RGB")


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
