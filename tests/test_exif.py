"""EXIF in photos: text of any encoding, directories, and what of it is damaged."""

import struct

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from isr_jax.photo.contents import Metadata
from isr_jax.photo.exif import EXIF, INTEROPERABILITY, Value, exif_bytes, parse_exif
from isr_jax.photo.pixels import Page
from isr_jax.photo.reading import open_photo
from isr_jax.photo.tiff import write_tiff
from tests.helpers import metadata as made
from tests.helpers.image_files import chunk, good, noise, png


def write_with_exif(folder, block):
    """A file of each format."""
    image = Image.fromarray(noise(8, 12, 3))
    (folder / "a.jpg").write_bytes(made.jpeg(made.segment(0xE1, b"Exif\0\0" + block)))
    (folder / "a.png").write_bytes(png(noise(8, 12, 3), chunk(b"eXIf", block)))
    image.save(folder / "a.webp", exif=block)
    # Pillow copies the strings of EXIF into a TIFF as Latin-1; these are put there by tifffile.
    found = {
        315: made.ARTIST,
        33432: made.COPYRIGHT,
        270: made.DESCRIPTION,
    }
    tags = [(tag, 2, len(data) + 1, data + b"\0", True) for tag, data in found.items()]
    tags.append((274, 3, 1, 6, True))
    tifffile.imwrite(
        folder / "a.tif", noise(8, 12, 3), metadata=None, software=False, extratags=tags
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff"])
def test_strings_of_exif_keep_their_bytes(tmp_path, capsys, form, order):
    write_with_exif(tmp_path, made.exif_told(order))
    for suffix in ("jpg", "png", "webp", "tif"):
        target = tmp_path / suffix / f"b.{made.SUFFIXES[form]}"
        assert good(capsys, tmp_path / f"a.{suffix}", "--out", target, "--format", form) == []
        with Image.open(target) as image:
            assert image.size == (16, 24)
            found = image.getexif()
            more, place = found.get_ifd(ExifTags.IFD.Exif), found.get_ifd(ExifTags.IFD.GPSInfo)
        # Pillow decodes strings as Latin-1, which loses no byte.
        texts = {315: made.ARTIST, 33432: made.COPYRIGHT, 270: made.DESCRIPTION}
        assert {tag: found[tag].encode("latin-1") for tag in texts} == texts
        assert found.get(ExifTags.Base.Orientation, 1) == 1
        if suffix == "tif":
            continue
        assert more[ExifTags.Base.UserComment] == made.USER_COMMENT
        assert more[ExifTags.Base.MakerNote] == made.MAKER_NOTE
        assert more[ExifTags.Base.LensModel].encode("latin-1") == made.ARTIST
        assert more[ExifTags.Base.ExposureTime] == 1 / 250
        assert more[0x9214] == (1, 2, 3)
        size = more[ExifTags.Base.ExifImageWidth], more[ExifTags.Base.ExifImageHeight]
        assert size == (16, 24)
        assert (place[1], place[2]) == ("N", (48.0, 6.0, 0.5))
        assert place[27].encode("latin-1") == made.ARTIST


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_keeps_the_order_of_its_bytes(tmp_path, capsys, order):
    """So that text of two bytes a letter, whose order nothing else tells, stays text."""
    text = b"UNICODE\0" + "a cat".encode({"<": "utf-16-le", ">": "utf-16-be"}[order])
    comment = {ExifTags.Base.UserComment: (7, len(text), text)}
    write_with_exif(tmp_path, made.exif_block(order, {}, exif=comment))
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    for suffix in ("png", "jpg", "webp", "avif", "jxl", "tif"):
        target = tmp_path / f"b.{suffix}"
        assert good(capsys, tmp_path / "a.jpg", "--out", target) == []
        data = target.read_bytes()
        assert data.index(start) < data.index(text), suffix


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_of_a_tiff_with_directories_stays(tmp_path, capsys, order):
    """In both orders of bytes: a file made by hand, and then one that was written here."""
    pixels = noise(4, 5, 3)
    layout = {256: 5, 257: 4, 259: 1, 262: 2, 273: 0, 277: 3, 278: 4, 279: pixels.size}
    tags = {tag: (4, 1, struct.pack(order + "I", n)) for tag, n in layout.items()}
    tags[258] = 3, 3, struct.pack(order + "HHH", 8, 8, 8)
    tags[315] = 2, len(made.ARTIST) + 1, made.ARTIST + b"\0"
    exif = {
        ExifTags.Base.MakerNote: (7, len(made.MAKER_NOTE), made.MAKER_NOTE),
        ExifTags.Base.ExposureTime: (5, 1, struct.pack(order + "II", 1, 250)),
        ExifTags.Base.ExifImageHeight: (3, 1, struct.pack(order + "H", 4)),
    }
    tags[273] = 4, 1, struct.pack(order + "I", len(made.exif_block(order, tags, exif=exif)))
    data = made.exif_block(order, tags, exif=exif) + pixels.tobytes()
    (tmp_path / "a.tif").write_bytes(data)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), pixels)
    assert good(capsys, tmp_path / "a.tif") == []
    assert good(capsys, tmp_path / "a_x2.tif", "--format", "png") == []
    for name, height in (("a_x2.tif", 8), ("a_x2_x2.png", 16)):
        with Image.open(tmp_path / name) as image:
            assert image.height == height
            found = image.getexif()
            more = found.get_ifd(ExifTags.IFD.Exif)
        assert found[315].encode("latin-1") == made.ARTIST
        assert more[ExifTags.Base.MakerNote] == made.MAKER_NOTE
        assert more[ExifTags.Base.ExposureTime] == 1 / 250
        assert more[ExifTags.Base.ExifImageHeight] == height


def test_directories_in_directories_and_in_a_bigtiff(tmp_path):
    inner = {1: Value(2, b"R03\0"), 2: Value(7, b"0100")}
    found = {271: Value(2, b"a maker\0"), EXIF: {36864: Value(7, b"0232"), INTEROPERABILITY: inner}}
    exif = Image.Exif()
    exif.load(exif_bytes(found, order="<"))
    assert exif[271] == "a maker"
    assert exif.get_ifd(ExifTags.IFD.Interop) == {1: "R03", 2: b"0100"}
    assert parse_exif(exif_bytes(found, order="<")) == (found, False)
    page = Page(noise(4, 5, 3), None)
    write_tiff(tmp_path / "a.tif", iter([page]), Metadata(found), size=2**33)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_bigtiff
        assert tiff.pages[0].tags[EXIF].value["ExifVersion"] == "0232"
    assert open_photo(tmp_path / "a.tif").read().metadata.exif == found


def test_what_of_exif_cannot_be_read_is_said_and_the_rest_kept(tmp_path, capsys):
    text = b"a maker\0"
    block = made.exif_block("<", {271: (2, len(text), text), 272: (2, 9, b"a model.\0")})
    cut = bytearray(block)
    struct.pack_into("<I", cut, cut.index(struct.pack("<HHI", 272, 2, 9)) + 8, 10**6)
    (tmp_path / "a.png").write_bytes(png(noise(4, 4, 3), chunk(b"eXIf", bytes(cut))))
    (line,) = good(capsys, tmp_path / "a.png")
    assert line.startswith("a part of EXIF was left out because it cannot be read")
    with Image.open(tmp_path / "a_x2.png") as image:
        assert dict(image.getexif()) == {271: "a maker"}
    (tmp_path / "b.png").write_bytes(png(noise(4, 4, 3), chunk(b"eXIf", b"no EXIF at all")))
    (line,) = good(capsys, tmp_path / "b.png")
    assert line.startswith("EXIF was left out because it cannot be read")


def test_directories_that_refer_to_themselves_end():
    block = bytearray(made.exif_block("<", {271: (2, 4, b"abc\0")}, exif={36864: (7, 4, b"0232")}))
    at = block.index(struct.pack("<HHI", 0x8769, 4, 1))
    struct.pack_into("<I", block, at + 8, 8)
    found, _ = parse_exif(bytes(block))
    assert found[271].data == b"abc\0"
    # Every value the same megabytes: more than there are.
    many = {1000 + i: (7, 2**20, bytes(5)) for i in range(100)}
    heavy = bytearray(made.exif_block("<", many) + bytes(2**20))
    for tag in range(100):
        struct.pack_into("<I", heavy, 10 + 12 * tag + 8, 1000)
    found, damaged = parse_exif(bytes(heavy))
    assert damaged
    assert sum(len(value.data) for value in found.values()) == 2**24
