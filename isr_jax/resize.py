"""Nearest, bilinear, bicubic and Lanczos resizing, bit-exact on the host and differentiable in JAX.

Both share one table of weights per axis, computed once in float64 from integer positions: output
pixel i sits at (i + 1/2)/scale - 1/2 on the input's grid, and when shrinking the kernel is widened
by 1/scale so that it also blurs (nearest never does). Beyond the border lies the edge pixel.

`resize_uint8` equals MATLAB's `imresize` bit for bit: it reproduces the published LR files of the
benchmark sets. `resize_uint16` does the same in 16 bits. `resize` and `upsample` are differentiable
and work inside jit.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float64, Int32, UInt8, UInt16

from isr_jax.errors import UserError, unknown
from isr_jax.images import depth_to_space, pad_edge

Scale = Fraction | float | int

_BLOCK_BYTES = 32 * 2**20  # float64 working set of a block of output rows


class Taps(NamedTuple):
    """The weights of each output pixel along one axis, and the input pixels that they apply to."""

    weights: Float64[np.ndarray, "out taps"]
    inputs: Int32[np.ndarray, "out taps"]


def box(x: Float64[np.ndarray, "*s"]) -> Float64[np.ndarray, "*s"]:
    """Evaluate the nearest-neighbour kernel: 1 on [-1/2, 1/2), else 0."""
    return ((x >= -0.5) & (x < 0.5)).astype(np.float64)


def triangle(x: Float64[np.ndarray, "*s"]) -> Float64[np.ndarray, "*s"]:
    """Evaluate the kernel of linear interpolation, on (-1, 1)."""
    return np.maximum(0.0, 1.0 - np.abs(x))


def keys_cubic(x: Float64[np.ndarray, "*s"]) -> Float64[np.ndarray, "*s"]:
    """Evaluate the kernel of cubic convolution with a = -1/2, on (-2, 2).

    Source: Keys, "Cubic convolution interpolation for digital image processing", IEEE
    Transactions on Acoustics, Speech, and Signal Processing 29(6), 1981, equation 15.
    """
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x <= 1.0, near, np.where(x < 2.0, far, 0.0))


def lanczos3(x: Float64[np.ndarray, "*s"]) -> Float64[np.ndarray, "*s"]:
    """Evaluate the Lanczos kernel sinc(x) sinc(x/3), on (-3, 3).

    Source: Turkowski, "Filters for Common Resampling Tasks", Graphics Gems I, 1990.
    """
    return np.where(np.abs(x) < 3.0, np.sinc(x) * np.sinc(x / 3.0), 0.0)


# Kernel, and twice its radius (an integer, so that positions stay integers).
METHODS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "nearest": (box, 1),
    "bilinear": (triangle, 2),
    "bicubic": (keys_cubic, 4),
    "lanczos": (lanczos3, 6),
}


def as_fraction(scale: Scale) -> Fraction:
    """Return the rational number meant by a scale factor: 1/3 as a float becomes exactly one third.

    Raises:
        UserError: scale is not a positive finite number.
    """
    try:
        exact = scale if isinstance(scale, str | float | Fraction) else float(scale)
        ratio = Fraction(exact).limit_denominator(10**6)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        ratio = Fraction(0)
    if ratio <= 0:
        raise UserError(f"scale is {scale}; give a positive number such as 2, 0.25 or 3/2")
    return ratio


def resize_uint8(
    image: UInt8[np.ndarray, "h w *c"] | Float[np.ndarray, "h w *c"],
    *,
    scale: Scale | None = None,
    size: tuple[int, int] | None = None,
    method: str = "bicubic",
    round_between: bool = True,
    rows: tuple[int, int] | None = None,
    cols: tuple[int, int] | None = None,
) -> UInt8[np.ndarray, "oh ow *c"]:
    """Resize a uint8 image on the host, bit for bit as MATLAB's `imresize`.

    The axis with the smaller scale goes first (rows when equal), and the image is rounded half
    up and clamped to uint8 after each of the two passes. Memory is bounded by the image, the
    result and some tens of megabytes.

    Args:
        image: 0..255, with or without channels; float if it has not been rounded yet.
        scale: scale factor; the result has ceil(scale * size) pixels.
        size: height and width of the result, instead of scale.
        method: nearest, bilinear, bicubic or lanczos.
        round_between: whether to round between the passes; False rounds at the end only, as Python
            ports do.
        rows: (start, stop) of the result's rows to compute; the same bits as cropping them.
        cols: (start, stop) of the result's columns, likewise.

    Raises:
        UserError: unknown method, not exactly one of scale and size, or a window outside the
            result.
    """
    return _resize_rounded(
        image, np.uint8, scale, size, method, round_between=round_between, rows=rows, cols=cols
    )


def resize_uint16(
    image: UInt16[np.ndarray, "h w *c"] | Float[np.ndarray, "h w *c"],
    *,
    scale: Scale | None = None,
    size: tuple[int, int] | None = None,
    method: str = "bicubic",
    round_between: bool = True,
    rows: tuple[int, int] | None = None,
    cols: tuple[int, int] | None = None,
) -> UInt16[np.ndarray, "oh ow *c"]:
    """Resize a uint16 image, 0..65535, as `resize_uint8` does for 0..255.

    Arguments are those of `resize_uint8`.

    Raises:
        UserError: as for `resize_uint8`.
    """
    return _resize_rounded(
        image, np.uint16, scale, size, method, round_between=round_between, rows=rows, cols=cols
    )


def resize_float64(
    image: UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"] | Float[np.ndarray, "h w *c"],
    *,
    scale: Scale | None = None,
    size: tuple[int, int] | None = None,
    method: str = "bicubic",
) -> Float64[np.ndarray, "oh ow *c"]:
    """Resize an image of any range on the host in float64, without rounding or clamping.

    Arguments and errors are those of `resize_uint8`.
    """
    row_taps, col_taps = (_taps(*a, method) for a in _axes(image.shape[:2], scale, size))
    planes = image.reshape(*image.shape[:2], -1)
    result = _separable(planes, row_taps, col_taps, None, between=False)
    return result.reshape(*result.shape[:2], *image.shape[2:])


def axis_taps(length: int, out: int, *, method: str = "bicubic") -> Taps:
    """Return the taps that make `out` pixels of `length`; errors are those of `resize_uint8`."""
    return _taps(length, out, Fraction(out, length), method)


def apply_taps(
    image: UInt8[np.ndarray, "h w c"] | Float[np.ndarray, "h w c"], rows: Taps, columns: Taps
) -> Float64[np.ndarray, "oh ow c"]:
    """Resize as `resize_float64` does, by taps or some of them: the same bits, pixel by pixel."""
    return _separable(image, rows, columns, None, between=False)


def resize(
    images: Float[Array, "n h w c"],
    *,
    scale: Scale | None = None,
    size: tuple[int, int] | None = None,
    method: str = "bicubic",
) -> Float[Array, "n oh ow c"]:
    """Resize a batch in JAX; linear, differentiable, and not clamped to [0, 1].

    Two dense matrix products at full precision, meant for crops and training images. Use
    `resize_uint8` for photographs.

    Args:
        images: any range; the result has the same dtype.
        scale: scale factor; the result has ceil(scale * size) pixels. Static under jit.
        size: height and width of the result, instead of scale. Static under jit.
        method: nearest, bilinear, bicubic or lanczos.

    Raises:
        UserError: as for `resize_uint8`.
    """
    wide = np.promote_types(images.dtype, np.float32)  # bfloat16 weights do not sum to 1
    down, across = (
        jnp.asarray(_matrix(*axis, method), wide) for axis in _axes(images.shape[1:3], scale, size)
    )
    highest = jax.lax.Precision.HIGHEST  # TF32 or bfloat16 would cost two of the eight bits
    wider = jnp.einsum("oh,nhwc->nowc", down, images.astype(wide), precision=highest)
    return jnp.einsum("pw,nowc->nopc", across, wider, precision=highest).astype(images.dtype)


def upsample(
    images: Float[Array, "n h w c"], *, scale: int, method: str = "bicubic"
) -> Float[Array, "n sh sw c"]:
    """Resize by an integer scale factor, also where JAX traces with unknown image sizes.

    The result is that of `resize`, computed as a sub-pixel convolution of the image padded with its
    edge pixels: output pixels of equal phase have equal weights.

    Args:
        images: any range; computed in their dtype. Cost grows with the square of the channels.
        scale: the scale factor.
        method: nearest, bilinear, bicubic or lanczos.

    Raises:
        UserError: unknown method.
    """
    reach = (_kernel(method)[1] + 1) // 2
    taps = 2 * reach + 1
    matrix = _matrix(taps, taps * scale, Fraction(scale), method)
    phases = matrix.reshape(taps, scale, taps)[reach]  # the middle pixel sees no edge
    kernel = np.einsum("pi,qj,cd->ijcpqd", phases, phases, np.eye(images.shape[-1]))
    return depth_to_space(
        jax.lax.conv_general_dilated(
            pad_edge(images, reach),
            jnp.asarray(kernel.reshape(taps, taps, images.shape[-1], -1), images.dtype),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        ),
        scale,
    )


def _resize_rounded(
    image: np.ndarray,
    dtype: type[np.uint8] | type[np.uint16],
    scale: Scale | None,
    size: tuple[int, int] | None,
    method: str,
    *,
    round_between: bool = True,
    rows: tuple[int, int] | None = None,
    cols: tuple[int, int] | None = None,
) -> np.ndarray:
    """Resize as `resize_uint8` does, to either integer type."""
    down, across = (_taps(*a, method) for a in _axes(image.shape[:2], scale, size))
    row_taps, col_taps = _window(down, rows, "rows"), _window(across, cols, "cols")
    planes = image.reshape(*image.shape[:2], -1)
    if size is not None and size[1] * image.shape[0] < size[0] * image.shape[1]:
        flipped = _separable(
            planes.transpose(1, 0, 2), col_taps, row_taps, dtype, between=round_between
        )
        result = flipped.transpose(1, 0, 2)
    else:
        result = _separable(planes, row_taps, col_taps, dtype, between=round_between)
    return np.ascontiguousarray(result).reshape(*result.shape[:2], *image.shape[2:])


def _axes(
    shape: tuple[int, ...], scale: Scale | None, size: tuple[int, int] | None
) -> list[tuple[int, int, Fraction]]:
    """Return length, output length and scale of the rows and of the columns."""
    if (scale is None) == (size is None):
        raise UserError("resize needs either scale or size=(height, width), and not both")
    if size is None:
        ratio = as_fraction(scale)  # type: ignore[arg-type]
        return [(length, ceil(ratio * length), ratio) for length in shape]
    if min(size) < 1 or min(shape) < 1:
        raise UserError(f"cannot resize {shape} to {size}; every side needs at least 1 pixel")
    return [(n, out, Fraction(out, n)) for n, out in zip(shape, size, strict=True)]


def _kernel(method: str) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Return a method's kernel, and twice its radius."""
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    return METHODS[method]


@lru_cache(maxsize=128)
def _taps(length: int, out: int, scale: Fraction, method: str) -> Taps:
    """Return the taps of every output pixel along one axis; each row of weights sums to 1."""
    kernel, diameter = _kernel(method)
    p, q = scale.numerator, scale.denominator
    unit = max(p, q) if method != "nearest" else p
    # Positions times 2p are integers: equal phases get equal weights wherever they are in the
    # image, and no tie depends on a rounding error.
    centre = (2 * np.arange(out) + 1) * q - p
    reach = diameter * unit
    first = -((reach - centre) // (2 * p))
    index = first[:, None] + np.arange(reach // p + 1)
    weights = kernel((centre[:, None] - 2 * p * index) / (2 * unit))
    used = weights.any(axis=0)
    weights, index = weights[:, used], index[:, used]
    weights = weights / weights.sum(axis=1, keepdims=True)
    index = np.clip(index, 0, length - 1).astype(np.int32)
    weights.flags.writeable = index.flags.writeable = False
    return Taps(weights, index)


@lru_cache(maxsize=64)
def _matrix(
    length: int, out: int, scale: Fraction, method: str
) -> Float64[np.ndarray, "out length"]:
    """Return the same weights as a dense matrix."""
    weights, index = _taps(length, out, scale, method)
    matrix = np.zeros((out, length))
    np.add.at(matrix, (np.arange(out)[:, None], index), weights)
    matrix.flags.writeable = False
    return matrix


def _window(taps: Taps, window: tuple[int, int] | None, name: str) -> Taps:
    """Return the taps of the output pixels from start to stop."""
    if window is None:
        return taps
    start, stop = window
    length = len(taps.weights)
    if not 0 <= start < stop <= length:
        raise UserError(f"{name}={window} does not lie within the result's {length} {name}")
    return Taps(taps.weights[start:stop], taps.inputs[start:stop])


def _separable(
    image: np.ndarray,
    row_taps: Taps,
    col_taps: Taps,
    dtype: type[np.uint8] | type[np.uint16] | None,
    *,
    between: bool,
) -> np.ndarray:
    """Resize [h w c] along the rows, then along the columns, a block of output rows at a time.

    With an integer dtype the result is rounded and clamped to its range, also between the passes if
    `between`; without one it is float64.
    """
    most = np.iinfo(dtype).max if dtype else 0
    channels = image.shape[2]
    out_rows, out_cols = len(row_taps.inputs), len(col_taps.inputs)
    left, right = int(col_taps.inputs.min()), int(col_taps.inputs.max()) + 1
    result = np.empty((out_rows, out_cols, channels), dtype or np.float64)
    in_rows_per_row = ceil((int(np.ptp(row_taps.inputs)) + 1) / out_rows)
    block = max(1, _BLOCK_BYTES // (8 * channels * max((right - left) * in_rows_per_row, out_cols)))
    for start in range(0, out_rows, block):
        weights, index = (x[start : start + block] for x in row_taps)
        top, bottom = index.min(), index.max() + 1
        x = image[top:bottom, left:right].reshape(bottom - top, -1).astype(np.float64)
        x = _weighted(weights, index - top, x)
        x = _round(x, most) if dtype and between else x
        x = x.reshape(len(index), -1, channels).transpose(1, 0, 2).reshape(right - left, -1)
        x = _weighted(col_taps.weights, col_taps.inputs - left, x)
        x = _round(x, most) if dtype else x
        result[start : start + block] = x.reshape(out_cols, -1, channels).transpose(1, 0, 2)
    return result


def _weighted(weights: np.ndarray, index: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Sum over each output's taps in a fixed order, so that a window has the bits of the whole."""
    from scipy.sparse import csr_array  # takes long to load, and networks do without

    out, taps = weights.shape
    starts = np.arange(0, out * taps + 1, taps, dtype=np.int32)
    matrix = csr_array((weights.ravel(), index.ravel(), starts), shape=(out, len(x)))
    return matrix @ x


def _round(x: np.ndarray, most: int) -> np.ndarray:
    """Round half up and clamp to 0..most, still float64."""
    return np.clip(np.floor(x + 0.5), 0.0, most)
