"""The parts of TIFF that Pillow does not read: its chain of pages, and pages of 16 bits."""

from io import BufferedIOBase

import numpy as np
import tifffile
from PIL import Image

from isr_jax.photo.limits import check_page_count
from isr_jax.photo.pixels import Page, make_page, rgb_of_cmyk, to_8_bits, upright


def is_tiff(start: bytes) -> bool:
    """Return whether a file that starts with these bytes is a TIFF file."""
    return start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_directories(file: BufferedIOBase) -> None:
    """Raise an error where the chain of pages of a TIFF file never ends, or is too long.

    The file stands at its start, and does so again afterwards.
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
        count = int.from_bytes(file.read(count_bytes), order)
        file.seek(offset + count_bytes + count * entry_bytes)
        offset = int.from_bytes(file.read(offset_bytes), order)
    file.seek(0)


def is_deep(page: tifffile.TiffPage) -> bool:
    """Return whether a page has 16 bits; raise ValueError where it has neither 1 to 8 nor 16."""
    bits = page.bitspersample
    if bits in (1, 2, 4, 8):
        return False
    if bits != 16 or page.sampleformat != tifffile.SAMPLEFORMAT.UINT:
        kind = "floating-point" if page.sampleformat == tifffile.SAMPLEFORMAT.IEEEFP else "integer"
        raise ValueError(f"{bits}-bit {kind} pixels; save it with 8 or 16 bits")
    return True


def deep_page(page: tifffile.TiffPage) -> Page:
    """Decode a page of 16 bits per channel."""
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
        colour, icc = rgb_of_cmyk(cmyk)
    elif kind in (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA):
        colour = np.concatenate([colour, extra], axis=2)
    colour = colour[..., 0] if colour.shape[2] == 1 else colour
    return make_page(upright(colour, orientation=tags[274].value if 274 in tags else 1), icc)
