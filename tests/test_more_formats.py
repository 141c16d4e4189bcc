"""Formats beyond the usual ones, and what is lossless: the right pixels, in and out."""

import struct
import sys
import zlib
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from isr_jax.demo.photos import take
from isr_jax.errors import UserError
from isr_jax.photo.avif import write_avif
from isr_jax.photo.exif import integer
from isr_jax.photo.finding import say_passed_over
from isr_jax.photo.jxl_header import read_header
from isr_jax.photo.reading import open_photo
from isr_jax.photo.writing import write_photo
from tests.helpers.image_files import (
    SRGB,
    check_exif,
    chunk,
    exif,
    frames_of,
    good,
    noise,
    png,
    read,
    twice,
    upscale,
)


def interlaced(pixels):
    """A 16-bit PNG in Adam7's order, from the specification."""
    (h, w), c = pixels.shape[:2], pixels.shape[2] if pixels.ndim == 3 else 1
    order = np.array(
        [
            [1, 6, 4, 6, 2, 6, 4, 6],
            [7, 7, 7, 7, 7, 7, 7, 7],
            [5, 6, 5, 6, 5, 6, 5, 6],
            [7, 7, 7, 7, 7, 7, 7, 7],
            [3, 6, 4, 6, 3, 6, 4, 6],
            [7, 7, 7, 7, 7, 7, 7, 7],
            [5, 6, 5, 6, 5, 6, 5, 6],
            [7, 7, 7, 7, 7, 7, 7, 7],
        ]
    )
    places, data = np.tile(order, (-(-h // 8), -(-w // 8)))[:h, :w], b""
    for i in range(1, 8):
        for row, mask in zip(pixels, places == i, strict=True):
            data += b"\0" + row[mask].astype(">u2").tobytes() if mask.any() else b""
    head = struct.pack(">IIBBBBB", w, h, 16, {1: 0, 2: 4, 3: 2, 4: 6}[c], 0, 0, 1)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("shape", [(19, 13, 3), (9, 17), (8, 8, 4), (3, 2, 2), (1, 1), (1, 5, 3)])
def test_interlaced_png_of_16_bits(tmp_path, capfd, shape):
    """All bits, and nothing that libpng prints past Python."""
    pixels = noise(*shape, dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(interlaced(pixels))
    page = next(open_photo(tmp_path / "a.png").read().pages)
    np.testing.assert_array_equal(page.pixels, pixels)
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[:-30])
    with pytest.raises(UserError, match=r"cut\.png: "):
        open_photo(tmp_path / "cut.png").read()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("frames", [1, 3])
def test_lossless_webp_stays_lossless_unless_a_quality_is_given(tmp_path, capsys, frames):
    images = [Image.fromarray(noise(20, 30, 3, seed=i)) for i in range(frames)]
    options = {"save_all": True, "append_images": images[1:], "duration": 50, "exact": True}
    for name, lossless in {"whole": True, "lossy": False}.items():
        images[0].save(tmp_path / f"{name}.webp", lossless=lossless, quality=60, **options)
    images[0].save(tmp_path / "a.png")
    out = tmp_path / "out"
    good(capsys, tmp_path, "--format", "webp", "--out", out)
    good(capsys, tmp_path, "--format", "webp", "--out", out / "90", "--quality", 90)
    for i in range(frames):
        wanted = twice(np.asarray(images[i]))
        np.testing.assert_array_equal(frames_of(out / "whole_x2.webp")[0][i][0][..., :3], wanted)
        found = frames_of(out / "90" / "whole_x2.webp")[0][i][0][..., :3]
        assert abs(found.astype(int) - wanted).max() > 1
    np.testing.assert_array_equal(read(out / "a_x2.webp"), twice(np.asarray(images[0])))
    sizes = [(out / folder / "lossy_x2.webp").stat().st_size for folder in ("", "90")]
    assert sizes[0] > sizes[1]  # 95
    assert sizes[0] < (out / "whole_x2.webp").stat().st_size


def decoded(path):
    photo = open_photo(path).read()
    return next(photo.pages), photo


@pytest.mark.parametrize("form", ["avif", "jxl"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [(), (2,), (3,), (4,)])
def test_lossless_avif_and_jpeg_xl_in_and_out(tmp_path, capsys, form, dtype, channels):
    pixels, deep = noise(20, 30, *channels, dtype=dtype), dtype == np.uint16
    block = chunk(b"eXIf", exif(Make="A maker").tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "a.png").write_bytes(png(pixels, block))
    said = good(capsys, tmp_path / "a.png", "--format", form)
    bits = "16 bits per channel became 12: AVIF holds no more (1 image)"
    assert said == ([bits] if form == "avif" and deep else [])
    written, wanted = tmp_path / f"a_x2.{form}", twice(pixels)
    decode = {"avif": imagecodecs.avif_decode, "jxl": imagecodecs.jpegxl_decode}[form]
    found = decode(written.read_bytes())
    if form == "avif" and deep:
        np.testing.assert_array_equal(found, np.floor(wanted / 65535 * 4095 + 0.5))
        wanted = np.floor(found / 4095 * 65535 + 0.5)
    else:
        np.testing.assert_array_equal(found, wanted)
    page, photo = decoded(written)
    np.testing.assert_array_equal(page.pixels, wanted)
    assert page.pixels.dtype == dtype
    assert photo.metadata.exif[ExifTags.Base.Make].data == b"A maker\0"
    assert integer(photo.metadata.exif[ExifTags.IFD.Exif], 40962) == 60
    assert photo.notices == ()
    # From the format, too, and as it was.
    if form == "jxl" or channels in ((3,), (4,)):
        assert good(capsys, written) == []
        np.testing.assert_array_equal(
            decoded(tmp_path / f"a_x2_x2.{form}")[0].pixels, twice(wanted)
        )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_once(tmp_path, capsys, orientation):
    """Pillow writes irot and imir, which count, and no orientation into EXIF, which does not."""
    data = exif(Make="A maker", Orientation=orientation)
    pixels = np.asarray(Image.fromarray(noise(5, 7, 3)).resize((28, 20)))
    Image.fromarray(pixels).save(tmp_path / "a.avif", exif=data, subsampling="4:4:4", quality=100)
    with Image.open(tmp_path / "a.avif") as image:
        wanted = twice(np.array(ImageOps.exif_transpose(image)))
    assert abs(wanted.astype(int) - twice(turned(pixels, orientation))).max() < 9
    good(capsys, tmp_path, "--format", "png")
    np.testing.assert_array_equal(read(tmp_path / "a_x2.png"), wanted)
    check_exif(tmp_path / "a_x2.png", wanted.shape[1::-1])


def turned(pixels, orientation):
    image = Image.fromarray(pixels)
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return np.array(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_avif_keeps_its_depth_and_turn(tmp_path, capsys, bits):
    levels = np.random.default_rng(0).integers(0, 2**bits, (20, 28, 3), dtype=np.uint16)
    exact = np.floor(levels / (2**bits - 1) * 65535 + 0.5).astype(np.uint16)
    with open(tmp_path / "c.avif", "wb") as out:
        write_avif(out, exact, quality=100, depth=bits, icc_profile=b"a box that becomes irot")
    data = (tmp_path / "c.avif").read_bytes()
    np.testing.assert_array_equal(imagecodecs.avif_decode(data), levels)
    (tmp_path / "a.avif").write_bytes(data.replace(b"colrprof", b"freeprof"))
    assert good(capsys, tmp_path / "a.avif", "--format", "png") == []
    page, _ = decoded(tmp_path / "a_x2.png")
    np.testing.assert_array_equal(page.pixels, twice(exact))
    # irot of a quarter turn against the clock, which has to be marked as essential.
    at = data.index(b"ipma")
    last = at + 4 + 4 + 4 + 3 + data[at + 14] - 1
    data = data[:last] + bytes([data[last] | 0x80]) + data[last + 1 :]
    (tmp_path / "b.avif").write_bytes(data.replace(b"colrprof", b"irot\1rof"))
    assert good(capsys, tmp_path / "b.avif", "--format", "tiff") == []
    page, photo = decoded(tmp_path / "b_x2.tif")
    np.testing.assert_array_equal(page.pixels, twice(np.rot90(exact)))
    assert good(capsys, tmp_path / "b.avif") == []
    assert decoded(tmp_path / "b_x2.avif")[1].depth == bits
    assert photo.depth == 16


def test_profiles_of_avif_and_jpeg_xl(tmp_path, capsys):
    """AVIF holds one; the colours of a JPEG XL become sRGB."""
    pixels = noise(6, 7, 3)
    wide = SRGB.replace(b"rXYZ", b"xXYZ").replace(b"bXYZ", b"rXYZ").replace(b"xXYZ", b"bXYZ")
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=wide)
    assert good(capsys, tmp_path / "a.png", "--format", "avif") == []
    with Image.open(tmp_path / "a_x2.avif") as image:
        assert image.info["icc_profile"] == wide
    page, _ = decoded(tmp_path / "a_x2.avif")
    assert page.icc == wide
    for deep in (False, True):
        stored = (
            pixels.astype(np.uint16) * 257 if deep else np.dstack([pixels, pixels[..., :1] | 1])
        )
        profile = chunk(b"iCCP", b"name\0\0" + zlib.compress(wide))
        (tmp_path / "b.png").write_bytes(png(stored, profile))
        said = good(capsys, tmp_path / "b.png", "--format", "jxl", "--overwrite")
        assert said == ["colours became sRGB: JPEG XL holds no colour profile (1 image)"]
        found = imagecodecs.jpegxl_decode((tmp_path / "b_x2.jxl").read_bytes())
        # The profile has red and blue in each other's place.
        swapped = twice(stored[..., [2, 1, 0, 3][: stored.shape[2]]])
        assert abs(found.astype(int) - swapped).max() <= (3 * 257 if deep else 3)


def test_lossy_jpeg_xl_of_16_bits_is_srgb(tmp_path, capsys):
    """imagecodecs says that 16 bits are linear, which they are not."""
    y, x = np.mgrid[:40, :60]
    pixels = np.dstack([x * 900, y * 1300, (x + y) * 500]).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(png(pixels))
    for quality, most in ((100, 0), (90, 6000)):
        options = ("--format", "jxl", "--quality", quality, "--overwrite")
        assert good(capsys, tmp_path / "a.png", *options) == []
        data = (tmp_path / "a_x2.jxl").read_bytes()
        header = read_header(data)
        assert (header.bits, header.srgb, header.lossless) == (16, True, quality == 100)
        page, photo = decoded(tmp_path / "a_x2.jxl")
        assert abs(page.pixels.astype(int) - twice(pixels)).max() <= most
        assert photo.notices == ()
    linear = imagecodecs.jpegxl_encode(pixels, lossless=True)
    (tmp_path / "b.jxl").write_bytes(linear)
    assert (
        "colours of JPEG XL, which are not sRGB, were kept"
        in decoded(tmp_path / "b.jxl")[1].notices[0]
    )


def test_depths_and_frames_of_jpeg_xl(tmp_path):
    levels = np.random.default_rng(0).integers(0, 1024, (9, 12, 3), dtype=np.uint16)
    data = imagecodecs.jpegxl_encode(levels, lossless=True, bitspersample=10)
    (tmp_path / "a.jxl").write_bytes(data)
    page, photo = decoded(tmp_path / "a.jxl")
    np.testing.assert_array_equal(page.pixels, np.floor(levels / 1023 * 65535 + 0.5))
    assert photo.depth == 10
    values = (levels / 1023).astype(np.float32)
    (tmp_path / "b.jxl").write_bytes(imagecodecs.jpegxl_encode(values, lossless=True))
    page, photo = decoded(tmp_path / "b.jxl")
    np.testing.assert_array_equal(page.pixels, np.floor(values * 65535 + 0.5))
    assert photo.notices[0] == "floating-point values were read as 0 to 1, clipped, in 16 bits"
    frames = noise(3, 9, 12, 3)
    (tmp_path / "c.jxl").write_bytes(imagecodecs.jpegxl_encode(frames, lossless=True))
    page, photo = decoded(tmp_path / "c.jxl")
    np.testing.assert_array_equal(page.pixels, frames[0])
    assert photo.notices == ("only the first frame of an animated JPEG XL was read",)


def test_gif_comes_out_where_it_is_asked_for(tmp_path, capsys):
    few = noise(6, 7, 3) // 128 * 255
    mask = np.where(noise(6, 7, seed=3) > 99, 255, 0).astype(np.uint8)
    images = [Image.fromarray(np.dstack([few[::step], mask[::step]])) for step in (1, -1)]
    images[0].save(tmp_path / "still.png")
    options = {"save_all": True, "append_images": images[1:], "duration": [40, 120], "loop": 2}
    images[0].save(tmp_path / "moving.gif", disposal=2, **options)
    limit = "a frame's colours were reduced to 256 where it had more: GIF holds no more (1 image)"
    assert good(capsys, tmp_path / "still.png", "--format", "gif") == [limit]
    found = frames_of(tmp_path / "still_x2.gif")[0][0][0]
    wanted = twice(np.asarray(images[0]))
    np.testing.assert_array_equal(found * (found[..., 3:] > 0), wanted * (wanted[..., 3:] > 0))
    # Its own format only then; else PNG.
    assert good(capsys, tmp_path / "moving.gif") == []
    before, _ = frames_of(tmp_path / "moving.gif")
    good(capsys, tmp_path / "moving.gif", "--out", tmp_path / "b.gif")
    for name in ("moving_x2.png", "b.gif"):
        after, loop = frames_of(tmp_path / name)
        assert [time for _, time in after] == [40, 120]
        assert loop == (3 if name.endswith("png") else 2)  # a GIF counts repetitions
        for (first, _), (second, _) in zip(before, after, strict=True):
            first = twice(first)
            np.testing.assert_array_equal(
                second * (second[..., 3:] > 0), first * (first[..., 3:] > 0)
            )
    many = np.asarray(Image.fromarray(noise(8, 8, 3)).resize((40, 40)))
    Image.fromarray(np.dstack([many, noise(40, 40)])).save(tmp_path / "many.png")
    said = good(capsys, tmp_path / "many.png", "--out", tmp_path / "c.gif")
    assert said == [limit, "partial transparency became none or full: GIF holds no other (1 image)"]
    found = read(tmp_path / "c.gif", "RGBA")
    assert set(np.unique(found[..., 3])) == {0, 255}
    shown = found[..., 3] > 0
    np.testing.assert_array_equal(shown, twice(noise(40, 40)) >= 128)
    assert abs(found[..., :3].astype(int) - twice(many))[shown].mean() < 12


@pytest.mark.parametrize("form", ["png", "avif", "webp"])
def test_animated_avif(tmp_path, capsys, form):
    images = [noise(3, 4, 4, seed=i).repeat(8, axis=0).repeat(8, axis=1) for i in range(3)]
    first, *others = map(Image.fromarray, images)
    options = {"save_all": True, "append_images": others, "duration": [40, 120, 70]}
    first.save(tmp_path / "a.avif", quality=100, subsampling="4:4:4", **options)
    assert good(capsys, tmp_path / "a.avif", "--format", form, "--quality", 100) == []
    before, _ = frames_of(tmp_path / "a.avif")
    after, _ = frames_of(tmp_path / f"a_x2.{form}")
    assert [time for _, time in after] == [40, 120, 70]
    for (wanted, _), (found, _) in zip(before, after, strict=True):
        most = 4 if form == "avif" else 0
        assert abs(found.astype(int) - twice(wanted)).max() <= most


DATA = Path(__file__).parent / "data"


def ramp(channels, most):
    y, x, k = np.mgrid[:16, :24, :channels]
    return ((y * 37 + x * 11 + k * 50) % (most + 1)).astype(np.uint16)


def test_heic_is_read_at_its_depth_and_turned_once(tmp_path, capsys):
    """Files of pillow-heif's, lossless: a turned one, with an EXIF that says so too, and others."""
    pytest.importorskip("pi_heif", reason="needs pip install 'isr-jax[heic]'")
    alpha = ramp(4, 255)
    alpha[..., 3] |= 1
    wanted = {
        "turned": turned(ramp(3, 255).astype(np.uint8), 6),
        "alpha": alpha.astype(np.uint8),
        "deep": np.floor(ramp(3, 1023) / 1023 * 65535 + 0.5).astype(np.uint16),
    }
    for name in wanted:
        (tmp_path / f"{name}.HEIC").write_bytes((DATA / f"{name}.heic").read_bytes())
    assert good(capsys, tmp_path) == []
    for name, pixels in wanted.items():
        page, photo = decoded(tmp_path / f"{name}_x2.png")
        np.testing.assert_array_equal(page.pixels, twice(pixels), err_msg=name)
        assert page.pixels.dtype == pixels.dtype
        assert (ExifTags.Base.Make in photo.metadata.exif) == (name == "turned")
    check_exif(tmp_path / "turned_x2.png", (32, 48))
    with pytest.raises(UserError, match="24x16 pixels, more than the limit of 100"):
        open_photo(DATA / "deep.heic", max_pixels=100)
    code, lines = upscale(capsys, tmp_path / "deep.HEIC", "--out", tmp_path / "a.heic")
    assert code == 2
    assert ".heic files cannot be written: name a .png file" in lines[0]


def test_heic_without_its_decoder(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    (tmp_path / "a.heic").write_bytes((DATA / "deep.heic").read_bytes())
    code, lines = upscale(capsys, tmp_path / "a.heic")
    assert code == 1
    assert "a.heic: HEIC needs pi-heif: run pip install 'isr-jax[heic]'" in lines[0]
    assert "HEIC is read after pip install" in say_passed_over([tmp_path / "a.heic"])


@pytest.mark.parametrize("form", ["avif", "jxl", "gif", "webp"])
def test_limits_and_damage_of_each_format(tmp_path, form):
    file = tmp_path / f"a.{form}"
    Image.fromarray(noise(12, 10, 3)).save(tmp_path / "a.png")
    with open_photo_of(tmp_path / "a.png") as photo:
        write_photo(file, form, photo.pages, photo)
    with pytest.raises(UserError, match="declares 10x12 pixels, more than the limit of 119"):
        open_photo(file, max_pixels=119)
    data = file.read_bytes()
    for cut in (len(data) // 2, 40):
        file.write_bytes(data[:cut])
        with pytest.raises(UserError, match=f"a.{form}: "):
            decoded(file)


@contextmanager
def open_photo_of(path):
    photo = open_photo(path).read()
    yield photo
    photo.pages.close()


def test_a_jpeg_xl_is_refused_by_its_header(tmp_path):
    """Before the decoder takes memory for a million pixels a side."""
    data = bytearray(imagecodecs.jpegxl_encode(noise(9, 12, 3), lossless=True))
    # Not small; a height of 1 + 30 bits; and the same for the width.
    fields = ((0, 1), (3, 2), (999_999, 30), (0, 3), (3, 2), (999_999, 30))
    number, at = 0, 0
    for value, bits in fields:
        number, at = number | value << at, at + bits
    (tmp_path / "a.jxl").write_bytes(data[:2] + number.to_bytes(-(-at // 8), "little") + data[2:])
    with pytest.raises(UserError, match="declares 1000000x1000000 pixels, more than the limit"):
        open_photo(tmp_path / "a.jxl")


@pytest.mark.parametrize("form", ["avif", "jxl", "gif", "tif"])
def test_the_page_takes_each_format(tmp_path, form):
    pixels = noise(12, 10, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with open_photo_of(tmp_path / "a.png") as photo:
        write_photo(tmp_path / f"a.{form}", {"tif": "tiff"}.get(form, form), photo.pages, photo)
    uploaded = take(tmp_path / f"a.{form}", "a", most=1.0)
    assert uploaded.size == (10, 12)
    page, _ = decoded(uploaded.view.file)
    np.testing.assert_array_equal(page.pixels, pixels)
