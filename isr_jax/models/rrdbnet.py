"""ESRGAN's generator: residual-in-residual dense blocks and nearest-neighbour doublings.

    head conv -> N blocks of 3 dense blocks -> conv -> + head -> (double, conv)... -> conv -> conv

Scale 4 is ESRGAN's. Real-ESRGAN's scales 2 and 1 keep both doublings and begin by folding blocks of
2x2 or 4x4 pixels into channels, so that the trunk works at a quarter of the output's side at every
scale.
"""

from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from isr_jax.errors import UserError
from isr_jax.images import space_to_depth
from isr_jax.models.layers import conv, enlarge_nearest

# ESRGAN, section 3.1: both residuals are scaled by 0.2.
RESIDUAL_SCALE = 0.2


class DenseBlock(nn.Module):
    """x + 0.2 f(x), where each of f's five 3x3 convolutions sees x and all before it.

    They start at a tenth of He's deviation.

    Source: Wang et al. 2018 (ESRGAN), section 3.1 and figure 4.
    """

    growth: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Apply the block; the width stays as it is."""
        seen = x
        for _ in range(4):
            y = nn.leaky_relu(conv(self.growth, gain=0.02, dtype=self.dtype)(seen), 0.2)
            seen = jnp.concatenate([seen, y], axis=-1)
        return x + RESIDUAL_SCALE * conv(x.shape[-1], gain=0.02, dtype=self.dtype)(seen)


class RRDB(nn.Module):
    """x + 0.2 f(x), where f is three dense blocks."""

    growth: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Apply the block; the width stays as it is."""
        y = x
        for _ in range(3):
            y = DenseBlock(self.growth, self.dtype)(y)
        return x + RESIDUAL_SCALE * y


class RRDBNet(nn.Module):
    """The generator of ESRGAN and of Real-ESRGAN.

    Attributes:
        scale: factor of enlargement, 1, 2, 4 or 8, and no more than 2**doublings.
        width: channels of the trunk (ESRGAN: 64).
        growth: channels that each convolution of a dense block adds (32).
        blocks: residual-in-residual dense blocks (23; Real-ESRGAN's anime model: 6).
        doublings: nearest-neighbour doublings after the trunk, each with a convolution. The input
            is folded by 2**doublings / scale first: 2 at every scale of Real-ESRGAN, 3 for x8, and
            1 or 0 for x2 or x1 without folding. Sides that do not divide are padded by reflection.
        dtype: of the computation, "float32" or "bfloat16"; parameters are float32.

    Source: Wang et al. 2018 (ESRGAN), section 3.1; Wang et al. 2021 (Real-ESRGAN), section 3.4.
    """

    scales: ClassVar[tuple[int, ...]] = (1, 2, 4, 8)

    scale: int
    width: int = 64
    growth: int = 32
    blocks: int = 23
    doublings: int = 2
    dtype: str = "float32"

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w 3"], train: bool) -> Float[Array, "n sh sw 3"]:
        """Enlarge a batch of images."""
        dtype = jnp.dtype(self.dtype)
        fold = 2**self.doublings // self.scale
        if not fold:
            raise UserError(
                f"generator.doublings={self.doublings} cannot enlarge by {self.scale}; "
                f"it needs {self.scale.bit_length() - 1}"
            )
        x = folded(lr, fold).astype(dtype)
        x = head = conv(self.width, dtype=dtype)(x)
        if self.is_initializing():
            self._init_blocks(dtype)
        for _ in range(self.blocks):
            x = RRDB(self.growth, dtype)(x)
        x = head + conv(self.width, gain=1.0, dtype=dtype)(x)
        for _ in range(self.doublings):
            x = nn.leaky_relu(conv(self.width, dtype=dtype)(enlarge_nearest(x, 2)), 0.2)
        x = nn.leaky_relu(conv(self.width, dtype=dtype)(x), 0.2)
        sr = conv(3, gain=1.0, dtype=dtype)(x).astype(jnp.float32)
        return cropped(sr, lr, self.scale)

    def _init_blocks(self, dtype: Any) -> None:
        """Draw the parameters of all blocks by one program."""
        # One by one, XLA would compile a random number generator for each of 345 kernels.
        block = RRDB(self.growth, dtype, parent=None)
        keys = jax.random.split(self.make_rng("params"), self.blocks)
        pixel = jnp.zeros((1, 1, 1, self.width))
        drawn = jax.vmap(lambda key: block.init(key, pixel)["params"])(keys)
        for i in range(self.blocks):
            self.put_variable("params", f"RRDB_{i}", jax.tree.map(lambda x, i=i: x[i], drawn))


# Jitted to be one call each in a trace, which `export` knows by its name.
@partial(jax.jit, static_argnames="factor")
def folded(lr: Float[Array, "n h w c"], factor: int) -> Float[Array, "n fh fw d"]:
    """Space to depth, the bottom and right reflected first until both sides are multiples."""
    for axis in (1, 2) if factor > 1 else ():
        # By indices, not by `jnp.pad`, which refuses the sides of unknown length of an export.
        last = lr.shape[axis] - 1
        place = jnp.arange(factor * -(-lr.shape[axis] // factor)) % jnp.maximum(2 * last, 1)
        lr = jnp.take(lr, jnp.minimum(place, 2 * last - place), axis=axis)
    return space_to_depth(lr, factor)


@partial(jax.jit, static_argnames="factor")
def cropped(
    sr: Float[Array, "n ph pw c"], lr: Float[Array, "n h w c"], factor: int
) -> Float[Array, "n sh sw c"]:
    """The top left of an enlargement, `factor` times the size of its LR image."""
    return sr[:, : factor * lr.shape[1], : factor * lr.shape[2]]
