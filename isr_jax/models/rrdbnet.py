"""ESRGAN's generator: residual-in-residual dense blocks and nearest-neighbour upsampling.

    head conv -> N blocks of 3 dense blocks -> conv -> + head -> (nearest, conv)... -> conv -> conv

Scale 4 is ESRGAN's. Real-ESRGAN's scales 2 and 1 keep both upsampling stages and first fold blocks
of 2x2 or 4x4 pixels into channels, so the trunk works at a quarter of the output's side at every
scale.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from isr_jax.errors import UserError
from isr_jax.images import space_to_depth
from isr_jax.models.fields import Bound, DType
from isr_jax.models.layers import conv, recomputed, reflected, upsample_nearest

# ESRGAN, section 3.1: both residuals are scaled by 0.2.
RESIDUAL_SCALE = 0.2


class DenseBlock(nn.Module):
    """x + 0.2 f(x), where each of f's five 3x3 convolutions sees x and all earlier outputs.

    They are initialised at a tenth of He's deviation. In a `plus` block the second adds a 1x1
    convolution of x, and the fourth the second, when they are done.

    Source: Wang et al. 2018 (ESRGAN), section 3.1 and figure 4; plus: Rakotonirina and Rasoanaivo
    2020 (ESRGAN+), section 3.1, without its noise.
    """

    growth: int
    plus: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Apply the block; the number of channels stays the same."""
        seen = added = x
        for i in range(4):
            y = nn.leaky_relu(conv(self.growth, gain=0.02, dtype=self.dtype)(seen), 0.2)
            if self.plus and i == 1:
                skip = conv(self.growth, kernel=1, bias=False, dtype=self.dtype, name="Conv_1x1")
                y = added = y + skip(x)
            if self.plus and i == 3:
                y = y + added
            seen = jnp.concatenate([seen, y], axis=-1)
        return x + RESIDUAL_SCALE * conv(x.shape[-1], gain=0.02, dtype=self.dtype)(seen)


class RRDB(nn.Module):
    """x + 0.2 f(x), where f is three dense blocks."""

    growth: int
    plus: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Apply the block; the number of channels stays the same."""
        y = x
        for _ in range(3):
            y = DenseBlock(self.growth, self.plus, self.dtype)(y)
        return x + RESIDUAL_SCALE * y


class RRDBNet(nn.Module):
    """The generator of ESRGAN and of Real-ESRGAN.

    The input is folded by 2**doublings / scale before the first convolution. Real-ESRGAN has 2
    doublings at every scale; x8 needs 3, and x2 or x1 without folding 1 or 0. Images whose sides
    are not divisible by the fold are padded by reflection.

    Source: Wang et al. 2018 (ESRGAN), section 3.1; Wang et al. 2021 (Real-ESRGAN), section 3.4.
    """

    scales: ClassVar[tuple[int, ...]] = (1, 2, 4, 8, 16)
    variants: ClassVar[dict[str, dict[str, Any]]] = {"rrdbnet": {}}

    scale: int  # scale factor: 1, 2, 4, 8 or 16, at most 2**doublings
    channels: Literal[1, 3, 4] = 3  # of the image: gray, RGB, RGB and alpha
    width: Annotated[int, Bound(1, 4096)] = 64  # channels of the trunk
    growth: Annotated[int, Bound(1, 4096)] = 32  # channels that a dense block's convolution adds
    blocks: Annotated[int, Bound(0, 1024)] = 23  # of 3 dense blocks; Real-ESRGAN's anime model: 6
    doublings: Annotated[int, Bound(0, 5)] = 2  # upsampling stages, nearest x2, after the trunk
    plus: bool = False  # ESRGAN+'s dense blocks, with a skip by a 1x1 convolution
    dtype: DType = "float32"  # of the computation; parameters are float32
    remat: bool = False  # compute blocks again in the backward pass, to save memory

    @staticmethod
    def check(fields: Mapping[str, Any], *, scale: int) -> None:
        """Raise a UserError where the upsampling stages do not reach the scale."""
        if 2 ** fields["doublings"] < scale:
            raise UserError(
                f"generator.doublings={fields['doublings']} cannot upscale by {scale}; it must be "
                f"{scale.bit_length() - 1} or more"
            )

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n sh sw c"]:
        """Upscale a batch of images."""
        dtype = jnp.dtype(self.dtype)
        fold = 2**self.doublings // self.scale
        x = folded(lr, fold).astype(dtype)
        x = head = conv(self.width, dtype=dtype)(x)
        if self.is_initializing():
            self._init_blocks(dtype)
        for i in range(self.blocks):
            block = RRDB(self.growth, self.plus, dtype, name=f"RRDB_{i}")
            x = recomputed(block, lambda block, x: block(x), x, remat=self.remat)
        x = head + conv(self.width, gain=1.0, dtype=dtype)(x)
        for _ in range(self.doublings):
            x = nn.leaky_relu(conv(self.width, dtype=dtype)(upsample_nearest(x, 2)), 0.2)
        x = nn.leaky_relu(conv(self.width, dtype=dtype)(x), 0.2)
        sr = conv(self.channels, gain=1.0, dtype=dtype)(x).astype(jnp.float32)
        return cropped(sr, lr, self.scale)

    def _init_blocks(self, dtype: Any) -> None:
        """Initialise the parameters of all blocks in one program."""
        # One by one, XLA would compile a random number generator for each of 345 kernels.
        block = RRDB(self.growth, self.plus, dtype, parent=None)
        keys = jax.random.split(self.make_rng("params"), self.blocks)
        pixel = jnp.zeros((1, 1, 1, self.width), dtype)
        drawn = jax.vmap(lambda key: block.init(key, pixel)["params"])(keys)
        for i in range(self.blocks):
            self.put_variable("params", f"RRDB_{i}", jax.tree.map(lambda x, i=i: x[i], drawn))


# Jitted to stay one call each in a trace, for which `export` has rules.
@partial(jax.jit, static_argnames="factor")
def folded(lr: Float[Array, "n h w c"], factor: int) -> Float[Array, "n fh fw d"]:
    """Return space to depth, after reflecting bottom and right up to multiples of `factor`."""
    return space_to_depth(reflected(lr, factor), factor)


@partial(jax.jit, static_argnames="factor")
def cropped(
    sr: Float[Array, "n ph pw c"], lr: Float[Array, "n h w c"], factor: int
) -> Float[Array, "n sh sw c"]:
    """Return the top left of an SR image, `factor` times the size of its LR image."""
    return sr[:, : factor * lr.shape[1], : factor * lr.shape[2]]
