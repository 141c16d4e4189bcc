"""JPEG XL, encoded by imagecodecs, with its EXIF put in by hand.

imagecodecs takes no ICC profile, so that colours become sRGB; and it calls 16 bits linear, which is
corrected.
"""

import os
import struct
from typing import IO

import imagecodecs
import numpy as np
from jaxtyping import UInt16

from isr_jax.photo.jxl_header import labelled_srgb
from isr_jax.photo.pixels import Pixels

_EFFORT = 4  # of libjxl's, 1 to 9: of those that take less time than upscaling, the smallest files


def write_jxl(
    out: IO[bytes], pixels: Pixels, *, quality: int, exif: bytes = b"", xmp: bytes = b""
) -> None:
    """Write a still JPEG XL.

    Args:
        out: open for writing.
        pixels: 8 or 16 bits, sRGB.
        quality: 1 to 100, at which it is lossless.
        exif: EXIF as TIFF bytes, with or without JPEG's prefix, or none.
        xmp: a packet, or none.
    """
    lossless = quality == 100
    deep = pixels.dtype == np.uint16
    encoded = imagecodecs.jpegxl_encode(
        _linear(pixels) if deep and not lossless else np.ascontiguousarray(pixels),
        lossless=lossless,
        distance=None if lossless else _distance(quality),
        effort=_EFFORT,
        usecontainer=True,
        numthreads=os.cpu_count(),
    )
    out.write(labelled_srgb(bytes(encoded)) if deep else encoded)
    if exif:
        content = b"\0\0\0\0" + exif
        out.write(struct.pack(">I", 8 + len(content)) + b"Exif" + content)
    if xmp:
        out.write(struct.pack(">I", 8 + len(xmp)) + b"xml " + xmp)


def _distance(quality: int) -> float:
    """Return the distance of Butteraugli for a quality like that of JPEG.

    Source: libjxl, JxlEncoderDistanceFromQuality.
    """
    if quality >= 30:
        return 0.1 + (100 - quality) * 0.09
    return 53 / 3000 * quality**2 - 23 / 20 * quality + 25


def _linear(pixels: UInt16[np.ndarray, "h w *c"]) -> UInt16[np.ndarray, "h w *c"]:
    """Return sRGB as linear values of the same range; alpha stays.

    Source: IEC 61966-2-1.
    """
    levels = np.arange(65536) / 65535
    curve = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    table = np.round(curve * 65535).astype(np.uint16)
    if pixels.ndim == 2 or pixels.shape[2] in (1, 3):
        return table[pixels]
    return np.concatenate([table[pixels[..., :-1]], pixels[..., -1:]], axis=2)
