"""AVIF, encoded by imagecodecs, with its metadata put in by hand.

Pillow writes the metadata, but 8 bits only, and nothing without loss.

Source: ISO/IEC 14496-12 and 23008-12, of the boxes that libavif writes.
"""

import os
import struct
from typing import IO

import imagecodecs
import numpy as np
from jaxtyping import UInt16

from isr_jax.photo.iso_boxes import boxes_in, find
from isr_jax.photo.pixels import Pixels

# Of libavif's, 0 to 10: a fifth of the time of its default for a photo, and 5% larger or less.
SPEED = 8
BITS = 12  # the most
AREA = 2**28  # pixels, beyond which libavif does not decode


def write_avif(
    out: IO[bytes],
    pixels: Pixels,
    *,
    quality: int,
    depth: int,
    icc_profile: bytes = b"",
    exif: bytes = b"",
    xmp: bytes = b"",
) -> None:
    """Write a still AVIF without chroma subsampling.

    Args:
        out: open for writing.
        pixels: 8 or 16 bits.
        quality: libavif's, 1 to 100, at which it is lossless.
        depth: bits of what 16 bits become: 10 or 12.
        icc_profile: an ICC profile, or none.
        exif: EXIF as TIFF bytes, with or without JPEG's prefix, or none.
        xmp: a packet, or none.
    """
    bits = 8 if pixels.dtype == np.uint8 else depth
    gray = pixels.ndim == 2 or pixels.shape[2] < 3
    encoded = imagecodecs.avif_encode(
        to_bits(pixels, bits) if bits > 8 else pixels,
        level=quality,
        speed=SPEED,
        bitspersample=bits,
        pixelformat="yuv400" if gray else "yuv444",
        numthreads=os.cpu_count(),
    )
    items = {
        b"Exif\0": exif and b"\0\0\0\0" + exif,
        b"mime\0application/rdf+xml\0": xmp,
    }
    items = {kind: content for kind, content in items.items() if content}
    out.write(_with_metadata(bytes(encoded), icc_profile, items))


def to_bits(pixels: UInt16[np.ndarray, "h w *c"], bits: int) -> UInt16[np.ndarray, "h w *c"]:
    """Return 16-bit pixels as the nearest of 2^bits levels."""
    most = (1 << bits) - 1
    return ((pixels.astype(np.uint32) * most + 32767) // 65535).astype(np.uint16)


def _with_metadata(data: bytes, icc: bytes, items: dict[bytes, bytes]) -> bytes:
    """Return an AVIF file of libavif's with a profile and items of metadata more.

    Args:
        data: the file.
        icc: a profile, or none.
        items: the type and name of each, and its content.
    """
    if not icc and not items:
        return data
    meta, media = find(data, b"meta"), find(data, b"mdat")
    assert meta and media and media.end == len(data)
    begin = meta.start + 4  # after the version and flags
    parts = {
        box.kind: data[box.start : box.end] for box in boxes_in(data, start=begin, end=meta.end)
    }
    count = int.from_bytes(parts[b"iinf"][4:6], "big")
    if icc:
        parts[b"iprp"] = _with_profile(parts[b"iprp"], icc)
    for item, kind in enumerate(items, count + 1):
        entry = _box(b"infe", b"\2\0\0\0" + struct.pack(">HH", item, 0) + kind)
        parts[b"iinf"] = b"\0\0\0\0" + struct.pack(">H", item) + parts[b"iinf"][6:] + entry
        described = _box(b"cdsc", struct.pack(">HHH", item, 1, 1))
        parts[b"iref"] = (parts.get(b"iref") or b"\0\0\0\0") + described
    lengths = [len(content) for content in items.values()]
    places = parts[b"iloc"]

    def described_by(shift: int) -> bytes:
        """Return the box of metadata for data that lie so many bytes further behind."""
        kept = dict(parts)
        kept[b"iloc"] = _moved(places, shift, len(data), lengths)
        return _box(b"meta", b"\0\0\0\0" + b"".join(_box(kind, x) for kind, x in kept.items()))

    shift = len(described_by(0)) - (meta.end - meta.begin)
    between = data[meta.end : media.begin]
    content = data[media.start :] + b"".join(items.values())
    return data[: meta.begin] + described_by(shift) + between + _box(b"mdat", content)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def _with_profile(properties: bytes, icc: bytes) -> bytes:
    """Return the properties of all items with a profile for the first."""
    held, used = find(properties, b"ipco"), find(properties, b"ipma")
    assert held and used
    number = 1 + sum(1 for _ in boxes_in(properties, start=held.start, end=held.end))
    profile = _box(b"colr", b"prof" + icc)
    content = properties[used.start : used.end]
    # A version and flags, the number of items, and of each: its number, and a count of its own.
    item, own = struct.unpack_from(">HB", content, 8)
    assert content[:4] == bytes(4) and item == 1
    listed = content[:10] + bytes([own + 1]) + content[11 : 11 + own] + bytes([number])
    return _box(b"ipco", properties[held.start : held.end] + profile) + _box(
        b"ipma", listed + content[11 + own :]
    )


def _moved(places: bytes, shift: int, added_at: int, added: list[int]) -> bytes:
    """Return the places of all items, further behind, and of more, one after the other."""
    assert places[:6] == b"\0\0\0\0\x44\0"  # 4 bytes each for places and lengths
    (count,) = struct.unpack_from(">H", places, 6)
    result, at = b"", 8
    for _ in range(count):
        item, index, extents, place, length = struct.unpack_from(">HHHII", places, at)
        assert extents == 1
        result += struct.pack(">HHHII", item, index, 1, place + shift, length)
        at += 14
    for item, length in enumerate(added, count + 1):
        result += struct.pack(">HHHII", item, 0, 1, added_at + shift, length)
        added_at += length
    return places[:6] + struct.pack(">H", count + len(added)) + result
