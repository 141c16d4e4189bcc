"""EXIF directories, read and written with the bytes of every value as they are.

Pillow and tifffile decode text and encode it again, as ASCII or Latin-1, which destroys any other:
a value is therefore kept as its type and its bytes, in little-endian order. What a file is written
with is the order of the original: nobody but the maker of a camera knows which bytes of its notes
are numbers, and text of two bytes a letter has no mark of its order.

Source: Adobe 1992, "TIFF, Revision 6.0", section 2; CIPA DC-008-2023, "Exif 3.0", section 4.6.
"""

import struct
from io import BufferedIOBase, BytesIO
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

MOST = 2**24  # bytes of the values of a directory; what is beyond is left out
_FAR = 2**40  # beyond the end of what can be decoded, and not of what a disk can be asked for
PREFIX = b"Exif\0\0"
ORIENTATION = 0x112
EXIF, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005
XMP, IPTC, PHOTOSHOP = 700, 33723, 34377  # of TIFF
_WIDTH, _HEIGHT = 0xA002, 0xA003
_ASCII, _SHORT, _LONG, _OFFSET = 2, 3, 4, 16
# The bytes of each type's values, and of their parts that an order of bytes turns round.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {_OFFSET: 8, 17: 8, 18: 8, 129: 1}  # of BigTIFF, and UTF-8 of Exif 3.0
_PARTS = _SIZES | {5: 4, 10: 4}
# Offsets into the old file, what describes its pixels, and what has a place of its own.
_OF_THE_FILE = {
    *(256, 257, 258, 259, 262, 273, ORIENTATION, 277, 278, 279, 284, 322, 323, 324, 325, 330),
    *(513, 514, XMP, IPTC, PHOTOSHOP, 34675),
}


class Value(NamedTuple):
    """The value of a tag: TIFF's number of its type, and its bytes."""

    type: int
    data: bytes


Order: TypeAlias = Literal["<", ">"]  # of bytes: little-endian or big-endian
Directory: TypeAlias = dict[int, Any]  # of values, and of the directories that tags refer to


class Layout(NamedTuple):
    """The order of a file's bytes, the sizes of its parts, and the place of its first directory."""

    order: Order
    count_bytes: int
    entry_bytes: int
    offset_bytes: int
    first: int


def layout_of(file: BufferedIOBase) -> Layout:
    """Return how a TIFF file, or EXIF, is laid out.

    Raises:
        ValueError: it is neither.
    """
    file.seek(0)
    start = file.read(16)
    orders: dict[bytes, Order] = {b"II": "<", b"MM": ">"}
    order = orders.get(start[:2])
    if order is None or len(start) < 8:
        raise ValueError("no EXIF")
    if struct.unpack_from(order + "H", start, 2)[0] == 43 and len(start) == 16:
        return Layout(order, 8, 20, 8, struct.unpack_from(order + "Q", start, 8)[0])
    return Layout(order, 2, 12, 4, struct.unpack_from(order + "I", start, 4)[0])


def read_directory(
    file: BufferedIOBase,
    layout: Layout,
    offset: int,
    *,
    only: frozenset[int] = frozenset(),
    inner: frozenset[int] = frozenset({EXIF, GPS}),
) -> tuple[Directory, bool]:
    """Return a directory with those that it refers to, and whether some of it cannot be read.

    Args:
        file: of TIFF's form.
        layout: its.
        offset: of the directory.
        only: the tags to read; empty for all.
        inner: the tags that refer to directories, of which only EXIF's refers to a third.

    Raises:
        ValueError: there is none.
    """
    number = {2: "H", 4: "I", 8: "Q"}
    file.seek(min(offset, _FAR))
    data = file.read(layout.count_bytes)
    if len(data) < layout.count_bytes:
        raise ValueError("no EXIF directory")
    (count,) = struct.unpack(layout.order + number[layout.count_bytes], data)
    entries = file.read(min(count, MOST // layout.entry_bytes) * layout.entry_bytes)
    found: Directory = {}
    damaged, room = len(entries) < count * layout.entry_bytes, MOST
    for at in range(0, len(entries) // layout.entry_bytes * layout.entry_bytes, layout.entry_bytes):
        form = layout.order + "HH" + number[layout.offset_bytes]
        tag, kind, length = struct.unpack_from(form, entries, at)
        if only and tag not in only:
            continue
        size = length * _SIZES.get(kind, 0)
        data = entries[at + layout.entry_bytes - layout.offset_bytes : at + layout.entry_bytes]
        (place,) = struct.unpack(layout.order + number[layout.offset_bytes], data)
        if size > layout.offset_bytes:
            file.seek(min(place, _FAR))
            data = file.read(size) if size <= room else b""
            room -= len(data)
        if not size or len(data) < size:
            damaged = True
            continue
        value = Value(kind, _ordered(data[:size], kind, layout.order))
        if tag in inner:
            deeper = frozenset({INTEROPERABILITY} if tag == EXIF else ())
            place = int.from_bytes(value.data, "little")
            value, broken = _try_directory(file, layout, place, inner=deeper)
            damaged |= broken
        if value:
            found[tag] = value
    return found, damaged


def parse_exif(data: bytes) -> tuple[Directory, bool]:
    """Return the EXIF of a file, less what describes that file, and whether some is damaged."""
    data = data.removeprefix(PREFIX)
    if not data:
        return {}, False
    file = BytesIO(data)
    try:
        layout = layout_of(file)
        found, damaged = read_directory(file, layout, layout.first)
    except ValueError:
        return {}, True
    return {tag: value for tag, value in found.items() if tag not in _OF_THE_FILE}, damaged


def order_of(data: bytes) -> Order:
    """Return the order of the bytes of EXIF, < or >."""
    return ">" if data.removeprefix(PREFIX).startswith(b"MM") else "<"


def orientation_of(data: bytes) -> int:
    """Return the orientation that EXIF states, 1 to 8; 0 where it states none."""
    file = BytesIO(data.removeprefix(PREFIX))
    try:
        layout = layout_of(file)
        found, _ = read_directory(file, layout, layout.first, only=frozenset({ORIENTATION}))
    except ValueError:
        return 0
    stated = integer(found, ORIENTATION)
    return stated if 1 <= stated <= 8 else 0


def integer(directory: Directory, tag: int) -> int:
    """Return the first integer of a tag; 0 where there is none."""
    value = directory.get(tag)
    if not isinstance(value, Value) or value.type not in (1, _SHORT, _LONG):
        return 0
    return int.from_bytes(value.data[: _SIZES[value.type]], "little")


def sized(directory: Directory, width: int, height: int) -> Directory:
    """Return the EXIF for an image of another size."""
    inner = directory.get(EXIF)
    if not isinstance(inner, dict):
        return directory
    sizes = {_WIDTH: width, _HEIGHT: height}
    new = {tag: Value(_LONG, struct.pack("<I", n)) for tag, n in sizes.items() if tag in inner}
    return {**directory, EXIF: {**inner, **new}}


def exif_bytes(directory: Directory, *, order: Order) -> bytes:
    """Return EXIF as files hold it, without JPEG's prefix; b"" where it is empty.

    Args:
        directory: what it holds.
        order: of the bytes, < or >.
    """
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    return start + pack(directory, 8, order=order) if directory else b""


def pack(directory: Directory, at: int, *, order: Order, big: bool = False) -> bytes:
    """Return the bytes of a directory, which end with those of its values.

    Args:
        directory: what it holds.
        at: its place in the file, an even number.
        order: of the bytes, < or >.
        big: whether the file is a BigTIFF.
    """
    number, room = (order + "Q", 8) if big else (order + "I", 4)
    head = struct.pack(order + ("Q" if big else "H"), len(directory))
    values = at + len(head) + len(directory) * (20 if big else 12) + room
    entries, rest = [], bytearray()
    for tag, value in sorted(directory.items()):
        rest += bytes(len(rest) % 2)
        if isinstance(value, dict):
            place = values + len(rest)
            kind, count, data = _OFFSET if big else _LONG, 1, struct.pack(number, place)
            rest += pack(value, place, order=order, big=big)
        else:
            kind, data = value.type, _ordered(value.data, value.type, order)
            count = len(data) // _SIZES[kind]
        if len(data) > room:
            place = values + len(rest)
            rest += data
            data = struct.pack(number, place)
        entry = struct.pack(f"{order}HH{number[1]}", tag, kind, count)
        entries.append(entry + data.ljust(room, b"\0"))
    return head + b"".join(entries) + bytes(room) + bytes(rest)


def as_tiff(tag: int, value: Value, order: Order) -> tuple[int, int, int, bytes, bool]:
    """Return a tag as tifffile takes it, for a file of an order of bytes, < or >."""
    kind = _ASCII if value.type == 129 else value.type
    return tag, kind, len(value.data) // _SIZES[kind], _ordered(value.data, kind, order), True


def _try_directory(
    file: BufferedIOBase, layout: Layout, offset: int, *, inner: frozenset[int]
) -> tuple[Directory, bool]:
    """Return a directory as `read_directory` does; an empty one that is damaged for none."""
    try:
        return read_directory(file, layout, offset, inner=inner)
    except ValueError:
        return {}, True


def _ordered(data: bytes, kind: int, order: Order) -> bytes:
    """Return a value's bytes turned from an order to the little-endian one, or back."""
    part = _PARTS[kind]
    if order == "<" or part == 1:
        return data
    return np.frombuffer(data, f">u{part}").astype(f"<u{part}").tobytes()
