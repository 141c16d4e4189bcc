"""Files with metadata, put together by the specifications, and what other readers find in files."""

import io
import struct

from PIL import ExifTags, Image, IptcImagePlugin

from tests.helpers.image_files import noise

XMP = b"http://ns.adobe.com/xap/1.0/\0"
EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
CAPTION = "à la plage".encode()
IPTC = b"\x1c\x01\x5a\x00\x03\x1b%G" + b"\x1c\x02\x78\x00" + bytes([len(CAPTION)]) + CAPTION
PHOTOSHOP = b"Photoshop 3.0\0" + struct.pack(">4sHHI", b"8BIM", 0x0425, 0, 3) + b"abc\0"
PHOTOSHOP += struct.pack(">4sHHI", b"8BIM", 0x0404, 0, len(IPTC)) + IPTC + bytes(len(IPTC) % 2)
SUFFIXES = {"jpeg": "jpg", "png": "png", "webp": "webp", "tiff": "tif", "bmp": "bmp"}
SUFFIXES |= {"avif": "avif", "jxl": "jxl"}


def segment(marker, data):
    return b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(data)) + data


def jpeg(*segments, pixels=None, **options):
    """A JPEG with segments behind its first one."""
    buffer = io.BytesIO()
    image = Image.fromarray(noise(8, 12, 3) if pixels is None else pixels)
    image.save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    assert data[2:4] == b"\xff\xe0"
    return data[:20] + b"".join(segments) + data[20:]


def exif_block(order, main, *, exif=None, gps=None):
    """EXIF of tags -> (type, count, bytes in that order), without JPEG's prefix."""

    def directory(tags, at):
        entries, values = b"", b""
        place = at + 2 + 12 * len(tags) + 4
        for tag, (kind, count, data) in sorted(tags.items()):
            if len(data) > 4:
                offset = struct.pack(order + "I", place + len(values))
                values += data + bytes(len(data) % 2)
                data = offset
            entries += struct.pack(order + "HHI", tag, kind, count) + data.ljust(4, b"\0")
        return struct.pack(order + "H", len(tags)) + entries + bytes(4) + values

    inner = {0x8769: exif, 0x8825: gps}
    main = {**main, **{tag: (4, 1, bytes(4)) for tag, tags in inner.items() if tags}}
    end = 8 + len(directory(main, 8))
    rest = b""
    for tag, tags in inner.items():
        if tags:
            main[tag] = 4, 1, struct.pack(order + "I", end + len(rest))
            rest += directory(tags, end + len(rest))
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)
    return head + directory(main, 8) + rest


def packet(*descriptions):
    """XMP as Adobe's toolkit writes it."""
    return (
        "<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?>\n"
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/">\n <rdf:RDF xmlns:rdf="{RDF}">\n'
        + "".join(descriptions)
        + " </rdf:RDF>\n</x:xmpmeta>\n"
        + 20 * (99 * " " + "\n")
        + "<?xpacket end='w'?>"
    ).encode()


def title(text):
    return (
        ' <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">\n'
        f'  <dc:title><rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt></dc:title>\n'
        " </rdf:Description>\n"
    )


def xmp_of(path):
    """XMP as Pillow finds it."""
    with Image.open(path) as image:
        image.load()
        return image.info.get("xmp")


def iptc_of(path):
    """IPTC's records as Pillow finds them: those of a PNG only as text."""
    with Image.open(path) as image:
        return IptcImagePlugin.getiptcinfo(image)


def chunks_of(path):
    """Types and contents of a PNG's chunks."""
    data, at, found = path.read_bytes(), 8, []
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def segments_of(path):
    """Markers and contents of a JPEG's segments before its first scan."""
    data, at, found = path.read_bytes(), 2, []
    while data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        found.append((data[at + 1], data[at + 4 : at + 2 + length]))
        at += 2 + length
    return found


ARTIST = "Zoë 図".encode()
COPYRIGHT = "© Zoë".encode("latin-1")
DESCRIPTION = b"\xff\xfe\x81 undecodable \xc3"
USER_COMMENT = b"UNICODE\0" + "Steps: 20, 図".encode("utf-16-be")
MAKER_NOTE = bytes(range(256))


def exif_told(order):
    """EXIF in which no string is ASCII."""

    def text(data):
        return 2, len(data) + 1, data + b"\0"

    return exif_block(
        order,
        {
            ExifTags.Base.Artist: text(ARTIST),
            ExifTags.Base.Copyright: text(COPYRIGHT),
            ExifTags.Base.ImageDescription: text(DESCRIPTION),
            ExifTags.Base.Orientation: (3, 1, struct.pack(order + "H", 6)),
        },
        exif={
            ExifTags.Base.UserComment: (7, len(USER_COMMENT), USER_COMMENT),
            ExifTags.Base.MakerNote: (7, len(MAKER_NOTE), MAKER_NOTE),
            ExifTags.Base.LensModel: text(ARTIST),
            ExifTags.Base.ExposureTime: (5, 1, struct.pack(order + "II", 1, 250)),
            0x9214: (3, 3, struct.pack(order + "HHH", 1, 2, 3)),
            ExifTags.Base.ExifImageWidth: (3, 1, struct.pack(order + "H", 12)),
            ExifTags.Base.ExifImageHeight: (3, 1, struct.pack(order + "H", 8)),
        },
        gps={
            1: (2, 2, b"N\0"),
            2: (5, 3, struct.pack(order + "6I", 48, 1, 6, 1, 1, 2)),
            27: text(ARTIST),
        },
    )
