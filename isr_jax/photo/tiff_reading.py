"""TIFF, page by page, by tifffile and imagecodecs: every layout, packing and depth that they read.

Pillow reads what they do not: fax, JPEG of TIFF's sixth version, uncompressed subsampled colours.
"""

from collections.abc import Sequence
from io import BufferedIOBase
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from isr_jax.errors import UserError
from isr_jax.photo.declared import HEAD, declared_size, unpacked
from isr_jax.photo.limits import check_page_count
from isr_jax.photo.pixels import (
    FLOATS,
    Page,
    from_bits,
    from_float,
    make_page,
    rgb_of_cmyk,
    to_8_bits,
    upright,
)

_KINDS = tifffile.PHOTOMETRIC
# How many channels are colours.
_COLOURS = {
    _KINDS.MINISWHITE: 1,
    _KINDS.MINISBLACK: 1,
    _KINDS.RGB: 3,
    _KINDS.PALETTE: 1,
    _KINDS.SEPARATED: 4,
    _KINDS.YCBCR: 3,
    _KINDS.CIELAB: 3,
    _KINDS.ICCLAB: 3,
}
_COMPRESSION = tifffile.COMPRESSION
_FAX = {_COMPRESSION.CCITTRLE, _COMPRESSION.CCITT_T4, _COMPRESSION.CCITT_T6}
_FOR_PILLOW = {*_FAX, _COMPRESSION.OJPEG, _COMPRESSION.NEXT, _COMPRESSION.THUNDERSCAN}
# tifffile lets their decoders take what memory they like: the others' output is bounded.
_IMAGES = {
    *(_COMPRESSION.JPEG, _COMPRESSION.JPEG_LOSSY, _COMPRESSION.JPEGXR, _COMPRESSION.JPEGXR_NDPI),
    *(_COMPRESSION.JPEG2000, _COMPRESSION.APERIO_JP2000_RGB, _COMPRESSION.APERIO_JP2000_YCBC),
    *(_COMPRESSION.JPEGXL, _COMPRESSION.JPEGXL_DNG, _COMPRESSION.WEBP, _COMPRESSION.PNG),
    _COMPRESSION.LERC,
}
_ASSOCIATED, _STRAIGHT = tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA


def is_tiff(start: bytes) -> bool:
    """Return whether a file that starts with these bytes is a TIFF file."""
    return start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_directories(file: BufferedIOBase) -> bool:
    """Return whether the chain of pages of a TIFF file breaks off behind the first of them.

    Raise an error where it never ends, is too long, or holds no page. The file stands at its start,
    and does so again afterwards.
    """
    start = file.read(16)
    order = "little" if start[:2] == b"II" else "big"
    big = start[2:4] in (b"+\0", b"\0+")
    offset_bytes, count_bytes, entry_bytes = (8, 8, 20) if big else (4, 2, 12)
    offset = int.from_bytes(start[8:16] if big else start[4:8], order)
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise ValueError("its pages follow each other in a circle")
        seen.add(offset)
        check_page_count(len(seen))
        file.seek(offset)
        head = file.read(count_bytes)
        file.seek(offset + count_bytes + int.from_bytes(head, order) * entry_bytes)
        following = file.read(offset_bytes)
        cut_off = len(head) < count_bytes or len(following) < offset_bytes
        if cut_off and len(seen) == 1:
            raise ValueError("it ends before its first page")
        if cut_off:
            file.seek(0)
            return True
        offset = int.from_bytes(following, order)
    file.seek(0)
    return False


def is_for_pillow(page: tifffile.TiffPage) -> bool:
    """Return whether Pillow has to decode a page."""
    packed = page.compression in _FOR_PILLOW
    mixed = 339 in page.tags and len(set(np.ravel(page.tags[339].value))) > 1  # sample formats
    jpeg = page.compression in (_COMPRESSION.JPEG, _COMPRESSION.JPEG_LOSSY)
    return packed or mixed or (page.is_subsampled and not jpeg)


def result_bits(page: tifffile.TiffPage) -> int:
    """Return the bits per channel, 8 or 16, that a page's values get.

    Raises:
        ValueError: it has values that are not read.
    """
    bits, formats = page.bitspersample, tifffile.SAMPLEFORMAT
    if page.sampleformat == formats.IEEEFP and bits in (16, 24, 32, 64):
        return 16
    whole = page.sampleformat in (formats.UINT, formats.VOID) or is_for_pillow(page)
    if not whole or not isinstance(bits, int) or bits > 16:
        kind = "integer" if whole else formats(page.sampleformat).name
        raise ValueError(f"{bits}-bit {kind} pixels; save it with 8 or 16 bits")
    return 8 if bits <= 8 else 16


def result_channels(page: tifffile.TiffPage, bands: Sequence[int] | None) -> int:
    """Return the number of channels that a page gets, 1 to 4."""
    colours = len(bands) if bands and more_bands(page) else _COLOURS.get(_kind(page), 3)
    colours = 3 if _kind(page) in (_KINDS.PALETTE, _KINDS.SEPARATED) else colours
    return colours + (_alpha_at(page) is not None)


def more_bands(page: tifffile.TiffPage) -> int:
    """Return how many bands are neither a colour nor transparency."""
    count = page.samplesperpixel - _COLOURS.get(_kind(page), page.samplesperpixel)
    return count - (_alpha_at(page) is not None)


def notices_of(page: tifffile.TiffPage, bands: Sequence[int] | None) -> tuple[str, ...]:
    """Return a line for each thing in a page that is left out."""
    lines = []
    if page.sampleformat == tifffile.SAMPLEFORMAT.IEEEFP:
        lines.append(FLOATS)
    if more_bands(page) and not bands:
        lines.append(
            f"a multispectral TIFF of {page.samplesperpixel} bands was upscaled as the colours "
            "that it declares; `isr upscale --bands R,G,B` chooses others"
        )
    return tuple(lines)


def read_page(page: tifffile.TiffPage, bands: Sequence[int] | None) -> Page:
    """Decode a page that is not for Pillow.

    Args:
        page: of a TIFF file.
        bands: of a page with more bands than colours, those to take, counted from 1: one for gray,
            or three for red, green and blue. None for the colours that it declares.

    Raises:
        UserError: it has no such bands, or none that it calls colours.
    """
    kind, count = _kind(page), page.samplesperpixel
    if kind not in _COLOURS:
        raise ValueError(f"{kind.name} pixels; save it as RGB")
    chosen = range(_COLOURS[kind])
    if more_bands(page):
        chosen = _chosen(page, bands)
    _check_segments(page)
    pixels = page.asarray()
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and count > 1:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.shape[:2] != (page.imagelength, page.imagewidth):
        raise ValueError("its pixels are a volume; save its layers as pages")
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    icc = page.tags[34675].value if 34675 in page.tags else None
    orientation = page.tags[274].value if 274 in page.tags else 1
    alpha = _alpha_at(page)
    extra = None if alpha is None else _levels(pixels[..., alpha : alpha + 1], page)
    # Neighbours as a view, which copies nothing.
    places = slice(chosen[0], chosen[-1] + 1)
    near = list(chosen) == list(range(places.start, places.stop))
    colour = pixels[..., places if near else list(chosen)]
    palette = kind == _KINDS.PALETTE
    colour = _looked_up(colour[..., 0], page) if palette else _levels(colour, page)
    if kind == _KINDS.MINISWHITE:
        colour = np.iinfo(colour.dtype).max - colour
    if extra is not None and _extra_kind(page, alpha) == _ASSOCIATED:
        colour = _straight(colour, extra)
    if not (bands and more_bands(page)):
        colour, icc = _as_rgb(colour, icc, page)
    if extra is not None:
        extra = to_8_bits(extra) if colour.dtype == np.uint8 else extra
        colour = np.concatenate([colour, extra], axis=2)
    colour = colour[..., 0] if colour.shape[2] == 1 else colour
    return make_page(upright(colour, orientation=orientation), icc)


def _kind(page: tifffile.TiffPage) -> tifffile.PHOTOMETRIC:
    return tifffile.PHOTOMETRIC(page.photometric)


def _extra_kind(page: tifffile.TiffPage, place: int | None) -> int:
    """Return what a band that is no colour is called."""
    at = (place or 0) - _COLOURS[_kind(page)]
    return page.extrasamples[at] if at < len(page.extrasamples) else _STRAIGHT


def _alpha_at(page: tifffile.TiffPage) -> int | None:
    """Return the band of transparency, counted from 0."""
    colours, count = _COLOURS.get(_kind(page), 0), page.samplesperpixel
    if not colours or is_for_pillow(page):
        return None
    for i, kind in enumerate(page.extrasamples[: count - colours]):
        if kind in (_ASSOCIATED, _STRAIGHT):
            return colours + i
    # A fourth channel beside RGB that has no name.
    unnamed = _kind(page) == _KINDS.RGB and count == 4 and not page.extrasamples
    return colours if unnamed else None


def _chosen(page: tifffile.TiffPage, bands: Sequence[int] | None) -> Sequence[int]:
    """Return the bands, counted from 0, that become colours."""
    kind, count = _kind(page), page.samplesperpixel
    if bands:
        if max(bands) > count:
            raise UserError(f"it has {count} bands, and no band {max(bands)}: change --bands")
        return [band - 1 for band in bands]
    if kind in (_KINDS.MINISBLACK, _KINDS.MINISWHITE):
        raise UserError(
            f"a multispectral TIFF of {count} bands, none of which it calls red, green or blue: "
            "`isr upscale --bands R,G,B` chooses three of them, or one for gray"
        )
    return range(_COLOURS[kind])


def _check_segments(page: tifffile.TiffPage) -> None:
    """Raise an error where a strip or tile is cut off, or would become more pixels than it has."""
    file: Any = page.parent.filehandle
    if len(page.dataoffsets) != len(page.databytecounts):
        raise ValueError("the list of its parts is damaged")
    # Decoders of images take one that is cut off; others do not, and some sizes are too large.
    images = page.compression in _IMAGES
    ends = [a + n * images for a, n in zip(page.dataoffsets, page.databytecounts, strict=True) if n]
    if max(ends, default=0) >= file.size + images:
        raise ValueError("it ends before its last pixels")
    if not images:
        return
    down = page.tilelength if page.is_tiled else page.rowsperstrip
    most = 4 * down * (page.tilewidth if page.is_tiled else page.imagewidth) + 2**20
    lerc = page.compression == _COMPRESSION.LERC
    for place, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        if not size:
            continue
        file.seek(place)
        data = file.read(size if lerc else min(size, HEAD))
        if lerc:
            itemsize = np.dtype(page.dtype).itemsize
            data = unpacked(data, most * page.samplesperpixel * itemsize)
        width, height = declared_size(data)
        if width * height > most:
            raise ValueError(f"a part of it declares {width}x{height} pixels: it is damaged")


def _levels(values: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Return values as uint8 or uint16, of which the largest number stands for 1."""
    if page.sampleformat == tifffile.SAMPLEFORMAT.IEEEFP:
        return from_float(values)
    return from_bits(values, page.bitspersample)


def _looked_up(places: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Return the colours of a palette, [h, w, 3]."""
    colours = np.asarray(page.colormap)
    if colours.ndim != 2 or len(colours) != 3:
        raise ValueError("its palette is damaged")
    # Some programs write values of 8 bits.
    colours = colours if colours.max() < 256 else colours >> 8
    if places.max() >= colours.shape[1]:
        raise ValueError("its palette is too short")
    return colours.astype(np.uint8).T[places.astype(np.uint16)]  # of 1 bit, they are bool


def _straight(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return colours that have been multiplied by alpha as they were before, rounded."""
    peak, result = np.uint64(np.iinfo(colour.dtype).max), np.empty_like(colour)
    for start in range(0, len(colour), 256):  # rows: of all at once, it would take 8 bytes each
        rows = slice(start, start + 256)
        whole = np.maximum(alpha[rows], 1).astype(np.uint64)
        result[rows] = np.minimum((colour[rows] * peak + whole // 2) // whole, peak)
    return result


def _as_rgb(
    colour: np.ndarray, icc: bytes | None, page: tifffile.TiffPage
) -> tuple[np.ndarray, bytes | None]:
    """Return gray or RGB, and its profile."""
    kind = _kind(page)
    if kind == _KINDS.SEPARATED:
        cmyk = Image.fromarray(to_8_bits(colour), "CMYK")
        cmyk.info["icc_profile"] = icc
        return rgb_of_cmyk(cmyk)
    decoded = page.compression in (_COMPRESSION.JPEG, _COMPRESSION.JPEG_LOSSY)
    if kind == _KINDS.YCBCR and not decoded:
        if colour.dtype != np.uint8:
            raise ValueError("16-bit YCBCR pixels; save it as RGB")
        return np.array(Image.fromarray(colour, "YCbCr").convert("RGB")), icc
    if kind in (_KINDS.CIELAB, _KINDS.ICCLAB):
        if colour.dtype != np.uint8:
            raise ValueError(f"16-bit {kind.name} pixels; save it as RGB")
        if kind == _KINDS.ICCLAB:  # not signed, as Pillow takes them
            colour = colour ^ np.array([0, 128, 128], np.uint8)
        lab = Image.frombytes("LAB", (colour.shape[1], colour.shape[0]), colour.tobytes())
        return np.array(lab.convert("RGB")), None
    return colour, icc
