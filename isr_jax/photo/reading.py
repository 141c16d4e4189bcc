"""Photographs out of files: upright pixels with all their bits, and what else the file tells.

A page is uint8 or uint16, [h, w], [h, w, 2] (gray, alpha), [h, w, 3] or [h, w, 4] (RGB, alpha).
Pillow reads all that it holds losslessly; 16-bit PNG and TIFF, of which it would drop the low byte,
are read by imagecodecs and tifffile.
"""

import io
import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import tifffile
from jaxtyping import UInt8, UInt16
from PIL import ExifTags, Image, ImageCms, ImageOps

from isr_jax.errors import UserError, one_line

Pixels = UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"]

READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
MAX_PIXELS = 10**9

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

_ORIENTATION = ExifTags.Base.Orientation
# A TIFF file keeps the layout of its pixels among its EXIF; of those tags, these tell of the photo.
TOLD = {
    *(
        ExifTags.Base[name]
        for name in ("ImageDescription", "Make", "Model", "Software", "DateTime")
    ),
    *(ExifTags.Base[name] for name in ("Artist", "HostComputer", "Copyright", "Rating")),
    *(ExifTags.Base[f"XP{name}"] for name in ("Title", "Comment", "Author", "Keywords", "Subject")),
}
_LAYOUT = {_ORIENTATION, ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength}


class Head(NamedTuple):
    """What is known of a file before its pixels are read.

    Attributes:
        form: png, jpeg, webp, tiff, bmp or gif.
        sizes: width and height of each page.
        channels: of the first page, 1 to 4.
        bits: of a channel, 8 or 16.
    """

    form: str
    sizes: tuple[tuple[int, int], ...]
    channels: int
    bits: int

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel of the first page."""
        return self.channels * self.bits // 8


class Page(NamedTuple):
    """The pixels of one page, and the ICC profile that they are in."""

    pixels: Pixels
    icc: bytes | None


class Photo(NamedTuple):
    """A file whose first page is read.

    Attributes:
        pages: all of them; each after the first is read when it is asked for.
        first_bytes: of the first page's pixels.
        page_count: how many there are.
        animated: they are frames, which follow each other in time.
        durations: of each frame, in ms.
        loop: how often the frames run; 0 for without end.
        exif: without the orientation, which has been applied.
        dpi: pixels an inch, across and down.
        notices: what of the file is not in here.
    """

    pages: Iterator[Page]
    first_bytes: int
    page_count: int
    animated: bool
    durations: tuple[int, ...]
    loop: int
    exif: Image.Exif
    dpi: tuple[float, float] | None
    notices: tuple[str, ...]


def probe(path: Path, *, max_pixels: int = MAX_PIXELS) -> Head:
    """Look at a file's header.

    Args:
        path: the file.
        max_pixels: the most that a page may have.

    Raises:
        UserError: where it is no image that can be read, or declares a larger one.
    """
    try:
        head = _head(path)
    except Exception as error:  # Pillow and tifffile raise whatever they stumble over
        raise unreadable(path, error) from error
    for width, height in head.sizes:
        if width * height > max_pixels:
            raise UserError(
                f"{path}: declares {width}x{height} pixels, more than --max-pixels={max_pixels}: "
                "raise that if you trust the file"
            )
    return head


def read_photo(path: Path, head: Head) -> Photo:
    """Read a file's first page, and what it says of itself.

    Raises:
        UserError: where it is damaged or truncated; `pages` raise it too.
    """
    try:
        pages = _tiff_pages(path) if head.form == "tiff" else _pages(path, head)
        first = next(pages)
        animated = head.form != "tiff" and len(head.sizes) > 1
        durations, loop = _timing(path, len(head.sizes)) if animated else ((), 0)
        dpi, exif, notices = _told(path, head)
        if head.bits == 16 and first.pixels.dtype == np.uint8:
            kind = "an animated PNG" if animated else "CMYK"
            notices += (f"the 16 bits of {kind} were read as 8",)
    except Exception as error:
        raise unreadable(path, error) from error
    return Photo(
        itertools.chain([first], _named(path, pages)),
        first_bytes=first.pixels.nbytes,
        page_count=len(head.sizes),
        animated=animated,
        durations=durations,
        loop=loop,
        exif=exif,
        dpi=dpi,
        notices=notices,
    )


def unreadable(path: Path, error: Exception) -> UserError:
    """The line that says why a file cannot be read."""
    if isinstance(error, UserError):
        return error
    known = isinstance(error, OSError) and error.strerror
    reason = known or one_line(error)
    if isinstance(error, Image.UnidentifiedImageError):
        reason = "not a PNG, JPEG, WebP, TIFF, BMP or GIF image"
    return UserError(f"{path}: unreadable: {reason}")


def _named(path: Path, pages: Iterator[Page]) -> Iterator[Page]:
    """The pages, with the file named where one of them is damaged."""
    try:
        yield from pages
    except Exception as error:
        raise unreadable(path, error) from error


def _head(path: Path) -> Head:
    with open(path, "rb") as file:
        start = file.read(26)
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        with tifffile.TiffFile(path) as tiff:
            pages = [page.aspage() for page in tiff.pages]
            sizes = tuple((page.imagewidth, page.imagelength) for page in pages)
            first = pages[0]
            return Head("tiff", sizes, first.samplesperpixel, 16 if _deep(first) else 8)
    with Image.open(path, formats=READABLE) as image:
        form = "jpeg" if image.format == "MPO" else str(image.format).lower()
        deep = form == "png" and start[24] == 16
        count = getattr(image, "n_frames", 1) - bool(image.info.get("default_image"))
        return Head(form, (image.size,) * count, len(image.getbands()), 16 if deep else 8)


def _pages(path: Path, head: Head) -> Iterator[Page]:
    """The pages of anything but TIFF."""
    with Image.open(path, formats=READABLE) as image:
        if head.bits == 16 and len(head.sizes) == 1:
            pixels = imagecodecs.png_decode(path.read_bytes())
            orientation = _exif(path, image).get(_ORIENTATION, 1)
            yield _page(_turned(pixels, orientation), image.info.get("icc_profile"))
            return
        # The default image of an animated PNG is for those who cannot show the animation.
        start = int(bool(image.info.get("default_image")))
        alpha = image.format == "GIF" and len(head.sizes) > 1
        for i in range(start, start + len(head.sizes)):
            image.seek(i)
            page = _pillow_page(image, alpha=alpha)
            alpha = alpha or (len(head.sizes) > 1 and page.pixels.shape[2:] in ((2,), (4,)))
            yield page


def _tiff_pages(path: Path) -> Iterator[Page]:
    """The pages of a TIFF file, those of 16 bits by tifffile and the others by Pillow."""
    with ExitStack() as stack:
        tiff = stack.enter_context(tifffile.TiffFile(path))
        image = None
        for i, frame in enumerate(tiff.pages):
            page = frame.aspage()
            if _deep(page):
                yield _deep_page(page)
                continue
            image = image or stack.enter_context(Image.open(path, formats=("TIFF",)))
            image.seek(i)
            yield _pillow_page(image)


def _deep(page: tifffile.TiffPage) -> bool:
    """Whether a page has 16 bits. Raises ValueError where that is none of 1 to 8 and 16."""
    bits = page.bitspersample
    if bits in (1, 2, 4, 8):
        return False
    if bits != 16 or page.sampleformat != tifffile.SAMPLEFORMAT.UINT:
        kind = "floating-point" if page.sampleformat == tifffile.SAMPLEFORMAT.IEEEFP else "integer"
        raise ValueError(f"{bits}-bit {kind} pixels; save it with 8 or 16 bits")
    return True


def _deep_page(page: tifffile.TiffPage) -> Page:
    """A page of 16 bits a channel."""
    kinds = tifffile.PHOTOMETRIC
    pixels = page.asarray()
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    tags = page.tags
    icc = tags[34675].value if 34675 in tags else None
    colours = {kinds.MINISWHITE: 1, kinds.MINISBLACK: 1, kinds.RGB: 3, kinds.SEPARATED: 4}
    photometric = kinds(page.photometric)
    if photometric not in colours:
        raise ValueError(f"16-bit {photometric.name} pixels; save it as RGB")
    count = colours[photometric]
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    colour, extra = pixels[..., :count], pixels[..., count : count + 1]
    if photometric == kinds.MINISWHITE:
        colour = np.iinfo(np.uint16).max - colour
    kind = page.extrasamples[0] if page.extrasamples else None
    if kind == tifffile.EXTRASAMPLE.ASSOCALPHA:
        # The colour has been multiplied by alpha.
        whole = np.maximum(extra, 1).astype(np.uint64)
        colour = np.minimum((colour * np.uint64(65535) + whole // 2) // whole, 65535)
        colour = colour.astype(np.uint16)
    if photometric == kinds.SEPARATED:
        cmyk = Image.fromarray(to_8_bits(colour), "CMYK")
        cmyk.info["icc_profile"] = icc
        colour, icc = _rgb_of_cmyk(cmyk)
    elif kind in (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA):
        colour = np.concatenate([colour, extra], axis=2)
    colour = colour[..., 0] if colour.shape[2] == 1 else colour
    return _page(_turned(colour, tags[274].value if 274 in tags else 1), icc)


def _pillow_page(image: Image.Image, *, alpha: bool = False) -> Page:
    """The page that an image stands at, upright; 8 bits a channel, or 16 of gray."""
    icc = image.info.get("icc_profile")
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "CMYK":
        upright.info["icc_profile"] = icc
        return _page(*_rgb_of_cmyk(upright))
    if upright.mode.startswith("I;16"):
        return _page(np.array(upright).astype(np.uint16), icc)
    if upright.mode in ("I", "F"):
        raise ValueError("32-bit pixels; save it with 8 or 16 bits")
    gray = upright.mode in ("1", "L", "LA", "La")
    alpha = alpha or upright.has_transparency_data
    mode = ("L" if gray else "RGB") + ("A" if alpha else "")
    # Pillow has no way from 1 bit with transparency to gray with alpha but this one.
    upright = upright.convert("RGBA") if mode == "LA" and upright.mode == "1" else upright
    return _page(np.array(upright if upright.mode == mode else upright.convert(mode)), icc)


def _rgb_of_cmyk(image: Image.Image) -> tuple[UInt8[np.ndarray, "h w 3"], bytes | None]:
    """RGB of CMYK: sRGB, through its profile where it has one."""
    icc = image.info.get("icc_profile")
    if icc is None or _space(icc) != b"CMYK":
        return np.array(image.convert("RGB")), None
    return np.array(in_srgb(image, icc)), SRGB


def in_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """An image of mode L, RGB or CMYK as sRGB, out of the colours of a profile."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    srgb = ImageCms.createProfile("sRGB")
    intent, black = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    result = ImageCms.profileToProfile(
        image, profile, srgb, renderingIntent=intent, outputMode="RGB", flags=black
    )
    assert result is not None  # it is where an image is converted in place
    return result


def _page(pixels: np.ndarray, icc: bytes | None) -> Page:
    """A page, without a profile that is for other channels than it has."""
    space = b"GRAY" if pixels.ndim == 2 or pixels.shape[2] == 2 else b"RGB "
    return Page(np.ascontiguousarray(pixels), icc if icc and _space(icc) == space else None)


def _space(icc: bytes) -> bytes:
    """The colour space that a profile starts from."""
    return icc[16:20]


def _turned(pixels: Pixels, orientation: int) -> np.ndarray:
    """Pixels made upright, [h, w] or [w, h], from an EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    down = orientation in (3, 4, 7, 8)
    left = orientation in (2, 3, 6, 7)
    return pixels[:: -1 if down else 1, :: -1 if left else 1]


def to_8_bits(pixels: Pixels) -> UInt8[np.ndarray, "h w *c"]:
    """16 bits a channel rounded to 8; 8 as they are."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _timing(path: Path, count: int) -> tuple[tuple[int, ...], int]:
    """How long each frame stands, in ms, and how often they run; 0 for without end."""
    with Image.open(path, formats=READABLE) as image:
        # A GIF without a count runs once, and its count is of repetitions.
        loop = image.info.get("loop", 1 if image.format == "GIF" else 0)
        loop += image.format == "GIF" and loop != 0 and "loop" in image.info
        start = int(bool(image.info.get("default_image")))
        durations = []
        for i in range(start, start + count):
            image.seek(i)
            image.load()  # WebP knows it only then
            durations.append(round(image.info.get("duration", 0)))
    return tuple(durations), loop


def _told(path: Path, head: Head) -> tuple[tuple[float, float] | None, Image.Exif, tuple[str, ...]]:
    """Resolution in dots an inch, EXIF, and what could not be read of them."""
    exif, kept = Image.Exif(), Image.Exif()
    with ExitStack() as stack:
        try:
            if head.form == "tiff":
                tiff = stack.enter_context(tifffile.TiffFile(path))
                page = tiff.pages.first
                dpi = page.get_resolution(tifffile.RESUNIT.INCH) if 282 in page.tags else None
                exif.bigtiff, exif.endian = tiff.is_bigtiff, tiff.byteorder
                exif.load_from_fp(stack.enter_context(open(path, "rb")), page.offset)
            else:
                image = stack.enter_context(Image.open(path, formats=READABLE))
                dpi, exif = image.info.get("dpi"), _exif(path, image)
            known = TOLD if head.form == "tiff" else {*exif} - _LAYOUT
            tags: dict[int, Any] = {tag: exif[tag] for tag in exif if tag in known}
            directories = {
                tag: dict(exif.get_ifd(tag)) for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
            }
            directories[ExifTags.IFD.Exif].pop(
                ExifTags.IFD.Interop, None
            )  # a place in the old file
            kept.update({tag: value for tag, value in tags.items() if tag not in directories})
            for tag, directory in directories.items():
                if directory:
                    kept.get_ifd(tag).update(directory)
            kept.tobytes()
        except Exception:
            return None, Image.Exif(), ("EXIF that cannot be read was left out",)
    across, down = dpi or (0, 0)
    return ((float(across), float(down)) if across and down else None), kept, ()


def _exif(path: Path, image: Image.Image) -> Image.Exif:
    """A file's EXIF."""
    # Of a PNG file without, Pillow would decode the pixels to look behind them.
    if image.format == "PNG" and not any(x in path.read_bytes() for x in (b"eXIf", b" exif\0")):
        return Image.Exif()
    return image.getexif()
