"""Gaussian and Poisson noise, with independent channels or the same noise in all three (gray).

Both are computed from an image's normal deviates z [c h w] by arithmetic alone. Rejection sampling
would loop as long as the slowest pixel of the batch.

Source: Wang et al. 2021 (Real-ESRGAN), section 3.1, "Noise", and the released code's definitions.
"""

import jax.numpy as jnp
from jax import lax
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, Int

Planes = Float[Array, "c h w"]

_GRAY = (0.2989, 0.587, 0.114)  # BT.601 luma, with the weights PyTorch code uses
_FEW = 10.0  # smaller Poisson means are summed up, larger ones expanded
_MOST = 34  # a Poisson variable of mean _FEW reaches this once in 10^9


def plane_noise(
    z: Planes,
    planes: Planes,
    size: Int[Array, "2"],
    *,
    poisson: Bool[Array, ""],
    strength: Float[Array, ""],
    gray: Bool[Array, ""],
) -> Planes:
    """Return the noise to be added to one image.

    Gaussian noise is sigma z. Poisson (shot) noise is strength (N / v - x), where N is the Poisson
    quantile of z for mean v x, x is the image rounded to 8 bits (its luma if gray), and v is the
    number of its distinct values rounded up to a power of two, at most 256. Gradients treat the
    noise as a constant.

    Args:
        z: independent standard normal deviates.
        planes: the image, RGB or one channel, in [0, 1].
        size: rows and columns of the image, at the top left of its array.
        poisson: whether the noise is Poisson rather than Gaussian.
        strength: sigma of Gaussian noise in levels of 255; scale factor of Poisson noise.
        gray: whether the three channels get the same noise; of one channel it changes nothing.
    """
    seen = planes
    if len(planes) > 1:
        red, green, blue = planes
        luma = _GRAY[0] * red + _GRAY[1] * green + _GRAY[2] * blue
        seen = jnp.where(gray, luma, planes)
    levels = jnp.round(255.0 * jnp.clip(seen, 0.0, 1.0))
    levels = lax.stop_gradient(levels)
    values = _power_of_two(count_levels(levels, size)).astype(jnp.float32)

    def channel(pair: tuple[Array, Array]) -> Array:
        z, x = pair
        shot = strength * (poisson_quantile(z, values * x) / values - x)
        return jnp.where(poisson, shot, strength / 255.0 * z)

    # A loop of three fast steps: XLA for CPUs would otherwise fuse all this into its consumer,
    # where it takes four times as long.
    return lax.map(channel, (jnp.where(gray, z[:1], z), levels / 255.0))


def count_levels(levels: Float[Array, "c h w"], size: Int[Array, "2"]) -> Int[Array, ""]:
    """Count the distinct values of 0..255 in an image, within `size` rows and columns.

    Exact and without a histogram: each value sets its bit in eight words of 32 bits, in one pass.
    """
    _, h, w = levels.shape
    inside = (jnp.arange(h) < size[0])[:, None] & (jnp.arange(w) < size[1])
    value = levels.astype(jnp.uint32)
    bit = jnp.where(inside, jnp.uint32(1) << (value & 31), 0)
    words = tuple(jnp.where(value >> 5 == word, bit, 0) for word in range(8))
    zeros = (jnp.uint32(0),) * 8

    def union(a: tuple, b: tuple) -> tuple:
        return tuple(x | y for x, y in zip(a, b, strict=True))

    words = lax.reduce(words, zeros, union, (0, 1, 2))
    return jnp.sum(lax.population_count(jnp.stack(words))).astype(jnp.int32)


def poisson_quantile(z: Float[Array, "*s"], mean: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Return the Poisson quantile of a normal deviate: the smallest N with P(X <= N) >= Phi(z).

    For a mean below 10 the distribution is summed up. From 10 on, the result is the expansion about
    a normal, which is off by one for one deviate in 2000 and differs from the Poisson distribution
    by less than 2e-4 (total variation).

    Source: Giles 2016, "Algorithm 955: Approximation of the Inverse Poisson Cumulative
    Distribution Function", the normal asymptotic expansion.
    """
    large = jnp.maximum(mean, _FEW)
    root = jnp.sqrt(large)
    quantile = (
        large
        + root * z
        + (2.0 + z * z) / 6.0
        - (2.0 + z * z) * z / (72.0 * root)
        + (3.0 * z**4 + 7.0 * z * z - 16.0) / (810.0 * large)
    )
    small = jnp.minimum(mean, _FEW)
    u = norm.cdf(z)
    probability = jnp.exp(-small)
    below, count = probability, jnp.zeros_like(z)
    for n in range(1, _MOST):
        count += (u > below).astype(count.dtype)
        probability = probability * small / n
        below += probability
    return jnp.where(mean < _FEW, count, jnp.floor(quantile))


def _power_of_two(n: Int[Array, ""]) -> Int[Array, ""]:
    """Return the smallest power of two that is at least n, for n >= 1."""
    return jnp.left_shift(1, 32 - lax.clz(n - 1))
