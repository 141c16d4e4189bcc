"""Colour, rounding, depth-to-space and the symmetries of the square, as pure functions.

Images are float in [0, 1], channels last; integers appear only where files are read or written.
Functions that evaluation also needs accept NumPy and JAX arrays, and return the same type.
"""

from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Integer, Shaped, UInt8, UInt16

AnyArray = TypeVar("AnyArray", np.ndarray, jax.Array)


def rgb_to_y(rgb: Float[AnyArray, "*n h w 3"]) -> Float[AnyArray, "*n h w 1"]:
    """Return the BT.601 luma (studio swing) of RGB images.

    Args:
        rgb: RGB in [0, 1], NumPy or JAX; the result has the same type and precision.

    Returns:
        Y scaled by 1/255: black is 16/255, white is 235/255.

    Source: ITU-R BT.601-7, section 2.5.4, in the rounding of MATLAB's `rgb2ycbcr`.
    """
    # Elementwise on purpose: a product with a 3x1 matrix would run in TF32 or bfloat16 on
    # accelerators, and change the third digit of a PSNR.
    red, green, blue = rgb[..., 0:1], rgb[..., 1:2], rgb[..., 2:3]
    return (16.0 + 65.481 * red + 128.553 * green + 24.966 * blue) / 255.0


def rgb_to_gray(
    rgb: UInt8[AnyArray, "*n 3"] | UInt16[AnyArray, "*n 3"] | Float[AnyArray, "*n 3"],
) -> UInt8[AnyArray, "*n 1"] | UInt16[AnyArray, "*n 1"] | Float[AnyArray, "*n 1"]:
    """Return the BT.601 luma (full swing): 0.299 R + 0.587 G + 0.114 B, of integers rounded.

    Source: ITU-R BT.601-7, section 2.5.1; of integers in Pillow's fixed-point arithmetic.
    """
    if jnp.issubdtype(rgb.dtype, jnp.floating):
        return 0.299 * rgb[..., :1] + 0.587 * rgb[..., 1:2] + 0.114 * rgb[..., 2:3]
    red, green, blue = (rgb[..., i : i + 1].astype(np.uint32) for i in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(rgb.dtype)


def to_uint8(images: Float[AnyArray, "*shape"]) -> UInt8[AnyArray, "*shape"]:
    """Clip [0, 1] images and round them half up to 0..255, as MATLAB's `im2uint8` does."""
    return to_unsigned(images, np.uint8)


def to_unsigned(
    images: Float[AnyArray, "*shape"], dtype: DTypeLike
) -> UInt8[AnyArray, "*shape"] | UInt16[AnyArray, "*shape"]:
    """Clip [0, 1] images and round them half up to the range of an unsigned type: 255 or 65535."""
    xp = np if isinstance(images, np.ndarray) else jnp
    # Half precision has no 255.5: white would round to 256 and wrap to black.
    wide = images.astype(np.promote_types(images.dtype, np.float32))
    levels: Any = xp.floor(xp.clip(wide, 0.0, 1.0) * np.iinfo(dtype).max + 0.5)
    return levels.astype(dtype)


def to_float(
    images: UInt8[AnyArray, "*shape"] | UInt16[AnyArray, "*shape"],
) -> Float[AnyArray, "*shape"]:
    """Convert integers to float32 in [0, 1]; `to_unsigned` to their type is the exact inverse."""
    return images.astype(np.float32) / np.float32(np.iinfo(images.dtype).max)


# Jitted to stay one call in a trace, which `export` recognises by its name.
@partial(jax.jit, static_argnames="r")
def depth_to_space(x: Float[Array, "n h w d"], r: int) -> Float[Array, "n rh rw c"]:
    """Unfold r*r groups of channels into blocks of r by r pixels: [n h w r*r*c] -> [n rh rw c].

    Channel (i*r + j)*c + k of a pixel becomes channel k of the pixel i rows down and j columns
    right in its block. PyTorch's `pixel_shuffle` orders the channels k*r*r + i*r + j instead.

    Raises:
        ValueError: the number of channels is not divisible by r*r.

    Source: Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient
    Sub-Pixel Convolutional Neural Network", CVPR 2016, section 3.2.
    """
    n, h, w, d = x.shape
    if d % (r * r):
        raise ValueError(f"depth_to_space: {d} channels must be divisible by {r}*{r}")
    blocks = x.reshape(n, h, w, r, r, d // (r * r))
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, h * r, w * r, d // (r * r))


def space_to_depth(x: Float[Array, "n rh rw c"], r: int) -> Float[Array, "n h w d"]:
    """Fold blocks of r by r pixels into channels; the inverse of `depth_to_space`.

    Raises:
        ValueError: the height or the width is not divisible by r.
    """
    if r == 1:
        return x
    n, h, w, c = x.shape
    if h % r or w % r:
        raise ValueError(f"space_to_depth: {h}x{w} pixels must be divisible by {r}")
    blocks = x.reshape(n, h // r, r, w // r, r, c)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, h // r, w // r, r * r * c)


@partial(jax.jit, static_argnames="reach")
def pad_edge(images: Float[Array, "n h w c"], reach: int) -> Float[Array, "n ph pw c"]:
    """Pad images with their edge pixels, by `reach` on each side; `export` recognises the name."""
    sides = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    return jnp.pad(images, sides, mode="edge")


def busiest(
    image: Shaped[np.ndarray, "h w c"] | Shaped[np.ndarray, "h w"], *, sides: tuple[int, int]
) -> tuple[int, int]:
    """Return the corner (y, x) of the window whose neighbouring pixels differ most in gray.

    Args:
        image: of integers or floats.
        sides: height and width of the window, pixels.
    """
    gray = image.astype(np.float32)
    gray = gray if gray.ndim == 2 else gray.mean(axis=-1)
    change = np.zeros_like(gray)
    change[:, 1:] += np.abs(np.diff(gray, axis=1))
    change[1:] += np.abs(np.diff(gray, axis=0))
    total = np.pad(change, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    height, width = sides
    window = total[height:, width:] - total[:-height, width:] - total[height:, :-width]
    window += total[:-height, :-width]
    y, x = np.unravel_index(int(window.argmax()), window.shape)
    return int(y), int(x)


def dihedral(
    images: Float[Array, "n h h c"] | UInt8[Array, "n h h c"] | UInt16[Array, "n h h c"],
    k: Integer[Array, " n"],
) -> Float[Array, "n h h c"] | UInt8[Array, "n h h c"] | UInt16[Array, "n h h c"]:
    """Apply one of the 8 symmetries of the square to each image.

    The bits of k select, in this order: 1 flips up-down, 2 flips left-right, 4 transposes. So k = 0
    is the identity; only the lowest three bits of k count.
    """
    up, left, diagonal = _bits(k)
    images = jnp.where(up, images[:, ::-1], images)
    images = jnp.where(left, images[:, :, ::-1], images)
    return jnp.where(diagonal, images.transpose(0, 2, 1, 3), images)


def _bits(k: Integer[Array, " n"]) -> tuple[Array, Array, Array]:
    """Return the three lowest bits of k as masks that broadcast over images."""
    k = k[:, None, None, None]
    return (k & 1) > 0, (k & 2) > 0, (k & 4) > 0
