"""XMP: what it says of the file is made to agree with the photo as it becomes; the rest stays.

It is edited where it stands, byte by byte, at the places that the parser reports, so that all that
is not known here is carried as it was.

Source: ISO 16684-1 (XMP, part 1), section 7; Adobe, "XMP Specification, part 3", section 1.1.3.1.
"""

import re
from collections.abc import Callable
from typing import NamedTuple
from xml.parsers import expat

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_NOTE = "http://ns.adobe.com/xmp/note/"
_CAMERA = "http://ns.google.com/photos/1.0/camera/"
_CONTAINER = "http://ns.google.com/photos/1.0/container/"
_PANORAMA = "http://ns.google.com/photos/1.0/panorama/"
_DIMENSIONS = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_GAIN_MAPS = ("http://ns.adobe.com/hdr-gain-map/1.0/", "http://ns.apple.com/HDRGainMap/1.0/")
_ATTRIBUTE = re.compile(rb"\s+([^\s=/>]+)\s*=\s*(\"[^\"]*\"|'[^']*')")
_TAG = re.compile(rb"<[^\s/>]+")
_PREFIX = re.compile(rb"\sxmlns:([^\s=]+)\s*=\s*(\"[^\"]*\"|'[^']*')")
# Declarations of the namespaces of which nothing is kept.
_GONE = re.compile(
    rb"\sxmlns:[^\s=]+\s*=\s*([\"'])(?:%s)\1"
    % b"|".join(re.escape(uri.encode()) for uri in (*_GAIN_MAPS, _CONTAINER))
)
_MOST = 5_000  # properties that are looked at
# All namespaces that are looked at, beside the element that holds the descriptions.
_KNOWN = {_TIFF, _EXIF, _NOTE, _CAMERA, _CONTAINER, _PANORAMA, _DIMENSIONS, *_GAIN_MAPS}
# A packet without descriptions.
EMPTY = (
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}"></rdf:RDF></x:xmpmeta>'
).encode()


class Xmp(NamedTuple):
    """A packet of XMP, and a second document for what a segment of a JPEG does not hold."""

    packet: bytes = b""
    extended: bytes = b""


class Claims(NamedTuple):
    """What XMP says of the file: its orientation, 0 for nothing, and what is behind the picture."""

    orientation: int
    gain_map: bool
    video: bool


class _Property(NamedTuple):
    """A property: an attribute or an element.

    Attributes:
        uri: of its namespace.
        name: in that.
        parent: the name of the element that it is in.
        start: where it starts.
        end: where it ends.
        value: where its text starts and ends; of an element with others in it, what is between
            its tags.
    """

    uri: str
    name: str
    parent: str
    start: int
    end: int
    value: tuple[int, int]


def parse_claims(xmp: Xmp) -> Claims:
    """Return what XMP says of the file; nothing where it cannot be read."""
    try:
        found = _properties(xmp.packet)
    except ValueError:
        return Claims(0, gain_map=False, video=False)
    text = {p.name: xmp.packet[slice(*p.value)] for p in found if p.uri in (_TIFF, _CAMERA)}
    stated = text.get("Orientation", b"").strip()
    return Claims(
        int(stated) if stated in (b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8") else 0,
        gain_map=any(p.uri in _GAIN_MAPS for p in found),
        video=b"1" in (text.get("MotionPhoto", b"").strip(), text.get("MicroVideo", b"").strip()),
    )


def check(xmp: bytes) -> None:
    """Raise ValueError for XMP that cannot be read."""
    if xmp:
        _properties(xmp)


def sized(xmp: bytes, old: tuple[int, int], new: tuple[int, int]) -> bytes:
    """Return XMP for an upright image of another size, in a file that holds nothing else.

    Args:
        xmp: a packet, or what extends one.
        old: width and height of the upright image that it is of.
        new: of what that has become.

    Raises:
        ValueError: it cannot be read.
    """
    parts, until = [], 0
    for found in _properties(xmp):
        change = _change(found, old, new)
        if change is None or found.start < until:
            continue
        start, end = (found.start, found.end) if change is _without else found.value
        parts += [xmp[until:start], change(xmp[start:end])]
        until = end
    changed = b"".join([*parts, xmp[until:]])
    bare = _GONE.sub(b"", changed)
    try:
        check(bare)
    except ValueError:  # where text looks like a declaration
        return changed
    return bare


def merged(xmp: Xmp) -> bytes:
    """Return one packet with all of XMP, for formats that hold it as a whole.

    Raises:
        ValueError: the second document cannot be put into the first.
    """
    if not xmp.extended:
        return xmp.packet
    place, _ = _content(xmp.packet)
    start, end = _content(xmp.extended)
    known, wanted = _prefixes(xmp.packet[:place]), _prefixes(xmp.extended[:start])
    if any(known.get(prefix, uri)[1:-1] != uri[1:-1] for prefix, uri in wanted.items()):
        raise ValueError("XMP whose parts use a prefix for different namespaces")
    new = (prefix for prefix in wanted if prefix not in known)
    declared = b"".join(b" xmlns:%s=%s" % (prefix, wanted[prefix]) for prefix in new)
    packet = xmp.packet[: place - 1] + declared + xmp.packet[place - 1 :]
    result = _put(packet, xmp.extended[start:end])
    check(result)
    return result


def noted(packet: bytes, digest: str) -> bytes:
    """Return a packet that says which document extends it."""
    note = f'<rdf:Description xmlns:rdf="{_RDF}" rdf:about="" xmlns:xmpNote="{_NOTE}" '
    return _put(packet, f'{note}xmpNote:HasExtendedXMP="{digest}"/>'.encode())


def note_of(packet: bytes) -> bytes:
    """Return the digest of the document that extends a packet; b"" where it names none."""
    try:
        found = _properties(packet)
    except ValueError:
        return b""
    return next((packet[slice(*p.value)].strip() for p in found if p.uri == _NOTE), b"")


def _without(text: bytes) -> bytes:
    return b""


def _change(
    found: _Property, old: tuple[int, int], new: tuple[int, int]
) -> Callable[[bytes], bytes] | None:
    """Return what becomes of a property's value, `_without` for nothing; None to keep it."""
    uri, name = found.uri, found.name
    moving = uri == _CAMERA and name.startswith(("MotionPhoto", "MicroVideo"))
    if moving or uri in (*_GAIN_MAPS, _CONTAINER, _NOTE):
        return _without
    if uri == _TIFF and name == "Orientation":
        return lambda text: b"1"
    side = {
        (_TIFF, "ImageWidth"): 0,
        (_TIFF, "ImageLength"): 1,
        (_EXIF, "PixelXDimension"): 0,
        (_EXIF, "PixelYDimension"): 1,
    }.get((uri, name))
    if uri == _DIMENSIONS and found.parent == "AppliedToDimensions":
        side = {"w": 0, "h": 1}.get(name)
    if side is not None:
        return lambda text: str(new[side]).encode()
    if uri == _PANORAMA and name.endswith("Pixels"):
        side = int(not name.endswith(("WidthPixels", "LeftPixels")))
        return lambda text: _scaled(text, new[side], old[side])
    return None


def _scaled(text: bytes, new: int, old: int) -> bytes:
    """Return a number of pixels times new / old, rounded half up."""
    try:
        return str((2 * int(text) * new + old) // (2 * old)).encode()
    except ValueError:
        return text


def _properties(xmp: bytes) -> list[_Property]:
    """Return the attributes and elements of known namespaces, in the order of their starts.

    Raises:
        ValueError: it is not well-formed XML in UTF-8, or declares entities.
    """
    found: list[_Property] = []
    open_ones: list[tuple[str, int | None]] = []  # and their places among those found
    parser = expat.ParserCreate("UTF-8", " ")
    parser.namespace_prefixes = True
    parser.ordered_attributes = True

    def start(tag: str, attributes: list[str]) -> None:
        uri, name, _ = _split(tag)
        at, parent = parser.CurrentByteIndex, open_ones[-1][0] if open_ones else ""
        known = {}
        for full in attributes[::2]:
            of, local, prefix = _split(full)
            if of in _KNOWN:
                known[f"{prefix}:{local}".encode()] = of, local
        looked_at = uri in _KNOWN or (uri, name) == (_RDF, "RDF")
        open_ones.append((name, len(found) if looked_at else None))
        if not known and not looked_at:
            return
        if len(found) > _MOST:
            raise ValueError("XMP of too many parts")
        place = len(found)
        tag_name = _TAG.match(xmp, at)
        end = tag_name.end() if tag_name else at
        while attribute := _ATTRIBUTE.match(xmp, end):
            end = attribute.end()
            if attribute[1] in known:
                of, local = known[attribute[1]]
                value = attribute.start(2) + 1, attribute.end(2) - 1
                found.append(_Property(of, local, name, attribute.start(), end, value))
        if looked_at:
            inside = xmp.index(b">", end) + 1
            found.insert(place, _Property(uri, name, parent, at, inside, (inside, inside)))

    def end(tag: str) -> None:
        _, place = open_ones.pop()
        if place is None or xmp[found[place].end - 2 : found[place].end] == b"/>":
            return
        at, start = parser.CurrentByteIndex, found[place].value[0]
        found[place] = found[place]._replace(end=xmp.index(b">", at) + 1, value=(start, at))

    def refuse(*declared: object) -> None:
        raise ValueError("XMP that declares entities")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(xmp, True)
    except expat.ExpatError as error:
        raise ValueError(f"XMP that is not XML: {error}") from error
    return found


def _split(name: str) -> tuple[str, str, str]:
    """Return the namespace, name and prefix of what the parser reports."""
    parts = name.split(" ")
    if len(parts) == 1:
        return "", parts[0], ""
    return parts[0], parts[1], parts[2] if len(parts) > 2 else ""


def _content(xmp: bytes) -> tuple[int, int]:
    """Return where the descriptions start and end.

    Raises:
        ValueError: there is no place for them.
    """
    found = next((p for p in _properties(xmp) if (p.uri, p.name) == (_RDF, "RDF")), None)
    if found is None or found.value[1] == found.end:
        raise ValueError("XMP without descriptions")
    return found.value


def _prefixes(head: bytes) -> dict[bytes, bytes]:
    """Return the prefixes that are declared before the descriptions, and their namespaces."""
    return {found[1]: found[2] for found in _PREFIX.finditer(head)}


def _put(xmp: bytes, descriptions: bytes) -> bytes:
    """Return XMP with some descriptions more.

    Raises:
        ValueError: there is no place for them.
    """
    _, end = _content(xmp)
    return xmp[:end] + descriptions + xmp[end:]
