"""JPEG, encoded by imagecodecs, with its metadata put in by hand.

Pillow would copy the pixels first, at 4 bytes each; imagecodecs reads them where they are, but
writes no metadata. The pixels and tables are those that Pillow writes (tested).
"""

import hashlib
import re
import struct
from typing import IO

import imagecodecs
import numpy as np
from jaxtyping import UInt8

from isr_jax.photo.contents import NOTHING, Metadata
from isr_jax.photo.exif import PREFIX, exif_bytes
from isr_jax.photo.iptc import as_resource
from isr_jax.photo.jpeg_reading import (
    APP1,
    APP2,
    APP13,
    COMMENT,
    EXTENSION,
    PHOTOSHOP,
    XMP,
)
from isr_jax.photo.metadata import JPEG_SEGMENT, MOST_COMMENT, exif_fits, packet_for
from isr_jax.photo.xmp import EMPTY, Xmp, noted

_XMP_BYTES, _EXTENSION_BYTES = 65_502, 65_400
# Where the JFIF header has the unit of its density, and where it ends.
_DENSITY, _JFIF_END = 13, 20


def write_jpeg(
    out: IO[bytes],
    pixels: UInt8[np.ndarray, "h w *c"],
    *,
    quality: int,
    icc_profile: bytes = b"",
    metadata: Metadata = NOTHING,
) -> None:
    """Write a JPEG without chroma subsampling.

    Args:
        out: open for writing.
        pixels: gray or RGB.
        quality: libjpeg's, 1 to 100.
        icc_profile: an ICC profile, or none.
        metadata: of the photo as it is written; EXIF that is too long is left out.
    """
    encoded = memoryview(imagecodecs.jpeg8_encode(pixels, level=quality, subsampling="444"))
    density = b"\0" + 2 * struct.pack(">H", 1)
    stated = metadata.dpi or metadata.density
    if stated and max(stated) < 2**16 - 1:
        density = bytes([bool(metadata.dpi)])
        density += b"".join(struct.pack(">H", max(1, round(n))) for n in stated)
    out.write(encoded[:_DENSITY])
    out.write(density)
    out.write(encoded[_DENSITY + len(density) : _JFIF_END])
    if metadata.exif and exif_fits("jpeg", metadata.exif):
        _put_segment(out, APP1, PREFIX + exif_bytes(metadata.exif, order=metadata.order))
    for content in xmp_segments(metadata.xmp):
        _put_segment(out, APP1, content)
    for part in _parts(as_resource(metadata.iptc) if metadata.iptc else b""):
        _put_segment(out, APP13, PHOTOSHOP + part)
    parts = _parts(icc_profile)
    for i, part in enumerate(parts, 1):
        _put_segment(out, APP2, b"ICC_PROFILE\0" + bytes([i, len(parts)]) + part)
    for comment in metadata.comments:
        if len(comment) <= MOST_COMMENT:
            _put_segment(out, COMMENT, comment)
    out.write(encoded[_JFIF_END:])


def xmp_segments(found: Xmp) -> list[bytes]:
    """Return the contents of the segments that hold XMP, one for most.

    What a packet has no room for goes into a second document, all of it where it cannot be told
    apart.

    Source: Adobe, "XMP Specification, part 3", section 1.1.3.1.
    """
    if len(found.packet) <= _XMP_BYTES and not found.extended:
        return [XMP + found.packet] if found.packet else []
    first, second = found
    digest = _digest(second)
    try:
        first = noted(first, digest) if second else b""
    except ValueError:
        first = b""
    if not first or len(first) > _XMP_BYTES:
        second = re.sub(rb"<\?xpacket.*?\?>", b"", packet_for("jpeg", found)[0], flags=re.DOTALL)
        digest = _digest(second)
        first = noted(EMPTY, digest)
    starts = range(0, len(second), _EXTENSION_BYTES)
    head = EXTENSION + digest.encode() + struct.pack(">I", len(second))
    return [
        XMP + first,
        *(head + struct.pack(">I", at) + second[at : at + _EXTENSION_BYTES] for at in starts),
    ]


def _digest(document: bytes) -> str:
    return hashlib.md5(document, usedforsecurity=False).hexdigest().upper()


def _parts(content: bytes) -> list[bytes]:
    """Return what is cut up to fit into segments."""
    return [content[at : at + JPEG_SEGMENT] for at in range(0, len(content), JPEG_SEGMENT)]


def _put_segment(out: IO[bytes], marker: int, content: bytes) -> None:
    """Write a segment."""
    out.write(bytes([0xFF, marker]) + struct.pack(">H", 2 + len(content)) + content)
