"""MATLAB's files to the bit, hand-computed weights, independent libraries, JAX against the host."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from isr_jax import resize as resize_module
from isr_jax.errors import UserError
from isr_jax.resize import (
    METHODS,
    as_fraction,
    keys_cubic,
    lanczos3,
    resize,
    resize_float64,
    resize_uint8,
    triangle,
    upsample,
)

SCALES = [2, 3, Fraction(3, 2), Fraction(1, 2), Fraction(1, 3), Fraction(1, 4), Fraction(2, 3)]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def matrix(length: int, **options) -> np.ndarray:
    """The linear map of one axis, seen from outside: what each unit impulse becomes."""
    return np.stack(
        [resize_float64(impulse[:, None], **options)[:, 0] for impulse in np.eye(length)],
        axis=1,
    )


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_benchmark_lr_files_come_out_bit_for_bit(isr_data, name, scale):
    folder = isr_data / "benchmarks" / name / f"x{scale}"
    files = sorted((folder / "hr").glob("*.png"))
    assert len(files) == {"Set5": 5, "Set14": 14}[name]
    for file in files:
        hr = np.array(Image.open(file))
        hr = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
        lr = np.array(Image.open(folder / "lr" / file.name))
        np.testing.assert_array_equal(resize_uint8(hr, scale=1 / scale), lr, err_msg=str(file))


def test_kernels_by_hand():
    x = np.array([0.0, 0.5, 1.0, 1.5, 2.0, -0.5, -1.5, 3.0])
    np.testing.assert_allclose(keys_cubic(x), [1, 9 / 16, 0, -1 / 16, 0, 9 / 16, -1 / 16, 0])
    np.testing.assert_allclose(triangle(x), [1, 0.5, 0, 0, 0, 0.5, 0, 0])
    sinc = 2 / np.pi  # sinc(1/2); sinc(3/2) = -sinc/3; sinc(1/6) = 3/pi
    lanczos = [1, sinc * 3 / np.pi, 0, -sinc / 3 * sinc, 0, sinc * 3 / np.pi, -sinc / 3 * sinc, 0]
    np.testing.assert_allclose(lanczos3(x), lanczos, atol=1e-15)


def test_bicubic_by_hand():
    # Upscaled by 2, outputs sit at -1/4 and +1/4 of a pixel: Keys at 3/4, 1/4, 5/4, 7/4.
    down = np.array([-9, 111, 29, -3]) / 128
    weights = matrix(8, scale=2)
    np.testing.assert_allclose(weights[8, 2:6], down[::-1], atol=1e-15)
    np.testing.assert_allclose(weights[7, 2:6], down, atol=1e-15)
    # Downscaled by 2, an output sits between two inputs: Keys at 1/4, 3/4, 5/4, 7/4, halved.
    half = np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256
    np.testing.assert_allclose(matrix(16, scale=0.5)[4, 5:13], half, atol=1e-15)


def test_rounding_between_the_passes_by_hand():
    # The mean of four pixels: 1/4 rounds to 0, but rows first give 1/2 -> 1, and then 1/2 -> 1.
    image = np.array([[0, 0], [1, 0]], np.uint8)
    once = resize_uint8(image, size=(1, 1), method="bilinear", round_between=False)
    twice = resize_uint8(image, size=(1, 1), method="bilinear")
    assert (once.item(), twice.item()) == (0, 1)


def test_the_axis_with_the_smaller_scale_goes_first_as_in_matlab():
    image = noise(12, 24)
    rows_first = resize_uint8(resize_uint8(image, size=(6, 24)), size=(6, 8))
    cols_first = resize_uint8(resize_uint8(image, size=(12, 8)), size=(6, 8))
    assert (rows_first != cols_first).any()
    np.testing.assert_array_equal(resize_uint8(image, size=(6, 8)), cols_first)
    np.testing.assert_array_equal(resize_uint8(image.T, size=(8, 6)), cols_first.T)


@pytest.mark.parametrize("method", METHODS)
def test_partition_of_unity(method):
    for scale in [*SCALES, 0.07]:
        flat = resize_float64(np.full((9, 13, 2), 0.7), scale=scale, method=method)
        np.testing.assert_allclose(flat, 0.7, atol=1e-14)
        flat = resize_uint8(np.full((9, 13), 201, np.uint8), scale=scale, method=method)
        assert (flat == 201).all()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_ramps_are_reproduced_in_the_interior(method, scale):
    size = 48
    ramp = np.arange(size)[:, None] + 3.0 * np.arange(size)
    out = resize_float64(ramp, scale=scale, method=method)
    at = (np.arange(len(out)) + 0.5) / float(scale) - 0.5
    edge = int(np.ceil(2 * max(1, scale)))
    inside = slice(edge, -edge)
    # A kernel widened by 3/2 is sampled off its symmetry, which moves its centre by 1/50 pixel.
    atol = 0.12 if scale == Fraction(2, 3) else 1e-11
    expected = at[:, None] + 3.0 * at
    np.testing.assert_allclose(out[inside, inside], expected[inside, inside], atol=atol)


@pytest.mark.parametrize("method", METHODS)
def test_scale_one_is_the_identity(method):
    image = noise(7, 9, 3)
    np.testing.assert_array_equal(resize_uint8(image, scale=1, method=method), image)
    images = jax.random.uniform(jax.random.key(0), (1, 7, 9, 3))
    np.testing.assert_allclose(resize(images, scale=1.0, method=method), images, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [2, Fraction(3, 2), Fraction(1, 3)])
def test_a_window_has_the_bits_of_the_whole(method, scale, monkeypatch):
    image = noise(61, 47, 3)
    whole = resize_uint8(image, scale=scale, method=method)
    # Blocks of a few rows, so that block borders fall inside the image and the window.
    monkeypatch.setattr(resize_module, "_BLOCK_BYTES", 8000)
    np.testing.assert_array_equal(resize_uint8(image, scale=scale, method=method), whole)
    for rows, cols in [((0, 5), (3, 4)), ((7, 19), (2, 15)), ((15, whole.shape[0]), (0, 9))]:
        window = resize_uint8(image, scale=scale, method=method, rows=rows, cols=cols)
        np.testing.assert_array_equal(window, whole[slice(*rows), slice(*cols)])
    rows = resize_uint8(image, scale=scale, method=method, rows=(4, 9))
    np.testing.assert_array_equal(rows, whole[4:9])
    sized = resize_uint8(image, size=(30, 12), method=method)
    window = resize_uint8(image, size=(30, 12), method=method, rows=(11, 20), cols=(2, 9))
    np.testing.assert_array_equal(window, sized[11:20, 2:9])


def test_beyond_the_border_lies_the_edge_pixel():
    ramp = np.array([[10.0], [20.0], [40.0]])
    taps = np.array([-3, 29, 111, -9]) / 128  # two outside, two inside
    np.testing.assert_allclose(resize_float64(ramp, scale=2)[0, 0], taps @ [10, 10, 10, 20])
    # Also for a kernel wider than the image.
    x = np.random.default_rng(0).random((5, 1))
    wide = np.pad(x, ((50, 50), (0, 0)), mode="edge")
    out = resize_float64(wide, scale=Fraction(1, 5), method="lanczos")[10]
    np.testing.assert_allclose(resize_float64(x, scale=Fraction(1, 5), method="lanczos")[0], out)


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos"])
def test_pillow_agrees_away_from_the_border(method):
    # Pillow cuts kernels off at the border and renormalises them, so the rim differs.
    image = np.random.default_rng(0).random((96, 80)).astype(np.float32)
    for size in [(192, 160), (48, 40), (32, 20), (120, 100)]:
        out = resize_float64(image, size=size, method=method)
        peer = np.asarray(
            Image.fromarray(image).resize(size[::-1], getattr(Image.Resampling, method.upper()))
        )
        edge = int(np.ceil(3 * max(1, size[0] / 96))) + 1
        np.testing.assert_allclose(
            out[edge:-edge, edge:-edge], peer[edge:-edge, edge:-edge], atol=2e-6
        )


def test_nearest_agrees_with_pillow_everywhere():
    image = noise(31, 22, 3)
    for size in [(62, 44), (93, 66), (10, 7), (15, 11), (40, 30)]:
        peer = Image.fromarray(image).resize(size[::-1], Image.Resampling.NEAREST)
        np.testing.assert_array_equal(resize_uint8(image, size=size, method="nearest"), peer)


def test_torch_agrees():
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    image = np.random.default_rng(0).random((60, 48))
    batch = torch.from_numpy(image)[None, None]

    def peer(**options):
        return torch.nn.functional.interpolate(batch, align_corners=False, **options)[0, 0].numpy()

    np.testing.assert_allclose(
        resize_float64(image, scale=3, method="bilinear"),
        peer(scale_factor=3, mode="bilinear"),
        atol=1e-12,
    )
    for method in ("bilinear", "bicubic"):  # with antialias, PyTorch too has a = -0.5
        out = resize_float64(image, size=(20, 12), method=method)[3:-3, 3:-3]
        shrunk = peer(size=(20, 12), mode=method, antialias=True)[3:-3, 3:-3]
        np.testing.assert_allclose(out, shrunk, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_jax_agrees_with_the_host(method):
    image = noise(2, 36, 30, 3)
    floats = image / 255.0
    for options in [{"scale": s} for s in SCALES] + [{"size": (17, 50)}]:
        options |= {"method": method}
        out = jax.jit(lambda x, o=options: resize(x, **o))(jnp.asarray(floats, jnp.float32))
        assert out.dtype == jnp.float32
        exact = np.stack([resize_float64(one, **options) for one in floats])
        np.testing.assert_allclose(out, exact, atol=1e-5)
        levels = np.floor(np.clip(np.asarray(out), 0, 1) * 255 + 0.5)
        once = np.stack([resize_uint8(one, **options, round_between=False) for one in image])
        assert np.abs(levels - once).max() <= 1
        eager = resize(jnp.asarray(floats, jnp.float32), **options)
        np.testing.assert_allclose(eager, out, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_upsample_agrees_with_the_host(method):
    """Every pixel, also at the edges of images smaller than the kernel."""
    for scale, shape in ((1, (3, 2)), (2, (1, 4)), (3, (5, 9)), (4, (2, 6)), (8, (3, 3))):
        images = np.random.default_rng(0).random((2, *shape, 3), np.float32)
        out = upsample(jnp.asarray(images), scale=scale, method=method)
        exact = [resize_float64(image, scale=scale, method=method) for image in images]
        np.testing.assert_allclose(out, exact, atol=1e-6)


def test_upsample_names_an_unknown_method():
    with pytest.raises(UserError, match=r"unknown method 'cubic'; .*did you mean bicubic\?"):
        upsample(jnp.zeros((1, 2, 2, 3)), scale=2, method="cubic")


@pytest.mark.parametrize("scale", [2, Fraction(1, 3)])
@pytest.mark.parametrize("method", METHODS)
def test_gradient_is_the_transpose(method, scale):
    rng = np.random.default_rng(0)
    rows, cols = matrix(9, scale=scale, method=method), matrix(6, scale=scale, method=method)
    images = jnp.asarray(rng.random((2, 9, 6, 3)), jnp.float32)
    out, pull = jax.vjp(lambda x: resize(x, scale=scale, method=method), images)
    cotangent = rng.standard_normal(out.shape).astype(np.float32)
    expected = np.einsum("oh,nopc,pw->nhwc", rows, cotangent, cols)
    np.testing.assert_allclose(pull(jnp.asarray(cotangent))[0], expected, atol=1e-5)


def test_jax_keeps_bfloat16_but_not_in_the_weights():
    images = jnp.ones((1, 8, 8, 1), jnp.bfloat16)
    out = resize(images, scale=3, method="lanczos")
    assert out.dtype == jnp.bfloat16 and (out == 1).all()


def test_jax_keeps_float64():
    with jax.enable_x64(True):
        images = jnp.asarray(np.random.default_rng(0).random((1, 8, 8, 1)))
        out = resize(images, scale=2)
        assert out.dtype == jnp.float64
        np.testing.assert_allclose(out[0], resize_float64(np.array(images[0]), scale=2), atol=1e-14)


def test_sizes_and_scales():
    assert as_fraction(1 / 3) == Fraction(1, 3) and as_fraction(0.25) == Fraction(1, 4)
    assert resize_uint8(noise(10, 7), scale=1 / 3).shape == (4, 3)
    assert resize_uint8(noise(9, 6, 1), scale=1 / 3).shape == (3, 2, 1)
    assert resize(jnp.zeros((1, 10, 7, 3)), scale=1.5).shape == (1, 15, 11, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either scale or size"),
        ({"scale": 2, "size": (3, 3)}, "not both"),
        ({"scale": 0}, "scale is 0; give a positive number"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"scale": 2, "method": "cubic"}, "unknown method 'cubic'; choose one of nearest"),
        ({"size": (0, 3)}, "at least 1 pixel"),
        ({"scale": 2, "rows": (3, 99)}, r"rows=\(3, 99\) does not lie within the result's 8 rows"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError, match=message):
        resize_uint8(noise(4, 4), **options)
