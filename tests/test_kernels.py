"""Kernels against SciPy and float64 formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from isr_jax.degrade import kernels

X, Y = np.meshgrid(np.arange(21) - 10.0, np.arange(21) - 10.0)


def normalised(kernel: np.ndarray, size: int) -> np.ndarray:
    kernel = np.where(np.maximum(abs(X), abs(Y)) <= size // 2, kernel, 0.0)
    return kernel / kernel.sum()


def covariance(sigma_x: float, sigma_y: float, angle: float) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return turn @ np.diag([sigma_x**2, sigma_y**2]) @ turn.T


def quadratic(*shape: float) -> np.ndarray:
    points = np.stack([X, Y], axis=-1)
    return np.einsum("...i,ij,...j", points, np.linalg.inv(covariance(*shape)), points)


def test_bessel_j1_is_scipys():
    x = np.linspace(-60, 60, 40001).astype(np.float32)
    truth = scipy.special.j1(x.astype(np.float64))
    np.testing.assert_allclose(jax.jit(kernels.bessel_j1)(x), truth, atol=5e-7)
    np.testing.assert_allclose(kernels.bessel_j1(jnp.asarray(x[:7])), truth[:7], atol=5e-7)


@pytest.mark.parametrize("shape", [(0.2, 0.2, 0.0), (3.0, 0.8, 0.0), (1.1, 2.9, -2.3)])
@pytest.mark.parametrize("size", [7, 13, 21])
def test_the_smooth_kernels_are_their_formulas(shape, size):
    density = scipy.stats.multivariate_normal([0, 0], covariance(*shape)).pdf(
        np.stack([X, Y], axis=-1)
    )
    kernel = jax.jit(lambda n: kernels.generalised_gaussian(*shape, 1.0, size=n))(size)
    np.testing.assert_allclose(kernel, normalised(density, size), atol=2e-7)
    for beta in (0.5, 1.7, 4.0):
        with np.errstate(under="ignore"):
            humped = np.exp(-0.5 * quadratic(*shape) ** beta)
        kernel = kernels.generalised_gaussian(*shape, beta, size=size)
        np.testing.assert_allclose(kernel, normalised(humped, size), atol=2e-6)
        flat = 1 / (1 + quadratic(*shape) ** beta)
        kernel = kernels.plateau(*shape, beta, size=size)
        np.testing.assert_allclose(kernel, normalised(flat, size), atol=2e-6)


def test_the_isotropic_gaussian_is_opencvs():
    cv2 = pytest.importorskip("cv2", reason="compares with OpenCV")
    for size, sigma in [(7, 0.9), (15, 2.0), (21, 3.0)]:
        line = cv2.getGaussianKernel(size, sigma)
        kernel = kernels.generalised_gaussian(sigma, sigma, 1.0, 1.0, size=size)
        margin = (21 - size) // 2
        inside = kernel[margin : 21 - margin, margin : 21 - margin]
        np.testing.assert_allclose(inside, line @ line.T, atol=1e-6)


def test_the_angle_turns_x_towards_y_which_is_down():
    made = [
        kernels.generalised_gaussian(3.0, 1.0, angle, 1.0, size=21)
        for angle in (0.0, np.pi / 2, np.pi / 4)
    ]
    moments = [[float((kernel * m).sum()) for m in (X * X, Y * Y, X * Y)] for kernel in made]
    assert moments[0][0] > 4 * moments[0][1] and abs(moments[0][2]) < 1e-4
    np.testing.assert_allclose(moments[1][:2], moments[0][1::-1], rtol=1e-4)
    assert moments[2][2] > 1


@pytest.mark.parametrize("cutoff", [np.pi / 5, np.pi / 3, 2.0, np.pi])
@pytest.mark.parametrize("size", [7, 21])
def test_sinc_is_the_bessel_functions_formula(cutoff, size):
    r = np.hypot(X, Y)
    r[10, 10] = 1.0
    truth = cutoff * scipy.special.j1(cutoff * r) / (2 * np.pi * r)
    truth[10, 10] = cutoff**2 / (4 * np.pi)
    kernel = jax.jit(lambda w, n: kernels.sinc(w, size=n))(cutoff, size)
    np.testing.assert_allclose(kernel, normalised(truth, size), atol=1e-6)


def test_sinc_passes_what_is_below_its_cutoff():
    kernel = np.asarray(kernels.sinc(np.pi / 2, size=21), np.float64)

    def response(frequency: float, angle: float) -> float:
        phase = frequency * (np.cos(angle) * X + np.sin(angle) * Y)
        return float((kernel * np.cos(phase)).sum())

    for angle in (0.0, 0.6, np.pi / 4):
        assert abs(response(0.25 * np.pi, angle) - 1) < 0.15
        assert abs(response(0.8 * np.pi, angle)) < 0.15


def test_a_batch_has_its_own_sizes_and_parameters():
    sizes, sigmas = jnp.array([7, 13, 21]), jnp.array([0.5, 1.0, 3.0])
    made = {
        "gaussian": kernels.generalised_gaussian(sigmas, 2.0, 0.3, 1.0, size=sizes),
        "generalised": kernels.generalised_gaussian(sigmas, 2.0, 0.3, 0.7, size=sizes),
        "plateau": kernels.plateau(sigmas, 2.0, 0.3, 1.4, size=sizes),
        "sinc": kernels.sinc(sigmas, size=sizes),
    }
    for name, batch in made.items():
        assert batch.shape == (3, 21, 21)
        np.testing.assert_allclose(batch.sum(axis=(1, 2)), 1.0, atol=1e-6, err_msg=name)
        for kernel, size in zip(np.asarray(batch), sizes, strict=True):
            rows = np.flatnonzero(np.abs(kernel).sum(axis=1))
            assert rows.min() == 10 - size // 2 and rows.max() == 10 + size // 2, name
    one = kernels.generalised_gaussian(1.0, 2.0, 0.3, 1.0, size=13)
    np.testing.assert_allclose(made["gaussian"][1], one, atol=1e-7)


def test_the_pulse_is_the_identity():
    assert kernels.pulse()[10, 10] == 1 and kernels.pulse().sum() == 1
