"""HAT: SwinIR's attention beside convolutions, and attention to overlapping windows.

conv -> groups of (hybrid blocks, overlapping attention, conv) -> conv -> (+ skip) -> upsampling
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from isr_jax.errors import UserError
from isr_jax.models.attention import (
    DENSE,
    MLP,
    Size,
    SwinBlock,
    attend,
    dense,
    from_windows,
    gelu,
    layer_norm,
    relative_bias,
    shift_mask,
    to_windows,
)
from isr_jax.models.fields import Bound, DType, check_groups
from isr_jax.models.layers import (
    PUBLISHED,
    SCALES,
    Approximate,
    channel_attention,
    conv,
    mean_of,
    recomputed,
    reconstruct,
    reflected,
)


class HybridBlock(SwinBlock):
    """SwinIR's block with convolutions and channel attention beside the attention in windows.

    Source: Chen et al. 2023 (HAT), section 3.2.2.
    """

    compressed: int = 60
    squeezed: int = 6
    conv_scale: float = 0.01

    def beside(self, normed: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Return the convolutions, scaled."""
        y = gelu(
            conv(self.compressed, gain=PUBLISHED, dtype=self.dtype, name="conv_block.cab.0")(normed)
        )
        y = conv(normed.shape[-1], gain=PUBLISHED, dtype=self.dtype, name="conv_block.cab.2")(y)
        names = ("conv_block.cab.3.attention.1", "conv_block.cab.3.attention.3")
        y = channel_attention(y, self.squeezed, names=names, dtype=self.dtype)
        return self.conv_scale * y


class OverlappingAttention(nn.Module):
    """Attention of each window to a larger one around it, and an MLP.

    Source: Chen et al. 2023 (HAT), section 3.2.3.
    """

    heads: int
    window: int
    overlapping: int
    hidden: int
    qkv_bias: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Apply the block; the number of channels stays the same."""
        size, larger, width = (self.window,) * 2, (self.overlapping,) * 2, x.shape[-1]
        y = layer_norm(name="norm1", dtype=self.dtype)(x)
        qkv = dense(3 * width, name="qkv", bias=self.qkv_bias, dtype=self.dtype)(y)
        q, kv = to_windows(qkv[..., :width], size), to_overlapping(qkv[..., width:], size, larger)
        k, v = jnp.split(kv, 2, axis=-1)
        y = from_windows(attend(q, k, v, self._bias(), None, heads=self.heads), size, x.shape[1:3])
        x = x + dense(width, name="proj", dtype=self.dtype)(y)
        y = layer_norm(name="norm2", dtype=self.dtype)(x)
        return x + MLP(self.hidden, self.dtype, name="mlp")(y)

    def _bias(self) -> Float[Array, "heads q k"]:
        side = self.window + self.overlapping - 1
        table = self.param("relative_position_bias_table", DENSE, (side * side, self.heads))
        # The published index counts from a corner that lies outside of the table, and PyTorch takes
        # negative indices from the end. Rolled, the table has its pairs in order.
        table = jnp.roll(table, (self.overlapping - 2) * (side + 1), axis=0)
        return relative_bias(
            table.reshape(side, side, -1), (self.window,) * 2, (self.overlapping,) * 2
        )


def to_overlapping(
    x: Float[Array, "n h w c"], size: Size, larger: Size
) -> Float[Array, "n windows tokens c"]:
    """Cut feature maps into windows of a larger size, around those of a size; zeros outside."""
    for axis in (1, 2):
        side, large, length = size[axis - 1], larger[axis - 1], x.shape[axis]
        before = (large - side) // 2
        pads = [(0, 0)] * x.ndim
        pads[axis] = (before, 2 * side - large + before)
        padded = jnp.pad(x, pads)
        halves = [
            part.reshape(*x.shape[:axis], -1, side, *x.shape[axis + 1 :])
            for part in (
                jnp.take(padded, jnp.arange(length), axis=axis),
                jnp.take(padded, jnp.arange(side, side + length), axis=axis),
            )
        ]
        rest = jnp.take(halves[1], jnp.arange(large - side), axis=axis + 1)
        joined = jnp.concatenate([halves[0], rest], axis=axis + 1)
        x = joined.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
    return to_windows(x, larger)


class HAT(nn.Module):
    """The generator of HAT.

    Stochastic depth, which the published training has at 0.1, is left out.

    Source: Chen et al. 2023, "Activating More Pixels in Image Super-Resolution Transformer".
    """

    scales: ClassVar[tuple[int, ...]] = SCALES
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "hat": {},
        "hat_small": {"width": 144, "compressed": 6, "squeezed": 6},
        "hat_large": {"depths": (6,) * 12, "heads": (6,) * 12},
    }

    scale: int  # scale factor: 1, 2, 3, 4 or 8
    channels: Literal[1, 3, 4] = 3  # of the image
    width: Annotated[int, Bound(1, 4096)] = 180  # channels of the trunk
    depths: tuple[int, ...] = (6,) * 6  # hybrid blocks of each group
    heads: tuple[int, ...] = (6,) * 6  # of attention, in each group
    window: Annotated[int, Bound(2, 256)] = 16  # side of a window, pixels
    overlapping: Annotated[int, Bound(2, 512)] = 24  # side of an overlapping window, pixels
    compressed: Annotated[int, Bound(1, 4096)] = 60  # channels between a block's convolutions
    squeezed: Annotated[int, Bound(1, 4096)] = 6  # channels between channel attention's layers
    conv_scale: float = 0.01  # factor of what a block's convolutions return
    mlp_ratio: float = 2.0  # hidden channels of the MLP to those of the trunk
    qkv_bias: bool = True  # of query, key and value
    residual_convs: Literal[0, 1] = 1  # 3x3 convolutions at the end of a group
    features: Annotated[int, Bound(1, 4096)] = 64  # channels while upsampling
    img_range: float = 1.0  # the value of white inside the network
    dtype: DType = "float32"  # of the computation; parameters are float32
    remat: bool = False  # compute blocks again in the backward pass, to save memory

    @staticmethod
    def check(fields: Mapping[str, Any], *, scale: int) -> None:
        """Raise a UserError for values and combinations that cannot work."""
        check_groups(fields)
        window, overlapping = fields["window"], fields["overlapping"]
        if not window <= overlapping <= 2 * window or (overlapping - window) % 2:
            raise UserError(
                f"generator.overlapping is {overlapping}; it must exceed generator.window={window} "
                "by an even number up to the same again"
            )

    @property
    def approximate(self) -> Approximate:
        """Why tiles are approximate."""
        return Approximate("attention in windows, and over channels of the image", self.window)

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n sh sw c"]:
        """Upscale a batch of images."""
        dtype, mean = jnp.dtype(self.dtype), mean_of(self.channels)
        x = ((reflected(lr, self.window) - mean) * self.img_range).astype(dtype)
        x = head = conv(self.width, gain=PUBLISHED, dtype=dtype, name="conv_first")(x)
        x = head + self._ended(self._trunk(x, dtype), "conv_after_body", dtype)
        sr = reconstruct(
            x,
            "pixelshuffle",
            self.scale,
            channels=self.channels,
            features=self.features,
            dtype=dtype,
        )
        sr = sr.astype(jnp.float32) / self.img_range + mean
        return sr[:, : self.scale * lr.shape[1], : self.scale * lr.shape[2]]

    def _ended(self, x: Array, name: str, dtype: Any) -> Array:
        if not self.residual_convs:
            return x
        return conv(self.width, gain=PUBLISHED, dtype=dtype, name=name)(x)

    def _trunk(self, x: Array, dtype: Any) -> Array:
        shift, hidden = self.window // 2, round(self.width * self.mlp_ratio)
        mask = shift_mask(x.shape[1:3], (self.window,) * 2, (shift,) * 2)
        x = layer_norm(name="patch_embed.norm", dtype=dtype)(x)
        for i, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            y, group = x, f"layers.{i}.residual_group"
            for j in range(depth):
                block = HybridBlock(
                    heads,
                    self.window,
                    shift * (j % 2),
                    hidden,
                    self.qkv_bias,
                    dtype,
                    compressed=self.compressed,
                    squeezed=self.squeezed,
                    conv_scale=self.conv_scale,
                    name=f"{group}.blocks.{j}",
                )
                y = recomputed(block, lambda block, y: block(y, mask), y, remat=self.remat)
            y = OverlappingAttention(
                heads,
                self.window,
                self.overlapping,
                hidden,
                self.qkv_bias,
                dtype,
                name=f"{group}.overlap_attn",
            )(y)
            x = x + self._ended(y, f"layers.{i}.conv", dtype)
        return layer_norm(name="norm", dtype=dtype)(x)
