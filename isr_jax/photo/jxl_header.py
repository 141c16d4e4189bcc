"""The header of JPEG XL, read before a decoder takes memory for what it declares.

Source: ISO/IEC 18181-1:2024, annexes B and D (fields, image header), and 18181-2:2024, section 9
(boxes).
"""

import struct
from typing import NamedTuple

_SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n"
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
# Of the fields' choices: a constant, and how many bits are added to it.
_SIZE = ((1, 9), (1, 13), (1, 18), (1, 30))
_ENUM = ((0, 0), (1, 0), (2, 4), (18, 6))
_SRGB_CURVE = 13
_ALPHA, _SPOT, _FILTER = 0, 2, 5  # kinds of extra channels


class Header(NamedTuple):
    """What a JPEG XL file declares.

    Attributes:
        width: pixels, as it is stored.
        height: pixels, as it is stored.
        bits: per channel.
        floating: whether the values are floating-point.
        gray: whether there is one channel of colour.
        alpha: whether there is a channel of transparency.
        extra: number of all channels beyond the colours.
        animated: whether it is an animation.
        orientation: of EXIF, 1 to 8; the decoder applies it.
        lossless: whether the pixels are stored in their own colour space.
        srgb: whether they are in sRGB, or gray with its curve; None where an ICC profile says.
        curve_at: the first bit of the number of that curve, in the bits behind the signature.
    """

    width: int
    height: int
    bits: int
    floating: bool
    gray: bool
    alpha: bool
    extra: int
    animated: bool
    orientation: int
    lossless: bool
    srgb: bool | None
    curve_at: int | None = None


class _Bits:
    """Fields of bits, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> int:
        first, last = self._at // 8, (self._at + count + 7) // 8
        if last > len(self._data):
            raise ValueError("its header is truncated")
        value = int.from_bytes(self._data[first:last], "little") >> self._at % 8
        self._at += count
        return value & ((1 << count) - 1)

    @property
    def place(self) -> int:
        return self._at

    def flag(self) -> bool:
        return bool(self.take(1))

    def choice(self, choices: tuple[tuple[int, int], ...]) -> int:
        least, count = choices[self.take(2)]
        return least + self.take(count)


def is_jxl(start: bytes) -> bool:
    """Return whether a file that starts with these 12 bytes is a JPEG XL file."""
    return start[:2] == b"\xff\x0a" or start[:12] == _SIGNATURE


def boxes(data: bytes) -> dict[bytes, bytes]:
    """Return the contents of a JPEG XL file's boxes, of those of a kind the first."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if length == 1 and at + 16 <= len(data):
            (length,), start = struct.unpack_from(">Q", data, at + 8), at + 16
        end = at + length if length else len(data)
        if end < start:
            break
        found.setdefault(kind, data[start:end])
        at = end
    return found


def read_header(data: bytes) -> Header:
    """Return the header of a JPEG XL file.

    Args:
        data: its first bytes at least.

    Raises:
        ValueError: it is truncated or damaged.
    """
    if data[:2] != b"\xff\x0a":
        parts = boxes(data)
        data = parts.get(b"jxlc") or parts.get(b"jxlp", b"")[4:]
        if data[:2] != b"\xff\x0a":
            raise ValueError("it holds no JPEG XL image")
    bits = _Bits(data[2:4096])
    width, height = _size(bits)
    header = Header(width, height, 8, False, False, False, 0, False, 1, False, True)
    if bits.flag():  # all of the rest is as usual
        return header
    orientation, animated = 1, False
    if bits.flag():
        orientation = 1 + bits.take(3)
        if bits.flag():
            _size(bits)
        if bits.flag():
            _preview(bits)
        animated = bits.flag()
        if animated:
            bits.choice(((100, 0), (1000, 0), (1, 10), (1, 30)))
            bits.choice(((1, 0), (1001, 0), (1, 8), (1, 10)))
            bits.choice(((0, 0), (0, 3), (0, 16), (0, 32)))
            bits.flag()
    floating, depth = _depth(bits)
    bits.flag()
    extra = bits.choice(((0, 0), (1, 0), (2, 4), (1, 12)))
    if extra > 256:
        raise ValueError(f"it declares {extra} extra channels")
    kinds = [_extra_channel(bits) for _ in range(extra)]
    lossless = not bits.flag()
    gray, srgb, curve_at = _colours(bits)
    return header._replace(
        bits=depth,
        floating=floating,
        gray=gray,
        alpha=_ALPHA in kinds,
        extra=extra,
        animated=animated,
        orientation=orientation,
        lossless=lossless,
        srgb=srgb,
        curve_at=curve_at,
    )


def labelled_srgb(encoded: bytes) -> bytes:
    """Return a JPEG XL file whose curve, another one of the table, is said to be that of sRGB."""
    at = read_header(encoded).curve_at
    assert at is not None
    start = encoded.index(b"\xff\x0a", 12 if encoded[:2] != b"\xff\x0a" else 0) + 2
    result = bytearray(encoded)
    for i in range(4):
        byte, bit = divmod(at + i, 8)
        result[start + byte] &= ~(1 << bit) & 0xFF
        result[start + byte] |= (_SRGB_CURVE - 2 >> i & 1) << bit
    return bytes(result)


def _size(bits: _Bits) -> tuple[int, int]:
    """Return a width and height."""
    small = bits.flag()
    height = 8 * (1 + bits.take(5)) if small else bits.choice(_SIZE)
    ratio = bits.take(3)
    if ratio:
        across, down = _RATIOS[ratio]
        return height * across // down, height
    return (8 * (1 + bits.take(5)) if small else bits.choice(_SIZE)), height


def _preview(bits: _Bits) -> None:
    eighths = bits.flag()
    choices = ((1, 6), (65, 8), (321, 10), (1345, 12))
    choices = ((16, 0), (32, 0), (1, 5), (33, 9)) if eighths else choices
    bits.choice(choices)
    if not bits.take(3):
        bits.choice(choices)


def _depth(bits: _Bits) -> tuple[bool, int]:
    """Return whether values are floating-point, and how many bits they have."""
    floating = bits.flag()
    if not floating:
        return False, bits.choice(((8, 0), (10, 0), (12, 0), (1, 6)))
    depth = bits.choice(((32, 0), (16, 0), (24, 0), (1, 6)))
    bits.take(4)
    return True, depth


def _extra_channel(bits: _Bits) -> int:
    """Return the kind of an extra channel."""
    if bits.flag():
        return _ALPHA
    kind = bits.choice(_ENUM)
    _depth(bits)
    bits.choice(((0, 0), (3, 0), (4, 0), (1, 3)))
    for _ in range(bits.choice(((0, 0), (0, 4), (16, 5), (48, 10)))):
        bits.take(8)
    if kind == _ALPHA:
        bits.flag()
    elif kind == _SPOT:
        bits.take(64)
    elif kind == _FILTER:
        bits.choice(((1, 0), (0, 2), (3, 4), (19, 8)))
    return kind


def _colours(bits: _Bits) -> tuple[bool, bool | None, int | None]:
    """Return whether the image is gray, whether it is in sRGB, and where its curve is."""
    if bits.flag():
        return False, True, None
    profile = bits.flag()
    gray = bits.choice(_ENUM) == 1
    if profile:
        return gray, None, None
    white = bits.choice(_ENUM)
    if white != 1:
        return gray, False, None
    if not gray and bits.choice(_ENUM) != 1:
        return gray, False, None
    if bits.flag():
        return gray, False, None
    place = bits.place + 2
    return gray, bits.choice(_ENUM) == _SRGB_CURVE, place
