"""The boxes of AVIF and HEIF files, and what they say of the image.

Source: ISO/IEC 14496-12 (boxes), 23008-12 (HEIF), AV1-ISOBMFF (av1C); names of boxes in `quotes`.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

_AVIF, _HEIF = (b"avif", b"avis"), (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm")
_GENERAL = (b"mif1", b"msf1", b"mif2")
# CICP numbers that are taken for sRGB: BT.709's primaries, and curves much like its own.
_PRIMARIES, _CURVES = (1, 2), (1, 2, 6, 13)


class Properties(NamedTuple):
    """What the boxes of an AVIF or HEIF file say.

    Attributes:
        bits: the most per channel.
        gray: whether it has a single channel of colour.
        identity: whether RGB is coded as it is, as lossless files do.
        srgb: whether its colours are those of sRGB, or not said.
    """

    bits: int
    gray: bool
    identity: bool
    srgb: bool


class Box(NamedTuple):
    """A box: its kind, where it begins, and where its content begins and ends."""

    kind: bytes
    begin: int
    start: int
    end: int


def kind_of(start: bytes) -> str | None:
    """Return avif or heic for a file that starts with these bytes, None for any other."""
    if start[4:8] != b"ftyp":
        return None
    length = min(len(start), int.from_bytes(start[:4], "big"))
    brands = [start[8:12], *(start[at : at + 4] for at in range(16, length, 4))]
    if brands[0] in _GENERAL:
        brands = [brand for brand in brands if brand in (*_AVIF, *_HEIF)]
    if brands and brands[0] in _AVIF:
        return "avif"
    return "heic" if brands and brands[0] in _HEIF else None


def boxes_in(data: bytes, *, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Yield the boxes between two places of a file."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if length == 1 and start + 16 <= end:
            (length,), content = struct.unpack_from(">Q", data, start + 8), start + 16
        stop = start + length if length else end
        if stop < content or stop > end:
            raise ValueError("its boxes are damaged")
        yield Box(kind, start, content, stop)
        start = stop


def find(data: bytes, kind: bytes, *, start: int = 0, end: int | None = None) -> Box | None:
    """Return the first box of a kind between two places."""
    return next((box for box in boxes_in(data, start=start, end=end) if box.kind == kind), None)


def properties_of(data: bytes) -> Properties:
    """Return what the properties of all items of a file say.

    Raises:
        ValueError: its boxes are damaged.
    """
    bits, gray, identity, srgb = 8, [], False, True
    meta = find(data, b"meta")
    listed = meta and find(data, b"iprp", start=meta.start + 4, end=meta.end)
    held = listed and find(data, b"ipco", start=listed.start, end=listed.end)
    for box in boxes_in(data, start=held.start, end=held.end) if held else ():
        content = data[box.start : box.end]
        if box.kind == b"pixi" and len(content) > 5:
            bits = max(bits, *content[5 : 5 + content[4]])
        elif box.kind == b"av1C" and len(content) > 2:
            bits = max(bits, (12 if content[2] & 0x20 else 10) if content[2] & 0x40 else 8)
            gray.append(bool(content[2] & 0x10))
        elif box.kind == b"colr" and content[:4] == b"nclx":
            primaries, curve, matrix = struct.unpack_from(">HHH", content, 4)
            identity = identity or matrix == 0
            srgb = primaries in _PRIMARIES and curve in _CURVES
    return Properties(bits, bool(gray) and all(gray), identity, srgb)
