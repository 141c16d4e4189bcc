"""`isr upscale` on folders of good, odd and broken files, against np.repeat of other decoders."""

import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from contextlib import contextmanager
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
import skimage.color
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps

from isr_jax import cli
from isr_jax.photo_reading import to_8_bits
from isr_jax.photo_writing import over_white

NEAREST = ("--model", "nearest", "--scale", 2)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def upscale(capsys, *arguments):
    """Exit code, and the lines of standard error, of `isr upscale` by nearest at 2x."""
    try:
        code = cli.main(["upscale", *map(str, NEAREST), *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return code, [line.removeprefix("isr upscale: ") for line in err.splitlines()]


def twice(pixels):
    return pixels.repeat(2, axis=0).repeat(2, axis=1)


def good(capsys, *arguments):
    """The notices, where all went well."""
    code, lines = upscale(capsys, *arguments)
    assert code == 0, lines
    return lines[:-1]


def noise(*shape, dtype=np.uint8, seed=0):
    most = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, most + 1, shape).astype(dtype)


def read(path, mode=None):
    with Image.open(path) as image:
        return np.array(image.convert(mode) if mode else image)


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels, *extra, declared=None):
    """A PNG of any channels and bits, from the specification."""
    h, w = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    kind, bits = {1: 0, 2: 4, 3: 2, 4: 6}[channels], 8 * pixels.itemsize
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(h, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    size = declared or (w, h)
    parts = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, 0)), *extra
    parts += chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def exif(**tags):
    data = Image.Exif()
    for name, value in tags.items():
        data[ExifTags.Base[name]] = value
    data.get_ifd(ExifTags.IFD.Exif).update({33434: 0.01, 40962: 7, 40963: 5, 42036: "a lens"})
    data.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (48.0, 8.0, 0.0)})
    return data


def check_exif(path, size):
    with Image.open(path) as image:
        found = image.getexif()
        assert found[ExifTags.Base.Make] == "A maker"
        assert found.get(ExifTags.Base.Orientation, 1) == 1
        more = found.get_ifd(ExifTags.IFD.Exif)
        assert (more[42036], float(more[33434])) == ("a lens", 0.01)
        assert (more[40962], more[40963]) == size
        assert found.get_ifd(ExifTags.IFD.GPSInfo)[2] == (48.0, 8.0, 0.0)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_bit_of_a_png_survives(tmp_path, capsys, channels, dtype):
    pixels = noise(5, 7, channels, dtype=dtype)
    (tmp_path / "a.png").write_bytes(png(pixels))
    assert upscale(capsys, tmp_path) == (0, ["1 enlarged, 0 skipped, 0 failed"])
    written = tmp_path / "a_x2.png"
    kinds = {1: 0, 2: 4, 3: 2, 4: 6}
    header = written.read_bytes()[24:26]
    assert (header[0], header[1]) == (8 * pixels.itemsize, kinds[channels])
    # OpenCV turns gray with alpha into colour with alpha.
    found = cv2.imread(str(written), cv2.IMREAD_UNCHANGED)
    found = found[..., None] if found.ndim == 2 else found[..., [2, 1, 0, 3][: found.shape[2]]]
    wanted = pixels[..., [0, 0, 0, 1]] if channels == 2 else pixels
    np.testing.assert_array_equal(found, twice(wanted))


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
    image.save(tmp_path / "c.tif", exif=data)
    image.save(tmp_path / "d.png", exif=data)
    block = chunk(b"eXIf", data.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "e.png").write_bytes(png(deep, block))
    turn = (274, "H", 1, orientation, True)
    tifffile.imwrite(tmp_path / "f.tif", deep, photometric="rgb", extratags=[turn])
    good(capsys, tmp_path, "--out", tmp_path / "out", "--quality", 100)
    good(capsys, tmp_path / "a.jpg", "--format", "png")
    size = (20, 14)[:: 1 if orientation > 4 else -1]
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
    with Image.open(tmp_path / "d.png") as image:
        place = np.arange(35, dtype=np.uint8).reshape(5, 7)
        moved = Image.fromarray(place)
        moved.getexif()[274] = orientation
        order = np.array(ImageOps.exif_transpose(moved))
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
