import functools
import http.server
import importlib.util
import io
import os
import subprocess
import sys
import threading
import zipfile
from fractions import Fraction

import jax
import numpy as np
import pytest
import skimage.data
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.utils import lazy_imports_utils

from isr_jax.config import small
from isr_jax.data import samples
from isr_jax.data.derived import at_sizes
from isr_jax.data.examples import UnusableImageError, decode_image, modcrop
from isr_jax.data.loading import load_all
from isr_jax.data.samples import IsrSamples
from isr_jax.data.sources import open_source
from isr_jax.errors import UserError
from isr_jax.resize import resize_uint8
from isr_jax.training import checks
from isr_jax.training.loaders import open_images, open_loader
from tests.helpers.encoded import encode, error_of, noise


def decode(data, *, name):
    """Decode the bytes of a file."""
    return decode_image(io.BytesIO(data), name=name)


class TestSamples:
    def test_every_photograph_is_on_its_side_of_the_split(self, tfds_dir):
        names = {}
        for split in ("train", "validation"):
            source = open_source("samples", split, scale=4, tfds_dir=tfds_dir)
            names[split] = [source.load(i).name for i in range(len(source))]
        assert sorted(names["train"]) == sorted(samples.TRAIN)
        assert sorted(names["validation"]) == sorted(samples.VALIDATION)
        assert not set(samples.TRAIN) & set(samples.VALIDATION)

    def test_pixels_are_those_of_the_wheel(self, tfds_dir):
        source = open_source("samples", "train", scale=4, tfds_dir=tfds_dir)
        photos = {photo.name: photo for photo in map(source.load, range(len(source)))}
        np.testing.assert_array_equal(photos["astronaut.png"].hr, skimage.data.astronaut())
        assert photos["motorcycle_left.png"].hr.shape == (500, 740, 3)
        assert photos["astronaut.png"].lr is None

    def test_each_is_large_enough_and_worth_learning(self, tfds_dir):
        for split in ("train", "validation"):
            source = open_source("samples", split, scale=4, tfds_dir=tfds_dir)
            for photo in load_all(source, min_size=176, warn=pytest.fail):
                blurred = resize_uint8(photo.lr, scale=4).astype(float)
                assert np.square(blurred - photo.hr).mean() > 20, photo.name

    def test_a_second_process_that_comes_late_finds_the_data_whole(self, tmp_path, monkeypatch):
        generate, calls = IsrSamples._split_generators, []

        def overtaken(self, dl_manager):
            calls.append(self)
            if len(calls) == 1:
                open_source("samples", "train", scale=4, tfds_dir=str(tmp_path))
            return generate(self, dl_manager)

        monkeypatch.setattr(IsrSamples, "_split_generators", overtaken)
        source = open_source("samples", "train", scale=4, tfds_dir=str(tmp_path))
        assert len(calls) == 2
        assert len(source) == len(samples.TRAIN)
        assert source.load(9).hr.size
        assert not list(tmp_path.glob("**/*incomplete*"))

    def test_a_failure_is_one_line(self, tmp_path):
        (tmp_path / "file").write_text("")
        message = error_of(
            lambda: open_source("samples", "train", scale=4, tfds_dir=str(tmp_path / "file"))
        )
        assert "samples: could not be prepared in" in message

    def test_they_need_no_home_that_can_be_written(self, tmp_path):
        """As in a container; the folder that they are in then is deleted afterwards."""
        (tmp_path / "file").write_text("")
        code = (
            "from isr_jax.data.sources import open_source; from isr_jax.training import runtime;"
            "runtime.use_compilation_cache(); source = open_source('samples', 'train', scale=4);"
            "print(len(source), source.load(0).hr.ndim)"
        )
        home = {"HOME": str(tmp_path / "file" / "home"), "TMPDIR": str(tmp_path)}
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_C", "XDG_"))}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment | home, capture_output=True, text=True
        )
        assert (done.stdout, done.stderr) == ("10 3\n", "")
        assert not list(tmp_path.glob("isr-samples-*"))

    def test_importing_registers_nothing_and_does_not_load_tensorflow(self):
        code = (
            "import sys, isr_jax.data.sources, isr_jax.data.stream, tensorflow_datasets as tfds;"
            "assert 'isr_samples' not in tfds.list_builders(with_community_datasets=False);"
            "assert 'tensorflow' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestFolder:
    def test_finds_images_in_order_at_any_depth(self, tmp_path, monkeypatch):
        root = tmp_path / "photos"
        files = ["a.png", "b/A.JPG", "b/c/x.WebP", "b/y.bmp", "z.tif", "z2.TIFF"]
        for file in [*files, ".hidden.png", "._a.png", ".cache/a.png", "notes.txt", "noext"]:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_bytes(encode(noise(8, 8)))
        (root / "folder.png").mkdir()
        monkeypatch.setenv("HOME", str(tmp_path))
        for spec in (f"folder:{root}", "folder:~/photos", f"folder:{root}/"):
            source = open_source(spec, "train", scale=2)
            assert [source.load(i).name for i in range(len(source))] == files
            assert source.name == spec

    @pytest.mark.parametrize("fmt", ["PNG", "BMP", "TIFF", "WEBP", "GIF"])
    def test_lossless_formats_keep_every_pixel(self, fmt):
        image = noise(9, 7) // 128 * 255  # at most eight colours, for GIF's palette
        options = {"lossless": True} if fmt == "WEBP" else {}
        np.testing.assert_array_equal(decode(encode(image, fmt, **options), name=""), image)

    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "I;16"])
    def test_every_mode_becomes_rgb(self, mode):
        gray = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
        if mode == "1":
            gray = gray // 128 * 255
        wide = gray.astype(np.uint16) * 257
        image = Image.fromarray(wide) if mode == "I;16" else Image.fromarray(gray).convert(mode)
        assert image.mode == mode
        decoded = decode(encode(image), name="")
        np.testing.assert_array_equal(decoded, np.repeat(gray[:, :, None], 3, axis=2))

    def test_sixteen_bits_are_rounded(self):
        wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
        decoded = decode(encode(wide), name="")[..., 0]
        np.testing.assert_array_equal(decoded, np.round(wide / 257).astype(np.uint8))

    def test_cmyk_is_close_to_rgb(self):
        image = Image.fromarray(np.full((8, 8, 3), (200, 100, 50), np.uint8)).convert("CMYK")
        for fmt in ("TIFF", "JPEG"):
            pixel = decode(encode(image, fmt), name="")[4, 4].astype(int)
            assert np.abs(pixel - (200, 100, 50)).max() < 6

    def test_transparency_is_laid_over_white(self):
        image = np.zeros((1, 3, 4), np.uint8)
        image[0, :, 3] = 0, 51, 255
        assert decode(encode(image), name="")[0, :, 0].tolist() == [255, 204, 0]
        palette = Image.fromarray(noise(4, 4)).quantize(4)
        assert (decode(encode(palette, transparency=bytes(4)), name="") == 255).all()

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation_is_applied(self, orientation):
        image, exif = noise(6, 8), Image.Exif()
        exif[0x0112] = orientation
        turned = {
            1: image,
            2: image[:, ::-1],
            3: image[::-1, ::-1],
            4: image[::-1],
            5: image.swapaxes(0, 1),
            6: np.rot90(image, -1),
            7: image[::-1, ::-1].swapaxes(0, 1),
            8: np.rot90(image),
        }
        decoded = decode(encode(image, exif=exif), name="")
        np.testing.assert_array_equal(decoded, turned[orientation])

    def test_an_unreadable_image_is_named(self, tmp_path):
        (tmp_path / "bad.png").write_bytes(b"not a picture")
        source = open_source(f"folder:{tmp_path}", "train", scale=2)
        with pytest.raises(UnusableImageError, match=r"^bad\.png: unreadable: not a PNG"):
            source.load(0)
        (tmp_path / "bad.png").unlink()
        with pytest.raises(UnusableImageError, match=r"^bad\.png: No such file"):
            source.load(0)

    @pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
    def test_a_truncated_file_is_unreadable(self, fmt):
        data = encode(noise(64, 64), fmt)
        for end in (10, len(data) // 2, len(data) * 9 // 10):
            with pytest.raises(UnusableImageError, match=r"^name: unreadable: ") as info:
                decode(data[:end], name="name")
            assert "\n" not in str(info.value)

    def test_pixels_without_an_agreed_range_are_refused(self):
        for dtype in (np.float32, np.int32):
            image = np.full((4, 4), 1e6, dtype)
            with pytest.raises(UnusableImageError, match="save it with 8 or 16 bits"):
                decode(encode(image, "TIFF"), name="")

    def test_mistakes_are_told_in_one_line(self, tmp_path):
        def open_(spec):
            return error_of(lambda: open_source(spec, "train", scale=4))

        (tmp_path / "a.png").write_bytes(encode(noise(4, 4)))
        (tmp_path / "empty").mkdir()
        assert "no such folder" in open_(f"folder:{tmp_path}/nowhere")
        assert "is a file" in open_(f"folder:{tmp_path}/a.png")
        assert "holds no PNG" in open_(f"folder:{tmp_path}/empty")
        assert open_(str(tmp_path)).endswith(f"use folder:{tmp_path}")
        for spec in ("sample", "folder:", "tfds:", "", "samples:train"):
            assert open_(spec).endswith("pairs:HR:LR, list:FILE or tfds:NAME[:SPLIT]")


class TestLoadAll:
    def test_lr_is_the_exact_bicubic_of_the_whole_cropped_image(self, tmp_path):
        (tmp_path / "a.png").write_bytes(encode(noise(50, 39)))
        source = open_source(f"folder:{tmp_path}", "train", scale=3)
        (photo,) = load_all(source, min_size=24, warn=pytest.fail)
        np.testing.assert_array_equal(photo.hr, noise(50, 39)[:48, :39])
        np.testing.assert_array_equal(photo.lr, resize_uint8(photo.hr, scale=Fraction(1, 3)))

    def test_names_skips_and_counts_what_cannot_be_used(self, tmp_path):
        (tmp_path / "a.png").write_bytes(encode(noise(32, 31)))
        (tmp_path / "b.png").write_bytes(encode(noise(64, 64))[:-500])
        (tmp_path / "c.png").write_bytes(encode(noise(32, 32)))
        (tmp_path / "d.jpg").write_bytes(b"")
        (tmp_path / "e.png").write_bytes(encode(noise(1, 1)))
        source, lines = open_source(f"folder:{tmp_path}", "train", scale=4), []
        photos = load_all(source, min_size=32, warn=lines.append)
        assert [photo.name for photo in photos] == ["c.png"]
        assert len(lines) == 5 and not any("\n" in line for line in lines)
        assert lines[0] == "skipped a.png: 28x32 is smaller than 32x32"
        assert lines[1].startswith("skipped b.png: unreadable: ")
        assert lines[2].startswith("skipped d.jpg: unreadable: ")
        assert lines[4] == f"folder:{tmp_path}: skipped 4 of 5 images"

    def test_stops_if_nothing_is_left(self, tmp_path):
        (tmp_path / "a.png").write_bytes(encode(noise(8, 8)))
        source = open_source(f"folder:{tmp_path}", "train", scale=4)
        message = error_of(lambda: load_all(source, min_size=96, warn=pytest.fail))
        assert "none of its 1 images" in message and "a.png: 8x8 is smaller" in message

    def test_on_real_photographs(self, isr_data):
        source = open_source(f"folder:{isr_data}/train/T91", "train", scale=4)
        photos = load_all(source, min_size=32, warn=pytest.fail)
        assert len(photos) == len(source) == 91


def test_modcrop_keeps_the_top_left():
    image = noise(10, 9)
    np.testing.assert_array_equal(modcrop(image, 4), image[:8, :8])
    np.testing.assert_array_equal(modcrop(image, 1), image)


def zipped(path, images):
    with zipfile.ZipFile(path, "w") as archive:
        for name, image in images.items():
            archive.writestr(name, encode(image))


@pytest.fixture
def div2k(tmp_path, monkeypatch):
    """TFDS's DIV2K builder, its archives tiny ones of the same layout on a local server."""
    site = tmp_path / "site"
    site.mkdir()
    for half, ids in (("train", (1, 2, 3)), ("valid", (801, 802))):
        hr = {f"DIV2K_{half}_HR/{i:04}.png": noise(42, 31, seed=i) for i in ids}
        lr = {
            f"DIV2K_{half}_LR_bicubic/X4/{i:04}x4.png": resize_uint8(
                noise(42, 31, seed=i), scale=Fraction(1, 4)
            )
            for i in ids
        }
        zipped(site / f"DIV2K_{half}_HR.zip", hr)
        zipped(site / f"DIV2K_{half}_LR_bicubic_X4.zip", lr)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        config = tfds.builder_cls("div2k").builder_configs["bicubic_x4"]
        url = f"http://127.0.0.1:{server.server_port}/"
        urls = {key: url + old.rsplit("/", 1)[1] for key, old in config.download_urls.items()}
        monkeypatch.setattr(config, "download_urls", urls)
        yield site
        server.shutdown()


class TestDiv2k:
    def test_is_downloaded_and_prepared_without_tensorflow(self, div2k, tmp_path, capfd):
        for split, ids in (("train", (1, 2, 3)), ("validation", (801, 802))):
            source = open_source(
                "tfds:div2k/bicubic_x4", split, scale=4, tfds_dir=str(tmp_path / "tfds")
            )
            photos = load_all(source, min_size=16, warn=pytest.fail)
            assert len(photos) == len(ids)
            for photo in photos:
                (i,) = [i for i in ids if (noise(42, 31, seed=i)[:40, :28] == photo.hr).all()]
                lr = resize_uint8(noise(42, 31, seed=i), scale=Fraction(1, 4))
                assert lr.shape == (11, 8, 3)
                np.testing.assert_array_equal(photo.lr, lr[:10, :7])
        assert capfd.readouterr().out == ""
        if not importlib.util.find_spec("tensorflow"):
            assert "_module" not in vars(lazy_imports_utils.tensorflow)
            assert "tensorflow" not in sys.modules

    def test_a_failed_download_is_one_line_and_can_be_repeated(self, div2k, tmp_path):
        archive = div2k / "DIV2K_valid_LR_bicubic_X4.zip"
        archive.rename(div2k / "away.zip")

        def open_():
            return open_source(
                "tfds:div2k/bicubic_x4", "train", scale=4, tfds_dir=str(tmp_path / "tfds")
            )

        message = error_of(open_)
        assert "could not be prepared" in message and "404" in message
        (div2k / "away.zip").rename(archive)
        assert len(open_()) == 3


class TestMoreSizes:
    """`data.resized`, against Pillow, whose bicubic has the same kernel in fixed point."""

    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "lr").mkdir()
        (tmp_path / "hr").mkdir()
        for i, photo in enumerate((skimage.data.chelsea(), skimage.data.astronaut()[:60, :90])):
            Image.fromarray(photo).save(tmp_path / "hr" / f"{i}.png")
        Image.fromarray(skimage.data.astronaut()[:30, :45]).save(tmp_path / "lr" / "1.png")
        return tmp_path

    def test_each_photo_is_there_at_its_own_size_and_at_each_smaller_one(self, folder):
        source = at_sizes(
            open_source(f"folder:{folder / 'hr'}", "train", scale=4), (0.75, 0.5), least=32
        )
        sizes = [source.load(i).hr.shape[:2] for i in range(len(source))]
        # Chelsea has 300x451 pixels; half of 60 would be less than 32.
        assert sizes == [(300, 448), (60, 88), (224, 336), (44, 64), (148, 224), (32, 44)]
        assert [round(source.area(i)) for i in (0, 2)] == [300 * 451, round(300 * 451 * 0.5625)]
        whole = Image.fromarray(skimage.data.chelsea()[:300, :448])
        expected = np.asarray(whole.resize((336, 225), Image.Resampling.BICUBIC), int)[:224]
        difference = np.abs(source.load(2).hr.astype(int) - expected)
        assert difference.max() <= 3  # at the border, which Pillow does not mirror
        assert difference.mean() < 0.2
        assert source.load(2).lr is None
        assert source.fingerprint() != source.source.fingerprint()
        again = at_sizes(source.source, (0.75, 0.6), least=32)
        assert source.fingerprint() != again.fingerprint()

    def test_only_photos_at_their_own_size_have_their_own_lr(self, folder):
        files = f"pairs:{folder / 'hr'}:{folder / 'lr'}"
        paired = at_sizes(open_source(files, "train", scale=2), (0.5,), least=8)
        both = at_sizes(
            open_source((files, f"folder:{folder / 'hr'}"), "train", scale=2), (0.5,), least=8
        )
        assert [paired.paired(i) for i in range(len(paired))] == [True, False]
        assert [both.place(i) for i in (1, 2, 5)] == [(0, 1), (1, 0), (1, 3)]
        assert paired.load(0).lr.shape == (30, 45, 3)
        assert paired.load(1).lr is None

    def test_training_draws_from_all_sizes_and_validation_from_none(self, folder):
        config = small()
        config.data.train = config.data.validation = f"folder:{folder / 'hr'}"
        config.data.crop, config.data.resized = 32, (0.75, 0.5)
        pool = open_loader(config, jax.devices()[:1], warn=pytest.fail).take(1).images
        assert sorted(pool.height.tolist()) == [32, 44, 60, 148, 224, 300]
        assert len(open_images(config, "validation")) == 2

    @pytest.mark.parametrize("factors", [(1.0,), (0.0,), (-0.5,), ("a",), (0.5, 0.5)])
    def test_a_size_that_is_not_smaller_is_refused(self, factors):
        config = small()
        with config.unlocked():
            config.data.resized = factors
        with pytest.raises(UserError, match=r"config\.data\.resized is"):
            checks.check(config, devices=1)
