"""The one decoder of image files: what it opens, what it refuses, and how it rounds."""

import gc
import os
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from isr_jax.data.examples import UnusableImageError
from isr_jax.data.loading import load_all
from isr_jax.data.pairs import find_sets, load_pair
from isr_jax.data.sources import open_source
from isr_jax.errors import UserError
from isr_jax.photo.finding import image_files
from isr_jax.photo.formats import FORMATS, SUFFIXES, format_of
from isr_jax.photo.reading import decode_rgb, open_photo
from isr_jax.photo.writing import write_photo

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
(/tmp/isr_jax_postscript_ran) (w) file closefile
showpage
"""
opened: list[str] = []


def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        opened.append(os.fsdecode(arguments[0]))


@pytest.fixture(scope="module")
def opens():
    """Paths that were opened, from now on; an audit hook cannot be removed."""
    sys.addaudithook(watch)
    return opened


def pixels(h=12, w=10, dtype=np.uint8):
    peak = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, peak, (h, w, 3), dtype, endpoint=True)


def write_16_bits(path, image):
    path.write_bytes(imagecodecs.png_encode(image))


@pytest.mark.parametrize(
    "name", ["a.png", "deep.png", "a.jpg", "a.tif", "a.webp", "a.bmp", "a.avif"]
)
def test_a_file_is_opened_once(tmp_path, opens, name):
    path = tmp_path / name
    if name == "deep.png":
        write_16_bits(path, pixels(dtype=np.uint16))
    else:
        Image.fromarray(pixels()).save(path)
    opens.clear()
    page = next(open_photo(path).read().pages)
    assert page.pixels.shape == (12, 10, 3)
    assert opens.count(str(path)) == 1
    opens.clear()
    open_source(f"folder:{tmp_path}", "train", scale=2).load(0)
    assert opens.count(str(path)) == 1


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.tif"])
def test_postscript_is_refused_by_every_reader(tmp_path, name):
    """Pillow, left to choose, would hand it to Ghostscript."""
    folder = tmp_path / "hr"
    folder.mkdir()
    (folder / name).write_bytes(EPS)
    refused = r"unreadable: not a PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF, HEIC or JPEG XL image"
    with pytest.raises(UserError, match=refused):
        open_photo(folder / name)
    with pytest.raises(UnusableImageError, match=refused):
        open_source(f"folder:{folder}", "train", scale=2).load(0)
    (found,) = find_sets(tmp_path, scales=(2,))
    with pytest.raises(UnusableImageError, match=refused):
        load_pair(found.pairs[0], scale=2)


def test_sixteen_bit_rgb_is_kept_for_training_and_evaluation_and_rounded_for_validation(tmp_path):
    """0x01FF is 1.99 of 255 levels, of which dropping the low byte would make 1."""
    (tmp_path / "hr").mkdir()
    deep = pixels(dtype=np.uint16)
    deep[0, 0] = 0x01FF
    write_16_bits(tmp_path / "hr" / "a.png", deep)
    wanted = np.floor(deep / 257.0 + 0.5).astype(np.uint8)
    assert (wanted[0, 0] == 2).all()
    source = open_source(f"folder:{tmp_path}", "train", scale=2)
    np.testing.assert_array_equal(source.load(0).hr, deep)
    (photo,) = load_all(source, min_size=2, warn=pytest.fail)
    np.testing.assert_array_equal(photo.hr, wanted)
    (found,) = find_sets(tmp_path, scales=(2,))
    np.testing.assert_array_equal(load_pair(found.pairs[0], scale=2)[1], deep)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_of_a_format_makes_a_folder_of_photos(tmp_path, suffix):
    (tmp_path / "hr").mkdir()
    file = tmp_path / "hr" / f"a{suffix.upper()}"
    if FORMATS[format_of(file)].writes == "never":
        file.write_bytes((Path(__file__).parent / "data" / "deep.heic").read_bytes())
    else:
        Image.fromarray(pixels()).save(tmp_path / "a.png")
        photo = open_photo(tmp_path / "a.png").read()
        write_photo(file, format_of(file), photo.pages, photo)
        (tmp_path / "a.png").unlink()
    (tmp_path / "hr" / f".hidden{suffix}").write_bytes(file.read_bytes())
    assert image_files(tmp_path) == [file]
    assert len(open_source(f"folder:{tmp_path}", "train", scale=2)) == 1
    (found,) = find_sets(tmp_path, scales=(2,))
    assert [pair.name for pair in found.pairs] == ["a"]


def test_gray_stays_one_channel_only_where_it_is_asked_for(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(pixels()[..., 0]).save(path)
    assert decode_rgb(path.open("rb"), name="a", keep_gray=True).shape == (12, 10)
    rgb = decode_rgb(path.open("rb"), name="a")
    np.testing.assert_array_equal(rgb, np.stack([pixels()[..., 0]] * 3, axis=-1))


def test_a_declared_size_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(pixels()).save(path)
    with pytest.raises(UserError, match="declares 10x12 pixels, more than the limit of 100"):
        open_photo(path, max_pixels=100)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "a.bmp", "a.gif", "a.avif"])
def test_pillows_copy_of_the_pixels_does_not_outlive_decoding(tmp_path, name):
    """It would lie beside the result, which takes all the memory that there is."""
    Image.fromarray(pixels()).save(tmp_path / name)
    photo = open_photo(tmp_path / name)
    decoded = photo.read()
    gc.collect()
    # By type: isinstance asks proxies of other libraries what they are, which can warn.
    holders = [x for x in gc.get_objects() if issubclass(type(x), Image.Image)]
    assert [x for x in holders if x.size == (10, 12)] == []
    assert next(decoded.pages).pixels.shape == (12, 10, 3)
