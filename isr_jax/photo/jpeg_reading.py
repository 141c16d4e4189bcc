"""What a JPEG holds beside its picture: metadata, other pictures, and a video behind it.

Pillow takes a file with an index of several pictures for an animation, and refuses one whose index
is wrong. The picture that a file is of is the first; the others are previews, the other half of a
stereo pair, or gain maps.

Source: JEITA CP-3461B and CIPA DC-007 (multi-picture format), section 5; ISO 21496-1 (gain maps).
"""

import itertools
import os
import re
import struct
from io import BufferedIOBase, BytesIO
from typing import Any, NamedTuple

from PIL import Image, JpegImagePlugin

from isr_jax.photo import exif, xmp
from isr_jax.photo.iptc import iptc_of

XMP = b"http://ns.adobe.com/xap/1.0/\0"
EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
PHOTOSHOP = b"Photoshop 3.0\0"
APP1, APP2, APP13, COMMENT = 0xE1, 0xE2, 0xED, 0xFE
_INDEX, _ENTRIES = b"MPF\0", 0xB002
_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
_SCAN, _END = 0xDA, 0xD9
_PREVIEWS = (0x10001, 0x10002, 0x10003, 0x10004, 0x10005)
_MOST_PICTURES = 100
# How a video in MP4 or QuickTime starts: its length, "ftyp" and a brand; pictures have others.
_FILE_TYPE = re.compile(rb"\0\0[\0-\4].ftyp([\w ]{4})", re.DOTALL)
_PICTURE_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"avif")
_BLOCK = 2**20
_LUMA = 3688  # the sum of libjpeg's quantization table of luma for quality 50


class _Segment(NamedTuple):
    """A segment: its marker, the place of its content in the file, and that."""

    marker: int
    place: int
    data: bytes


class Contents(NamedTuple):
    """What a JPEG holds beside its picture.

    Attributes:
        exif: with JPEG's prefix, or nothing.
        xmp: a packet, and what extends it.
        iptc: IPTC's records.
        comments: one for each of JPEG's.
        notices: a line for each picture or video that is left out.
    """

    exif: bytes
    xmp: xmp.Xmp
    iptc: bytes
    comments: tuple[bytes, ...]
    notices: tuple[str, ...]


def open_jpeg(file: Any) -> Image.Image:
    """Return the first picture of a JPEG file as Pillow's image.

    Raises:
        UnidentifiedImageError: its header is damaged.
    """
    try:
        return JpegImagePlugin.JpegImageFile(file)
    except SyntaxError as error:
        raise Image.UnidentifiedImageError(str(error)) from error


def quality_of(image: Image.Image) -> int | None:
    """Return the quality, 1 to 100, for which libjpeg would quantize luma about as coarsely.

    Args:
        image: as `open_jpeg` returns it.

    Source: libjpeg, jcparam.c, jpeg_quality_scaling, solved for the quality.
    """
    table = getattr(image, "quantization", {}).get(0)
    if not table:
        return None
    percent = 100 * sum(table) / _LUMA
    quality = 100 - percent / 2 if percent <= 100 else 5000 / percent
    return min(100, max(1, round(quality)))


def read_contents(file: BufferedIOBase) -> Contents:
    """Return what a JPEG file holds beside its picture."""
    segments = _segments(file, 0)
    packet = _packet(segments)
    digest = xmp.note_of(packet)
    found = xmp.Xmp(packet, _extended(segments, digest))
    claims, others = xmp.parse_claims(found), False
    gain_map = claims.gain_map or bool(_named(segments, _GAIN_MAP))
    for kind, place in _pictures(file, segments):
        inner = _segments(file, place)
        if xmp.parse_claims(xmp.Xmp(_packet(inner))).gain_map or _named(inner, _GAIN_MAP):
            gain_map = True
        else:
            others = others or kind not in _PREVIEWS
    notices = {
        "a part of XMP was left out because it cannot be read": digest and not found.extended,
        "the gain map for HDR screens was left out": gain_map,
        "only the first of a file's several pictures was upscaled": others,
        "the video of a motion photo was left out": claims.video or _has_video(file),
    }
    return Contents(
        b"".join(s.data for s in segments if s.marker == APP1 and s.data.startswith(exif.PREFIX)),
        found,
        iptc_of(b"".join(_named(segments, PHOTOSHOP))),
        tuple(s.data for s in segments if s.marker == COMMENT),
        tuple(line for line, true in notices.items() if true),
    )


def _segments(file: BufferedIOBase, place: int) -> list[_Segment]:
    """Return the segments of metadata before the first scan of the picture at a place."""
    found: list[_Segment] = []
    file.seek(place)
    if file.read(2) != b"\xff\xd8":
        return []
    while (mark := file.read(2)) and mark[0] == 0xFF and len(mark) == 2:
        marker = mark[1]
        if marker == 0xFF:
            file.seek(-1, os.SEEK_CUR)
            continue
        size = int.from_bytes(file.read(2), "big") - 2
        if marker in (_SCAN, _END) or size < 0:
            break
        if marker in (APP1, APP2, APP13, COMMENT):
            found.append(_Segment(marker, file.tell(), file.read(size)))
        else:
            file.seek(size, os.SEEK_CUR)
    return found


def _named(segments: list[_Segment], name: bytes) -> list[bytes]:
    """Return the contents that start with a name, less that."""
    return [s.data.removeprefix(name) for s in segments if s.data.startswith(name)]


def _packet(segments: list[_Segment]) -> bytes:
    return next(iter(_named(segments, XMP)), b"").strip(b"\0")


def _extended(segments: list[_Segment], digest: bytes) -> bytes:
    """Return the document that extends a packet of XMP; b"" where a part of it is missing."""
    # Their place in the document, its length, and what they hold.
    parts = sorted(
        (data[36:40], data[32:36], data[40:])
        for data in _named(segments, EXTENSION)
        if digest and data[:32] == digest
    )
    ends = itertools.accumulate((len(part) for *_, part in parts), initial=0)
    stated = [*(int.from_bytes(at, "big") for at, *_ in parts)]
    stated += [int.from_bytes(length, "big") for _, length, _ in parts[:1]]
    return b"".join(part for *_, part in parts) if stated == list(ends) else b""


def _pictures(file: BufferedIOBase, segments: list[_Segment]) -> list[tuple[int, int]]:
    """Return the kinds and places of the pictures after the first that are where an index says."""
    index = next((s for s in segments if s.data.startswith(_INDEX)), None)
    if index is None:
        return []
    try:
        directory = BytesIO(index.data[len(_INDEX) :])
        layout = exif.layout_of(directory)
        found, _ = exif.read_directory(directory, layout, layout.first)
    except ValueError:
        return []
    entries = found.get(_ENTRIES)
    if not isinstance(entries, exif.Value):
        return []
    pictures = []
    for at in range(16, min(len(entries.data), 16 * _MOST_PICTURES) // 16 * 16, 16):
        kind, _, offset = struct.unpack_from(layout.order + "III", entries.data, at)
        place = index.place + len(_INDEX) + offset
        file.seek(place)
        if offset and file.read(3) == b"\xff\xd8\xff":
            pictures.append((kind & 0xFFFFFF, place))
    return pictures


def _has_video(file: BufferedIOBase) -> bool:
    """Return whether a video lies behind the picture, with which a file otherwise ends."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 2))
    if file.read(2) == b"\xff\xd9":
        return False
    file.seek(0)
    before = b""
    while block := file.read(_BLOCK):
        text = before + block
        if any(match[1] not in _PICTURE_BRANDS for match in _FILE_TYPE.finditer(text)):
            return True
        before = text[-11:]
    return False
