"""Gaussian and Poisson noise, of three independent channels or the same in all (gray).

Both are made of normal deviates z [3 h w] of one image (`normals`), by arithmetic alone: no
rejection, whose loops would run as long as the slowest pixel of the batch needs.

Source: Wang et al. 2021 (Real-ESRGAN), section 3.1, "Noise", and the released code's definitions.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, Int, Key

Images = Float[Array, "n h w 3"]
Planes = Float[Array, "3 h w"]

_GRAY = (0.2989, 0.587, 0.114)  # BT.601 luma, as PyTorch's users weigh it
_FEW = 10.0  # Poisson means below it are summed up, larger ones expanded
_MOST = 34  # a Poisson variable of mean _FEW reaches it once in 10^9


def gaussian_noise(
    key: Key[Array, ""],
    images: Images,
    *,
    sigma: Float[Array, " n"],
    gray: Bool[Array, " n"],
) -> Images:
    """Gaussian noise for each image, to be added to it.

    Args:
        key: randomness; image i's noise depends on it and i alone.
        images: only their shape counts.
        sigma: standard deviation, in levels of 255.
        gray: the same noise in the three channels.
    """
    return _noise(key, images, None, jnp.array(False), sigma, gray)


def poisson_noise(
    key: Key[Array, ""],
    images: Images,
    *,
    scale: Float[Array, " n"],
    gray: Bool[Array, " n"],
    sizes: Int[Array, "n 2"] | None = None,
) -> Images:
    """Shot noise for each image, to be added to it: scale (N / v - x), N Poisson of mean v x.

    x is the image in [0, 1] rounded to 8 bits (its luma where gray), and v the number of its
    different values, rounded up to a power of two: at most 256.

    Args:
        key: randomness; image i's noise depends on it and image i alone.
        images: float in [0, 1].
        scale: factor of the noise.
        gray: the same noise in the three channels.
        sizes: rows and columns of each image, at the top left of its array; None for all.
    """
    return _noise(key, images, sizes, jnp.array(True), scale, gray)


def _noise(
    key: Key[Array, ""],
    images: Images,
    sizes: Int[Array, "n 2"] | None,
    poisson: Bool[Array, ""],
    strength: Float[Array, " n"],
    gray: Bool[Array, " n"],
) -> Images:
    n, h, w, _ = images.shape
    if sizes is None:
        sizes = jnp.broadcast_to(jnp.array([h, w]), (n, 2))

    def one(i: Array, planes: Planes, size: Array, strength: Array, gray: Array) -> Planes:
        z = jax.random.normal(jax.random.fold_in(key, i), planes.shape)
        return plane_noise(z, planes, size, poisson=poisson, strength=strength, gray=gray)

    noise = jax.vmap(one)(jnp.arange(n), images.transpose(0, 3, 1, 2), sizes, strength, gray)
    return noise.transpose(0, 2, 3, 1)


def plane_noise(
    z: Planes,
    planes: Planes,
    size: Int[Array, "2"],
    *,
    poisson: Bool[Array, ""],
    strength: Float[Array, ""],
    gray: Bool[Array, ""],
) -> Planes:
    """The noise of one image, channels first, made of normal deviates z.

    Poisson's, of the factor `strength`, or Gaussian, of `strength` levels as its sigma.
    """
    red, green, blue = planes
    luma = _GRAY[0] * red + _GRAY[1] * green + _GRAY[2] * blue
    levels = jnp.round(255.0 * jnp.clip(jnp.where(gray, luma, planes), 0.0, 1.0))
    levels = lax.stop_gradient(levels)
    values = _power_of_two(count_levels(levels, size)).astype(jnp.float32)

    def channel(pair: tuple[Array, Array]) -> Array:
        z, x = pair
        shot = strength * (poisson_quantile(z, values * x) / values - x)
        return jnp.where(poisson, shot, strength / 255.0 * z)

    # A loop of three fast steps, because XLA for CPUs would otherwise compile all this into
    # whatever reads it, where it runs four times as long.
    return lax.map(channel, (jnp.where(gray, z[:1], z), levels / 255.0))


def count_levels(levels: Float[Array, "c h w"], size: Int[Array, "2"]) -> Int[Array, ""]:
    """How many different values of 0..255 an image holds, within `size` rows and columns.

    Exact and without a histogram: each value sets its bit in eight words of 32, all in one pass.
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
    """The Poisson quantile of a normal deviate: the smallest N with P(Poisson <= N) >= Phi(z).

    Below a mean of 10 by summing the distribution up; from there on by its expansion about a
    normal, which is off by one for one deviate in 2000, and differs from Poisson's distribution by
    less than 2e-4 (total variation).

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
        count += u > below
        probability = probability * small / n
        below += probability
    return jnp.where(mean < _FEW, count, jnp.floor(quantile))


def _power_of_two(n: Int[Array, ""]) -> Int[Array, ""]:
    """The smallest power of two that is no smaller than n, for n >= 1."""
    return jnp.left_shift(1, 32 - lax.clz(n - 1))
