"""Formats beyond the usual ones, and what is lossless: the right pixels, in and out."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from isr_jax.errors import UserError
from isr_jax.photo.reading import open_photo
from tests.helpers.image_files import chunk, frames_of, good, noise, read, twice


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
