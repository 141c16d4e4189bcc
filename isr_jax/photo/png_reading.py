"""PNG of 16 bits per channel, by imagecodecs: Pillow would drop the low byte."""

import struct
import zlib
from collections.abc import Iterator

import imagecodecs
import numpy as np
from jaxtyping import UInt16

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_INTERLACED = 28  # where the header says so
# First column and row, and the steps to the next ones, of each pass.
_PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def decode_png(content: bytes) -> UInt16[np.ndarray, "h w *c"]:
    """Decode a still PNG of 16 bits.

    An interlaced one is decoded as the seven images that it consists of: as a whole, libpng would
    print a warning, because imagecodecs does not announce that it reads interlaced images.

    Raises:
        ValueError: it is damaged; imagecodecs raises its own errors too.

    Source: PNG specification (W3C, third edition), sections 5, 8 and 11.
    """
    if content[_INTERLACED : _INTERLACED + 1] != b"\1":
        return imagecodecs.png_decode(content)
    header, data, others = b"", [], b""
    for kind, body in _chunks(content):
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            data.append(body)
        elif kind == b"tRNS":
            others += _chunk(kind, body)
    width, height, bits, colour = struct.unpack_from(">IIBB", header)
    pixel = _CHANNELS[colour] * bits // 8
    sizes = [
        (-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in _PASSES
    ]
    counts = [down * (1 + across * pixel) if across > 0 < down else 0 for across, down in sizes]
    lines = memoryview(zlib.decompressobj().decompress(b"".join(data), sum(counts)))
    if len(lines) < sum(counts):
        raise ValueError("its pixels are truncated")
    result, at = None, 0
    for (x, y, across, down), size, count in zip(_PASSES, sizes, counts, strict=True):
        if not count:
            continue
        part = struct.pack(">II", *size) + header[8:12] + b"\0"
        packed = zlib.compress(lines[at : at + count], 1)
        small = imagecodecs.png_decode(
            _SIGNATURE + _chunk(b"IHDR", part) + others + _chunk(b"IDAT", packed) + _chunk(b"IEND")
        )
        if result is None:  # the first pass has a pixel of every image
            result = np.empty((height, width, *small.shape[2:]), small.dtype)
        result[y::down, x::across] = small
        at += count
    assert result is not None
    return result


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        yield kind, content[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
