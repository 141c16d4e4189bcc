"""The gradient of large 3x3 convolutions by their kernel, in parts that fit a CPU's cache.

It is itself a convolution, whose window is the whole feature map. XLA computes that on a CPU at a
fifth of the rate of the forward pass where the map is large, as in the upsampling layers of a
generator, and at nearly the full rate where it is small (benchmarks/README.md, weight gradient). As
a sum over parts of the map it is the same number but for the order of the sums.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LARGE = 2**24  # bytes of a batch's input or output above which the plain gradient is slow
_PART = 5 * 2**19  # and of a part of it
_LEAST, _MOST = 8, 8  # least side of a part in pixels, and most parts along a side


def convolve(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "k k c d"],
    strides: Sequence[int],
    padding: Any,
    *,
    lhs_dilation: Any,
    rhs_dilation: Any,
    dimension_numbers: Any,
    feature_group_count: int,
    precision: Any,
) -> Float[Array, "n _ _ d"]:
    """Convolve as `jax.lax.conv_general_dilated`, called by `nn.Conv`."""
    plain = partial(
        jax.lax.conv_general_dilated,
        window_strides=strides,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        precision=precision,
    )
    same = kernel.shape[:2] == (3, 3) and tuple(padding) == ((1, 1), (1, 1))
    usual = same and set(strides) == {1} and x.dtype == jnp.float32 and feature_group_count == 1
    if not (usual and jax.default_backend() == "cpu" and _is_large(x, kernel)):
        return plain(x, kernel, padding=padding)
    return _in_parts(plain, x, kernel)


def _is_large(x: Array, kernel: Array) -> bool:
    """Return whether parts are faster, for a batch as in training."""
    n, h, w = x.shape[:3]
    # An export's sides are unknown, and a single image is not trained on.
    known = all(isinstance(side, int) for side in (n, h, w))
    return known and n > 1 and 4 * n * h * w * max(kernel.shape[2:]) > _LARGE


def _side(x: Array, kernel: Array) -> int:
    """Return the side of a part."""
    pixel, whole = 4 * x.shape[0] * max(kernel.shape[2:]), max(x.shape[1:3])
    side = max(_LEAST, -(-whole // _MOST), int((_PART / pixel) ** 0.5))
    return -(-whole // -(-whole // side))  # of nearly equal parts


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _in_parts(plain: Any, x: Array, kernel: Array) -> Array:
    return plain(x, kernel, padding=((1, 1), (1, 1)))


def _forward(plain: Any, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _in_parts(plain, x, kernel), (x, kernel)


def _backward(plain: Any, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    _, by_input = jax.vjp(lambda x: plain(x, kernel, padding=((1, 1), (1, 1))), x)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    side, gradient = _side(x, kernel), jnp.zeros_like(kernel)
    for row in range(0, x.shape[1], side):
        for column in range(0, x.shape[2], side):
            part = padded[:, row : row + side + 2, column : column + side + 2]
            _, by_kernel = jax.vjp(
                lambda kernel, part=part: plain(part, kernel, padding="VALID"), kernel
            )
            gradient += by_kernel(dy[:, row : row + side, column : column + side])[0]
    return by_input(dy)[0], gradient


_in_parts.defvjp(_forward, _backward)
