"""Blurring, resizing by a traced factor, and sharpening.

Under jit every shape is static, but a random factor makes a random size. So an image of fewer
pixels lies at the top left of its array, and `sizes` says how many rows and columns of each are
image: borders are mirrored or clamped there. What lies beyond is finite, means nothing, and is
never read. Without `sizes` the array is the image.

The functions that begin with `plane_` work on one image, channels first, and are what
`degrade` composes; the others are the same on a batch [n h w c].
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from jaxtyping import Array, Float, Float64, Int

Images = Float[Array, "n h w c"]
Planes = Float[Array, "c h w"]
Size = Int[Array, "2"]

# Order of the integers that choose among them.
METHODS = ("area", "bilinear", "bicubic")


def blur(
    images: Images, kernels: Float[Array, "n k k"], *, sizes: Int[Array, "n 2"] | None = None
) -> Images:
    """Correlate each image with its own kernel, mirroring at the border without the edge pixel.

    As OpenCV's `filter2D` with BORDER_REFLECT_101, to 2e-6 of the image's range. By FFT, which on a
    CPU is tens of times as fast as XLA's grouped convolution (benchmarks/blur.py).

    Args:
        images: any range.
        kernels: one per image, of odd side.
        sizes: rows and columns of each image; None for all.
    """
    n, h, w, _ = images.shape
    if sizes is None:
        sizes = jnp.broadcast_to(jnp.array([h, w]), (n, 2))
    planes = jax.vmap(plane_blur)(images.transpose(0, 3, 1, 2), sizes, kernels)
    return planes.transpose(0, 2, 3, 1)


def resample(
    images: Images,
    sizes: Int[Array, "n 2"],
    new_sizes: Int[Array, "n 2"],
    method: Int[Array, " n"],
    *,
    shape: tuple[int, int],
) -> Float[Array, "n oh ow c"]:
    """Resize each image to its own size by its own method, as OpenCV's `resize` does, to 1e-5.

    OpenCV's INTER_AREA, INTER_LINEAR and INTER_CUBIC (a = -0.75) on floats. The latter two do not
    blur when they shrink, and equal PyTorch's `interpolate` to that size to 2e-6 (OpenCV holds
    positions in float32; here they are exact). Area is the mean over what a pixel covers, also when
    enlarging. Two dense matrix products at full precision.

    Args:
        images: any range.
        sizes: rows and columns of each image.
        new_sizes: rows and columns of each result, at most `shape`.
        method: index into METHODS of each.
        shape: of the result's array (static).
    """
    one = partial(plane_resample, shape=shape)
    planes = jax.vmap(one)(images.transpose(0, 3, 1, 2), sizes, new_sizes, method)
    return planes.transpose(0, 2, 3, 1)


def sharpen(
    images: Images, *, weight: float = 0.5, radius: int = 50, threshold: float = 10.0
) -> Images:
    """Unsharp masking of [0, 1] images where they differ from their blur; stays within [0, 1].

    sharp = clip(image + weight (image - blur)) is blended in by the blurred mask of where
    |image - blur| exceeds the threshold.

    Args:
        images: float in [0, 1].
        weight: how much of the difference is added.
        radius: side of the Gaussian in pixels (the next odd number where it is even); its sigma
            is OpenCV's for that side, 0.3 ((side - 1) / 2 - 1) + 0.8.
        threshold: in levels of 255.

    Source: Wang et al. 2021 (Real-ESRGAN), and the values of its released code.
    """
    rows, cols = (
        jnp.asarray(_gaussian_matrix(n, radius | 1), images.dtype) for n in images.shape[1:3]
    )

    def smooth(x: Images) -> Images:
        x = jnp.einsum("oh,nhwc->nowc", rows, x, precision=Precision.HIGHEST)
        return jnp.einsum("pw,nowc->nopc", cols, x, precision=Precision.HIGHEST)

    detail = images - smooth(images)
    mask = smooth((jnp.abs(detail) * 255.0 > threshold).astype(images.dtype))
    sharp = jnp.clip(images + weight * detail, 0.0, 1.0)
    return images + mask * (sharp - images)


def plane_blur(planes: Planes, size: Size, kernel: Float[Array, "k k"]) -> Planes:
    """`blur` of one image."""
    _, h, w = planes.shape
    reach = len(kernel) // 2
    rows, cols = (_mirrored(n, reach, size[axis]) for axis, n in enumerate((h, w)))
    padded = planes[:, rows][:, :, cols]
    lengths = [_fft_length(n) for n in padded.shape[1:]]
    spectrum = jnp.fft.rfft2(padded, lengths) * jnp.conj(jnp.fft.rfft2(kernel, lengths))
    return jnp.fft.irfft2(spectrum, lengths)[:, :h, :w]


def plane_resample(
    planes: Planes,
    size: Size,
    new: Size,
    method: Int[Array, ""],
    *,
    shape: tuple[int, int],
) -> Float[Array, "c oh ow"]:
    """`resample` of one image."""
    _, h, w = planes.shape
    rows = _weights(size[0], new[0], method, shape=(shape[0], h))
    cols = _weights(size[1], new[1], method, shape=(shape[1], w))
    planes = jnp.einsum("oh,chw->cow", rows, planes, precision=Precision.HIGHEST)
    return jnp.einsum("cow,pw->cop", planes, cols, precision=Precision.HIGHEST)


def _weights(
    old: Int[Array, ""], new: Int[Array, ""], method: Int[Array, ""], *, shape: tuple[int, int]
) -> Float[Array, "out length"]:
    """What each output pixel along one axis takes of each input pixel."""
    i, j = np.arange(shape[0], dtype=np.int32)[:, None], np.arange(shape[1], dtype=np.int32)
    # In units of 1/new of an input pixel, output i covers [i old, (i + 1) old) and input j
    # [j new, (j + 1) new): integers, so that no pixel hangs on a rounding error.
    cover = jnp.minimum((i + 1) * old, (j + 1) * new) - jnp.maximum(i * old, j * new)
    area = jnp.where(j < old, jnp.maximum(cover, 0) / old, 0.0)

    left, rest = jnp.divmod((2 * i + 1) * old - new, 2 * new)
    t = rest / (2 * new)
    zero = jnp.zeros_like(t)
    bilinear = (zero, 1.0 - t, t, zero)
    bicubic = (_cubic(1.0 + t), _cubic(t), _cubic(1.0 - t), _cubic(2.0 - t))
    taps = zip(bilinear, bicubic, strict=True)
    interpolation = jnp.zeros(shape)
    for tap, (linear, cubic) in enumerate(taps):
        weight = jnp.where(method == METHODS.index("bicubic"), cubic, linear)
        interpolation += jnp.where(j == jnp.clip(left + tap - 1, 0, old - 1), weight, 0.0)
    return jnp.where(method == METHODS.index("area"), area, interpolation)


def _cubic(x: Array) -> Array:
    """Cubic convolution with a = -0.75, OpenCV's and PyTorch's, for x in [0, 2].

    Source: Keys 1981, "Cubic convolution interpolation for digital image processing".
    """
    a = -0.75
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    return jnp.where(x <= 1.0, near, far)


def _mirrored(length: int, margin: int, size: Int[Array, ""] | int) -> Int[Array, " padded"]:
    """Where to read an axis that is mirrored about its first and last pixel as often as needed."""
    period = jnp.maximum(2 * (size - 1), 1)
    index = jnp.arange(-margin, length + margin) % period
    return jnp.where(index < size, index, period - index)


def _fft_length(least: int) -> int:
    """The smallest even length of factors 2 and 3 alone."""
    return min(3**b << max(1, (-(-least // 3**b) - 1).bit_length()) for b in range(5))


def _gaussian_matrix(length: int, side: int) -> Float64[np.ndarray, "length length"]:
    """The matrix that blurs an axis by a Gaussian, mirrored at the border."""
    sigma = 0.3 * ((side - 1) / 2 - 1) + 0.8
    taps = np.exp(-0.5 * ((np.arange(side) - side // 2) / sigma) ** 2)
    period = max(2 * (length - 1), 1)
    index = (np.arange(length)[:, None] + np.arange(side) - side // 2) % period
    index = np.where(index < length, index, period - index)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (np.arange(length)[:, None], index), taps / taps.sum())
    return matrix
