"""JPEG, encoded by imagecodecs, with its metadata put in by hand.

Pillow would copy the pixels first, at 4 bytes each; imagecodecs reads them where they are, but
writes no metadata. The pixels and tables are those that Pillow writes (tested).
"""

import struct
from typing import IO

import imagecodecs
import numpy as np
from jaxtyping import UInt8

# What a segment holds, less the name of its content.
SEGMENT = 65_533 - 16
# Where the JFIF header has the unit of its density, and where it ends.
_DENSITY, _JFIF_END = 13, 20


def write_jpeg(
    out: IO[bytes],
    pixels: UInt8[np.ndarray, "h w *c"],
    *,
    quality: int,
    icc_profile: bytes = b"",
    exif: bytes = b"",
    dpi: tuple[float, float] | None = None,
) -> None:
    """Write a JPEG without chroma subsampling.

    Args:
        out: open for writing.
        pixels: gray or RGB.
        quality: libjpeg's, 1 to 100.
        icc_profile: an ICC profile, or none.
        exif: EXIF with JPEG's prefix, at most SEGMENT bytes, or none.
        dpi: pixels per inch, across and down.
    """
    encoded = memoryview(imagecodecs.jpeg8_encode(pixels, level=quality, subsampling="444"))
    density = b"\0" + 2 * struct.pack(">H", 1)
    if dpi and max(dpi) < 2**16 - 1:
        density = b"\1" + b"".join(struct.pack(">H", max(1, round(n))) for n in dpi)
    out.write(encoded[:_DENSITY])
    out.write(density)
    out.write(encoded[_DENSITY + len(density) : _JFIF_END])
    if exif:
        _put_segment(out, b"\xe1", exif)
    parts = [icc_profile[at : at + SEGMENT] for at in range(0, len(icc_profile), SEGMENT)]
    for i, part in enumerate(parts, 1):
        _put_segment(out, b"\xe2", b"ICC_PROFILE\0" + bytes([i, len(parts)]) + part)
    out.write(encoded[_JFIF_END:])


def _put_segment(out: IO[bytes], marker: bytes, content: bytes) -> None:
    """Write an application segment."""
    out.write(b"\xff" + marker + struct.pack(">H", 2 + len(content)) + content)
