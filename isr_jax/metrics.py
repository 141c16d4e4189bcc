"""PSNR, SSIM and MS-SSIM in JAX, differentiable, for training.

They take [n h w c] batches in [0, 1] and give one value per image; `protocols` has the numbers that
papers print, of uint8 images in float64. SSIM always has an 11x11 Gaussian window of sigma 1.5, the
valid region only, K1 = 0.01 and K2 = 0.03, and is the mean over the channels.

Source: Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to
Structural Similarity", IEEE Transactions on Image Processing 13(4), 2004, section III; Wang,
Simoncelli, Bovik, "Multi-Scale Structural Similarity for Image Quality Assessment", Asilomar
2003, sections 3.1 and 3.2.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float64

from isr_jax.errors import UserError
from isr_jax.images import AnyArray

WINDOW = 11
SIGMA = 1.5
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

GAUSSIAN = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
GAUSSIAN /= GAUSSIAN.sum()
# A term to the power 0.0448 has an infinite slope at 0; from here on it is below 1e5.
_FLOOR = 1e-6
# With k1 = 1e4 the luminance ratio is 1 to 1e-8, which leaves contrast times structure.
_NO_LUMINANCE = 1e4
# Its annotations are of chex's arrays, which scalars are too.
_ssim = cast(Callable[..., Array], dm_pix.ssim)


# Differentiable, in JAX


def psnr(sr: Float[Array, "n h w c"], hr: Float[Array, "n h w c"]) -> Float[Array, " n"]:
    """Return the peak signal-to-noise ratio of each [0, 1] image in dB; higher is better.

    Identical images give +inf, with a gradient of zero.
    """
    sr, hr = _at_least_float32(sr), _at_least_float32(hr)
    identical = jnp.mean((sr - hr) ** 2, axis=(1, 2, 3)) == 0.0
    # dm_pix's value is right there too, but its gradient is 0/0: differentiate another image.
    other = jnp.where(identical[:, None, None, None], hr + 1.0, sr)
    return jnp.where(identical, jnp.inf, dm_pix.psnr(other, hr))


def ssim(sr: Float[Array, "n h w c"], hr: Float[Array, "n h w c"]) -> Float[Array, " n"]:
    """Return the SSIM of each [0, 1] image, in [-1, 1] and 1 when identical.

    Raises:
        UserError: an image is smaller than the window, 11x11 pixels.
    """
    n, h, w, c = sr.shape
    require_window(h, w)
    similarity = _ssim(_planes(sr), _planes(hr), filter_fn=_blur)
    return similarity.reshape(n, c).mean(axis=1)


def ms_ssim(sr: Float[Array, "n h w c"], hr: Float[Array, "n h w c"]) -> Float[Array, " n"]:
    """Return the MS-SSIM of each [0, 1] image, in [0, 1] and 1 when identical.

    Takes `ms_ssim_scales(h, w)` scales, halving by the mean of 2x2 pixels and dropping an odd
    last row or column. With fewer than five, the weights of those left are made to sum to 1.
    Each channel's term is held at 1e-6 or more before its fractional power, which keeps the
    gradient finite where images are uncorrelated. `measure` holds it at 0, as evaluation code
    elsewhere does: the two differ only where a term lies below 1e-6.

    Raises:
        UserError: an image is smaller than the window, 11x11 pixels.
    """
    n, h, w, c = sr.shape
    require_window(h, w)
    sr, hr = _planes(sr), _planes(hr)
    weights = ms_ssim_weights(h, w)
    product = jnp.ones(n * c, sr.dtype)
    for weight in weights[:-1]:
        term = _ssim(sr, hr, k1=_NO_LUMINANCE, filter_fn=_blur)
        product *= jnp.maximum(term, _FLOOR) ** weight
        sr, hr = halve(sr), halve(hr)
    term = _ssim(sr, hr, filter_fn=_blur)
    product *= jnp.maximum(term, _FLOOR) ** weights[-1]
    return product.reshape(n, c).mean(axis=1)


def ms_ssim_scales(h: int, w: int) -> int:
    """How many of the five scales fit: 5 from 176 pixels a side, 4 from 88, ... 0 below 11."""
    return min(len(MS_SSIM_WEIGHTS), max(0, (min(h, w) // WINDOW).bit_length()))


def ms_ssim_weights(h: int, w: int) -> list[float]:
    """Exponents of the scales that fit, finest first, summing to 1."""
    weights = MS_SSIM_WEIGHTS[: ms_ssim_scales(h, w)]
    if len(weights) == len(MS_SSIM_WEIGHTS):
        return list(weights)  # as published: they sum to 1.0001
    return [weight / sum(weights) for weight in weights]


def require_window(h: int, w: int) -> None:
    """Raise a UserError where an image of h x w pixels is smaller than the SSIM window."""
    if min(h, w) < WINDOW:
        raise UserError(f"SSIM needs images of at least {WINDOW}x{WINDOW} pixels, got {h}x{w}")


def _at_least_float32(x: Array) -> Array:
    return x.astype(np.promote_types(x.dtype, np.float32))


def _planes(images: Array) -> Array:
    """[n h w c] -> [n*c 1 h w], dm_pix's batch of images whose last axes are rows and columns."""
    n, h, w, c = images.shape
    return _at_least_float32(images).transpose(0, 3, 1, 2).reshape(n * c, 1, h, w)


def _blur(x: Array) -> Array:
    """Apply the Gaussian window over the last two axes, valid region.

    Two products with banded matrices, rows first: on a CPU 5 to 16 times as fast, gradient
    included, as dm_pix's convolutions, and on an accelerator work for the matrix unit.
    """
    rows, cols = (jnp.asarray(_band(length), x.dtype) for length in x.shape[-2:])
    highest = jax.lax.Precision.HIGHEST  # variances are small differences of large means
    x = jnp.matmul(rows, x, precision=highest)
    return jnp.matmul(x, cols.T, precision=highest)


@lru_cache(maxsize=64)
def _band(length: int) -> Float64[np.ndarray, "out length"]:
    """Return the matrix that blurs a signal of this length, valid region."""
    out = length - WINDOW + 1
    matrix = np.zeros((out, length))
    for tap, weight in enumerate(GAUSSIAN):
        matrix[np.arange(out), np.arange(out) + tap] = weight
    matrix.flags.writeable = False
    return matrix


def halve(x: AnyArray) -> AnyArray:
    """Mean of 2x2 pixels over the last two axes, without an odd last row or column."""
    h, w = x.shape[-2] // 2, x.shape[-1] // 2
    blocks: Any = x[..., : 2 * h, : 2 * w].reshape(*x.shape[:-2], h, 2, w, 2)
    return blocks.mean(axis=(-3, -1))


# For tables, in float64
