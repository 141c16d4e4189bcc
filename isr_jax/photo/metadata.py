"""What a photo holds beside its pixels, in one form for all formats, and what is lost of it."""

import math
from collections.abc import Sequence
from io import BufferedIOBase
from typing import Any, NamedTuple

from isr_jax.photo import exif, jpeg_reading, png_chunks, xmp
from isr_jax.photo.contents import Metadata
from isr_jax.photo.exif import Directory
from isr_jax.photo.formats import FORMATS, TIFF_METADATA
from isr_jax.photo.iptc import iptc_of
from isr_jax.photo.xmp import Xmp

# One segment of a JPEG, less the name of its content.
JPEG_SEGMENT = 65_533 - 16
MOST_COMMENT = 65_533  # bytes, of a JPEG
# sRGB, or another transfer function as near to it as screens are, by the numbers of ITU-T H.273.
_SRGB_CODES = ((1, 13), (1, 1), (1, 6))
_SRGB_GAMMA, _SRGB_POINTS = 45_455, (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
_NEAR = 1500
_X_RESOLUTION, _DESCRIPTION = 282, 270  # of EXIF


class Read(NamedTuple):
    """Metadata, the orientation of the pixels in the file, and a line for what was left out."""

    metadata: Metadata
    orientation: int
    notices: tuple[str, ...]


def of_jpeg(file: BufferedIOBase, info: dict[Any, Any]) -> Read:
    """Return the metadata of a JPEG file, of which Pillow has read `info`."""
    found = jpeg_reading.read_contents(file)
    unit, density = info.get("jfif_unit"), info.get("jfif_density")
    metadata = Metadata(
        {},
        iptc=found.iptc,
        comments=found.comments,
        dpi=_positive(info.get("dpi")),
        density=_density(density) if unit == 0 else None,
    )
    read = _checked(metadata, found.exif, found.xmp, found.notices)
    if metadata.density and _X_RESOLUTION not in read.metadata.exif:
        # Pillow takes 72 dpi where EXIF states none.
        read = read._replace(metadata=read.metadata._replace(dpi=None))
    return read


def of_png(found: png_chunks.Contents, info: dict[Any, Any]) -> Read:
    """Return the metadata of a PNG file, of which Pillow has read `info`."""
    metadata = Metadata(
        {},
        iptc=found.iptc,
        texts=found.texts,
        colour=found.colour,
        dpi=_positive(info.get("dpi")),
        density=_density(info.get("aspect")),
    )
    return _checked(metadata, found.exif, found.xmp, found.notices)


def of_info(info: dict[Any, Any]) -> Read:
    """Return the metadata that Pillow has read of a file in another format."""
    comment = info.get("comment", b"")
    comments = (comment,) if isinstance(comment, bytes) and comment else ()
    metadata = Metadata({}, comments=comments, dpi=_positive(info.get("dpi")))
    packets = (info.get("exif", b""), info.get("xmp", b""))
    data, packet = (x if isinstance(x, bytes) else b"" for x in packets)
    return _checked(metadata, data, Xmp(packet.strip(b"\0")), ())


def of_tiff(file: BufferedIOBase, offset: int, resolution: tuple[float, float, int] | None) -> Read:
    """Return the metadata of a page of a TIFF file; its orientation is for whoever decodes it.

    Args:
        file: open for reading.
        offset: of the page's directory.
        resolution: pixels per unit, across and down, and TIFF's number of the unit.
    """
    more = {exif.EXIF, exif.GPS, exif.XMP, exif.IPTC, exif.PHOTOSHOP}
    only = frozenset(map(int, TIFF_METADATA)) | more
    layout = exif.layout_of(file)
    found, damaged = exif.read_directory(file, layout, offset, only=only)
    parts = {
        tag: value.data
        for tag in (exif.XMP, exif.IPTC, exif.PHOTOSHOP)
        if isinstance(value := found.pop(tag, None), exif.Value)
    }
    iptc = parts.get(exif.IPTC, b"")
    if iptc[:1] != b"\x1c" and iptc[3:4] == b"\x1c":  # as integers in another order of bytes
        iptc = b"".join(iptc[at : at + 4][::-1] for at in range(0, len(iptc), 4))
    metadata = Metadata(exif=found, iptc=iptc or iptc_of(parts.get(exif.PHOTOSHOP, b"")))
    if resolution:
        across, down, unit = resolution
        per_inch = {2: 1.0, 3: 2.54, 4: 25.4, 5: 25400.0}.get(unit)
        if per_inch:
            metadata = metadata._replace(dpi=_positive((across * per_inch, down * per_inch)))
        else:
            metadata = metadata._replace(density=_density((across, down)))
    notices = ("a part of the metadata was left out because it cannot be read",) if damaged else ()
    said = found.get(_DESCRIPTION)
    if isinstance(said, exif.Value) and (b"<OME" in said.data or said.data.startswith(b'{"shape"')):
        del found[_DESCRIPTION]
        notices += ("the description of a microscope's image was left out: it states the old size",)
    read = _checked(metadata, b"", Xmp(parts.get(exif.XMP, b"").strip(b"\0")), notices)
    return read._replace(metadata=read.metadata._replace(exif=found, order=layout.order))


def resized(metadata: Metadata, width: int, height: int) -> Metadata:
    """Return the metadata of a photo that has become another size."""
    size, packets = (width, height), metadata.xmp
    return metadata._replace(
        exif=exif.sized(metadata.exif, width, height),
        xmp=Xmp(*(xmp.sized(x, metadata.size, size) if x else b"" for x in packets)),
        size=size,
    )


def losses(metadata: Metadata, format: str) -> tuple[str, ...]:
    """Return a line for each kind of metadata that a format cannot hold."""
    title, holds = FORMATS[format].title, FORMATS[format].metadata
    has = {
        "EXIF": metadata.exif,
        "XMP": metadata.xmp.packet,
        "IPTC": metadata.iptc,
        "PNG text": metadata.texts,
        "comments": metadata.comments,
    }
    lines = [
        f"{name} {'were' if name == 'comments' else 'was'} left out: {title} holds none"
        for name, value in has.items()
        if value and name not in holds
    ]
    if format == "jpeg" and any(len(comment) > MOST_COMMENT for comment in metadata.comments):
        lines.append(f"a comment was left out: {title} holds at most 64 KiB of each")
    if not exif_fits(format, metadata.exif):
        lines.append(f"EXIF was left out: {title} holds at most 64 KiB of it")
    packet, whole = packet_for(format, metadata.xmp)
    if "XMP" in holds and format != "jpeg" and not whole:
        what = "a part of XMP" if packet else "XMP"
        lines.append(f"{what} was left out: {title} has no room for it")
    kept = "colour" in holds or (metadata.profile and FORMATS[format].icc)
    if not kept and not is_like_srgb(metadata.colour):
        names = " and ".join(kind.decode() for kind, _ in metadata.colour)
        lines.append(
            f"the label of the colours, which are not sRGB ({names}), was left out: "
            f"{title} holds none"
        )
    return tuple(lines)


def exif_fits(format: str, directory: Directory) -> bool:
    """Return whether a format has room for the EXIF: one segment of a JPEG."""
    return format != "jpeg" or len(exif.exif_bytes(directory, order="<")) <= JPEG_SEGMENT


def packet_for(format: str, found: Xmp) -> tuple[bytes, bool]:
    """Return XMP for a format that holds it in one piece, and whether that is all of it.

    Of two parts, it is the first if need be. A PNG gets no more than other programs read.
    """
    most = png_chunks.MOST if format == "png" else math.inf
    try:
        merged = xmp.merged(found)
    except ValueError:
        merged = b""
    if len(merged) <= most and (merged or not found.packet):
        return merged, True
    return (found.packet if len(found.packet) <= most else b""), False


def is_like_srgb(colour: Sequence[png_chunks.Chunk]) -> bool:
    """Return whether a PNG's chunks of colour say what a photo without them is taken to be.

    Source: PNG specification (W3C, third edition), section 4.3, for which of them counts.
    """
    chunks = dict(colour)
    if b"cICP" in chunks:
        return tuple(chunks[b"cICP"][:2]) in _SRGB_CODES
    if b"sRGB" in chunks:
        return True
    gamma, points = chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b"")
    numbers = [int.from_bytes(points[at : at + 4], "big") for at in range(0, len(points), 4)]
    wanted = (_SRGB_GAMMA, *_SRGB_POINTS)
    stated = (int.from_bytes(gamma, "big") if gamma else _SRGB_GAMMA, *(numbers or _SRGB_POINTS))
    return all(abs(a - b) <= _NEAR for a, b in zip(stated, wanted, strict=False))


def _positive(pair: Any) -> tuple[float, float] | None:
    """Return a pair of positive numbers; None for anything else."""
    try:
        across, down = map(float, pair)
    except (TypeError, ValueError):
        return None
    return (across, down) if all(0 < n < math.inf for n in (across, down)) else None


def _density(pair: Any) -> tuple[float, float] | None:
    """Return a pair of positive numbers; None for anything else, and for 1 and 1: no statement."""
    found = _positive(pair)
    return None if found == (1, 1) else found


def _checked(metadata: Metadata, data: bytes, found: Xmp, notices: tuple[str, ...]) -> Read:
    """Return metadata with EXIF and XMP, as far as these can be read."""
    directory, damaged = exif.parse_exif(data)
    if damaged:
        what = "a part of EXIF" if directory else "EXIF"
        notices += (f"{what} was left out because it cannot be read",)
    orientation = exif.orientation_of(data) or xmp.parse_claims(found).orientation or 1
    packets = []
    for packet in found:
        try:
            xmp.check(packet)
            packets.append(packet)
        except ValueError:
            packets.append(b"")
            what = "a part of XMP" if packets[0] else "XMP"
            notices += (f"{what} was left out because it cannot be read",)
    whole = Xmp(*packets) if packets[0] else Xmp()
    metadata = metadata._replace(exif=directory, xmp=whole, order=exif.order_of(data))
    return Read(metadata, orientation, notices)
