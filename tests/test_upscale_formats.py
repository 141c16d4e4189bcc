"""What `isr upscale` keeps of each file format, against np.repeat of other decoders."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import skimage.color
import skimage.data
import tifffile
from PIL import Image, ImageCms, ImageOps

from isr_jax.photo.pixels import over_white, to_8_bits
from isr_jax.photo.writing import write_png
from tests.helpers.image_files import (
    SRGB,
    SRGB_OF_D50,
    check_exif,
    chunk,
    exif,
    files_in,
    frames_of,
    good,
    noise,
    png,
    read,
    read_exif,
    twice,
    upscale,
)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_bit_of_a_png_survives(tmp_path, capsys, channels, dtype):
    pixels = noise(5, 7, channels, dtype=dtype)
    (tmp_path / "a.png").write_bytes(png(pixels))
    assert upscale(capsys, tmp_path) == (0, ["1 upscaled, 0 skipped, 0 failed"])
    written = tmp_path / "a_x2.png"
    kinds = {1: 0, 2: 4, 3: 2, 4: 6}
    header = written.read_bytes()[24:26]
    assert (header[0], header[1]) == (8 * pixels.itemsize, kinds[channels])
    # OpenCV turns gray with alpha into colour with alpha.
    found = cv2.imread(str(written), cv2.IMREAD_UNCHANGED)
    found = found[..., None] if found.ndim == 2 else found[..., [2, 1, 0, 3][: found.shape[2]]]
    wanted = pixels[..., [0, 0, 0, 1]] if channels == 2 else pixels
    np.testing.assert_array_equal(found, twice(wanted))


@pytest.mark.parametrize("shape", [(300, 500, 3), (2, 70_000), (3000, 1, 4), (1, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_of_many_parts_is_whole(tmp_path, shape, dtype):
    """To a decoder that checks it."""
    pixels = noise(*shape, dtype=dtype)
    write_png(pixels, tmp_path / "a.png")
    found = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())
    np.testing.assert_array_equal(found.reshape(shape), pixels)


def test_a_png_is_as_small_as_those_of_others(tmp_path):
    photo = twice(skimage.data.chelsea())
    write_png(photo, tmp_path / "a.png")
    judge = imagecodecs.png_encode(photo, level=6)
    assert (tmp_path / "a.png").stat().st_size < 1.05 * len(judge)


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (1, {}),
        (1, {"photometric": "miniswhite"}),
        (2, {"planarconfig": "contig", "extrasamples": ["unassalpha"]}),
        (3, {"photometric": "rgb", "compression": "lzw", "predictor": True}),
        (3, {"photometric": "rgb", "planarconfig": "separate", "byteorder": ">"}),
        (4, {"photometric": "rgb", "extrasamples": ["unassalpha"], "bigtiff": True}),
    ],
)
def test_every_bit_of_a_16_bit_tiff_survives(tmp_path, capsys, channels, options):
    pixels = noise(6, 9, channels, dtype=np.uint16)
    pixels = pixels[..., 0] if channels == 1 else pixels
    planes = np.moveaxis(pixels, -1, 0) if options.get("planarconfig") == "separate" else pixels
    options = {"photometric": "minisblack", **options}
    tifffile.imwrite(tmp_path / "a.tif", planes, metadata=None, **options)
    good(capsys, tmp_path)
    good(capsys, tmp_path, "--format", "png")
    found = tifffile.imread(tmp_path / "a_x2.tif")
    wanted = 65535 - pixels if options["photometric"] == "miniswhite" else pixels
    np.testing.assert_array_equal(found, twice(wanted))
    if channels == 3:
        for name in ("a_x2.tif", "a_x2.png"):
            found = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(found[..., ::-1], twice(pixels))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_the_rest_of_exif_kept(tmp_path, capsys, orientation):
    pixels, data = noise(5, 7, 3), exif(Make="A maker", Orientation=orientation)
    image, deep = Image.fromarray(pixels), noise(5, 7, 3, dtype=np.uint16)
    image.save(tmp_path / "a.jpg", exif=data)
    image.save(tmp_path / "b.webp", exif=data, lossless=True)
    image.save(tmp_path / "c.tif", exif=data.tobytes())
    image.save(tmp_path / "d.png", exif=data)
    block = chunk(b"eXIf", data.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "e.png").write_bytes(png(deep, block))
    turn = (274, "H", 1, orientation, True)
    tifffile.imwrite(tmp_path / "f.tif", deep, photometric="rgb", extratags=[turn])
    good(capsys, tmp_path, "--out", tmp_path / "out", "--quality", 100)
    good(capsys, tmp_path / "a.jpg", "--format", "png")
    size = (14, 10) if orientation < 5 else (10, 14)
    for name in ("a.jpg", "b.webp", "c.tif", "d.png"):
        with Image.open(tmp_path / name) as image:
            wanted = twice(np.array(ImageOps.exif_transpose(image)))
        path = Path(name)
        written = tmp_path / "out" / f"{path.stem}_x2{path.suffix}"
        check_exif(written, size)
        if name == "a.jpg":
            check_exif(tmp_path / "a_x2.png", size)
            np.testing.assert_array_equal(read(tmp_path / "a_x2.png"), wanted)
            assert abs(read(written).astype(int) - wanted).max() < 8
        else:
            np.testing.assert_array_equal(read(written), wanted)
    check_exif(tmp_path / "out" / "e_x2.png", size)
    found = cv2.imread(str(tmp_path / "out" / "e_x2.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    places = Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7))
    places.getexif()[274] = orientation
    order = np.array(ImageOps.exif_transpose(places))
    wanted = twice(deep.reshape(35, 3)[order])
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "f_x2.tif"), wanted)


def test_exif_of_a_16_bit_tiff_is_kept(tmp_path, capsys):
    """Which tifffile has no way to write: the directories are put behind the pixels."""
    block = chunk(b"eXIf", exif(Make="A maker", Orientation=6).tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "a.png").write_bytes(png(noise(5, 7, 3, dtype=np.uint16), block))
    good(capsys, tmp_path, "--format", "tiff")
    check_exif(tmp_path / "a_x2.tif", (10, 14))
    good(capsys, tmp_path / "a_x2.tif")
    check_exif(tmp_path / "a_x2_x2.tif", (20, 28))
    assert tifffile.imread(tmp_path / "a_x2_x2.tif").shape == (28, 20, 3)


def profile_of(image):
    return ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))


def cmyk_profile():
    """An ICC profile of four inks whose table of Lab, by the specification, is full of colour."""
    corners = np.random.default_rng(3).integers(60, 190, (16, 3)).astype(np.uint8)
    corners[:, 0] = np.linspace(230, 40, 16)
    corners[-1] = 0, 128, 128  # black, which there is nothing to compensate for
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    lut += struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).ravel())
    lut += bytes(range(256)) * 4 + corners.tobytes() + bytes(range(256)) * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    text = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)
    tags, table, data = {b"A2B0": lut, b"wtpt": white, b"desc": text}, b"", b""
    for name, body in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    head = struct.pack(">I4sI4s4s4s", 0, b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += bytes(12) + b"acsp" + bytes(28) + white[8:] + bytes(48)
    profile = head + struct.pack(">I", len(tags)) + table + data
    return struct.pack(">I", len(profile)) + profile[4:], corners


def test_cmyk_becomes_srgb_through_its_profile(tmp_path, capsys):
    profile, corners = cmyk_profile()
    # Every ink whole or none: the table's own entries, cyan the slowest.
    inks = np.array([[(i >> b & 1) * 255 for b in (3, 2, 1, 0)] for i in range(16)], np.uint8)
    image = Image.fromarray(inks.reshape(4, 4, 4), "CMYK")
    image.save(tmp_path / "a.tif", icc_profile=profile)
    image.save(tmp_path / "b.tif")
    deep = inks.reshape(4, 4, 4).astype(np.uint16) * 257
    options = {"photometric": "separated", "iccprofile": profile, "metadata": None}
    tifffile.imwrite(tmp_path / "c.tif", deep, **options)
    image.resize((64, 64), 0).save(tmp_path / "d.jpg", icc_profile=profile, quality=100)
    notices = good(capsys, tmp_path, "--format", "png")
    assert notices == ["the 16 bits of CMYK were read as 8 (1 image)"]
    lab = corners.astype(float) * (100 / 255, 1, 1) - (0, 128, 128)
    xyz = skimage.color.lab2xyz(lab.reshape(4, 4, 3), illuminant="D50")
    linear = np.clip(xyz @ np.transpose(SRGB_OF_D50), 0, 1)
    curve = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    wanted = 255 * curve
    inside = (wanted > 2).all(axis=-1) & (wanted < 253).all(axis=-1)  # of sRGB's gamut
    assert inside.sum() > 6
    for name, factor in (("a", 1), ("c", 1), ("d", 16)):
        with Image.open(tmp_path / f"{name}_x2.png") as image:
            assert image.mode == "RGB"
            description = ImageCms.getProfileDescription(profile_of(image))
            found = np.array(image)[factor :: 2 * factor, factor :: 2 * factor].astype(float)
        assert "sRGB" in description
        assert abs(found - wanted)[inside].max() < 3
    with Image.open(tmp_path / "b_x2.png") as image:
        assert "icc_profile" not in image.info
        plain = np.clip(255 - inks[:, :3].astype(int) - inks[:, 3:], 0, 255).reshape(4, 4, 3)
        np.testing.assert_array_equal(np.array(image), twice(plain))


def test_profiles_stay_where_they_fit(tmp_path, capsys):
    for name in ("a.jpg", "b.webp", "c.tif", "d.png"):
        Image.fromarray(noise(4, 5, 3)).save(tmp_path / name, icc_profile=SRGB)
    (tmp_path / "e.png").write_bytes(
        png(
            noise(4, 5, 3, dtype=np.uint16),
            chunk(b"iCCP", b"name\0\0" + zlib.compress(SRGB)),
        )
    )
    Image.fromarray(noise(4, 5)).save(tmp_path / "gray.jpg", icc_profile=SRGB)
    good(capsys, tmp_path)
    good(capsys, tmp_path / "e_x2.png", "--format", "tiff")
    for name in ("a_x2.jpg", "b_x2.webp", "c_x2.tif", "d_x2.png", "e_x2.png", "e_x2_x2.tif"):
        with Image.open(tmp_path / name) as image:
            assert image.info["icc_profile"] == SRGB, name
    with Image.open(tmp_path / "gray_x2.jpg") as image:
        assert (image.mode, "icc_profile" in image.info) == ("L", False)


def test_palettes_single_bits_and_transparent_colours(tmp_path, capsys):
    rng = np.random.default_rng(0)
    palette = Image.fromarray(noise(6, 7) % 4, "P")
    palette.putpalette(list(range(12, 24)))
    palette.save(tmp_path / "a.png")
    palette.save(tmp_path / "b.png", transparency=bytes([0, 90, 255, 7]))
    palette.save(tmp_path / "c.bmp")
    palette.save(tmp_path / "d.gif", transparency=2)
    bits = rng.integers(0, 2, (6, 7)).astype(bool)
    Image.fromarray(bits).save(tmp_path / "e.png")
    Image.fromarray(bits).save(tmp_path / "f.tif", compression="group4")
    Image.fromarray(bits).save(tmp_path / "g.png", transparency=1)
    gray = noise(6, 7) % 3
    Image.fromarray(gray).save(tmp_path / "h.png", transparency=1)
    good(capsys, tmp_path, "--out", tmp_path / "out", "--format", "png")
    good(capsys, tmp_path / "d.gif", "--out", tmp_path / "out", "--format", "png")
    colours = np.arange(12, 24, dtype=np.uint8).reshape(4, 3)[noise(6, 7) % 4]
    alpha = np.array([0, 90, 255, 7], np.uint8)[noise(6, 7) % 4]
    mask = np.where(noise(6, 7) % 4 == 2, 0, 255).astype(np.uint8)
    white = bits.astype(np.uint8) * 255
    wanted = {
        "a": ("RGB", colours),
        "b": ("RGBA", np.dstack([colours, alpha])),
        "c": ("RGB", colours),
        "d": ("RGBA", np.dstack([colours, mask])),
        "e": ("L", white),
        "f": ("L", white),
        "g": ("LA", np.dstack([white, 255 - white])),
        "h": ("LA", np.dstack([gray, np.where(gray == 1, 0, 255).astype(np.uint8)])),
    }
    for name, (mode, pixels) in wanted.items():
        with Image.open(tmp_path / "out" / f"{name}_x2.png") as image:
            assert image.mode == mode, name
            found, pixels = np.array(image), twice(pixels)
        if mode.endswith("A"):  # what is under nothing is nothing
            found, pixels = found * (found[..., -1:] > 0), pixels * (pixels[..., -1:] > 0)
        np.testing.assert_array_equal(found, pixels, err_msg=name)


def test_rounding_to_8_bits_and_laying_over_white():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(to_8_bits(every), np.floor(every / 257 + 0.5))
    for dtype in (np.uint8, np.uint16):
        pixels, peak = noise(50, 40, 4, dtype=dtype), np.iinfo(dtype).max
        alpha = pixels[..., 3:] / peak
        wanted = pixels[..., :3] * alpha + peak * (1 - alpha)
        assert abs(over_white(pixels) - wanted).max() <= 0.5 + 1e-6
        np.testing.assert_array_equal(
            over_white(pixels[..., 2:]), over_white(pixels[..., [2, 2, 2, 3]])[..., 0]
        )


def test_jpeg_is_written_at_95_without_subsampling(tmp_path, capsys):
    Image.fromarray(noise(16, 16, 3)).save(tmp_path / "a.png", dpi=(300, 300))
    good(capsys, tmp_path, "--out", tmp_path / "95", "--format", "jpeg")
    good(capsys, tmp_path, "--out", tmp_path / "40", "--format", "jpeg", "--quality", 40)
    with Image.open(tmp_path / "95" / "a_x2.jpg") as image:
        again = Image.fromarray(np.array(image))
        tables = image.quantization
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
        assert image.info["dpi"] == (300, 300)
    again.save(tmp_path / "judge.jpg", quality=95)
    with Image.open(tmp_path / "judge.jpg") as image:
        assert image.quantization == tables
    sizes = [(tmp_path / q / "a_x2.jpg").stat().st_size for q in ("40", "95")]
    assert sizes[0] < sizes[1] / 2


def test_jpeg_is_what_pillow_writes(tmp_path, capsys):
    """Pixel by pixel, in colour and gray, with all that a file tells, however long."""
    for name, pixels in {"a": noise(20, 30, 3), "b": noise(20, 30)}.items():
        space = b"RGB " if pixels.ndim == 3 else b"GRAY"
        long_icc = SRGB[:16] + space + SRGB[20:] + noise(150_000).tobytes()  # three segments
        told = {"icc_profile": long_icc, "dpi": (72, 300), "exif": exif(Make="A maker")}
        Image.fromarray(pixels).save(tmp_path / f"{name}.png", **told)
        assert good(capsys, tmp_path / f"{name}.png", "--format", "jpeg", "--quality", 80) == []
        del told["exif"]
        judge = tmp_path / f"{name}_judge.jpg"
        Image.fromarray(twice(pixels)).save(judge, quality=80, subsampling=0, **told)
        written = tmp_path / f"{name}_x2.jpg"
        np.testing.assert_array_equal(read(written), read(judge))
        with Image.open(written) as image, Image.open(judge) as wanted:
            assert image.info["icc_profile"] == wanted.info["icc_profile"] == long_icc
            assert image.info["dpi"] == wanted.info["dpi"] == (72, 300)
            assert (image.mode, image.quantization) == (wanted.mode, wanted.quantization)
        check_exif(written, (60, 40))


def test_exif_too_long_for_a_jpeg_is_said(tmp_path, capsys):
    data = exif(Make="A maker", ImageDescription="x" * 70_000)
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "a.png", exif=data)
    assert good(capsys, tmp_path / "a.png", "--format", "jpeg") == [
        "EXIF was left out: JPEG holds at most 64 KiB of it (1 image)"
    ]
    assert not read_exif(tmp_path / "a_x2.jpg")
    assert good(capsys, tmp_path / "a.png") == []
    check_exif(tmp_path / "a_x2.png", (8, 8))


@pytest.mark.parametrize("kind", ["webp", "png", "gif"])
@pytest.mark.parametrize("form", ["webp", "png"])
def test_animations_keep_their_frames_and_times(tmp_path, capsys, kind, form):
    shapes = [
        np.dstack([noise(9, 12, 3, seed=i) // 64 * 64, noise(9, 12, seed=i) // 128 * 255])
        for i in range(3)
    ]
    images = [Image.fromarray(shape) for shape in shapes]
    options = {"lossless": True, "exact": True} if kind == "webp" else {}
    options |= {"disposal": 2} if kind == "gif" else {}
    path = tmp_path / f"a.{kind}"
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=[40, 120, 70], loop=3, **options
    )
    good(capsys, path, "--format", form, "--quality", 100)
    before, _ = frames_of(path)
    after, loop = frames_of(tmp_path / f"a_x2.{form}")
    # A GIF tells how often it is repeated.
    assert loop == (4 if kind == "gif" else 3)
    assert [duration for _, duration in after] == [40, 120, 70]
    for (wanted, _), (found, _) in zip(before, after, strict=True):
        wanted = twice(wanted)
        visible = wanted[..., 3:] > 0
        np.testing.assert_array_equal(found * visible, wanted * visible)
    said = good(capsys, path, "--format", "bmp", "--out", tmp_path / "a.bmp")
    assert any("only the first page was upscaled: BMP holds one" in line for line in said)
    (line,) = good(capsys, path, "--out", tmp_path / "a.tif")
    assert line == "frames became pages without durations: TIFF holds none (1 image)"
    with Image.open(tmp_path / "a.tif") as image:
        assert image.n_frames == 3


def test_every_page_of_a_tiff(tmp_path, capsys):
    pages = [
        noise(5, 6, 3),
        noise(7, 4, dtype=np.uint16),
        noise(3, 9),
        noise(6, 5, 3, dtype=np.uint16),
    ]
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for page in pages:
            tiff.write(page, photometric="rgb" if page.ndim == 3 else "minisblack", metadata=None)
    assert good(capsys, tmp_path / "a.tif") == []
    with tifffile.TiffFile(tmp_path / "a_x2.tif") as tiff:
        assert len(tiff.pages) == len(pages)
        for page, wanted in zip(tiff.pages, pages, strict=True):
            assert page.dtype == wanted.dtype
            np.testing.assert_array_equal(page.asarray(), twice(wanted))
    (line,) = good(capsys, tmp_path / "a.tif", "--format", "png")
    assert line == "only the first page was upscaled: PNG holds one (1 image)"
    np.testing.assert_array_equal(read(tmp_path / "a_x2.png"), twice(pages[0]))
    # A page that is damaged costs the file, and leaves nothing.
    data = (tmp_path / "a_x2.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a_x2.tif") as tiff:
        place = tiff.pages[3].dataoffsets[0]
    (tmp_path / "b.tif").write_bytes(data[:place] + bytes(8) + data[place + 8 :])
    code, lines = upscale(capsys, tmp_path / "b.tif")
    assert (code, len(lines)) == (1, 2)
    assert "b.tif: unreadable: " in lines[0]
    assert not [name for name in files_in(tmp_path) if name.startswith((".", "b_"))]
