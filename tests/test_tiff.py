"""TIFF of every packing, layout and depth, against the pixels that were written."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from isr_jax.errors import UserError
from isr_jax.photo.declared import declared_size
from isr_jax.photo.reading import decode_rgb, open_photo
from tests.helpers.image_files import SRGB, good, noise, read, twice, upscale

PACKED = ("jpegxl", "jpeg2000", "lerc", "webp", "png", "zstd", "lzma", "lzw", "deflate", "packbits")


def decoded(path, **options):
    photo = open_photo(path, **options).read()
    return [page.pixels for page in photo.pages], photo.notices


def save(path, pixels, **options):
    options = {
        "metadata": None,
        "photometric": "rgb" if pixels.ndim == 3 else "minisblack",
    } | options
    tifffile.imwrite(path, pixels, **options)


KINDS = [(dtype, shape) for dtype in (np.uint8, np.uint16) for shape in ((3,), (4,), ())]
LEAST = {"webp": KINDS[:2]}  # it holds 8-bit colour only


@pytest.mark.parametrize(
    ("compression", "dtype", "channels"),
    [(name, *kind) for name in PACKED for kind in LEAST.get(name, KINDS)],
)
def test_every_packing_is_read(tmp_path, compression, dtype, channels):
    shape = (40, 50, *channels)
    pixels = noise(*shape, dtype=dtype)
    lossless = {"jpegxl": {"lossless": True}, "webp": {"lossless": True}, "jpeg2000": {"level": 0}}
    options = {"compression": compression, "compressionargs": lossless.get(compression)}
    options["extrasamples"] = ["unassalpha"] if shape[2:] == (4,) else None
    save(tmp_path / "strips.tif", pixels, rowsperstrip=16, **options)
    save(tmp_path / "tiles.tif", pixels, tile=(32, 32), **options)
    for name in ("strips.tif", "tiles.tif"):
        (found,), notices = decoded(tmp_path / name)
        np.testing.assert_array_equal(found, pixels)
        assert notices == ()


def test_jpeg_in_tiff_is_what_others_decode(tmp_path):
    pixels = np.asarray(Image.fromarray(noise(6, 7, 3)).resize((48, 40)))
    for name, options in {
        "ycbcr": {},
        "half": {"subsampling": (2, 2)},
        "tiles": {"tile": (16, 16)},
        "rgb": {"compressionargs": {"outcolorspace": "rgb"}},
    }.items():
        file = tmp_path / f"{name}.tif"
        save(file, pixels, compression="jpeg", **options)
        with tifffile.TiffFile(file) as tiff:
            assert tiff.pages[0].photometric.name == ("RGB" if name == "rgb" else "YCBCR")
        (found,), _ = decoded(file)
        np.testing.assert_array_equal(found, read(file, "RGB"), err_msg=name)
        assert abs(found.astype(int) - pixels).mean() < 12, name
    save(tmp_path / "gray.tif", pixels[..., 0], compression="jpeg")
    (found,), _ = decoded(tmp_path / "gray.tif")
    np.testing.assert_array_equal(found, read(tmp_path / "gray.tif"))


def test_colours_of_every_kind(tmp_path):
    rgb = noise(9, 12, 3)
    image, places = Image.fromarray(rgb), noise(9, 12) % 16
    palette = Image.fromarray(places, "P")
    palette.putpalette(list(range(60, 108)))
    palette.save(tmp_path / "palette.tif")
    wanted = {"palette": np.arange(60, 108, dtype=np.uint8).reshape(16, 3)[places]}
    short = np.zeros((3, 256), np.uint16)
    short[:, :16] = np.arange(60, 108).reshape(16, 3).T
    for name, colours in {"wide": short * 257, "narrow": short}.items():
        options = {"photometric": "palette", "colormap": colours, "compression": "png"}
        save(tmp_path / f"{name}.tif", places, **options)
        wanted[name] = wanted["palette"]
    image.convert("YCbCr").save(tmp_path / "ycbcr.tif")
    wanted["ycbcr"] = np.asarray(image.convert("YCbCr").convert("RGB"))
    lab = noise(9, 12, 3)
    save(tmp_path / "lab.tif", lab, photometric="cielab")
    wanted["lab"] = read(tmp_path / "lab.tif", "RGB")
    save(tmp_path / "icclab.tif", lab ^ np.array([0, 128, 128], np.uint8), photometric="icclab")
    wanted["icclab"] = wanted["lab"]
    inks = noise(9, 12, 4) // 128 * 255
    for compression in (None, "jpeg2000", "zstd"):
        options = {"photometric": "separated", "compression": compression}
        save(tmp_path / f"inks{compression}.tif", inks, **options)
        plain = np.clip(255 - inks[..., :3].astype(int) - inks[..., 3:], 0, 255)
        wanted[f"inks{compression}"] = plain
    save(
        tmp_path / "planes.tif", np.moveaxis(rgb, 2, 0), planarconfig="separate", compression="png"
    )
    wanted["planes"] = rgb
    save(tmp_path / "white.tif", rgb[..., 0], photometric="miniswhite", compression="zstd")
    wanted["white"] = 255 - rgb[..., 0]
    bits = rgb[..., 0] > 127
    Image.fromarray(bits).save(tmp_path / "bits.tif", compression="tiff_lzw")
    Image.fromarray(bits).save(tmp_path / "fax.tif", compression="group4")
    wanted["bits"] = wanted["fax"] = bits * np.uint8(255)
    for name, pixels in wanted.items():
        (found,), notices = decoded(tmp_path / f"{name}.tif")
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, pixels, err_msg=name)
        assert notices == ()


def packed_tiff(values, bits):
    """A gray TIFF of any depth, from the specification."""
    h, w = values.shape
    planes = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(h, w, 2), axis=2)
    data = np.packbits(planes[..., -bits:].reshape(h, -1), axis=1).tobytes()
    fields = {256: w, 257: h, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: h, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, x) for tag, x in fields.items())
    directory = struct.pack("<H", len(fields)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [(1, np.uint8), (2, np.uint8), (4, np.uint8), (6, np.uint8), (10, np.uint16), (12, np.uint16)],
)
def test_odd_depths_become_8_or_16_bits(tmp_path, bits, dtype):
    most = 2**bits - 1
    values = np.random.default_rng(0).integers(0, most + 1, (8, 16)).astype(dtype)
    (tmp_path / "a.tif").write_bytes(packed_tiff(values, bits))
    (found,), _ = decoded(tmp_path / "a.tif")
    assert found.dtype == dtype
    exact = values.astype(float) / most * np.iinfo(dtype).max
    np.testing.assert_array_equal(found, np.floor(exact + 0.5))


def test_the_order_of_bits_in_a_byte(tmp_path):
    pixels = noise(8, 16)
    save(tmp_path / "a.tif", pixels)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        place = tiff.pages[0].dataoffsets[0]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[place : place + pixels.size] = imagecodecs.bitorder_encode(pixels.tobytes())
    (tmp_path / "a.tif").write_bytes(data)
    # The tag of an ASCII name's place is changed to FillOrder, 2.
    save(tmp_path / "b.tif", pixels, extratags=[(65000, 3, 1, 2, True)])
    data = bytearray((tmp_path / "b.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        page = tiff.pages[0]
        place, offset = page.dataoffsets[0], page.tags[65000].offset
    data[place : place + pixels.size] = imagecodecs.bitorder_encode(pixels.tobytes())
    data[offset : offset + 2] = (266).to_bytes(2, "little")
    (tmp_path / "b.tif").write_bytes(data)
    (found,), _ = decoded(tmp_path / "b.tif")
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparency_straight_associated_and_unnamed(tmp_path, dtype):
    pixels, peak = noise(9, 12, 4, dtype=dtype), np.iinfo(dtype).max
    pixels[..., 3] = np.maximum(pixels[..., 3], peak // 2)
    save(tmp_path / "a.tif", pixels, extrasamples=["unassalpha"], compression="zstd")
    (found,), _ = decoded(tmp_path / "a.tif")
    np.testing.assert_array_equal(found, pixels)
    laid = pixels.astype(float)
    laid[..., :3] = np.floor(laid[..., :3] * laid[..., 3:] / peak + 0.5)
    save(tmp_path / "b.tif", laid.astype(dtype), extrasamples=["assocalpha"], compression="zstd")
    (found,), _ = decoded(tmp_path / "b.tif")
    assert abs(found.astype(int) - pixels).max() <= 1
    # Without a name, as old programs leave it.
    image = Image.fromarray(pixels.astype(np.uint8), "RGBA")
    image.save(tmp_path / "c.tif")
    data = (tmp_path / "c.tif").read_bytes()
    at = data.index((338).to_bytes(2, "little") + b"\3\0")
    (tmp_path / "c.tif").write_bytes(data[:at] + (65001).to_bytes(2, "little") + data[at + 2 :])
    (found,), _ = decoded(tmp_path / "c.tif")
    np.testing.assert_array_equal(found, pixels.astype(np.uint8))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bands_of_a_multispectral_tiff(tmp_path, capsys, planar, dtype):
    bands = noise(9, 12, 6, dtype=dtype)
    stored = np.moveaxis(bands, 2, 0) if planar == "separate" else bands
    file = tmp_path / "a.tif"
    save(file, stored, photometric="minisblack", planarconfig=planar, compression="zstd")
    (line, _) = upscale(capsys, file)[1]
    assert "a multispectral TIFF of 6 bands, none of which it calls red, green or blue" in line
    assert "--bands R,G,B" in line
    with pytest.raises(UserError, match="6 bands, none of which"):
        next(open_photo(file).read().pages)
    assert good(capsys, file, "--bands", "5,3,1") == []
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "a_x2.tif"), twice(bands[..., [4, 2, 0]])
    )
    (found,), _ = decoded(file, bands=(2, 3, 4))
    np.testing.assert_array_equal(found, bands[..., 1:4])
    (found,), _ = decoded(file, bands=(6,))
    np.testing.assert_array_equal(found, bands[..., 5])
    assert (
        "6 bands, and no band 7" in upscale(capsys, file, "--bands", "7,1,2", "--overwrite")[1][0]
    )
    # Colours with a band beyond them.
    save(file, stored[:4] if planar == "separate" else bands[..., :4], planarconfig=planar,
         extrasamples=["unspecified"])  # fmt: skip
    (found,), (notice,) = decoded(file)
    np.testing.assert_array_equal(found, bands[..., :3])
    assert "multispectral TIFF of 4 bands was upscaled as the colours that it declares" in notice
    (found,), notices = decoded(file, bands=(4, 2, 1))
    np.testing.assert_array_equal(found, bands[..., [3, 1, 0]])
    assert notices == ()


@pytest.mark.parametrize("text", ["1,2", "0", "1,2,x", "3,2,1,4"])
def test_bands_are_one_or_three(tmp_path, capsys, text):
    save(tmp_path / "a.tif", noise(4, 4, 3))
    code, (line,) = upscale(capsys, tmp_path, "--bands", text)
    assert (code, "is not a band, or three such as 3,2,1" in line) == (2, True)


def test_bands_do_not_change_other_files(tmp_path, capsys):
    save(tmp_path / "a.tif", noise(4, 5, 3), iccprofile=SRGB)
    Image.fromarray(noise(4, 5)).save(tmp_path / "b.png")
    assert good(capsys, tmp_path, "--bands", "3,2,1") == []
    np.testing.assert_array_equal(read(tmp_path / "a_x2.tif"), twice(noise(4, 5, 3)))
    np.testing.assert_array_equal(read(tmp_path / "b_x2.png"), twice(noise(4, 5)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_point_is_read_as_0_to_1(tmp_path, dtype):
    values = np.random.default_rng(0).random((9, 12, 3)).astype(dtype)
    values[0, :4] = [[-0.5] * 3, [1.5] * 3, [np.nan] * 3, [np.inf] * 3]
    save(tmp_path / "a.tif", values, compression="zlib", predictor=3)
    (found,), notices = decoded(tmp_path / "a.tif")
    wanted = np.floor(np.clip(np.nan_to_num(values.astype(float), posinf=1), 0, 1) * 65535 + 0.5)
    assert found.dtype == np.uint16
    assert abs(found - wanted).max() <= (dtype == np.float64)
    assert found[0, :4, 0].tolist() == [0, 65535, 0, 65535]
    assert notices == ("floating-point values were read as 0 to 1, clipped, in 16 bits",)
    save(tmp_path / "b.tif", (values[1:] * 200).astype(dtype))
    with pytest.raises(UserError, match=r"pixels of up to \d+\.?\d*, but 1 is white: divide them"):
        decoded(tmp_path / "b.tif")


def test_pages_of_different_kinds(tmp_path):
    pages = [noise(5, 6, 3), noise(7, 4), noise(40, 40, 4, dtype=np.uint16)]
    kinds = ["jpegxl", "jpeg2000", "zstd"]
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for page, kind in zip(pages, kinds, strict=True):
            rgb, alpha = page.ndim == 3, page.shape[2:] == (4,)
            tiff.write(
                page,
                photometric="rgb" if rgb else "minisblack",
                compression=kind,
                extrasamples=["unassalpha"] if alpha else None,
                compressionargs={"lossless": True} if kind == "jpegxl" else None,
                metadata=None,
            )
    found, _ = decoded(tmp_path / "a.tif")
    for page, wanted in zip(found, pages, strict=True):
        np.testing.assert_array_equal(page, wanted)


ENCODERS = {
    "jpeg": imagecodecs.jpeg_encode,
    "jpeg2000": imagecodecs.jpeg2k_encode,
    "png": imagecodecs.png_encode,
    "webp": imagecodecs.webp_encode,
    "webp, lossless": lambda pixels: imagecodecs.webp_encode(pixels, lossless=True),
    "jpegxl": imagecodecs.jpegxl_encode,
    "jpegxl in boxes": lambda pixels: imagecodecs.jpegxl_encode(pixels, usecontainer=True),
    "jpegxr": imagecodecs.jpegxr_encode,
    "lerc": imagecodecs.lerc_encode,
    "lossless jpeg": lambda pixels: imagecodecs.ljpeg_encode(pixels[..., 0]),
}


@pytest.mark.parametrize("codec", ENCODERS)
@pytest.mark.parametrize("size", [(24, 18), (64, 64), (700, 33)])
def test_the_size_that_an_encoded_image_declares(codec, size):
    width, height = size
    data = bytes(ENCODERS[codec](noise(height, width, 3)))
    assert declared_size(data) == size
    for cut in range(4):
        with pytest.raises(ValueError):
            declared_size(data[:cut])


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    """Within its pixels, and within the last part of them; what follows a whole page is no loss."""
    pages = [Image.fromarray(noise(16, 16, seed=i)) for i in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    save(tmp_path / "jpeg.tif", noise(64, 64, 3), compression="jpeg", rowsperstrip=16)
    whole = {name: (tmp_path / f"{name}.tif").read_bytes() for name in ("pages", "jpeg")}
    with tifffile.TiffFile(tmp_path / "pages.tif") as tiff:
        second = tiff.pages[1].offset
    (tmp_path / "a.tif").write_bytes(whole["pages"][:second])
    found, notices = decoded(tmp_path / "a.tif")
    assert len(found) == 1 and "what follows the last page that is whole" in notices[0]
    for name, share in (("pages", 0.85), ("jpeg", 0.99), ("jpeg", 0.9)):
        (tmp_path / "a.tif").write_bytes(whole[name][: int(share * len(whole[name]))])
        with pytest.raises(UserError, match=r"it ends before its|failed to read 256 bytes"):
            decoded(tmp_path / "a.tif")


def test_a_thumbnail_before_the_photo(tmp_path):
    """And read as if it were the only page."""
    photo, small = noise(8, 10, 3), noise(4, 5, 3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(small, photometric="rgb", subfiletype=1, metadata=None)
        tiff.write(photo, photometric="rgb", metadata=None)
    (found,), notices = decoded(tmp_path / "a.tif")
    np.testing.assert_array_equal(found, photo)
    assert notices == ("smaller copies and masks among a file's pages were left out",)
    np.testing.assert_array_equal(decode_rgb((tmp_path / "a.tif").open("rb"), name="a"), photo)


@pytest.mark.parametrize("compression", ["lzw", "deflate"])
def test_a_size_that_is_too_large_is_no_damage(tmp_path, compression):
    save(tmp_path / "a.tif", noise(8, 10, 3), compression=compression)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        tiff.pages.first.tags[279].overwrite(10**5)
    (found,), _ = decoded(tmp_path / "a.tif")
    np.testing.assert_array_equal(found, noise(8, 10, 3))


def test_a_palette_of_two_colours(tmp_path):
    bits = noise(5, 16) > 127
    colours = np.array([[0, 60], [20, 40], [255, 1]], np.uint16) * 257
    save(tmp_path / "a.tif", bits, extratags=[(320, 3, 6, colours.ravel().tolist(), True)])
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        tiff.pages.first.tags[262].overwrite(3)  # tifffile writes no such file
    (found,), _ = decoded(tmp_path / "a.tif")
    np.testing.assert_array_equal(found, (colours.T // 257)[bits.astype(int)])


def test_a_description_with_the_old_size_is_left_out(tmp_path):
    for text in ('{"shape": [4, 5]}', "<OME><Pixels SizeX='5'/></OME>", "a cat"):
        save(tmp_path / "a.tif", noise(4, 5), description=text, metadata=None)
        photo = open_photo(tmp_path / "a.tif").read()
        left_out = [line for line in photo.notices if "it states the old size" in line]
        assert (270 in photo.metadata.exif, len(left_out)) == (
            (True, 0) if text == "a cat" else (False, 1)
        )


@pytest.mark.parametrize("codec", ["jpeg2000", "png", "webp", "jpegxl", "lerc", "jpeg"])
def test_a_part_cannot_be_larger_than_it_should(tmp_path, codec):
    """A tile of a small file whose decoder would take gigabytes."""
    file = io.BytesIO()
    save(file, noise(16, 16, 3), compression=codec)
    flat = np.zeros((1200, 1200, 3), np.uint8)
    inner = bytes(ENCODERS[codec](flat))
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        tags = tiff.pages[0].tags
        place, size = tags["StripOffsets"].valueoffset, tags["StripByteCounts"].valueoffset
    data = bytearray(file.getvalue())
    data[place : place + 4] = len(data).to_bytes(4, "little")
    data[size : size + 4] = len(inner).to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(data + inner)
    with pytest.raises(UserError, match=r"declares 1200x1200 pixels|unknown codec|zlib|zstd"):
        decoded(tmp_path / "a.tif")
