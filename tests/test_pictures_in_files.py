"""Which of a file's pictures is upscaled, and what is said of the others; labels of colour."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from isr_jax.demo.photos import take
from isr_jax.photo.metadata import is_like_srgb
from tests.helpers import metadata as made
from tests.helpers.image_files import SRGB, chunk, good, noise, png, read, twice

UNDEFINED, PREVIEW, STEREO = 0, 0x10001, 0x20002
OTHERS = "only the first of a file's several pictures was upscaled"
GAIN_MAP = "the gain map for HDR screens was left out"
VIDEO = "the video of a motion photo was left out"
HDRGM = "http://ns.adobe.com/hdr-gain-map/1.0/"
CAMERA = "http://ns.google.com/photos/1.0/camera/"
CONTAINER = "http://ns.google.com/photos/1.0/container/"


def several(first, second, kind, *, offset=None, count=2):
    """A JPEG with an index of two pictures (CIPA DC-007) and the second one behind the first."""
    tags = {
        0xB000: (7, 4, b"0100"),
        0xB001: (4, 1, struct.pack("<I", count)),
        0xB002: (7, 32, bytes(32)),
    }
    head = b"MPF\0" + made.exif_block("<", tags)
    size = len(made.segment(0xE2, head))
    place = len(first) + size - (20 + 4 + 4)  # from the index's own start
    entries = struct.pack("<IIIHH", 0x030000, len(first) + size, 0, 0, 0)
    entries += struct.pack("<IIIHH", kind, len(second), place if offset is None else offset, 0, 0)
    head = head[: -len(entries)] + entries
    return first[:20] + made.segment(0xE2, head) + first[20:] + second


def names(lines):
    return [line.rsplit(" (", 1)[0] for line in lines]


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize(("kind", "said"), [(UNDEFINED, [OTHERS]), (PREVIEW, [])])
def test_of_several_pictures_the_first_is_the_photo(tmp_path, capsys, form, kind, said):
    first = made.jpeg(quality=100)
    second = made.jpeg(pixels=noise(4, 6, 3, seed=1))
    (tmp_path / "a.jpg").write_bytes(several(first, second, kind))
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    target = tmp_path / f"b.{made.SUFFIXES[form]}"
    assert names(good(capsys, tmp_path / "a.jpg", "--out", target, "--quality", 100)) == said
    with Image.open(target) as image:
        assert getattr(image, "n_frames", 1) == 1
        assert image.size == (24, 16)
    if form in ("png", "webp", "tiff"):
        np.testing.assert_array_equal(read(target), twice(read(tmp_path / "a.jpg")))


@pytest.mark.parametrize(
    "index",
    [
        {"offset": 10**6},
        {"offset": 2**32 - 1},
        {"count": 7},
        {"count": 0},
        {"offset": 3},
    ],
)
def test_an_index_that_is_wrong_does_not_refuse_the_photo(tmp_path, capsys, index):
    """As editors leave it that copy the segment and drop the pictures."""
    files = {
        "a": several(made.jpeg(), b"", UNDEFINED, **index),
        "b": made.jpeg(made.segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff")),
    }
    for name, data in files.items():
        (tmp_path / f"{name}.jpg").write_bytes(data)
    assert good(capsys, tmp_path, "--format", "png") == []
    for name in ("a", "b"):
        found = read(tmp_path / f"{name}_x2.png")[::2, ::2]
        np.testing.assert_array_equal(found, imagecodecs.jpeg8_decode(files[name]))


def claiming(attributes="", elements=""):
    spaces = f'xmlns:hdrgm="{HDRGM}" xmlns:GCamera="{CAMERA}" xmlns:Container="{CONTAINER}" '
    spaces += 'xmlns:Item="http://ns.google.com/photos/1.0/container/item/" '
    return made.packet(
        made.title("kept"),
        f'<rdf:Description rdf:about="" {spaces} {attributes} GCamera:SpecialTypeID="7">{elements}'
        "</rdf:Description>",
    )


DIRECTORY = (
    "<Container:Directory><rdf:Seq><rdf:li rdf:parseType='Resource'><Container:Item "
    "Item:Semantic='{}' Item:Mime='{}' Item:Length='9'/></rdf:li></rdf:Seq></Container:Directory>"
)


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("way", ["adobe", "iso", "second", "apple"])
def test_a_gain_map_is_not_lost_in_silence(tmp_path, capsys, form, way):
    """Named by XMP, by ISO 21496-1, or only in the second picture."""
    packet = claiming('hdrgm:Version="1.0"', DIRECTORY.format("GainMap", "image/jpeg"))
    apple = claiming().replace(HDRGM.encode(), b"http://ns.apple.com/HDRGainMap/1.0/")
    apple = apple.replace(b"GCamera:Spec", b"hdrgm:HDRGainMapVersion='65536' GCamera:Spec")
    iso = made.segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4))
    inner = {"iso": iso, "apple": made.segment(0xE1, made.XMP + apple)}
    inner = inner.get(way, made.segment(0xE1, made.XMP + packet))
    own = {"adobe": made.segment(0xE1, made.XMP + packet), "iso": iso}.get(way, b"")
    second = made.jpeg(inner, pixels=noise(4, 6, seed=2))
    (tmp_path / "a.jpg").write_bytes(several(made.jpeg(own), second, UNDEFINED))
    target = tmp_path / f"b.{made.SUFFIXES[form]}"
    assert names(good(capsys, tmp_path / "a.jpg", "--out", target)) == [GAIN_MAP]
    data = target.read_bytes()
    for word in (b"hdrgm", b"HDRGainMap", b"Container:", b"21496", b"MPF\0", b"GainMap"):
        assert word not in data, word
    if way == "adobe":
        assert b"kept" in made.xmp_of(target)
        assert b'GCamera:SpecialTypeID="7"' in made.xmp_of(target)


MP4 = struct.pack(">I", 24) + b"ftypmp42" + bytes(12) + struct.pack(">I", 8) + b"mdat"
SAMSUNG = b"\0\0\x30\x0a\x10\0\0\0MotionPhoto_Data" + MP4 + b"SEFH" + bytes(20) + b"SEFT"
MOTION = {
    "google": (
        claiming(
            'GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1"',
            DIRECTORY.format("MotionPhoto", "video/mp4"),
        ),
        MP4,
    ),
    "older": (claiming('GCamera:MicroVideo="1" GCamera:MicroVideoOffset="99"'), MP4),
    "stripped": (claiming("", "<GCamera:MotionPhoto>1</GCamera:MotionPhoto>"), b""),
    "samsung": (b"", SAMSUNG),
    "other": (b"", MP4),
}


@pytest.mark.parametrize("way", MOTION)
def test_a_motion_photo_is_its_picture(tmp_path, capsys, way):
    packet, behind = MOTION[way]
    part = made.segment(0xE1, made.XMP + packet) if packet else b""
    (tmp_path / "a.jpg").write_bytes(made.jpeg(part) + behind)
    assert names(good(capsys, tmp_path / "a.jpg")) == [VIDEO]
    data = (tmp_path / "a_x2.jpg").read_bytes()
    for word in (b"GCamera:Motion", b"GCamera:Micro", b"Container:Dir", b"ftyp", b"SEFT"):
        assert word not in data
    if packet:
        assert b'GCamera:SpecialTypeID="7"' in data
        assert b"kept" in made.xmp_of(tmp_path / "a_x2.jpg")


def test_bytes_behind_a_photo_are_no_video(tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(made.jpeg() + bytes(100))
    (tmp_path / "b.jpg").write_bytes(made.jpeg() + b"a ftypical text, and more of it")
    (tmp_path / "c.jpg").write_bytes(made.jpeg() + made.jpeg())
    assert good(capsys, tmp_path) == []


def test_smaller_copies_and_masks_are_no_pages(tmp_path, capsys):
    """Of 8 bits, which Pillow reads, and of 16."""
    for name, dtype in (("a", np.uint8), ("b", np.uint16)):
        pages = [noise(*size, 3, dtype=dtype) for size in ((3, 4), (8, 9), (6, 7))]
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as tiff:
            for page, kind in zip(pages, (1, 0, 2), strict=True):
                tiff.write(page, photometric="rgb", subfiletype=kind, metadata=None)
        (line,) = names(good(capsys, tmp_path / f"{name}.tif"))
        assert line == "smaller copies and masks among a file's pages were left out"
        with tifffile.TiffFile(tmp_path / f"{name}_x2.tif") as tiff:
            for page, wanted in zip(tiff.pages, pages[1:], strict=True):
                np.testing.assert_array_equal(page.asarray(), twice(wanted))
    tifffile.imwrite(tmp_path / "c.tif", noise(3, 4), subfiletype=1, metadata=None)
    assert good(capsys, tmp_path / "c.tif") == []


LABELS = {
    "pq": [(b"cICP", bytes([9, 16, 0, 1])), (b"mDCV", bytes(range(24))), (b"cLLI", bytes(8))],
    "hlg": [(b"cICP", bytes([9, 18, 0, 1]))],
    "linear": [(b"gAMA", struct.pack(">I", 100_000))],
    "primaries": [
        (b"gAMA", struct.pack(">I", 45_455)),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
    ],
}
PLAIN = {
    "none": [],
    "srgb": [(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 45_455))],
    "as sRGB": [
        (b"gAMA", struct.pack(">I", 45_454)),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
    ],
    "cicp": [(b"cICP", bytes([1, 13, 0, 1])), (b"gAMA", struct.pack(">I", 100_000))],
}


@pytest.mark.parametrize("label", [*LABELS, *PLAIN])
def test_labels_of_colour_stay_and_values_are_not_touched(tmp_path, capsys, label):
    chunks, dtype = LABELS.get(label, PLAIN.get(label)), np.uint16 if label == "pq" else np.uint8
    pixels = noise(4, 5, 3, dtype=dtype)
    data = png(pixels, *(chunk(*part) for part in chunks))
    (tmp_path / "a.png").write_bytes(data)
    assert good(capsys, tmp_path / "a.png") == []
    found = made.chunks_of(tmp_path / "a_x2.png")
    assert [part for part in found if part[0][:1] != b"I"] == chunks
    kinds = [kind for kind, _ in found]
    assert all(kinds.index(kind) < kinds.index(b"IDAT") for kind, _ in chunks)
    larger = imagecodecs.png_decode((tmp_path / "a_x2.png").read_bytes())
    np.testing.assert_array_equal(larger, twice(pixels))
    for form in ("jpeg", "tiff"):
        said = good(capsys, tmp_path / "a.png", "--format", form)
        assert sum("the label of the colours" in line for line in said) == (label in LABELS), said
    assert is_like_srgb(chunks) == (label in PLAIN)


def test_labels_of_an_animation_and_beside_a_profile(tmp_path, capsys):
    chunks = LABELS["pq"]
    frames = [Image.fromarray(noise(4, 5, 3, seed=i)) for i in range(2)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    data = (tmp_path / "a.png").read_bytes()
    labels = b"".join(chunk(*part) for part in chunks)
    (tmp_path / "a.png").write_bytes(data[:33] + labels + data[33:])
    assert good(capsys, tmp_path / "a.png") == []
    found = made.chunks_of(tmp_path / "a_x2.png")
    assert [part for part in found if part in chunks] == chunks
    frames[0].save(tmp_path / "b.png", icc_profile=SRGB)
    data = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[:33] + labels + data[33:])
    assert good(capsys, tmp_path / "b.png", "--format", "tiff") == []
    with Image.open(tmp_path / "b_x2.tif") as image:
        assert image.info["icc_profile"] == SRGB


def wrong(part):
    """A chunk with another checksum."""
    return part[:-1] + bytes([part[-1] ^ 1])


ENDLESS = zlib.compress(bytes(2**26), 9)
BAD = {
    "long text": (chunk(b"tEXt", b"a\0" + b"x" * (2**20 + 1)), "a text of more than 1 MiB"),
    "deflated text": (chunk(b"zTXt", b"a\0\0" + ENDLESS), "a text of more than 1 MiB"),
    "international": (chunk(b"iTXt", b"a\0\1\0\0\0" + ENDLESS), "a text of more than 1 MiB"),
    "xmp": (chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + ENDLESS), "a text of more than 1 MiB"),
    "profile": (chunk(b"iCCP", b"a\0\0" + ENDLESS), "a colour profile of more than 1 MiB"),
    "text": (wrong(chunk(b"tEXt", b"a\0b")), "a text with a wrong checksum"),
    "checksum": (wrong(chunk(b"iCCP", b"a\0\0" + zlib.compress(SRGB))), "a colour profile with"),
    "resolution": (wrong(chunk(b"pHYs", bytes(9))), "a chunk of type pHYs with a wrong checksum"),
    "exif": (wrong(chunk(b"eXIf", b"II*\0")), "EXIF with a wrong checksum"),
    "broken": (chunk(b"zTXt", b"a\0\0no deflate"), "a text that is damaged"),
    "huge": (chunk(b"eXIf", bytes(2**24 + 1)), "EXIF of more than 16 MiB"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("place", [33, -12])
def test_a_bad_chunk_goes_and_the_photo_stays(tmp_path, capsys, name, place):
    bad, said = BAD[name]
    for kind, dtype in (("a", np.uint8), ("b", np.uint16)):
        pixels = noise(4, 5, 3, dtype=dtype)
        good_text = chunk(b"tEXt", b"Title\0kept")
        data = png(pixels, good_text)
        (tmp_path / f"{kind}.png").write_bytes(data[:place] + bad + data[place:])
    (line,) = names(good(capsys, tmp_path))
    assert line.startswith(said) and line.endswith("was left out")
    for kind, dtype in (("a", np.uint8), ("b", np.uint16)):
        larger = imagecodecs.png_decode((tmp_path / f"{kind}_x2.png").read_bytes())
        np.testing.assert_array_equal(larger, twice(noise(4, 5, 3, dtype=dtype)))
        with Image.open(tmp_path / f"{kind}_x2.png") as image:
            image.load()
            assert image.info == {"Title": "kept"}


def test_many_texts_are_bounded(tmp_path, capsys):
    """Each within the limit, and all together not."""
    texts = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20 - 9), 9)) * 80
    (tmp_path / "a.png").write_bytes(png(noise(4, 5, 3), texts))
    (line,) = names(good(capsys, tmp_path / "a.png"))
    assert line == "text beyond 64 MiB was left out"
    found = [kind for kind, _ in made.chunks_of(tmp_path / "a_x2.png")]
    assert 60 < found.count(b"zTXt") < 66


def test_a_photo_with_long_exif_and_profile(tmp_path, capsys):
    """In formats that hold them."""
    block = made.exif_block("<", {270: (2, 2**21, b"x" * (2**21 - 1) + b"\0")})
    profile = SRGB + noise(2**21).tobytes()
    Image.fromarray(noise(4, 5, 3)).save(tmp_path / "a.webp", exif=block, icc_profile=profile)
    assert good(capsys, tmp_path / "a.webp") == []
    with Image.open(tmp_path / "a_x2.webp") as image:
        assert len(image.getexif()[270]) == 2**21 - 1
        assert image.info["icc_profile"] == profile
    assert names(good(capsys, tmp_path / "a.webp", "--format", "png")) == [
        "a colour profile of more than 1 MiB was left out: other programs refuse such a PNG"
    ]
    with Image.open(tmp_path / "a_x2.png") as image:
        assert len(image.getexif()[270]) == 2**21 - 1


def test_a_resolution_without_a_unit_stays_so(tmp_path, capsys):
    unit = {"resolution": (3, 2), "resolutionunit": "none", "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", noise(4, 5, 3), **unit)
    tifffile.imwrite(tmp_path / "b.tif", noise(4, 5, 3, dtype=np.uint16), **unit)
    for name in ("a", "b"):
        good(capsys, tmp_path / f"{name}.tif")
        with tifffile.TiffFile(tmp_path / f"{name}_x2.tif") as tiff:
            assert tiff.pages[0].resolution == (3, 2)
            assert tiff.pages[0].resolutionunit == tifffile.RESUNIT.NONE
    good(capsys, tmp_path / "a.tif", "--format", "jpeg")
    good(capsys, tmp_path / "a.tif", "--format", "png")
    for name in ("a_x2.jpg", "a_x2.png"):
        good(capsys, tmp_path / name, "--out", tmp_path / "c.tif", "--overwrite")
        with tifffile.TiffFile(tmp_path / "c.tif") as tiff:
            assert (tiff.pages[0].resolution, tiff.pages[0].resolutionunit) == ((3, 2), 1)
    with Image.open(tmp_path / "a_x2.jpg") as image:
        assert (image.info["jfif_unit"], image.info["jfif_density"]) == (0, (3, 2))
    with Image.open(tmp_path / "a_x2.png") as image:
        assert image.info["aspect"] == (3, 2)
    tifffile.imwrite(tmp_path / "d.tif", noise(4, 5), resolution=(100, 50), resolutionunit=3)
    good(capsys, tmp_path / "d.tif", "--format", "jpeg")
    with Image.open(tmp_path / "d_x2.jpg") as image:
        assert image.info["dpi"] == (254, 127)


def test_the_demo_says_the_same(tmp_path):
    packet, behind = MOTION["google"]
    part = made.segment(0xE1, made.XMP + packet)
    second = several(made.jpeg(part), made.jpeg(), STEREO)
    (tmp_path / "photo").write_bytes(second + behind)
    taken = take(tmp_path / "photo", "a.jpg", most=1.0, progress=lambda **step: None)
    assert taken.notices == (OTHERS, VIDEO)
