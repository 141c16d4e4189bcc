"""What `isr upscale` carries beside the pixels: XMP, IPTC, text and comments."""

import hashlib
import struct
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import Image

from isr_jax.upscaling.folders import upscale_files
from isr_jax.upscaling.upscaler import load
from tests.helpers import metadata as made
from tests.helpers.image_files import chunk, good, noise, png


@pytest.mark.parametrize("way", ["bytes", "integers", "resources"])
def test_iptc_of_a_tiff_in_each_of_its_ways(tmp_path, capsys, way):
    """As bytes, as integers that were turned round, and among Photoshop's resources."""
    padded = made.IPTC + bytes(-len(made.IPTC) % 4)
    turned = np.frombuffer(padded, ">u4").astype("<u4").tobytes()
    resources = made.PHOTOSHOP.removeprefix(b"Photoshop 3.0\0")
    tag = {
        "bytes": (33723, 1, len(made.IPTC), made.IPTC, True),
        "integers": (33723, 4, len(padded) // 4, turned, True),
        "resources": (34377, 1, len(resources), resources, True),
    }[way]
    options = {"metadata": None, "software": False}
    tifffile.imwrite(tmp_path / "a.tif", noise(4, 5, 3), extratags=[tag], **options)
    assert good(capsys, tmp_path / "a.tif") == []
    assert good(capsys, tmp_path / "a.tif", "--format", "jpeg") == []
    for name in ("a_x2.tif", "a_x2.jpg"):
        assert made.iptc_of(tmp_path / name)[(2, 120)] == made.CAPTION


def all_kinds(folder):
    """The same XMP and IPTC in every format that holds them."""
    packet = made.packet(made.title("Été 図"))
    image = Image.fromarray(noise(8, 12, 3))
    parts = made.segment(0xE1, made.XMP + packet), made.segment(0xED, made.PHOTOSHOP)
    (folder / "a.jpg").write_bytes(made.jpeg(*parts))
    text = chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + packet)
    (folder / "a.png").write_bytes(png(noise(8, 12, 3), text))
    image.save(folder / "a.webp", xmp=packet)
    tags = [(700, 1, len(packet), packet, True), (33723, 7, len(made.IPTC), made.IPTC, True)]
    tifffile.imwrite(
        folder / "a.tif", noise(8, 12, 3), metadata=None, software=False, extratags=tags
    )
    return packet


@pytest.mark.parametrize("form", ["avif", "jxl"])
def test_xmp_and_exif_go_through_avif_and_jpeg_xl(tmp_path, capsys, form):
    packet = all_kinds(tmp_path)
    segments = (
        made.segment(0xE1, b"Exif\0\0" + made.exif_told(">")),
        made.segment(0xE1, made.XMP + packet),
    )
    (tmp_path / "a.jpg").write_bytes(made.jpeg(*segments))
    assert good(capsys, tmp_path / "a.jpg", "--format", form) == []
    larger = tmp_path / f"a_x2.{form}"
    if form == "avif":
        assert made.xmp_of(larger) == packet
    assert good(capsys, larger, "--format", "png") == []
    assert made.xmp_of(tmp_path / "a_x2_x2.png") == packet
    with Image.open(tmp_path / "a_x2_x2.png") as image:
        assert image.getexif()[315].encode("latin-1") == made.ARTIST
        assert image.size == (32, 48)


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff", "bmp"])
def test_xmp_and_iptc_go_from_format_to_format(tmp_path, capsys, form):
    packet = all_kinds(tmp_path)
    for suffix in ("jpg", "png", "webp", "tif"):
        target = tmp_path / suffix / f"b.{made.SUFFIXES[form]}"
        said = good(capsys, tmp_path / f"a.{suffix}", "--out", target, "--format", form)
        lost = {"bmp": ("XMP", "IPTC"), "webp": ("IPTC",)}.get(form, ())
        lost = lost if suffix in ("jpg", "tif") else [name for name in lost if name == "XMP"]
        starts = [line.split(" was left out")[0] for line in said]
        assert starts == list(lost), said
        if form == "bmp":
            continue
        assert made.xmp_of(target) == packet
        if suffix in ("jpg", "tif") and form in ("jpeg", "tiff"):
            assert made.iptc_of(target)[(2, 120)] == made.CAPTION
    if form == "png":
        # What ImageMagick writes and reads: the name, the length and hexadecimal digits.
        with Image.open(tmp_path / "jpg" / "b.png") as image:
            name, length, digits = image.text["Raw profile type iptc"].split(None, 2)
        block = bytes.fromhex(digits)
        assert (name, int(length)) == ("iptc", len(block))
        assert block.startswith(b"8BIM\x04\x04")
        assert made.IPTC in block
        good(capsys, tmp_path / "jpg" / "b.png", "--out", tmp_path / "back.jpg")
        assert made.iptc_of(tmp_path / "back.jpg")[(2, 120)] == made.CAPTION


def test_xmp_agrees_with_the_upright_larger_photo(tmp_path, capsys):
    """Stated as attributes and as elements, under the usual prefixes and others."""
    spaces = (
        'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:e="http://ns.adobe.com/exif/1.0/" '
        "xmlns:GPano='http://ns.google.com/photos/1.0/panorama/'"
    )
    attributes = "tiff:Orientation='6' tiff:ImageWidth = \"12\" e:PixelXDimension='12' "
    attributes += 'e:FNumber="28/10" GPano:FullPanoWidthPixels="100"'
    elements = (
        "<tiff:ImageLength>8</tiff:ImageLength><e:PixelYDimension>8</e:PixelYDimension>"
        "<GPano:CroppedAreaTopPixels> 7 </GPano:CroppedAreaTopPixels><tiff:Make>a > b</tiff:Make>"
    )
    described = f'<rdf:Description rdf:about="" {spaces} {attributes}>{elements}</rdf:Description>'
    packet = made.packet(described)
    (tmp_path / "a.jpg").write_bytes(made.jpeg(made.segment(0xE1, made.XMP + packet)))
    assert good(capsys, tmp_path / "a.jpg", "--format", "png") == []
    with Image.open(tmp_path / "a_x2.png") as image:
        assert image.size == (16, 24)  # turned, as Pillow turns a photo without EXIF
        found = image.info["xmp"].decode()
    wanted = described.replace("n='6'", "n='1'").replace('"12"', '"16"').replace("n='12'", "n='16'")
    wanted = wanted.replace("h>8<", "h>24<").replace("n>8<", "n>24<").replace('"100"', '"200"')
    assert wanted.replace("> 7 <", ">14<") in found
    assert len(found) > 2000  # with all that is around


def extended(document, *descriptions):
    """A JPEG whose XMP goes on in segments of their own, by Adobe's specification."""
    digest = hashlib.md5(document).hexdigest().upper()
    note = '<rdf:Description rdf:about="" xmlns:n="http://ns.adobe.com/xmp/note/" '
    packet = made.packet(*descriptions, f'{note} n:HasExtendedXMP="{digest}"/>')
    head = made.EXTENSION + digest.encode() + struct.pack(">I", len(document))
    parts = [
        made.segment(0xE1, head + struct.pack(">I", at) + document[at : at + 60_000])
        for at in range(0, len(document), 60_000)
    ]
    return made.jpeg(made.segment(0xE1, made.XMP + packet), *parts[::-1])


def extended_of(path):
    """The packet and what extends it, of a JPEG's segments."""
    data = [data for marker, data in made.segments_of(path) if marker == 0xE1]
    (first,) = [part.removeprefix(made.XMP) for part in data if part.startswith(made.XMP)]
    rest = [part[len(made.EXTENSION) :] for part in data if part.startswith(made.EXTENSION)]
    joined = b"".join(part[40:] for part in rest)
    starts = range(0, len(joined), 65_400)
    assert [struct.unpack(">II", part[32:40]) for part in rest] == [
        (len(joined), at) for at in starts
    ]
    digest = hashlib.md5(joined).hexdigest().upper().encode()
    assert {part[:32] for part in rest} == {digest}
    assert first.count(b"HasExtendedXMP") == 1
    assert b'HasExtendedXMP="' + digest in first
    return first, joined


def document_of(text, prefixes='xmlns:my="urn:my"'):
    described = f'<rdf:Description rdf:about="" my:text="{text}"><my:b>図</my:b></rdf:Description>'
    inner = f'<rdf:RDF xmlns:rdf="{made.RDF}" {prefixes}>{described}</rdf:RDF>'
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{inner}</x:xmpmeta>'.encode()


def test_xmp_that_is_too_long_for_a_segment(tmp_path, capsys):
    """The rest of it is in further segments, found by its digest; other formats hold it whole."""
    document = document_of(100_000 * "x")
    (tmp_path / "a.jpg").write_bytes(extended(document, made.title("t")))
    assert good(capsys, tmp_path / "a.jpg") == []
    first, rest = extended_of(tmp_path / "a_x2.jpg")
    assert b">t</rdf:li>" in first
    assert rest == document
    assert good(capsys, tmp_path / "a.jpg", "--format", "png") == []
    packet = made.xmp_of(tmp_path / "a_x2.png")
    assert b"HasExtendedXMP" not in packet
    assert good(capsys, tmp_path / "a_x2.png", "--format", "jpeg") == []
    _, rest = extended_of(tmp_path / "a_x2_x2.jpg")
    for text in (packet, rest):
        whole = ElementTree.fromstring(text)
        (described,) = whole.iterfind(".//{*}Description[@{urn:my}text]")
        assert described.get("{urn:my}text") == 100_000 * "x"
        assert described.findtext("{urn:my}b") == "図"
        assert whole.findtext(".//{*}title//{*}li") == "t"


def test_a_second_part_of_xmp_that_does_not_fit(tmp_path, capsys):
    """Because it uses a prefix for something else, or makes it longer than a PNG's readers take."""
    same = document_of("y", prefixes='xmlns:my="urn:my" xmlns:a="urn:b"')
    described = "<rdf:Description rdf:about='' xmlns:a='urn:a' a:c='kept'/>"
    files = {"a": extended(same, described), "b": extended(document_of(2**20 * "x"), described)}
    files["a"] = files["a"].replace(b"<rdf:RDF ", b"<rdf:RDF xmlns:a='urn:a' ", 1)
    size = struct.unpack_from(">H", files["a"], 22)[0] + len("xmlns:a='urn:a' ")
    files["a"] = files["a"][:22] + struct.pack(">H", size) + files["a"][24:]
    for name, data in files.items():
        (tmp_path / f"{name}.jpg").write_bytes(data)
        (line,) = good(capsys, tmp_path / f"{name}.jpg", "--format", "png")
        assert line.startswith("a part of XMP was left out: PNG has no room for it")
        assert b"kept" in made.xmp_of(tmp_path / f"{name}_x2.png")
        assert good(capsys, tmp_path / f"{name}.jpg") == []
        extended_of(tmp_path / f"{name}_x2.jpg")
    # A part is missing.
    at = files["b"].index(made.EXTENSION)
    (tmp_path / "c.jpg").write_bytes(files["b"][:at] + b"https" + files["b"][at + 5 :])
    (line,) = good(capsys, tmp_path / "c.jpg")
    assert line.startswith("a part of XMP was left out because it cannot be read")
    assert b"xmp/extension" not in (tmp_path / "c_x2.jpg").read_bytes()


@pytest.mark.parametrize(
    "packet",
    [
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><open></x:xmpmeta>",
        b"<!DOCTYPE a [<!ENTITY b 'cccccccc'>]><a>&b;</a>",
        "<a>utf-16</a>".encode("utf-16"),
        b"<a xmlns:e='http://ns.adobe.com/exif/1.0/'>" + b"<e:b/>" * 6_000 + b"</a>",
    ],
)
def test_xmp_that_cannot_be_read_is_said(tmp_path, capsys, packet):
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "a.webp", xmp=packet)
    (line,) = good(capsys, tmp_path / "a.webp", "--format", "png")
    assert line.startswith("XMP was left out because it cannot be read")
    assert made.xmp_of(tmp_path / "a_x2.png") is None


def test_texts_of_a_png_stay_as_they_are(tmp_path, capsys):
    """Also before and behind the pixels, of any length, compressed or not, and of an animation."""
    workflow = b'{"1": {"inputs": {"text": "' + "図".encode() * 20_000 + b'"}}}'
    texts = [
        chunk(b"tEXt", b"parameters\0a tree\nSteps: 20, caf\xe9"),
        chunk(b"zTXt", b"prompt\0\0" + zlib.compress(workflow)),
        chunk(b"iTXt", b"workflow\0\1\0en\0\0" + zlib.compress(workflow)),
        chunk(b"iTXt", b"Author\0\0\0fr\0Auteur\0" + made.ARTIST),
    ]
    data = png(noise(4, 5, 3), *texts[:3])
    (tmp_path / "a.png").write_bytes(data[:-12] + texts[3] + data[-12:])
    (tmp_path / "deep.png").write_bytes(png(noise(4, 5, 3, dtype=np.uint16), *texts))
    frames = [Image.fromarray(noise(4, 5, 3, seed=i)) for i in range(2)]
    frames[0].save(tmp_path / "b.png", save_all=True, append_images=frames[1:])
    data = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[:33] + b"".join(texts) + data[33:])
    assert good(capsys, tmp_path) == []
    for name in ("a", "deep", "b"):
        found = made.chunks_of(tmp_path / f"{name}_x2.png")
        found = [chunk(*part) for part in found if part[0] in (b"tEXt", b"zTXt", b"iTXt")]
        assert found == texts
    with Image.open(tmp_path / "b_x2.png") as image:
        assert image.n_frames == 2
        assert image.text["workflow"] == workflow.decode()
    (line,) = good(capsys, tmp_path / "a.png", "--format", "jpeg")
    assert line.startswith("PNG text was left out: JPEG holds none")


def test_exif_and_xmp_in_imagemagick_s_texts(tmp_path, capsys):
    """They are read, and written as other programs do, because they state an orientation."""
    block = b"Exif\0\0" + made.exif_told("<")
    text = b"\nexif\n%8d\n%s\n" % (len(block), block.hex().encode())
    part = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))
    (tmp_path / "a.png").write_bytes(png(noise(8, 12, 3), part))
    assert good(capsys, tmp_path / "a.png") == []
    kinds = [kind for kind, _ in made.chunks_of(tmp_path / "a_x2.png")]
    assert (kinds.count(b"eXIf"), kinds.count(b"zTXt")) == (1, 0)
    with Image.open(tmp_path / "a_x2.png") as image:
        assert image.size == (16, 24)
        assert image.getexif()[315].encode("latin-1") == made.ARTIST


def test_comments(tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(made.jpeg(comment=b"caf\xe9 " + b"x" * 3000))
    assert good(capsys, tmp_path / "a.jpg") == []
    assert good(capsys, tmp_path / "a.jpg", "--format", "png") == []
    with Image.open(tmp_path / "a_x2.jpg") as image:
        assert image.info["comment"] == b"caf\xe9 " + b"x" * 3000
    with Image.open(tmp_path / "a_x2.png") as image:
        assert image.text["Comment"] == "café " + "x" * 3000
    (line,) = good(capsys, tmp_path / "a.jpg", "--format", "webp")
    assert line.startswith("comments were left out: WebP holds none")


def test_notices_name_their_files_once(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(made.jpeg(comment=b"a comment"))
    (tmp_path / "5.png").write_bytes(png(noise(4, 4, 3), chunk(b"tEXt", b"a\0b")))
    outcome = upscale_files(
        load("nearest", scale=2), [tmp_path], out=tmp_path / "out", format="webp"
    )
    assert outcome.notices == [
        "comments were left out: WebP holds none (5 images: 0.jpg, 1.jpg, 2.jpg and others)",
        "PNG text was left out: WebP holds none (1 image: 5.png)",
    ]
