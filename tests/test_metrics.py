"""Published rows, independent libraries, JAX against the host, and gradients that stay finite."""

from functools import partial

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.signal import convolve2d
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from isr_jax import protocols
from isr_jax.errors import UserError
from isr_jax.metrics import MS_SSIM_WEIGHTS, ms_ssim, ms_ssim_scales, psnr, ssim
from isr_jax.protocols import Scores, measure, measure_interpolation
from isr_jax.resize import resize_uint8
from isr_jax.scoring import make_scorer

PUBLISHED = {
    ("Set5", 2): (33.66, 0.9299),
    ("Set5", 3): (30.39, 0.8682),
    ("Set5", 4): (28.42, 0.8104),
    ("Set14", 2): (30.23, 0.8687),
    ("Set14", 3): (27.54, 0.7736),
    ("Set14", 4): (26.00, 0.7019),
}


def pair(h: int, w: int, c: int = 3, amount: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth uint8 image and a noisy, slightly dimmed copy."""
    rng = np.random.default_rng(h + w + c)
    y, x = np.mgrid[:h, :w, :1][:2]
    phase = np.arange(c)
    waves = np.sin(x / 7 + phase) * np.cos(y / 11 - phase) + 0.5 * np.sin((x + 2 * y) / 3)
    hr = 127 + 60 * waves
    sr = 0.95 * hr + rng.normal(0, amount, hr.shape)
    return tuple(np.clip(np.round(z), 0, 255).astype(np.uint8) for z in (sr, hr))


def batch(*pairs: tuple[np.ndarray, np.ndarray], dtype=jnp.float32) -> tuple[jax.Array, jax.Array]:
    sr, hr = (jnp.asarray(np.stack(side) / 255.0, dtype) for side in zip(*pairs, strict=True))
    return sr, hr


def scipy_ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """One channel in 0..255, written from the paper with a dense 2-D window."""
    t = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = np.outer(t, t) / np.outer(t, t).sum()
    scales = next(k for k in (5, 4, 3, 2, 1) if min(a.shape) // 2 ** (k - 1) >= 11)
    weights = np.array(MS_SSIM_WEIGHTS[:scales])
    weights = weights if scales == 5 else weights / weights.sum()
    a, b, result = a.astype(float), b.astype(float), 1.0
    for scale, weight in enumerate(weights):
        ma, mb, maa, mbb, mab = (
            convolve2d(x, window, mode="valid") for x in (a, b, a * a, b * b, a * b)
        )
        c1, c2 = 6.5025, 58.5225
        cs = (2 * (mab - ma * mb) + c2) / (maa - ma**2 + mbb - mb**2 + c2)
        luminance = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
        term = (cs if scale < scales - 1 else cs * luminance).mean()
        result *= max(term, 0.0) ** weight
        a, b = (convolve2d(x, np.full((2, 2), 0.25), mode="valid")[::2, ::2] for x in (a, b))
    return result


# Tables


@pytest.mark.parametrize(("name", "scale"), PUBLISHED)
def test_bicubic_prints_the_published_row(isr_data, name, scale):
    folder = isr_data / "benchmarks" / name / f"x{scale}"
    scores = [
        measure_interpolation(
            np.array(Image.open(folder / "lr" / file.name)),
            np.array(Image.open(file)),
            scale=scale,
        )
        for file in sorted((folder / "hr").glob("*.png"))
    ]
    decibels, similarity, _ = np.mean(scores, axis=0)
    assert decibels == pytest.approx(PUBLISHED[name, scale][0], abs=0.005)
    assert similarity == pytest.approx(PUBLISHED[name, scale][1], abs=0.00005001)


@pytest.mark.parametrize("shape", [(48, 61, 3), (40, 33, 1), (11, 200, 3)])
def test_psnr_and_ssim_equal_scikit_image(shape):
    sr, hr = pair(*shape)
    scores = measure(sr, hr, crop=0, protocol="rgb")
    assert scores.psnr == pytest.approx(peak_signal_noise_ratio(hr, sr, data_range=255), abs=1e-9)
    _, full = structural_similarity(
        sr.astype(float),
        hr.astype(float),
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2,
        full=True,
    )
    assert scores.ssim == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("shape", "scales"),
    [((176, 183, 3), 5), ((97, 91, 3), 4), ((45, 60, 1), 3), ((23, 40, 1), 2), ((21, 16, 1), 1)],
)
def test_ms_ssim_equals_a_scipy_implementation(shape, scales):
    sr, hr = pair(*shape)
    assert ms_ssim_scales(*shape[:2]) == scales
    expected = np.mean([scipy_ms_ssim(sr[..., i], hr[..., i]) for i in range(shape[2])])
    assert measure(sr, hr, crop=0, protocol="rgb").ms_ssim == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(jax.jit(ms_ssim)(*batch((sr, hr))), expected, atol=1e-5)


@pytest.mark.parametrize("size", [176, 192])
def test_ms_ssim_equals_pytorch_msssim(size):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    peer = pytest.importorskip("pytorch_msssim", reason="compares with pytorch-msssim")
    sr, hr = pair(size, size)
    tensors = (torch.from_numpy(x.astype(float)).permute(2, 0, 1)[None] for x in (sr, hr))
    expected = peer.ms_ssim(*tensors, data_range=255).item()
    assert measure(sr, hr, crop=0, protocol="rgb").ms_ssim == pytest.approx(expected, abs=1e-5)
    np.testing.assert_allclose(ms_ssim(*batch((sr, hr))), expected, atol=1e-5)


def test_protocols_crop_and_colour():
    sr, hr = pair(40, 36)

    def luma(rgb):
        return 16 + rgb.astype(float) @ [65.481, 128.553, 24.966] / 255

    def decibels(a, b):
        a, b = (np.asarray(x, float)[3:-3, 3:-3] for x in (a, b))
        return 10 * np.log10(255**2 / np.mean((a - b) ** 2))

    vdsr, basicsr, rgb = (
        measure(sr, hr, crop=3, protocol=p).psnr for p in ("vdsr", "basicsr", "rgb")
    )
    assert vdsr == pytest.approx(decibels(np.round(luma(sr)), np.round(luma(hr))), abs=1e-9)
    assert basicsr == pytest.approx(decibels(luma(sr), luma(hr)), abs=1e-9)
    assert rgb == pytest.approx(decibels(sr, hr), abs=1e-9)
    assert measure(sr, hr, crop=3) == measure(sr, hr, crop=3, protocol="vdsr")


@pytest.mark.parametrize("channels", [1, 3])
def test_ntires_protocols_are_those_of_the_challenges_code(channels):
    """Written from utils/utils_image.py of NTIRE2024_ImageSR_x4 and NTIRE2022_ESR.

    The former's luma is in single precision; gray files are read as RGB; both crop 4 pixels.
    """
    cv2 = pytest.importorskip("cv2", reason="compares with OpenCV")
    sr, hr = pair(52, 60, channels)
    colours = [np.broadcast_to(x, (52, 60, 3))[4:-4, 4:-4] for x in (sr, hr)]
    weights = [65.481, 128.553, 24.966]
    luma = [
        ((np.dot(x.astype(np.float32) / 255, weights) + 16) / 255).astype(np.float32)[..., None]
        * 255
        for x in colours
    ]
    window = cv2.getGaussianKernel(11, 1.5)

    def blur(x):
        return cv2.sepFilter2D(x, -1, window, window)[5:-5, 5:-5]

    def scores(a, b):
        a, b = a.astype(np.float64), b.astype(np.float64)
        mu, nu, c1, c2 = blur(a), blur(b), 2.55**2, 7.65**2
        covariance = 2 * (blur(a * b) - mu * nu) + c2
        variances = blur(a * a) - mu**2 + blur(b * b) - nu**2 + c2
        ssim = (2 * mu * nu + c1) * covariance / ((mu**2 + nu**2 + c1) * variances)
        return 20 * np.log10(255 / np.sqrt(np.mean((a - b) ** 2))), ssim.mean()

    for protocol, images in (("ntire-sr", luma), ("ntire-esr", colours)):
        scorer = make_scorer(scale=2, protocol=protocol)
        got = scorer.image(sr, hr)
        assert (got["psnr"], got["ssim"]) == pytest.approx(scores(*images), abs=1e-6)
        lr = resize_uint8(hr, scale=0.5)
        small = scorer.interpolation(lr, hr)
        assert small["psnr"] == measure(resize_uint8(lr, scale=2), hr, crop=4, protocol=protocol)[0]


def test_one_channel_is_scored_as_it_is():
    sr, hr = pair(40, 36, 1)
    scores = {measure(sr, hr, crop=2, protocol=p) for p in ("vdsr", "basicsr", "rgb")}
    scores |= {measure(sr[..., 0], hr, crop=2), measure(sr[..., 0], hr[..., 0], crop=2)}
    assert len(scores) == 1
    expected = peak_signal_noise_ratio(hr[2:-2, 2:-2], sr[2:-2, 2:-2], data_range=255)
    assert scores.pop().psnr == pytest.approx(expected, abs=1e-9)


def test_identical_images_and_images_smaller_than_the_window():
    _, hr = pair(90, 90)
    for protocol in ("vdsr", "basicsr", "rgb"):
        assert measure(hr, hr, crop=1, protocol=protocol) == pytest.approx(
            Scores(float("inf"), 1.0, 1.0), abs=1e-12
        )
    sr, hr = pair(14, 40)
    small = measure(sr, hr, crop=2)
    assert np.isfinite(small.psnr) and np.isnan(small.ssim) and np.isnan(small.ms_ssim)
    anticorrelated = measure(255 - hr, hr, crop=0)
    assert anticorrelated.ms_ssim == 0.0 and anticorrelated.ssim < 0.0


@pytest.mark.parametrize("pixels", [1, 2000, 7777])
@pytest.mark.parametrize("protocol", ["vdsr", "basicsr", "rgb"])
def test_strips_do_not_show(monkeypatch, protocol, pixels):
    """The same scores, whether an image is measured whole or a few rows at a time."""
    sr, hr = pair(181, 190)
    lr = resize_uint8(hr[:180], scale=0.5)
    whole = measure(sr, hr, crop=1, protocol=protocol)
    interpolated = measure_interpolation(lr, hr[:180], scale=2, protocol=protocol)
    monkeypatch.setattr(protocols, "_STRIP_PIXELS", pixels)
    assert measure(sr, hr, crop=1, protocol=protocol) == pytest.approx(whole, abs=1e-12)
    strips = measure_interpolation(lr, hr[:180], scale=2, protocol=protocol)
    assert strips == pytest.approx(interpolated, abs=1e-12)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_interpolation_under_rgb_and_basicsr_is_measured_as_an_image(method):
    _, hr = pair(48, 40)
    lr = resize_uint8(hr, scale=0.5)
    for protocol in ("rgb", "basicsr"):
        expected = measure(resize_uint8(lr, scale=2, method=method), hr, crop=2, protocol=protocol)
        assert measure_interpolation(lr, hr, scale=2, method=method, protocol=protocol) == expected


def test_interpolation_of_an_lr_that_is_not_the_bicubic_of_hr_uses_that_lr():
    _, hr = pair(48, 40)
    lr = resize_uint8(hr, scale=0.5)
    exact = measure_interpolation(lr, hr, scale=2)
    # Luma of the interpolated RGB and interpolated luma nearly agree.
    assert exact.psnr == pytest.approx(measure(resize_uint8(lr, scale=2), hr, crop=2).psnr, abs=0.3)
    worse = lr.copy()
    worse[::2] = 0
    assert measure_interpolation(worse, hr, scale=2).psnr < exact.psnr - 3
    gray = hr[..., :1]
    assert measure_interpolation(resize_uint8(gray, scale=0.5), gray, scale=2).psnr > 20


@pytest.mark.parametrize(
    ("sr", "hr", "crop", "protocol", "message"),
    [
        ((20, 20, 3), (20, 21, 3), 0, "vdsr", "cannot compare 20x20 pixels of 1 .* with 20x21"),
        ((20, 20, 3), (20, 20), 0, "rgb", r"of 3 scored channel\(s\) with 20x20 of 1"),
        ((20, 20, 3), (20, 20, 3), 10, "rgb", "cropping 10 pixels .* of 20x20 leaves no image"),
        ((20, 20, 3), (20, 20, 3), -1, "rgb", "cropping -1 pixels"),
        ((20, 20, 3), (20, 20, 3), 0, "y", "unknown protocol 'y'; choose one of vdsr"),
        ((20, 20, 4), (20, 20, 4), 0, "rgb", "cannot score 4 channels"),
    ],
)
def test_mistakes_are_named(sr, hr, crop, protocol, message):
    with pytest.raises(UserError, match=message):
        measure(np.zeros(sr, np.uint8), np.zeros(hr, np.uint8), crop=crop, protocol=protocol)


# Training


@pytest.mark.parametrize(("h", "w"), [(48, 48), (96, 75), (176, 181)])
def test_jax_agrees_with_the_host(h, w):
    pairs = [pair(h, w, amount=5.0), pair(h, w, amount=60.0)]
    expected = [measure(*one, crop=0, protocol="rgb") for one in pairs]
    for wrap in (lambda f: f, jax.jit):
        ours = [wrap(f)(*batch(*pairs)) for f in (psnr, ssim, ms_ssim)]
        assert all(x.shape == (2,) and x.dtype == jnp.float32 for x in ours)
        decibels, *similarities = np.transpose(expected)
        np.testing.assert_allclose(ours[0], decibels, atol=1e-3)
        np.testing.assert_allclose(ours[1:], similarities, atol=1e-4)


def test_ssim_equals_dm_pix_with_its_own_filter():
    sr, hr = batch(pair(40, 52), pair(40, 52, amount=60.0))
    np.testing.assert_allclose(ssim(sr, hr), dm_pix.ssim(sr, hr), atol=1e-6)
    value = jax.grad(lambda x: ssim(x, hr).sum())(sr)
    np.testing.assert_allclose(value, jax.grad(lambda x: dm_pix.ssim(x, hr).sum())(sr), atol=1e-6)


@pytest.mark.parametrize(("function", "size"), [(psnr, 16), (ssim, 24), (ms_ssim, 50)])
def test_gradients_against_finite_differences(function, size):
    with jax.enable_x64(True):
        sr, hr = batch(pair(size, size, 2), dtype=jnp.float64)
        value = jax.jit(lambda x: function(x, hr).sum())
        gradient = jax.grad(value)(sr)
        assert value(sr).dtype == gradient.dtype == jnp.float64
        rng = np.random.default_rng(0)
        for _ in range(4):
            direction = rng.standard_normal(sr.shape)
            step = 1e-5 * jnp.asarray(direction)
            numeric = (value(sr + step) - value(sr - step)) / 2e-5
            assert float(jnp.vdot(gradient, direction)) == pytest.approx(float(numeric), rel=1e-5)


@pytest.mark.parametrize("function", [psnr, ssim, ms_ssim])
def test_values_and_gradients_stay_finite(function):
    image = pair(48, 48)[1] / 255.0
    flat, black = np.full_like(image, 0.5), np.zeros_like(image)
    same = {"image": image, "constant": flat, "black": black, "white": black + 1.0}
    different = {
        "constants": (flat, flat * 0.6),
        "constant against image": (flat, image),
        "black against image": (black, image),
        "image against black": (image, black),
        "white against black": (black + 1.0, black),
        "negative": (1.0 - image, image),
        "out of range": (3.0 * image - 1.0, image),
    }
    sr, hr = (
        jnp.asarray(np.stack(side), jnp.float32)
        for side in zip(*[(x, x) for x in same.values()], *different.values(), strict=True)
    )
    for wrap in (lambda f: f, jax.jit):
        values = dict(zip([*same, *different], wrap(function)(sr, hr), strict=True))
        slopes = wrap(jax.grad(lambda x: function(x, hr).sum()))(sr)
        for (name, value), slope in zip(values.items(), slopes, strict=True):
            assert np.isfinite(slope).all(), name
            if name in same:
                assert value == (np.inf if function is psnr else pytest.approx(1, abs=1e-6)), name
                np.testing.assert_allclose(slope, 0.0, atol=1e-4, err_msg=name)
            else:
                assert np.isfinite(value) and (function is psnr or value < 1.0), name


def test_identical_and_different_images_in_one_batch():
    sr, hr = batch(pair(24, 24), pair(24, 24))
    sr = sr.at[1].set(hr[1])
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(lambda a, b: psnr(a[None], b[None])[0])))(
        sr, hr
    )
    assert np.isfinite(value[0]) and value[1] == np.inf
    assert np.abs(gradient[0]).max() > 0 and not gradient[1].any()


def test_half_precision_predictions_are_scored_in_float32():
    sr, hr = batch(pair(48, 48))
    half = sr.astype(jnp.bfloat16)
    for function in (psnr, ssim, ms_ssim):
        value = function(half, hr)
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, function(half.astype(jnp.float32), hr))


def test_scales_by_size():
    sides = [10, 11, 21, 22, 43, 44, 87, 88, 175, 176, 4000]
    assert [ms_ssim_scales(s, 5000) for s in sides] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert ms_ssim_scales(5000, 88) == 4


def test_one_scale_of_ms_ssim_is_ssim():
    sr, hr = batch(pair(20, 17))
    np.testing.assert_allclose(ms_ssim(sr, hr), ssim(sr, hr), atol=1e-6)


@pytest.mark.parametrize("function", [ssim, ms_ssim])
def test_images_smaller_than_the_window_are_named(function):
    images = jnp.zeros((1, 10, 40, 3))
    for call in (function, jax.jit(function), partial(jax.grad(lambda a, b: function(a, b).sum()))):
        with pytest.raises(UserError, match="at least 11x11 pixels, got 10x40"):
            call(images, images)
