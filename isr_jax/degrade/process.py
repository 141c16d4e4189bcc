"""Degradations by name: bicubic, Real-ESRGAN's second-order process, and a milder form of it.

    hr -> [blur -> resize -> noise -> JPEG] twice, the second time with, in either order,
          [resize to the LR size -> sinc] and [JPEG] at its end -> 8 bits

Random sizes under static shapes: every image lies at the top left of an array as large as the
largest size that the settings allow, and borders are handled where the image ends (see `filters`).
So an example costs the same whatever it draws, and no branches are needed, all of which would run.

Gray images get noise in their one channel, and are compressed as gray JPEG files.

Where Real-ESRGAN's program deviates from the tools that it imitates, this follows the tools: JPEG
has rounded tables, 8-bit pixels, whole-number qualities, repeated edges and libjpeg's upsampling
(the program has none of these), and area and resizing by a factor are OpenCV's.

Source: Wang et al. 2021, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure
Synthetic Data", sections 3 and 4.1.
"""

from collections.abc import Callable
from functools import partial
from math import floor

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from isr_jax.degrade.filters import plane_blur, plane_resample
from isr_jax.degrade.jpeg import plane_jpeg
from isr_jax.degrade.noise import plane_noise
from isr_jax.degrade.parameters import (
    PHOTO,
    REAL_ESRGAN,
    Parameters,
    Pass,
    PassSettings,
    Settings,
    draw,
    example_keys,
)
from isr_jax.errors import UserError, unknown
from isr_jax.images import to_float, to_uint8
from isr_jax.resize import resize

Images = Float[Array, "n h w c"]  # RGB or gray
Shape = tuple[int, int]


def apply(
    key: Key[Array, ""],
    parameters: Parameters,
    hr: Images,
    *,
    scale: int,
    settings: Settings = REAL_ESRGAN,
    first: int | Int[Array, ""] = 0,
    sizes: Int[Array, "n 2"] | None = None,
) -> Float[Array, "n lh lw c"]:
    """Degrade each image with its own parameters.

    Args:
        key: randomness of the noise; the noise of example i depends on it and first + i alone.
        parameters: see `draw`.
        hr: float in [0, 1]; sides are divisible by `scale`.
        scale: HR pixels per LR pixel (static).
        settings: bound the intermediate sizes; larger factors are clipped to their range.
        first: number of the first example within the whole batch; may be traced.
        sizes: height and width of each image, at the top left of its array, divisible by scale; all
            of the array by default. LR images are at the top left of theirs.

    Returns:
        LR in [0, 1], in steps of 1/255.

    Raises:
        UserError: a side is not divisible by scale.
    """
    n, h, w, _ = hr.shape
    if h % scale or w % scale:
        raise UserError(f"HR crops of {h}x{w} pixels must be divisible by scale={scale}")
    one = partial(_apply_one, scale=scale, settings=settings)
    keys, planes = example_keys(key, n, first), hr.transpose(0, 3, 1, 2)
    lr = jax.vmap(one, in_axes=(0, 0, 0, None if sizes is None else 0))(
        keys, parameters, planes, sizes
    )
    return lr.transpose(0, 2, 3, 1)


def second_order(
    key: Key[Array, ""],
    hr: Images,
    *,
    scale: int,
    settings: Settings = REAL_ESRGAN,
    first: int | Int[Array, ""] = 0,
    sizes: Int[Array, "n 2"] | None = None,
) -> Float[Array, "n lh lw c"]:
    """Draw the parameters and apply them.

    Example i depends on key, first + i and its own image alone.

    Real-ESRGAN degrades the sharpened HR image (`filters.sharpen`), and its generator learns that
    image, while its discriminator sees the original. It degrades crops of 400 pixels and then cuts
    crops of 256 pixels out of them and their LR images.

    If jit partitions a batch among devices, XLA gathers what the Fourier transforms read on each
    device: call this within `shard_map` or `pmap`, with `first` set to the number of the device's
    first example. The batch is the same bit for bit.

    Arguments and errors are those of `apply`.
    """
    draw_key, noise_key = jax.random.split(key)
    parameters = draw(draw_key, batch=len(hr), settings=settings, first=first)
    return apply(
        noise_key, parameters, hr, scale=scale, settings=settings, first=first, sizes=sizes
    )


def bicubic(
    key: Key[Array, ""],
    hr: Images,
    *,
    scale: int,
    first: int | Int[Array, ""] = 0,
) -> Float[Array, "n lh lw c"]:
    """Shrink with MATLAB's bicubic, rounded to 8 bits once; nothing is random.

    The border is the crop's. `data.pool` instead cuts LR crops out of the bicubic of the whole
    image, which has no border inside the image.

    Args:
        key, first: unused; all degradations take them.
        hr: float in [0, 1].
        scale: HR pixels per LR pixel (static).
    """
    del key, first
    return to_float(to_uint8(resize(hr, scale=1 / scale)))


Degradation = Callable[..., Float[Array, "n lh lw c"]]

DEGRADATIONS: dict[str, Degradation] = {
    "bicubic": bicubic,
    "second_order": second_order,
    "photo": partial(second_order, settings=PHOTO),
}


def make_degradation(name: str, *, scale: int) -> Degradation:
    """Return the function (key, hr, *, first=0) -> lr of that name, for use inside jit.

    Args:
        name: one of DEGRADATIONS.
        scale: HR pixels per LR pixel.

    Raises:
        UserError: unknown name.
    """
    if name not in DEGRADATIONS:
        raise unknown("degradation", name, DEGRADATIONS)
    return partial(DEGRADATIONS[name], scale=scale)


def _apply_one(
    key: Key[Array, ""],
    parameters: Parameters,
    hr: Float[Array, "c h w"],
    size: Int[Array, "2"] | None,
    *,
    scale: int,
    settings: Settings,
) -> Float[Array, "c lh lw"]:
    first_key, second_key = jax.random.split(key)
    first, second = parameters.first, parameters.second
    hr_shape = (hr.shape[1], hr.shape[2])
    lr_shape = (hr_shape[0] // scale, hr_shape[1] // scale)
    hr_size = jnp.array(hr_shape) if size is None else size
    lr_size = jnp.array(lr_shape) if size is None else size // scale

    most = _largest(hr_shape, settings.first)
    x, size = _blur_resize_noise(first_key, first, hr, hr_size, base=hr_size, most=most)
    x = _compressed(x, size, first.quality)
    most = _largest(lr_shape, settings.second)
    x, size = _blur_resize_noise(second_key, second, x, size, base=lr_size, most=most)
    x = jnp.where(parameters.jpeg_last, x, _compressed(x, size, second.quality))
    x = plane_resample(x, size, lr_size, parameters.method, shape=lr_shape)
    x = plane_blur(x, lr_size, parameters.sinc)
    x = jnp.where(parameters.jpeg_last, _compressed(x, lr_size, second.quality), x)
    return jnp.floor(255.0 * jnp.clip(x, 0.0, 1.0) + 0.5) / 255.0


def _compressed(
    x: Float[Array, "c h w"], size: Int[Array, "2"], quality: Float[Array, ""]
) -> Float[Array, "c h w"]:
    return jnp.where(quality > 0, plane_jpeg(x, size, jnp.maximum(quality, 1.0)), x)


def _largest(shape: Shape, settings: PassSettings) -> Shape:
    high = max(1.0, settings.factor[1])
    return floor(shape[0] * high), floor(shape[1] * high)


def _blur_resize_noise(
    key: Key[Array, ""],
    this: Pass,
    x: Float[Array, "c h w"],
    size: Int[Array, "2"],
    *,
    base: Int[Array, "2"],
    most: Shape,
) -> tuple[Float[Array, "c oh ow"], Int[Array, "2"]]:
    """Apply one pass without its JPEG; the new size is the factor times base, at most `most`."""
    x = plane_blur(x, size, this.kernel)
    new = jnp.floor(this.factor * base.astype(jnp.float32)).astype(jnp.int32)
    new = jnp.clip(new, 1, jnp.array(most))
    x = plane_resample(x, size, new, this.method, shape=most)
    z = jax.random.normal(key, x.shape)
    noise = plane_noise(z, x, new, poisson=this.poisson, strength=this.strength, gray=this.gray)
    return jnp.clip(x + noise, 0.0, 1.0), new
