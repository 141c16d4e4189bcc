"""The chunks of a PNG, read before a decoder sees the file: metadata and labels of colour.

Pillow refuses a photo for a text above 1 MiB, or one with a wrong checksum. Decoders are given the
file less such chunks and all text, which is kept as it is for a PNG that is written.

Source: PNG specification (W3C, third edition), sections 5 and 11.3.
"""

import bisect
import io
import itertools
import os
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from typing import NamedTuple, TypeAlias

from isr_jax.photo import exif
from isr_jax.photo.iptc import iptc_of
from isr_jax.photo.xmp import Xmp

MAGIC = b"\x89PNG\r\n\x1a\n"
MOST = 2**20  # bytes of a text or a profile, as in Pillow
_TOGETHER = 2**26  # of all texts
_XMP = b"XML:com.adobe.xmp"
_RAW = b"Raw profile type "
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_COLOUR = (b"cICP", b"gAMA", b"cHRM", b"sRGB", b"mDCV", b"cLLI", b"mDCv", b"cLLi")
_NEW_NAMES = {b"mDCv": b"mDCV", b"cLLi": b"cLLI"}  # of those in drafts of the third edition
_DECODED = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT")
_PROFILES = {b"exif": "exif", b"APP1": "exif", b"xmp": "xmp", b"iptc": "iptc", b"8bim": "iptc"}

Chunk: TypeAlias = tuple[bytes, bytes]  # its type and its content


class Contents(NamedTuple):
    """What a PNG holds beside its pixels.

    Attributes:
        exif: as TIFF bytes.
        xmp: a packet.
        iptc: IPTC's records.
        texts: all other text, chunk by chunk.
        colour: chunks that say what the values of the pixels mean, except a profile.
        notices: a line for each thing that was left out.
        dropped: where each part of the file starts and ends that no decoder is given.
    """

    exif: bytes
    xmp: Xmp
    iptc: bytes
    texts: tuple[Chunk, ...]
    colour: tuple[Chunk, ...]
    notices: tuple[str, ...]
    dropped: tuple[tuple[int, int], ...]


def read_contents(file: BufferedIOBase) -> Contents:
    """Return what a PNG file holds beside its pixels, as far as it is whole and not too long."""
    found: dict[str, bytes] = {}
    texts: list[Chunk] = []
    colour: dict[bytes, bytes] = {}
    notices: list[str] = []
    dropped: list[tuple[int, int]] = []
    together = 0
    for kind, start, length in _chunks(file):
        if kind in _DECODED:
            continue
        if kind in _TEXT:
            dropped.append((start, start + 12 + length))
            if together > _TOGETHER:
                notices.append(f"text beyond {_TOGETHER >> 20} MiB was left out")
                continue
        try:
            data = _content(file, kind, start, length)
            keyword, text = _text_of(kind, data) if kind in _TEXT else (b"", b"")
            if kind == b"iCCP":
                _inflate(data.partition(b"\0")[2][1:])
        except (_BadChunkError, zlib.error) as error:
            why = str(error) if isinstance(error, _BadChunkError) else "that is damaged"
            notices.append(f"{_name_of(kind)} {why} was left out")
            if kind not in _TEXT:
                dropped.append((start, start + 12 + length))
            continue
        if kind == b"eXIf":
            found["exif"] = data
        elif kind in _COLOUR:
            colour[_NEW_NAMES.get(kind, kind)] = data
        elif kind in _TEXT:
            together += len(data) + len(text)
            name, profile = _profile_of(keyword, text)
            if name:
                found.setdefault(name, profile)
            else:
                texts.append((kind, data))
    return Contents(
        found.get("exif", b""),
        Xmp(found.get("xmp", b"").strip(b"\0")),
        iptc_of(found.get("iptc", b"")),
        tuple(texts),
        tuple(colour.items()),
        tuple(dict.fromkeys(notices)),
        tuple(dropped),
    )


def as_profile(name: bytes, content: bytes) -> Chunk:
    """Return a chunk of text that holds a kind of metadata as ImageMagick's do."""
    digits = content.hex().encode()
    lines = b"\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    text = b"\n%s\n%8d\n%s\n" % (name, len(content), lines)
    return b"zTXt", _RAW + name + b"\0\0" + zlib.compress(text)


def as_text(keyword: bytes, text: bytes) -> Chunk:
    """Return a chunk of text in UTF-8."""
    return b"iTXt", keyword + bytes(5) + text


def without(file: BufferedIOBase, dropped: tuple[tuple[int, int], ...]) -> BufferedIOBase:
    """Return an open file for reading, less some parts of it.

    Args:
        file: which stays open when the result is closed.
        dropped: where each part starts and ends, in order.
    """
    return _Without(file, dropped) if dropped else file


class _BadChunkError(ValueError):
    """What is wrong with a chunk."""


class _Without(io.BufferedIOBase):
    """A file for reading, less some parts of it."""

    def __init__(self, file: BufferedIOBase, dropped: tuple[tuple[int, int], ...]) -> None:
        self._file, size = file, file.seek(0, os.SEEK_END)
        starts = [0, *(end for _, end in dropped)]
        ends = [*(start for start, _ in dropped), size]
        self._parts = [(a, b - a) for a, b in zip(starts, ends, strict=True) if b > a]
        self._places = [0, *itertools.accumulate(length for _, length in self._parts)]
        self._at = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as much as there is, up to a size."""
        left = self._places[-1] - self._at
        left = max(0, left if size is None or size < 0 else min(size, left))
        read = []
        while left:
            i = bisect.bisect_right(self._places, self._at) - 1
            start, length = self._parts[i]
            skipped = self._at - self._places[i]
            self._file.seek(start + skipped)
            data = self._file.read(min(left, length - skipped))
            if not data:
                break
            read.append(data)
            self._at, left = self._at + len(data), left - len(data)
        return read[0] if len(read) == 1 else b"".join(read)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a place, which is returned."""
        self._at = max(0, offset + (0, self._at, self._places[-1])[whence])
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True


def _text_of(kind: bytes, data: bytes) -> tuple[bytes, bytes]:
    """Return the keyword and the text of a chunk of text.

    Raises:
        zlib.error: it is damaged.
        _BadChunkError: the text is longer than MOST.
    """
    keyword, _, rest = data.partition(b"\0")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif packed:
        rest = rest[1:]
    return keyword, _inflate(rest) if packed else _bounded(rest)


def _profile_of(keyword: bytes, text: bytes) -> tuple[str, bytes]:
    """Return which metadata a text holds, exif, xmp or iptc, and that; "" for none.

    ImageMagick writes them as a text of a name, a length, and hexadecimal digits.
    """
    if keyword == _XMP:
        return "xmp", text
    name = _PROFILES.get(keyword.removeprefix(_RAW)) if keyword.startswith(_RAW) else None
    parts = text.split(None, 2)
    if name is None or len(parts) < 3:
        return "", b""
    try:
        content = bytes.fromhex(parts[2].decode("ascii"))
    except ValueError:
        return "", b""
    return name, content.removeprefix(b"http://ns.adobe.com/xap/1.0/\0")


def _content(file: BufferedIOBase, kind: bytes, start: int, length: int) -> bytes:
    """Return a chunk's content.

    Raises:
        _BadChunkError: it is too long or damaged.
    """
    if length > exif.MOST:
        raise _BadChunkError(f"of more than {exif.MOST >> 20} MiB")
    file.seek(start + 8)
    data, checksum = file.read(length), file.read(4)
    if zlib.crc32(kind + data) != int.from_bytes(checksum, "big"):
        raise _BadChunkError("with a wrong checksum")
    return data


def _inflate(data: bytes) -> bytes:
    """Return decompressed data.

    Raises:
        zlib.error: it is damaged.
        _BadChunkError: it is longer than MOST.
    """
    return _bounded(zlib.decompressobj().decompress(data, MOST + 1))


def _bounded(data: bytes) -> bytes:
    if len(data) > MOST:
        raise _BadChunkError(f"of more than {MOST >> 20} MiB")
    return data


def _name_of(kind: bytes) -> str:
    """Return what users call a chunk."""
    names = {b"iCCP": "a colour profile", b"eXIf": "EXIF"} | dict.fromkeys(_TEXT, "a text")
    return names.get(kind, f"a chunk of type {kind.decode('latin-1')}")


def _chunks(file: BufferedIOBase) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, start and length of each chunk, up to one that is not whole."""
    size, at = file.seek(0, os.SEEK_END), len(MAGIC)
    while at + 12 <= size:
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[:4], "big")
        if at + 12 + length > size or not head[4:].isalpha():
            return
        yield head[4:], at, length
        at += 12 + length
