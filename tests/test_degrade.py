"""Degradations against NumPy, SciPy, OpenCV and Pillow; what is drawn."""

import io
from functools import partial
from math import pi

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import skimage.data
from PIL import Image

from isr_jax.degrade import REAL_ESRGAN, PassSettings, make_degradation
from isr_jax.degrade.filters import METHODS
from isr_jax.degrade.parameters import Pass, Settings, draw, draw_kernel, example_keys
from isr_jax.degrade.process import apply
from isr_jax.errors import UserError
from isr_jax.resize import resize_uint8

SCALE, HIGH, WIDE = 4, 64, 96


@pytest.fixture(scope="module")
def hr() -> np.ndarray:
    pictures = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    corners = [(60, 150), (0, 0), (90, 120), (200, 200)]
    crops = [p[y : y + HIGH, x : x + WIDE] for p in pictures for y, x in corners]
    return (np.stack(crops) / 255.0).astype(np.float32)


many = jax.jit(lambda key, first: draw(key, batch=2000, first=first))


@pytest.fixture(scope="module")
def drawn():
    return jax.device_get(many(jax.random.key(0), 0))


second_order = make_degradation("second_order", scale=SCALE)
degraded = jax.jit(lambda key, hr, first: second_order(key, hr, first=first))


def test_every_example_is_what_opencv_scipy_and_pillow_make_of_its_parameters(hr):
    cv2 = pytest.importorskip("cv2", reason="compares with OpenCV")
    flags = [getattr(cv2, f"INTER_{name}") for name in ("AREA", "LINEAR", "CUBIC")]
    assert METHODS == ("area", "bilinear", "bicubic")
    out = np.asarray(degraded(jax.random.key(2), jnp.asarray(hr), 0))
    draw_key, key = jax.random.split(jax.random.key(2))
    parameters = jax.tree.map(lambda x: x[: len(hr)], jax.device_get(many(draw_key, 0)))

    def blurred(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        return cv2.filter2D(x, -1, kernel, borderType=cv2.BORDER_REFLECT_101)

    def compressed(x: np.ndarray, quality: float) -> np.ndarray:
        file = io.BytesIO()
        levels = np.floor(255 * np.clip(x, 0, 1) + 0.5).astype(np.uint8)
        Image.fromarray(levels).save(file, "JPEG", quality=int(quality))
        return np.asarray(Image.open(file)).astype(np.float32) / 255

    def with_noise(x: np.ndarray, z: np.ndarray, this: Pass) -> np.ndarray:
        z = np.asarray(z)[:, : x.shape[0], : x.shape[1]].transpose(1, 2, 0)
        z = np.repeat(z[..., :1], 3, axis=-1) if this.gray else z
        if not this.poisson:
            return np.clip(x + this.strength / 255 * z, 0, 1)
        mean = np.repeat(x @ [[0.2989], [0.587], [0.114]], 3, axis=-1) if this.gray else x
        mean = np.round(255 * np.clip(mean, 0, 1)) / 255
        values = 2 ** np.ceil(np.log2(len(np.unique(mean))))
        photons = scipy.stats.poisson.ppf(scipy.stats.norm.cdf(z), mean * values)
        return np.clip(x + this.strength * (photons / values - mean), 0, 1).astype(np.float32)

    differences = []
    for i, image in enumerate(hr):
        this = jax.tree.map(lambda leaf, i=i: leaf[i], parameters)
        keys = jax.random.split(example_keys(key, len(hr), 0)[i])
        x = blurred(image, this.first.kernel)
        rows, cols = (int(n * this.first.factor) for n in (HIGH, WIDE))
        x = cv2.resize(x, (cols, rows), interpolation=flags[this.first.method])
        z = jax.random.normal(keys[0], (3, HIGH * 3 // 2, WIDE * 3 // 2))
        x = compressed(with_noise(x, z, this.first), this.first.quality)

        x = blurred(x, this.second.kernel)
        rows, cols = (int(n // SCALE * this.second.factor) for n in (HIGH, WIDE))
        x = cv2.resize(x, (cols, rows), interpolation=flags[this.second.method])
        z = jax.random.normal(keys[1], (3, int(HIGH / SCALE * 1.2), int(WIDE / SCALE * 1.2)))
        x = with_noise(x, z, this.second)
        if not this.jpeg_last:
            x = compressed(x, this.second.quality)
        size = (WIDE // SCALE, HIGH // SCALE)
        x = blurred(cv2.resize(x, size, interpolation=flags[this.method]), this.sinc)
        if this.jpeg_last:
            x = compressed(x, this.second.quality)
        truth = np.floor(255 * np.clip(x, 0, 1) + 0.5)
        differences.append(np.abs(255 * out[i] - truth))
    # A pixel on the edge of a level may fall either way, and JPEG then spreads it over its block;
    # with most keys all the examples are equal in every pixel.
    differences = np.stack(differences)
    equal = (differences < 0.5).mean(axis=(1, 2, 3))
    assert (equal > 0.99).sum() >= 10 and differences.mean() < 0.1
    # Every option was drawn.
    for one in (parameters.first, parameters.second):
        assert {*one.poisson} == {True, False} == {*one.gray} and {*one.method} == {0, 1, 2}
        assert one.factor.min() < 1 < one.factor.max()
    assert {*parameters.jpeg_last} == {True, False}


def test_lr_images_are_8_bit_and_of_the_lr_size(hr):
    out = degraded(jax.random.key(0), jnp.asarray(hr), 0)
    assert out.shape == (len(hr), HIGH // SCALE, WIDE // SCALE, 3) and out.dtype == jnp.float32
    levels = 255 * np.asarray(out)
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    assert levels.min() >= 0 and levels.max() <= 255
    # It is still the same picture, of about the same brightness.
    for image, lr in zip(hr, np.asarray(out), strict=True):
        small = np.asarray(resize_uint8((255 * image).astype(np.uint8), scale=1 / SCALE)) / 255
        assert abs(lr.mean() - small.mean()) < 0.08


def test_an_example_depends_on_its_own_image_and_number_alone(hr):
    key, images = jax.random.key(5), jnp.asarray(hr)
    out = degraded(key, images, 0)
    others = images.at[2:].set(0.0)
    np.testing.assert_array_equal(degraded(key, others, 0)[:2], out[:2])
    # A device that starts at example 5 has the same examples from there on.
    later = degraded(key, jnp.roll(images, -5, axis=0), 5)
    np.testing.assert_array_equal(later[:-5], out[5:])
    np.testing.assert_array_equal(degraded(key, images, 0), out)
    assert (degraded(jax.random.key(6), images, 0) != out).any(axis=(1, 2, 3)).all()
    same = degraded(key, jnp.broadcast_to(images[:1], images.shape), 0)
    assert (same[1:] != same[0]).any(axis=(1, 2, 3)).all()


def share(condition: np.ndarray, expected: float) -> None:
    """Within five standard errors."""
    error = np.sqrt(expected * (1 - expected) / condition.size)
    assert abs(condition.mean() - expected) <= 5 * error + 1e-9


def uniform(values: np.ndarray, low: float, high: float) -> None:
    assert values.min() >= low and values.max() <= high
    assert scipy.stats.kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-4


@pytest.mark.parametrize("which", ["first", "second"])
def test_what_a_pass_draws_is_what_its_settings_say(drawn, which):
    one, settings = getattr(drawn, which), getattr(REAL_ESRGAN, which)
    chances = {"up": one.factor > 1, "down": one.factor < 1, "keep": one.factor == 1}
    for condition, expected in zip(chances.values(), settings.resize, strict=True):
        share(condition, expected)
    uniform(one.factor[one.factor > 1], 1.0, settings.factor[1])
    uniform(one.factor[one.factor < 1], settings.factor[0], 1.0)
    for method in range(3):
        share(one.method == method, 1 / 3)
    share(~one.poisson, settings.gaussian)
    uniform(one.strength[one.poisson], *settings.poisson_scale)
    uniform(one.strength[~one.poisson], *settings.sigma_noise)
    share(one.gray, settings.gray)
    assert one.strength.min() > 0 and one.quality.min() > 0
    for quality in range(30, 96):
        share(one.quality == quality, 1 / 66)

    centre, sums = one.kernel[:, 10, 10], one.kernel.sum(axis=(1, 2))
    np.testing.assert_allclose(sums, 1.0, atol=1e-5)
    pulses = (one.kernel == 0).sum(axis=(1, 2)) == 440
    extra = pulses.mean() - (1 - settings.blur)
    assert -0.02 < extra < 0.02  # the narrowest kernels' tails underflow
    share(one.kernel.min(axis=(1, 2)) < 0, settings.blur * settings.sinc)
    assert centre.max() <= 1.0
    side = 2 * np.abs(np.argmax((one.kernel != 0).any(axis=1), axis=1) - 10) + 1
    assert set(side[~pulses]) <= {1, 3, 5, *settings.sizes}  # tails may underflow


def test_what_has_a_chance_of_a_quarter_is_drawn_as_often():
    chances = {name: 0.25 for name in ("blur", "noise", "jpeg")}
    settings = Settings(first=PassSettings(**chances), sinc=0.25)
    drawn = jax.device_get(draw(jax.random.key(6), batch=2000, settings=settings))
    changed = {
        "blur": drawn.first.kernel[:, 10, 10] < 1,
        "noise": drawn.first.strength > 0,
        "jpeg": drawn.first.quality > 0,
        "sinc": drawn.sinc[:, 10, 10] < 1,
    }
    for name, condition in changed.items():
        # The narrowest kernels change nothing.
        assert -0.06 < condition.mean() - 0.25 < 0.05, name
    assert np.abs(np.corrcoef(list(changed.values()))[np.triu_indices(4, 1)]).max() < 0.12


def test_with_no_chance_of_anything_lr_images_are_only_resized(hr):
    cv2 = pytest.importorskip("cv2", reason="compares with OpenCV")
    nothing = PassSettings(blur=0.0, resize=(0.0, 0.0, 1.0), noise=0.0, jpeg=0.0)
    settings, key = Settings(first=nothing, second=nothing, sinc=0.0), jax.random.key(7)
    flags = [cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC]  # of METHODS, in turn
    drawn = draw(key, batch=len(hr), settings=settings)
    found = np.asarray(apply(key, drawn, jnp.asarray(hr), scale=SCALE, settings=settings))
    for image, result, method in zip(hr, found, drawn.second.method, strict=True):
        truth = cv2.resize(image, (WIDE // SCALE, HIGH // SCALE), interpolation=flags[method])
        np.testing.assert_allclose(result, np.clip(truth, 0, 1), atol=0.6 / 255)


def test_no_two_draws_of_an_example_are_correlated(drawn):
    columns = [
        leaf.astype(np.float64)
        for one in (drawn.first, drawn.second)
        for name, leaf in one._asdict().items()
        if name not in ("kernel", "strength")
    ]
    columns += [drawn.method.astype(float), drawn.jpeg_last.astype(float)]
    columns += [
        drawn.first.kernel[:, 10, 10],
        drawn.second.kernel[:, 10, 10],
        drawn.sinc[:, 10, 10],
    ]
    correlation = np.corrcoef(np.stack(columns))[np.triu_indices(len(columns), 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)


def test_what_comes_last_is_what_the_settings_say(drawn):
    pulses = drawn.sinc[:, 10, 10] == 1
    share(~pulses, REAL_ESRGAN.sinc)
    share(drawn.jpeg_last, REAL_ESRGAN.jpeg_last)
    for method in range(3):
        share(drawn.method == method, 1 / 3)
    np.testing.assert_allclose(drawn.sinc.sum(axis=(1, 2)), 1.0, atol=1e-5)


def test_kernels_take_each_kind_and_sigma_by_their_settings():
    def kernels(**options) -> np.ndarray:
        settings = PassSettings(sinc=0.0, sizes=(21,), **options)
        keys = jax.random.split(jax.random.key(0), 500)
        return np.asarray(jax.jit(jax.vmap(partial(draw_kernel, settings=settings)))(keys))

    x, y = np.meshgrid(np.arange(21) - 10, np.arange(21) - 10)

    def covariances(batch: np.ndarray) -> np.ndarray:
        moments = [(batch * m).sum(axis=(1, 2)) for m in (x * x, x * y, x * y, y * y)]
        return np.stack(moments, axis=-1).reshape(-1, 2, 2)

    only = np.eye(6).tolist()
    for kind in range(6):
        batch = kernels(kernels=tuple(only[kind]), sigma=(1.0, 2.0))
        low, high = np.linalg.eigvalsh(covariances(batch)).T
        assert (low / high > 0.999).all() if kind % 2 == 0 else (low / high < 0.8).mean() > 0.2
        if kind == 0:
            uniform(np.sqrt(low), 0.999, 2.001)
        centre, next_to = batch[:, 10, 10], batch[:, 10, 11]
        if kind == 2:  # at a distance of one pixel, the logarithm is sigma^(-2 beta) / 2
            sigma_beta = (2 * np.log(centre / next_to)).clip(1e-9)
            assert len(np.unique(np.round(sigma_beta, 4))) > 300
        if kind == 4:  # 1 + sigma^(-2 beta), and beta is 1 for a half
            ratio = centre / next_to - 1
            diagonal = centre / batch[:, 11, 11] - 1
            beta = np.log2(diagonal / ratio)
            share(np.abs(beta - 1) < 1e-3, 0.5)
            uniform(beta[beta > 1.001], 1.0, 2.0)


def test_draws_depend_on_the_key_and_the_examples_number_alone(drawn):
    later = many(jax.random.key(0), 7)
    for leaf, other in zip(jax.tree.leaves(drawn), jax.tree.leaves(later), strict=True):
        np.testing.assert_array_equal(leaf[7:], other[:-7])
    assert (many(jax.random.key(1), 0).first.factor != drawn.first.factor).mean() > 0.9


def test_bicubic_is_the_bicubic_rounded_once(hr):
    lr = make_degradation("bicubic", scale=SCALE)(jax.random.key(0), jnp.asarray(hr))
    for image, result in zip(hr, np.asarray(lr), strict=True):
        levels = np.round(255 * image).astype(np.uint8)
        truth = resize_uint8(levels, scale=1 / SCALE, round_between=False).astype(int)
        difference = np.abs(255 * result - truth)
        assert difference.max() < 1.01 and (difference > 0.01).mean() < 1e-3


def test_the_photo_degradation_is_between_bicubic_and_the_published_one(hr):
    """By the mean error of the LR images, each compared with the bicubic ones."""
    key, hr = jax.random.key(3), jnp.asarray(hr)
    clean = make_degradation("bicubic", scale=SCALE)(key, hr)
    photo = jax.jit(make_degradation("photo", scale=SCALE))(key, hr)
    errors = [np.mean((np.asarray(x - clean)) ** 2) for x in (photo, degraded(key, hr, 0))]
    assert 10**-3.5 < errors[0] < errors[1] / 2


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"unknown degradation 'bicubik'; .*did you mean bicubic\?"):
        make_degradation("bicubik", scale=4)
    with pytest.raises(UserError, match="62x64 pixels must be divisible by scale=4"):
        jax.eval_shape(second_order, jax.random.key(0), jnp.zeros((1, 62, 64, 3)))
    for options, message in [
        ({"resize": (0.5, 0.5, 0.5)}, "resize=.* must be 3 probabilities that sum to 1"),
        ({"kernels": (1.0,)}, "kernels=.* must be 6 probabilities"),
        ({"blur": 1.5}, "blur=1.5 must be a probability"),
        ({"factor": (1.2, 2.0)}, "factor=.* contains 1"),
        ({"quality": (0, 95)}, "quality=.* within"),
        ({"sizes": (7, 8)}, "sizes=.* odd and at most 21"),
        ({"sizes": (23,)}, "sizes=.* odd and at most 21"),
        ({"sigma": (0.0, 3.0)}, "above 0"),
    ]:
        with pytest.raises(UserError, match=message):
            PassSettings(**options)
    with pytest.raises(UserError, match=r"jpeg_last=.* must be a probability"):
        Settings(jpeg_last=-1.0)


def test_the_published_settings():
    # options/train_realesrgan_x4plus.yml of xinntao/Real-ESRGAN.
    first, second = REAL_ESRGAN.first, REAL_ESRGAN.second
    assert first.kernels == second.kernels == (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    assert (first.blur, second.blur) == (1.0, 0.8)
    assert first.sinc == second.sinc == 0.1 and REAL_ESRGAN.sinc == 0.8
    assert (first.sigma, second.sigma) == ((0.2, 3), (0.2, 1.5))
    assert first.generalised_beta == second.generalised_beta == (0.5, 4)
    assert first.plateau_beta == second.plateau_beta == (1, 2)
    assert (first.resize, second.resize) == ((0.2, 0.7, 0.1), (0.3, 0.4, 0.3))
    assert (first.factor, second.factor) == ((0.15, 1.5), (0.3, 1.2))
    assert (first.sigma_noise, second.sigma_noise) == ((1, 30), (1, 25))
    assert (first.poisson_scale, second.poisson_scale) == ((0.05, 3), (0.05, 2.5))
    assert first.noise == second.noise == first.jpeg == second.jpeg == 1
    assert first.gaussian == second.gaussian == 0.5 and first.gray == second.gray == 0.4
    assert first.quality == second.quality == (30, 95)
    assert first.sizes == second.sizes == REAL_ESRGAN.sizes == (7, 9, 11, 13, 15, 17, 19, 21)
    assert REAL_ESRGAN.cutoff == (pi / 3, pi) and REAL_ESRGAN.jpeg_last == 0.5
