"""`isr upscale` in this process, and image files of every kind to give it."""

import re
import struct
import zlib

import numpy as np
from PIL import ExifTags, Image, ImageCms

from isr_jax import cli

NEAREST = ("--model", "nearest", "--scale", 2)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

# Lindbloom's, of XYZ under D50 to linear sRGB by way of Bradford's adaptation.
SRGB_OF_D50 = [
    [3.1338561, -1.6168667, -0.4906146],
    [-0.9787684, 1.9161415, 0.0334540],
    [0.0719453, -0.2289914, 1.4052427],
]


def upscale(capsys, *arguments):
    """Exit code and lines on standard error of `isr upscale` at 2x, by nearest or the model named.

    The names of the files that a notice is of are left out.
    """
    try:
        usual = NEAREST[2:] if "--model" in arguments else NEAREST
        code = cli.main(["upscale", *map(str, usual), *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err, err
    lines = [line.removeprefix("isr upscale: ") for line in err.splitlines()]
    return code, [re.sub(r"( \(\d+ images?): .*\)$", r"\1)", line) for line in lines]


def twice(pixels):
    return pixels.repeat(2, axis=0).repeat(2, axis=1)


def good(capsys, *arguments):
    """The notices, where all went well."""
    code, lines = upscale(capsys, *arguments)
    assert code == 0, lines
    return lines[:-1]


def noise(*shape, dtype=np.uint8, seed=0):
    """Alpha is more than 0: an Upscaler may change the colour that is under nothing."""
    least = np.ones(shape[-1], int) if shape[2:] in ((2,), (4,)) else 0
    least = least * (np.arange(shape[-1]) == shape[-1] - 1)
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape)
    return np.maximum(pixels, least).astype(dtype)


def read(path, mode=None):
    with Image.open(path) as image:
        return np.array(image.convert(mode) if mode else image)


def files_in(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


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


def read_exif(path):
    with Image.open(path) as image:
        return dict(image.getexif())


def check_exif(path, size):
    with Image.open(path) as image:
        found = image.getexif()
        assert found[ExifTags.Base.Make] == "A maker"
        assert found.get(ExifTags.Base.Orientation, 1) == 1
        more = found.get_ifd(ExifTags.IFD.Exif)
        assert (more[42036], float(more[33434])) == ("a lens", 0.01)
        assert (more[40962], more[40963]) == size
        assert found.get_ifd(ExifTags.IFD.GPSInfo)[2] == (48.0, 8.0, 0.0)


def frames_of(path):
    with Image.open(path) as image:
        found, loop = [], image.info.get("loop")
        for i in range(image.n_frames):
            image.seek(i)
            image.load()
            found.append((np.array(image.convert("RGBA")), image.info.get("duration")))
        return found, loop
