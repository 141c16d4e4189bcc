"""Blurring, resizing by a traced scale factor, and sharpening.

Under jit every shape is static, but a random scale factor gives a random size. So an image lies at
the top left of its array, and `size` says how many rows and columns of the array it occupies:
borders are mirrored or clamped there. The values beyond are finite but meaningless, and are never
read.

Functions whose names start with `plane_` take one image, channels first; use `jax.vmap` for a batch
with its own sizes.
"""

import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from jaxtyping import Array, Float, Float64, Int

Images = Float[Array, "n h w c"]
Planes = Float[Array, "c h w"]
Size = Int[Array, "2"]

# `plane_resample` takes an index into this.
METHODS = ("area", "bilinear", "bicubic")

# Of `sharpen`: side of the Gaussian in pixels, levels of 255, and the share of the detail added.
_SHARPEN_SIDE, _SHARPEN_THRESHOLD, _SHARPEN_WEIGHT = 51, 10.0, 0.5


def sharpen(images: Images) -> Images:
    """Apply unsharp masking where an image differs from its blur by more than 10 levels of 255.

    sharp = clip(image + (image - blur) / 2) is blended in with the blurred mask of the pixels whose
    |image - blur| exceeds the threshold. The blur is a Gaussian of 51 pixels with the sigma that
    OpenCV derives from that size, 8 pixels.

    Args:
        images: float in [0, 1].

    Returns:
        The sharpened images, in [0, 1].

    Source: Wang et al. 2021 (Real-ESRGAN), and the values of its released code.
    """
    rows, cols = (
        jnp.asarray(_gaussian_matrix(n, _SHARPEN_SIDE), images.dtype) for n in images.shape[1:3]
    )

    def smooth(x: Images) -> Images:
        x = jnp.einsum("oh,nhwc->nowc", rows, x, precision=Precision.HIGHEST)
        return jnp.einsum("pw,nowc->nopc", cols, x, precision=Precision.HIGHEST)

    detail = images - smooth(images)
    mask = smooth((jnp.abs(detail) * 255.0 > _SHARPEN_THRESHOLD).astype(images.dtype))
    sharp = jnp.clip(images + _SHARPEN_WEIGHT * detail, 0.0, 1.0)
    return images + mask * (sharp - images)


def plane_blur(planes: Planes, size: Size, kernel: Float[Array, "k k"]) -> Planes:
    """Correlate an image with a kernel; the border is mirrored without repeating the edge pixel.

    Equals OpenCV's `filter2D` with BORDER_REFLECT_101 to within 2e-6 of the image's range. Computed
    by FFT, which on a CPU is tens of times faster than XLA's grouped convolution
    (benchmarks/blur.py).

    Args:
        planes: any range.
        size: rows and columns of the image.
        kernel: of odd side.
    """
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
    """Resize an image as OpenCV's `resize` does, to within 1e-5.

    The methods are OpenCV's INTER_AREA, INTER_LINEAR and INTER_CUBIC (a = -0.75) on floats. The
    latter two do not blur when they shrink, and equal PyTorch's `interpolate` to the same size to
    within 2e-6 (OpenCV holds positions in float32; here they are exact). Area is the mean over what
    an output pixel covers, also when upscaling. Two dense matrix products at full precision.

    Args:
        planes: any range.
        size: rows and columns of the image.
        new: rows and columns of the result, at most `shape`.
        method: index into METHODS.
        shape: of the result's array (static).
    """
    _, h, w = planes.shape
    rows = _weights(size[0], new[0], method, shape=(shape[0], h))
    cols = _weights(size[1], new[1], method, shape=(shape[1], w))
    planes = jnp.einsum("oh,chw->cow", rows, planes, precision=Precision.HIGHEST)
    return jnp.einsum("cow,pw->cop", planes, cols, precision=Precision.HIGHEST)


def _weights(
    old: Int[Array, ""], new: Int[Array, ""], method: Int[Array, ""], *, shape: tuple[int, int]
) -> Float[Array, "out length"]:
    """Return the weight of each input pixel in each output pixel along one axis."""
    i, j = np.arange(shape[0], dtype=np.int32)[:, None], np.arange(shape[1], dtype=np.int32)
    # In units of 1/new of an input pixel, output i covers [i old, (i + 1) old) and input j
    # [j new, (j + 1) new): integers, so that no pixel depends on a rounding error.
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
    """Evaluate cubic convolution with a = -0.75, as in OpenCV and PyTorch, for x in [0, 2].

    Source: Keys 1981, "Cubic convolution interpolation for digital image processing".
    """
    a = -0.75
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    return jnp.where(x <= 1.0, near, far)


def _mirrored(length: int, margin: int, size: Int[Array, ""] | int) -> Int[Array, " padded"]:
    """Return the indices that mirror an axis about its first and last pixel as often as needed."""
    period = jnp.maximum(2 * (size - 1), 1)
    index = jnp.arange(-margin, length + margin) % period
    return jnp.where(index < size, index, period - index)


def _fft_length(least: int) -> int:
    """Return the smallest even length of at least `least` whose prime factors are 2 and 3."""
    return min(3**b << max(1, (-(-least // 3**b) - 1).bit_length()) for b in range(5))


def _gaussian_matrix(length: int, side: int) -> Float64[np.ndarray, "length length"]:
    """Return the matrix that blurs an axis by a Gaussian, mirrored at the border."""
    sigma = 0.3 * ((side - 1) / 2 - 1) + 0.8
    taps = np.exp(-0.5 * ((np.arange(side) - side // 2) / sigma) ** 2)
    period = max(2 * (length - 1), 1)
    index = (np.arange(length)[:, None] + np.arange(side) - side // 2) % period
    index = np.where(index < length, index, period - index)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (np.arange(length)[:, None], index), taps / taps.sum())
    return matrix
