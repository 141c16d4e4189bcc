"""The size that an encoded image declares, which its decoder would take memory for.

Of the codecs that pack the strips and tiles of TIFF files, and of JPEG XL, all from their first
bytes.
"""

import imagecodecs

from isr_jax.photo.jxl_header import read_header

HEAD = 2**16  # bytes, in which a size is looked for
_PNG, _LERC = b"\x89PNG\r\n\x1a\n", b"Lerc2 "
# JPEG's markers of frames, and the one of JPEG-LS.
_FRAMES = {*range(0xFFC0, 0xFFD0), 0xFFF7} - {0xFFC4, 0xFFC8, 0xFFCC}
_ZSTD = b"\x28\xb5\x2f\xfd"


def declared_size(data: bytes) -> tuple[int, int]:
    """Return the width and height in the header of an encoded image.

    Args:
        data: the image, or its first HEAD bytes.

    Raises:
        ValueError: it is damaged, or of a codec that is not known here.
    """
    if data[:2] == b"\xff\xd8":
        return _jpeg(data)
    if (at := data.find(b"\xff\x4f\xff\x51")) >= 0:  # JPEG 2000, with boxes around it or without
        return _big(data, at + 8) - _big(data, at + 16), _big(data, at + 12) - _big(data, at + 20)
    if data.startswith(_PNG):
        return _big(data, 16), _big(data, 20)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data[12:])
    if data[:2] == b"\xff\x0a" or data[4:8] == b"JXL ":
        header = read_header(data)
        return header.width, header.height
    if data[:3] == b"II\xbc":
        return _jpeg_xr(data)
    if data.startswith(_LERC):
        # A checksum follows the version since 3.
        at = 14 if _little(data, 6) >= 3 else 10
        return _little(data, at + 4), _little(data, at)
    raise ValueError("its pixels are packed by an unknown codec")


def unpacked(data: bytes, most: int) -> bytes:
    """Return LERC data without the compression around it, of at most so many bytes."""
    if data.startswith(_LERC):
        return data
    decode = imagecodecs.zstd_decode if data.startswith(_ZSTD) else imagecodecs.zlib_decode
    return bytes(decode(data, out=most))


def _big(data: bytes, at: int, count: int = 4) -> int:
    return int.from_bytes(_part(data, at, count), "big")


def _little(data: bytes, at: int, count: int = 4) -> int:
    return int.from_bytes(_part(data, at, count), "little")


def _part(data: bytes, at: int, count: int) -> bytes:
    part = data[at : at + count]
    if len(part) < count:
        raise ValueError("its pixels are truncated")
    return part


def _jpeg(data: bytes) -> tuple[int, int]:
    """Source: ITU-T T.81, section B.1.1; JPEG-LS, ITU-T T.87, has one more kind of frame."""
    at = 2
    while True:
        marker, length = _big(data, at, 2), _big(data, at + 2, 2)
        if marker in _FRAMES:
            return _big(data, at + 7, 2), _big(data, at + 5, 2)
        if marker < 0xFFC0:
            raise ValueError("its JPEG data is damaged")
        at += 1 if marker == 0xFFFF else 2 + length


def _webp(chunks: bytes) -> tuple[int, int]:
    """Source: WebP container specification; RFC 6386, section 9.1."""
    kind = chunks[:4]
    if kind == b"VP8X":
        return 1 + _little(chunks, 12, 3), 1 + _little(chunks, 15, 3)
    if kind == b"VP8L":
        bits = _little(chunks, 9)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return _little(chunks, 14, 2) & 0x3FFF, _little(chunks, 16, 2) & 0x3FFF


def _jpeg_xr(data: bytes) -> tuple[int, int]:
    """Source: ITU-T T.832, annex A."""
    at = _little(data, 4)
    found = {}
    for i in range(_little(data, at, 2)):
        entry = at + 2 + 12 * i
        kind = _little(data, entry + 2, 2)
        found[_little(data, entry, 2)] = _little(data, entry + 8, 2 if kind == 3 else 4)
    if not {0xBC80, 0xBC81} <= found.keys():
        raise ValueError("its JPEG XR data is damaged")
    return found[0xBC80], found[0xBC81]
