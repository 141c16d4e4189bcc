"""Photographs into files: whole or not at all, with all that the format can hold."""

import itertools
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import imagecodecs
import numpy as np
import tifffile
from jaxtyping import UInt8
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from isr_jax.errors import UserError
from isr_jax.files import replacing
from isr_jax.photo.reading import TOLD, Page, Photo, Pixels, in_srgb, to_8_bits


class Format(NamedTuple):
    """What a file format can hold.

    Attributes:
        title: as people write it.
        suffixes: the first is what new files get.
        longest: the most pixels that a side can have.
        alpha: transparency.
        deep: 16 bits a channel.
        tells: EXIF and an ICC profile.
        many: frames, which follow each other in time; pages; or neither.
    """

    title: str
    suffixes: tuple[str, ...]
    longest: int
    alpha: bool
    deep: bool
    tells: bool
    many: Literal["frames", "pages"] | None


# The sides are the limits of libpng, libjpeg, libwebp and of the headers' fields.
FORMATS = {
    "png": Format("PNG", (".png", ".apng"), 1_000_000, True, True, True, "frames"),
    "jpeg": Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), 65_500, False, False, True, None),
    "webp": Format("WebP", (".webp",), 16_383, True, False, True, "frames"),
    "tiff": Format("TIFF", (".tif", ".tiff"), 2**31 - 1, True, True, True, "pages"),
    "bmp": Format("BMP", (".bmp", ".dib"), 2**31 - 1, False, False, False, None),
}
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

_PNG_LEVEL = (
    4  # of an enlarged photograph, as small as zlib's usual 6 to 5%, in a quarter of the time
)
_PNG_BLOCK = 2**17  # bytes of rows that are filtered at once, and stay in the processor's cache
_EXIF, _GPS = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo
# What a segment of a JPEG holds, less the name of what is in it; and where in the file the JFIF
# header has the unit of its density, and ends.
_JPEG_SEGMENT = 65_533 - 16
_JFIF_DENSITY, _JFIF_END = 13, 20


def format_of(path: Path) -> str | None:
    """The format that a file's suffix stands for."""
    return next((name for name, f in FORMATS.items() if path.suffix.lower() in f.suffixes), None)


def check_fits(form: str, width: int, height: int, channels: int) -> None:
    """Raise UserError where an image is too large for a format."""
    title, longest = FORMATS[form].title, FORMATS[form].longest
    size = f"the enlarged image has {width}x{height}; choose another, such as --format tiff"
    if max(width, height) > longest:
        raise UserError(f"{title} holds at most {longest} pixels a side, and {size}")
    if form == "bmp" and height * -(-width * channels // 4) * 4 > 2**32 - 2048:
        raise UserError(f"BMP holds at most 4 GiB, and {size}")


def fit(page: Page, form: str) -> tuple[Page, tuple[str, ...]]:
    """A page as a format can hold it, and a notice for each thing that it cannot."""
    (pixels, icc), holds, notices = page, FORMATS[form], []
    if pixels.dtype == np.uint16 and not holds.deep:
        notices.append(f"16 bits a channel became 8, as {holds.title} has no more")
        pixels = to_8_bits(pixels)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4) and not holds.alpha:
        peak = np.iinfo(pixels.dtype).max
        if (pixels[..., -1] != peak).any():
            notices.append(f"transparency was laid over white, as {holds.title} has none")
        pixels = over_white(pixels)
    if icc and not holds.tells:
        notices.append(f"colours became sRGB, as {holds.title} holds no colour profile")
        image = in_srgb(as_image(pixels), icc)
        icc, pixels = None, np.array(image.convert("L") if pixels.ndim == 2 else image)
    return Page(pixels, icc), tuple(notices)


def over_white(pixels: Pixels) -> np.ndarray:
    """Gray [h, w] or RGB [h, w, 3], of the same with alpha, over white; rounded to nearest."""
    peak = np.iinfo(pixels.dtype).max
    colour, alpha = pixels[..., :-1].astype(np.uint32), pixels[..., -1:].astype(np.uint32)
    laid = (colour * alpha + (peak - alpha) * peak + peak // 2) // peak
    return laid.astype(pixels.dtype)[..., 0 if laid.shape[2] == 1 else slice(None)]


def as_image(pixels: UInt8[np.ndarray, "h w *c"]) -> Image.Image:
    """A Pillow image that shares the pixels where Pillow can, and is not to be written to."""
    mode = MODES[pixels.shape[2] if pixels.ndim == 3 else 1]
    size = pixels.shape[1], pixels.shape[0]
    return Image.frombuffer(mode, size, np.ascontiguousarray(pixels), "raw", mode, 0, 1)


def write_png(image: Pixels, file: Path) -> None:
    """Write a PNG of pixels alone, whole or not at all; the folders above it are made."""
    with replacing(file) as unfinished, open(unfinished, "wb") as out:
        _write_png(out, image)


def write_photo(
    file: Path, form: str, pages: Iterator[Page], photo: Photo, *, quality: int = 95
) -> None:
    """Write an image file, whole or not at all; the folders above it are made.

    Args:
        file: where to.
        form: a key of FORMATS.
        pages: enlarged and made to `fit`: all of them where the format holds `photo`'s many, else
            one. Each is asked for when the one before is written, but for the frames of a PNG.
        photo: what they were read from.
        quality: of JPEG and WebP, 1 to 100, at which WebP is lossless; chroma is not subsampled
            where the format allows that.

    Raises:
        OSError: where it cannot be written.
    """
    first = next(pages)
    pages = itertools.chain([first], pages)
    exif = _sized(photo.exif, first.pixels.shape[1], first.pixels.shape[0])
    told: dict[str, Any] = {"icc_profile": first.icc, "dpi": photo.dpi}
    if exif_fits(form, exif):
        told["exif"] = _bytes_of(exif)
    told = {name: value for name, value in told.items() if value}
    with replacing(file) as unfinished:
        if form == "tiff":
            _write_tiff(unfinished, pages, photo, exif, first.pixels.nbytes * photo.page_count)
            return
        with open(unfinished, "wb") as out:
            if photo.page_count > 1 and holds_all(form, photo):
                _write_frames(out, form, pages, photo, quality, told)
            elif form == "png":
                _write_png(out, first.pixels, **told)
            elif form == "jpeg":
                _write_jpeg(out, first.pixels, quality=quality, **told)
            elif form == "webp":
                as_image(first.pixels).save(out, "WEBP", exact=True, **_webp(quality), **told)
            else:
                as_image(first.pixels).save(out, "BMP", dpi=photo.dpi or (0, 0))


def holds_all(form: str, photo: Photo) -> bool:
    """Whether a format can hold all the pages or frames of a file."""
    many = FORMATS[form].many
    return photo.page_count == 1 or many == "pages" or (many == "frames" and photo.animated)


def exif_fits(form: str, exif: Image.Exif) -> bool:
    """Whether a format has the room for it: one segment of a JPEG."""
    return form != "jpeg" or len(_bytes_of(exif)) <= _JPEG_SEGMENT


def _sized(exif: Image.Exif, width: int, height: int) -> Image.Exif:
    """The same of another size."""
    sizes = {ExifTags.Base.ExifImageWidth: width, ExifTags.Base.ExifImageHeight: height}
    sized = Image.Exif()
    sized.update(exif)
    for place in (_EXIF, _GPS):
        if directory := dict(exif.get_ifd(place)):
            directory.update({tag: size for tag, size in sizes.items() if tag in directory})
            sized.get_ifd(place).update(directory)
    return sized


def _bytes_of(exif: Image.Exif) -> bytes:
    """EXIF as files have it; none where it says nothing."""
    return exif.tobytes() if len(exif) or exif.get_ifd(_EXIF) or exif.get_ifd(_GPS) else b""


def _webp(quality: int) -> dict[str, Any]:
    """Pillow's options; of what is lossless, its quality is the effort."""
    return {"lossless": True, "quality": 50} if quality == 100 else {"quality": quality}


def _write_png(
    out: IO[bytes],
    pixels: Pixels,
    *,
    icc_profile: bytes = b"",
    exif: bytes = b"",
    dpi: tuple[float, float] | None = None,
) -> None:
    """A still PNG, some rows at a time: other writers hold a copy, or all of the file.

    Source: PNG specification (W3C, third edition), sections 9 and 11.
    """
    (height, width), channels = pixels.shape[:2], pixels.shape[2] if pixels.ndim == 3 else 1
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    put = partial(PngImagePlugin.putchunk, out)
    out.write(b"\x89PNG\r\n\x1a\n")
    put(b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, kind, 0, 0, 0))
    if icc_profile:
        put(b"iCCP", b"ICC Profile\0\0", zlib.compress(icc_profile))
    if dpi:
        put(b"pHYs", *(struct.pack(">I", round(n / 0.0254)) for n in dpi), b"\1")
    if exif:
        put(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    deflate = zlib.compressobj(_PNG_LEVEL)
    for lines in _paeth(pixels.reshape(height, width, channels)):
        if data := deflate.compress(lines):
            put(b"IDAT", data)
    put(b"IDAT", deflate.flush())
    put(b"IEND")


def _paeth(pixels: Pixels) -> Iterator[bytes]:
    """The lines of a PNG, several at a time, each byte less Paeth's prediction of it.

    That is the one of left, above and above left which is nearest to left + above - above left.
    """
    step = pixels.shape[2] * pixels.itemsize
    width = pixels.shape[1] * step
    count = max(1, _PNG_BLOCK // width)
    bytes_before = np.zeros(width, np.uint8)
    for start in range(0, len(pixels), count):
        rows = pixels[start : start + count]
        rows = rows.astype(rows.dtype.newbyteorder(">")).view(np.uint8).reshape(-1, width)
        known = np.zeros((len(rows) + 1, step + width), np.int16)
        known[0, step:], known[1:, step:] = bytes_before, rows
        left, above, corner = known[1:, :-step], known[:-1, step:], known[:-1, :-step]
        across, down = above - corner, left - corner
        both = np.abs(across + down)
        np.abs(across, out=across)
        np.abs(down, out=down)
        nearest = np.where(down <= both, above, corner)
        nearest = np.where((across <= down) & (across <= both), left, nearest)
        lines = np.full((len(rows), 1 + width), 4, np.uint8)  # 4 is Paeth's number
        np.subtract(rows, nearest, out=lines[:, 1:], casting="unsafe")
        bytes_before = rows[-1]
        yield lines.tobytes()


def _write_jpeg(
    out: IO[bytes],
    pixels: UInt8[np.ndarray, "h w *c"],
    *,
    quality: int,
    icc_profile: bytes = b"",
    exif: bytes = b"",
    dpi: tuple[float, float] | None = None,
) -> None:
    """A JPEG without chroma subsampling. Pillow would first copy it, at 4 bytes a pixel."""
    encoded = memoryview(imagecodecs.jpeg8_encode(pixels, level=quality, subsampling="444"))
    density = b"\0" + 2 * struct.pack(">H", 1)
    if dpi and max(dpi) < 2**16 - 1:
        density = b"\1" + b"".join(struct.pack(">H", max(1, round(n))) for n in dpi)
    out.write(encoded[:_JFIF_DENSITY])
    out.write(density)
    out.write(encoded[_JFIF_DENSITY + len(density) : _JFIF_END])
    if exif:
        _put_segment(out, b"\xe1", exif)
    parts = [
        icc_profile[at : at + _JPEG_SEGMENT] for at in range(0, len(icc_profile), _JPEG_SEGMENT)
    ]
    for i, part in enumerate(parts, 1):
        _put_segment(out, b"\xe2", b"ICC_PROFILE\0" + bytes([i, len(parts)]) + part)
    out.write(encoded[_JFIF_END:])


def _put_segment(out: IO[bytes], marker: bytes, content: bytes) -> None:
    """One of a JPEG's application segments."""
    out.write(b"\xff" + marker + struct.pack(">H", 2 + len(content)) + content)


def _write_frames(
    out: IO[bytes],
    form: str,
    pages: Iterator[Page],
    photo: Photo,
    quality: int,
    told: dict[str, Any],
) -> None:
    """An animated WebP or PNG."""
    told |= {"save_all": True, "duration": list(photo.durations), "loop": photo.loop}
    if form == "webp":
        _Frames(pages, photo.page_count).save(out, "WEBP", exact=True, **_webp(quality), **told)
    else:
        # Pillow goes through them more than once.
        first, *others = (_frame(page) for page in pages)
        first.save(out, "PNG", append_images=others, **told)


def _frame(page: Page) -> Image.Image:
    """A frame in RGB or RGBA."""
    image = as_image(page.pixels)
    return image.convert("RGBA" if image.mode in ("LA", "RGBA") else "RGB")


def _write_tiff(
    file: Path, pages: Iterator[Page], photo: Photo, exif: Image.Exif, size: int
) -> None:
    """TIFF, deflated; `size` bytes of pixels, for which BigTIFF is taken where it must be."""
    big = size > 2**32 - 2**25
    directories = {tag: ifd for tag in (_EXIF, _GPS) if (ifd := exif.get_ifd(tag))}
    tags = [_tag(tag, exif[tag]) for tag in exif if tag in TOLD]
    # tifffile writes no such directories: a tag of the number before keeps each one's place.
    tags += [(tag - 1, 16 if big else 4, 1, 0, True) for tag in directories]
    with tifffile.TiffWriter(file, bigtiff=big, byteorder="<") as tiff:
        for pixels, icc in pages:
            channels = pixels.shape[2] if pixels.ndim == 3 else 1
            tiff.write(
                pixels,
                photometric="rgb" if channels > 2 else "minisblack",
                planarconfig="contig" if channels > 1 else None,
                extrasamples=["unassalpha"] if channels in (2, 4) else None,
                compression="zlib",
                predictor=True,
                maxworkers=1,
                iccprofile=icc,
                resolution=photo.dpi,
                resolutionunit="inch" if photo.dpi else None,
                extratags=tags,
                software=False,
                metadata=None,
                contiguous=False,
            )
            tags = []
    for tag, directory in directories.items():
        _append_directory(file, tag, directory)


def _tag(tag: int, value: str | bytes | int) -> tuple[int, int, int, bytes | int, bool]:
    """An EXIF tag as tifffile takes it."""
    if isinstance(value, int):
        return tag, 3, 1, value, True
    if isinstance(value, bytes):
        return tag, 1, len(value), value, True
    text = value.encode("latin-1", "replace") + b"\0"
    return tag, 2, len(text), text, True


def _append_directory(file: Path, tag: int, directory: dict[int, Any]) -> None:
    """Put a directory of EXIF behind a TIFF file, and in the tag before `tag` where it is."""
    with tifffile.TiffFile(file, mode="r+") as tiff:
        head = b"II+\0\x08\0\0\0" + bytes(8) if tiff.is_bigtiff else b"II*\0" + bytes(4)
        written = TiffImagePlugin.ImageFileDirectory_v2(ifh=head)
        written.update(directory)
        place = -(-tiff.filehandle.size // 16) * 16
        pointer = tiff.pages.first.tags[tag - 1]
        pointer.overwrite(place)
        tiff.filehandle.seek(pointer.offset)
        tiff.filehandle.write(int(tag).to_bytes(2, "little"))
        tiff.filehandle.seek(place)
        tiff.filehandle.write(written.tobytes(place))


class _Frames(Image.Image):
    """Frames for Pillow's WebP writer, which asks for one after the other: it holds one at once."""

    def __init__(self, pages: Iterator[Page], count: int) -> None:
        super().__init__()
        self.n_frames, self._pages, self._at = count, pages, -1
        self.seek(0)

    def seek(self, frame: int) -> None:
        """Go on to a frame; back to the first, where the writer ends, nothing is to be had."""
        if frame >= self.n_frames:
            raise EOFError
        while self._at < frame:
            image = _frame(next(self._pages))
            self.im, self._mode, self._size = image.im, image.mode, image.size
            self._at += 1

    def tell(self) -> int:
        """The frame that it stands at."""
        return self._at
