"""JPEG compression and decompression in JAX, as libjpeg does it by default.

Baseline JPEG without its lossless entropy coding: BT.601 YCbCr in 8 bits, chroma halved along both
axes (4:2:0), the 8x8 cosine transform, quantisation by the tables of Annex K scaled by libjpeg's
quality, and the inverse of each step with libjpeg's "fancy" chroma upsampling. Colour conversion,
sampling, transforms and quantisation are libjpeg's integer arithmetic, carried out in float32.

Source: ITU-T T.81, Annexes A and K; Wallace 1992, "The JPEG still picture compression standard".
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Int

# ITU-T T.81, tables K.1 and K.2.
LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
CHROMA_TABLE = np.full((8, 8), 99, np.float32)
CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# libjpeg's coefficients: exact in float32, and so are their products with levels, and the sums.
_TO_YCC = (
    np.array(
        [[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]],
        np.float32,
    )
    / 65536
)

Plane = Float[Array, "h w"]


def _dct_matrix() -> Float32[np.ndarray, "8 8"]:
    """Return sqrt(8) times the cosine transform, as libjpeg computes it with 13 fractional bits.

    Source: Loeffler, Ligtenberg, Moschytz 1989, "Practical fast 1-D DCT algorithms with 11
    multiplications", figure 1; its products with rounded constants are multiplied out.
    """

    def fixed(constant: float) -> float:
        return float(np.floor(constant * 8192 + 0.5)) / 8192

    _, c1, c2, c3, _, c5, c6, c7 = (np.sqrt(2.0) * np.cos(k * np.pi / 16) for k in range(8))
    outer, inner, near, far = fixed(c3 - c7), fixed(c1 + c3), fixed(c3 - c5), fixed(c3 + c5)
    # Coefficients 1, 3, 5, 7 of the differences of mirrored pixels, outermost first.
    odd = fixed(c3) - np.array(
        [
            [outer + near - fixed(c1 + c3 - c5 - c7), 0, near, outer],
            [0, inner + far - fixed(c1 + c3 + c5 - c7), inner, far],
            [near, inner, inner + near - fixed(c1 + c3 - c5 + c7), 0],
            [outer, far, 0, outer + far - fixed(c3 + c5 - c1 - c7)],
        ]
    )
    turn = fixed(c6)
    a, b = turn + fixed(c2 - c6), turn - fixed(c2 + c6)
    even = np.array([[1, 1, 1, 1], [a, turn, -turn, -a], [1, -1, -1, 1], [turn, b, -b, -turn]])
    matrix = np.empty((8, 8), np.float32)
    matrix[::2] = np.concatenate([even, even[:, ::-1]], axis=1)
    matrix[1::2] = np.concatenate([odd, -odd[:, ::-1]], axis=1)
    return matrix


# Each acts on the 64 pixels of a block; entries and sums are exact in float32.
_ALONG_ROWS = np.kron(np.eye(8, dtype=np.float32), _dct_matrix())
_ALONG_COLS = np.kron(_dct_matrix(), np.eye(8, dtype=np.float32))


def jpeg(
    images: Float[Array, "n h w c"],
    quality: Float[Array, " n"] | Int[Array, " n"],
) -> Float[Array, "n h w c"]:
    """Compress and decompress each image at its own quality.

    For whole-number qualities this is what Pillow reads back from its own file (libjpeg-turbo 3.2),
    except for ties lost to float32: of 74 photographs at qualities 10, 30, 50, 75 and 95, at most 6
    values in a million differed, by at most 4 levels. In images of fewer than 5 columns libjpeg
    repeats chroma, which is not done here.

    Args:
        images: RGB or gray, float in [0, 1]; clipped and rounded to 8 bits first. The gradient is
            zero. A gray image becomes a gray file, which has luma alone.
        quality: libjpeg's, in [1, 100]; may be traced, and need not be a whole number.

    Returns:
        Images in [0, 1], in steps of 1/255.
    """
    n, h, w, _ = images.shape
    sizes = jnp.broadcast_to(jnp.array([h, w]), (n, 2))
    return jax.vmap(plane_jpeg)(images.transpose(0, 3, 1, 2), sizes, quality).transpose(0, 2, 3, 1)


def tables(quality: Float[Array, "*n"] | Int[Array, "*n"]) -> Float[Array, "*n 2 8 8"]:
    """Return the quantisation tables of luma and chroma, scaled as by libjpeg's `jpeg_set_quality`.

    Args:
        quality: libjpeg's, in [1, 100].
    """
    quality = jnp.asarray(quality, jnp.float32)[..., None, None, None]
    # The halves make integer division of whole numbers safe against inexact division.
    percent = jnp.where(quality < 50.0, jnp.floor(5000.5 / quality), 200.0 - 2.0 * quality)
    base = np.stack([LUMA_TABLE, CHROMA_TABLE])
    return jnp.clip(jnp.floor((base * percent + 50.5) / 100.0), 1.0, 255.0)


def plane_jpeg(
    planes: Float[Array, "c h w"],
    size: Int[Array, "2"],
    quality: Float[Array, ""] | Int[Array, ""],
) -> Float[Array, "c h w"]:
    """Compress and decompress one image, channels first, as `jpeg` does.

    Args:
        planes: float in [0, 1].
        size: rows and columns of the image, at the top left of its array.
        quality: as in `jpeg`.
    """
    _, h, w = planes.shape
    levels = jnp.floor(255.0 * jnp.clip(planes, 0.0, 1.0) + 0.5)
    ycc = _to_ycc(levels) if len(planes) > 1 else levels
    # Pad to whole blocks of the halved chroma by repeating the edge pixels.
    rows, cols = (
        jnp.minimum(jnp.arange(-(-n // 16) * 16), size[axis] - 1) for axis, n in enumerate((h, w))
    )
    padded = ycc[:, rows][:, :, cols]
    if len(planes) == 1:
        return _code(padded[0], tables(quality)[0])[None, :h, :w] / 255.0
    luma, cb, cr = padded
    half = (size + 1) // 2
    # libjpeg repeats the last row of the halved chroma instead of halving repeated rows.
    below = jnp.minimum(jnp.arange(len(rows) // 2), half[0] - 1)
    luma_table, chroma_table = tables(quality)
    luma = _code(luma, luma_table)
    cb, cr = (_code(_halve(c)[below], chroma_table) for c in (cb, cr))
    cb, cr = (_double(c, half) for c in (cb, cr))
    return _to_rgb(luma, cb, cr)[:, :h, :w] / 255.0


def _nearest(x: Array) -> Array:
    """Round to the nearest integer, away from zero in a tie.

    libjpeg's coefficients in units of their quantiser are multiples of 1/2040 or coarser; the
    excess over 1/2 keeps a tie a tie after an inexact division.
    """
    return jnp.sign(x) * jnp.floor(jnp.abs(x) + 0.5001)


def _to_ycc(levels: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
    """Convert RGB to full-range BT.601 YCbCr."""
    # A matrix product, because XLA would fuse sums of planes with everything that computed the
    # levels, once for each of their nine uses.
    ycc = jnp.einsum("kc,chw->khw", _TO_YCC, levels, precision=lax.Precision.HIGHEST)
    just_below_half = 32767 / 65536
    bias = np.array([0.5, just_below_half, just_below_half], np.float32)
    zero = np.array([0.0, 128.0, 128.0], np.float32)
    return jnp.floor(ycc + zero[:, None, None] + bias[:, None, None])


def _to_rgb(y: Plane, cb: Plane, cr: Plane) -> Float[Array, "3 h w"]:
    """Convert YCbCr back to RGB, clipped to 0..255."""
    cb, cr = cb - 128.0, cr - 128.0
    red = y + jnp.floor(91881 / 65536 * cr + 0.5)
    green = y + jnp.floor(-22554 / 65536 * cb - 46802 / 65536 * cr + 0.5)
    blue = y + jnp.floor(116130 / 65536 * cb + 0.5)
    return jnp.clip(jnp.stack([red, green, blue]), 0.0, 255.0)


def _code(plane: Plane, table: Float[Array, "8 8"]) -> Plane:
    """Transform each 8x8 block, quantise, and transform back to 0..255."""
    h, w = plane.shape
    steps = table.reshape(64)
    blocks = (plane - 128.0).reshape(h // 8, 8, w // 8, 8).transpose(0, 2, 1, 3).reshape(-1, 64)
    # libjpeg keeps two fractional bits between rows and columns, and three in a coefficient.
    x = jnp.floor(4.0 * _multiply(blocks, _ALONG_ROWS.T) + 0.5)
    x = jnp.floor(0.25 * _multiply(x, _ALONG_COLS.T) + 0.5) / 8.0
    x = steps * _nearest(x / steps)
    x = jnp.floor(4.0 * _multiply(x, _ALONG_COLS) + 0.5)
    x = jnp.floor(_multiply(x, _ALONG_ROWS) / 32.0 + 0.5) + 128.0
    plane = x.reshape(h // 8, w // 8, 8, 8).transpose(0, 2, 1, 3).reshape(h, w)
    return jnp.clip(plane, 0.0, 255.0)


def _multiply(blocks: Float[Array, "b 64"], matrix: Float32[np.ndarray, "64 64"]) -> Array:
    return jnp.matmul(blocks, matrix, precision=lax.Precision.HIGHEST)


def _halve(plane: Plane) -> Float[Array, "h//2 w//2"]:
    """Average 2x2 pixels; libjpeg alternates between rounding ties down and up along a row."""
    h, w = plane.shape
    means = plane.reshape(h // 2, 2, w // 2, 2).mean(axis=(1, 3))
    return jnp.floor(means + np.where(np.arange(w // 2) % 2, 0.5, 0.25).astype(np.float32))


def _double(plane: Plane, size: Int[Array, "2"]) -> Float[Array, "2*h 2*w"]:
    """Upsample by 3/4 of the nearer pixel and 1/4 of the farther along each axis ("fancy")."""
    h, w = plane.shape

    def neighbours(length: int, last: Int[Array, ""]) -> tuple[Array, Array]:
        at = jnp.arange(length)
        return jnp.maximum(at - 1, 0), jnp.minimum(at + 1, last)

    up, down = neighbours(h, size[0] - 1)
    rows = jnp.stack([3.0 * plane + plane[up], 3.0 * plane + plane[down]], axis=1)
    rows = rows.reshape(2 * h, w)
    left, right = neighbours(w, size[1] - 1)
    cols = jnp.stack([3.0 * rows + rows[:, left], 3.0 * rows + rows[:, right]], axis=2)
    bias = np.array([8 / 16, 7 / 16], np.float32)
    return jnp.floor(cols / 16.0 + bias).reshape(2 * h, 2 * w)
