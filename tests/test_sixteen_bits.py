"""Evaluation of files with 16 bits per channel: nothing of them is cut to 8."""

import json

import imagecodecs
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import isr_jax
from isr_jax.data.pairs import find_sets, load_pair
from isr_jax.errors import UserError
from isr_jax.perceptual.inputs import ImageDistance
from isr_jax.perceptual.niqe import Pristine, niqe
from isr_jax.protocols import measure, measure_interpolation
from isr_jax.resize import resize_float64, resize_uint8, resize_uint16
from isr_jax.upscaling.upscaler import Upscaler
from tests.helpers import command
from tests.test_metrics import pair


def deep_pair(*shape, amount=300.0):
    """A smooth uint16 image, with all its bits, and a noisy copy."""
    rng = np.random.default_rng(0)
    sr, hr = (x.astype(np.float64) * 257 + rng.uniform(-128, 128, x.shape) for x in pair(*shape))
    sr = hr + rng.normal(0, amount, hr.shape)
    return tuple(np.clip(np.round(x), 0, 65535).astype(np.uint16) for x in (sr, hr))


@pytest.mark.parametrize("protocol", ["basicsr", "basicsr-color", "rgb"])
@pytest.mark.parametrize("channels", [1, 3])
def test_8_bits_in_16_have_the_same_scores_to_the_last_digit(protocol, channels):
    sr, hr = pair(48, 53, channels)
    deep = [x.astype(np.uint16) * 257 for x in (sr, hr)]
    options = {"crop": 2, "protocol": protocol}
    assert measure(*deep, **options) == measure(sr, hr, **options)


def test_scores_of_16_bits_equal_scikit_image():
    sr, hr = deep_pair(48, 53, 3)
    scores = measure(sr, hr, crop=0, protocol="rgb")
    peak = {"data_range": 65535}
    assert scores.psnr == pytest.approx(peak_signal_noise_ratio(hr, sr, **peak), abs=1e-9)
    _, full = structural_similarity(
        sr.astype(float),
        hr.astype(float),
        **peak,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2,
        full=True,
    )
    assert scores.ssim == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-9)


def test_vdsr_rounds_the_luma_of_16_bits_to_16_bits():
    sr, hr = deep_pair(40, 36, 3, amount=40.0)

    def luma(rgb):
        y = (16 + rgb / 65535 @ [65.481, 128.553, 24.966]) / 255
        return np.floor(65535 * y + 0.5)[3:-3, 3:-3]

    error = np.mean((luma(sr) - luma(hr)) ** 2)
    expected = 10 * np.log10(65535**2 / error)
    assert measure(sr, hr, crop=3).psnr == pytest.approx(expected, abs=1e-9)
    rounded = [((x.astype(np.uint32) + 128) // 257).astype(np.uint8) for x in (sr, hr)]
    assert abs(measure(*rounded, crop=3).psnr - expected) > 0.5  # 8 bits would not do


def test_one_level_of_65535_is_96_decibels():
    hr = np.full((20, 20), 3000, np.uint16)
    for protocol in ("vdsr", "basicsr"):
        decibels = measure(hr + np.uint16(1), hr, crop=1, protocol=protocol).psnr
        assert decibels == pytest.approx(20 * np.log10(65535), abs=1e-9)
    with pytest.raises(UserError, match="cannot compare 8 bits with 16"):
        measure(hr.astype(np.uint8), hr, crop=1)


def test_an_interpolation_of_16_bits_upscales_unrounded_luma():
    """As of 8 bits: from the truth's luma where LR is its exact bicubic, else from LR's."""
    hr = deep_pair(48, 60, 1)[1][..., 0]
    lr = resize_uint16(hr, scale=0.5)
    best = resize_float64(resize_float64(hr, scale=0.5), scale=2)
    best = np.floor(np.clip(best, 0, 65535) + 0.5)
    error = np.mean((best - hr)[2:-2, 2:-2] ** 2)
    scores = measure_interpolation(lr, hr, scale=2)
    assert scores.psnr == pytest.approx(10 * np.log10(65535**2 / error), abs=1e-9)
    other = lr // 2
    upscaled = np.floor(np.clip(resize_float64(other, scale=2), 0, 65535) + 0.5)
    error = np.mean((upscaled - hr)[2:-2, 2:-2] ** 2)
    scores = measure_interpolation(other, hr, scale=2)
    assert scores.psnr == pytest.approx(10 * np.log10(65535**2 / error), abs=1e-9)
    rgb = deep_pair(48, 60, 3)[1]
    small = resize_uint16(rgb, scale=0.5)
    expected = measure(resize_uint16(small, scale=2), rgb, crop=2, protocol="rgb")
    assert measure_interpolation(small, rgb, scale=2, protocol="rgb") == expected


@pytest.fixture
def deep_set(tmp_path):
    """HR and LR files of 16 bits, of 8 and 16 either way, gray ones, and one without LR bits."""
    rng = np.random.default_rng(0)
    hr = deep_pair(48, 56, 3)[1]
    lr = np.clip(resize_uint16(hr, scale=0.5) + rng.integers(-99, 99, (24, 28, 3)), 0, 65535)
    lr = lr.astype(np.uint16)
    shallow = [(x // 257).astype(np.uint8) for x in (lr, hr)]
    files = {
        "both": (lr, hr),
        "gray": (lr[..., 0], hr[..., 0]),
        "hr": (shallow[0], hr),
        "lr": (lr, shallow[1]),
        "none": shallow,
    }
    for name, images in files.items():
        for kind, image in zip(("lr", "hr"), images, strict=True):
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
            file = tmp_path / "set" / kind / f"{name}.png"
            file.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(image)))
    return tmp_path / "set", files


def test_files_of_16_bits_are_read_upscaled_scored_and_saved_as_such(deep_set, tmp_path, capsys):
    folder, files = deep_set
    seen = {}

    def upscale(lr):
        seen[lr.tobytes()] = lr.dtype
        return resize_uint16(lr, scale=2) if lr.dtype == np.uint16 else resize_uint8(lr, scale=2)

    result = isr_jax.evaluate(
        Upscaler("mine", 2, upscale), folder, protocol="rgb", save=tmp_path / "saved"
    )
    assert result["failed"] == []
    rows = {row["name"]: row["psnr"] for row in result["sets"][0]["images"]}
    for name, (lr, hr) in files.items():
        deep = name != "none"
        if deep:
            lr, hr = (x if x.dtype == np.uint16 else x.astype(np.uint16) * 257 for x in (lr, hr))
        sr = (resize_uint16 if deep else resize_uint8)(lr, scale=2)
        saved = imagecodecs.png_decode((tmp_path / f"saved/set/x2/{name}.png").read_bytes())
        assert saved.dtype == sr.dtype == hr.dtype
        np.testing.assert_array_equal(saved, sr)
        assert rows[name] == measure(sr, hr, crop=2, protocol="rgb").psnr
    assert set(seen.values()) == {np.dtype(np.uint8), np.dtype(np.uint16)}
    # What is cut to 8 bits has another score.
    lr, hr = (x.astype(np.uint8) for x in (files["both"][0] // 257, files["both"][1] // 257))
    cut = measure(resize_uint8(lr, scale=2), hr, crop=2, protocol="rgb").psnr
    assert abs(rows["both"] - cut) > 0.01
    code, out, _ = command.run(
        capsys, "evaluate", "--model", "bicubic", "--data", folder, "--json", "-"
    )
    assert code == 0
    interpolated = {row["name"]: row["psnr"] for row in json.loads(out)["sets"][0]["images"]}
    lr, hr = files["both"]
    assert interpolated["both"] == measure_interpolation(lr, hr, scale=2).psnr


def test_lr_images_are_made_in_16_bits(tmp_path):
    hr = deep_pair(20, 24, 3)[1]
    (tmp_path / "hr").mkdir()
    (tmp_path / "hr" / "a.png").write_bytes(imagecodecs.png_encode(hr))
    ((one,),) = (found.pairs for found in find_sets(tmp_path, scales=(2,)))
    lr, truth = load_pair(one, scale=2)
    np.testing.assert_array_equal(truth, hr)
    np.testing.assert_array_equal(lr, resize_uint16(hr, scale=0.5))


def test_perceptual_scores_take_16_bits():
    sr, hr = deep_pair(30, 30, 3)
    distance = ImageDistance(None, lambda params, a, b: abs(a - b).mean(axis=(1, 2, 3)))
    expected = np.abs(sr / 65535 - hr / 65535).mean()
    assert distance(sr, hr) == pytest.approx(expected, rel=1e-4)
    rng = np.random.default_rng(0)
    model = Pristine(rng.random(36), np.eye(36))
    image = rng.integers(0, 256, (192, 96, 3)).astype(np.uint8)
    deep = image.astype(np.uint16) * 257 + rng.integers(-100, 100, image.shape)
    deep = np.clip(deep, 0, 65535).astype(np.uint16)
    assert niqe(deep, model) == niqe(image, model)
