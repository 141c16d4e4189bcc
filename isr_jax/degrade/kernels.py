"""Blur kernels in JAX: generalised Gaussian, plateau and sinc, of any odd size.

Every kernel is an array of SIDE x SIDE pixels, sums to 1 and is 0 outside its own `size`. The size
may be traced, so that each image of a batch can have its own. Parameters broadcast; the kernels
have the broadcast shape followed by two axes of SIDE pixels.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

SIDE = 21  # pixels; Real-ESRGAN's largest kernel

Scalars = Float[Array, "*#n"] | float
Sizes = Int[Array, "*#n"] | int
Kernels = Float[Array, "*n 21 21"]

_OFFSET = np.arange(SIDE, dtype=np.float32) - SIDE // 2
_NODES = 64  # of the quadrature for J1


def generalised_gaussian(
    sigma_x: Scalars, sigma_y: Scalars, angle: Scalars, beta: Scalars, *, size: Sizes
) -> Kernels:
    """Return exp(-q^beta / 2), where q is the squared distance in units of sigma.

    Args:
        sigma_x, sigma_y: standard deviations along the kernel's own axes, in pixels.
        angle: from the image's x axis (columns, to the right) to the kernel's x axis, in radians;
            the y axis points down. It has no effect if both sigmas are equal.
        beta: shape: 1 is a Gaussian, smaller values have a sharper peak, larger ones a flatter top.
        size: side of the kernel in pixels, odd, at most SIDE.

    Source: Pascal et al. 2013, "Parameter Estimation for Multivariate Generalized Gaussian
    Distributions"; Liu et al. 2020, "Estimating Generalized Gaussian Blur Kernels for Out-of-Focus
    Image Deblurring".
    """
    q = _quadratic(sigma_x, sigma_y, angle)
    return _normalise(jnp.exp(-0.5 * q ** _to_pixels(beta)), size)


def plateau(
    sigma_x: Scalars, sigma_y: Scalars, angle: Scalars, beta: Scalars, *, size: Sizes
) -> Kernels:
    """Return 1 / (1 + q^beta), which is flat in the middle and has a long tail.

    Arguments are those of `generalised_gaussian`.

    Source: Wang et al. 2021 (Real-ESRGAN), section 3.1, "Blur".
    """
    q = _quadratic(sigma_x, sigma_y, angle)
    return _normalise(1.0 / (1.0 + q ** _to_pixels(beta)), size)


def sinc(cutoff: Scalars, *, size: Sizes) -> Kernels:
    """Return the circular low-pass filter w J1(w r) / (2 pi r), which rings at edges.

    Args:
        cutoff: w, the cutoff frequency in radians per pixel, at most pi.
        size: side of the kernel in pixels, odd, at most SIDE.

    Source: Wang et al. 2021 (Real-ESRGAN), section 3.3.
    """
    r = np.hypot(*np.meshgrid(_OFFSET, _OFFSET))
    at_zero = r == 0.0
    r = np.where(at_zero, 1.0, r)
    w = _to_pixels(cutoff)
    kernel = w * bessel_j1(w * r) / (2.0 * np.pi * r)
    return _normalise(jnp.where(at_zero, w * w / (4.0 * np.pi), kernel), size)


def pulse() -> Float[Array, "21 21"]:
    """Return the identity kernel."""
    return _normalise(jnp.ones((SIDE, SIDE)), 1)


def bessel_j1(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Return the Bessel function of the first kind of order 1, to within 5e-7 for |x| up to 60.

    Computed as the mean of cos(t - x sin t) over t from 0 to pi. The integrand is periodic, so the
    midpoint rule converges faster than any power of the number of nodes.

    Source: Abramowitz & Stegun 1964, equation 9.1.21.
    """
    t = np.pi * (np.arange(_NODES) + 0.5) / _NODES
    sine = np.sin(t).astype(np.float32)
    return jnp.mean(jnp.cos(t.astype(np.float32) - x[..., None] * sine), axis=-1)


def _quadratic(sigma_x: Scalars, sigma_y: Scalars, angle: Scalars) -> Kernels:
    """Return (x, y) S^-1 (x, y)', the squared distance from the centre in units of sigma."""
    sigma_x, sigma_y, angle = (_to_pixels(p) for p in (sigma_x, sigma_y, angle))
    x, y = np.meshgrid(_OFFSET, _OFFSET)
    along = jnp.cos(angle) * x + jnp.sin(angle) * y
    across = jnp.cos(angle) * y - jnp.sin(angle) * x
    return (along / sigma_x) ** 2 + (across / sigma_y) ** 2


def _to_pixels(parameter: Scalars) -> Float[Array, "*n 1 1"]:
    return jnp.asarray(parameter, jnp.float32)[..., None, None]


def _normalise(kernel: Kernels, size: Sizes) -> Kernels:
    reach = jnp.asarray(size)[..., None, None] // 2
    x, y = np.abs(np.meshgrid(_OFFSET, _OFFSET))
    kernel = jnp.where(jnp.maximum(x, y) <= reach.astype(jnp.float32), kernel, 0.0)
    return kernel / jnp.sum(kernel, axis=(-2, -1), keepdims=True)
