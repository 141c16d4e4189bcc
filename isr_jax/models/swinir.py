"""SwinIR: attention in windows, shifted by half a window in every second block.

conv -> groups of (blocks of attention and MLP, conv) -> conv -> (+ long skip) -> upsampling
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from isr_jax.errors import UserError
from isr_jax.images import space_to_depth
from isr_jax.models.attention import (
    SwinBlock,
    layer_norm,
    shift_mask,
)
from isr_jax.models.fields import Bound, DType, check_groups
from isr_jax.models.layers import (
    PUBLISHED,
    SCALES,
    Approximate,
    conv,
    mean_of,
    recomputed,
    reconstruct,
    reflected,
    residual_conv,
)

LIGHT: dict[str, Any] = {
    "width": 60,
    "depths": (6,) * 4,
    "heads": (6,) * 4,
    "upsampler": "pixelshuffledirect",
}
LARGE: dict[str, Any] = {
    "width": 240,
    "depths": (6,) * 9,
    "heads": (8,) * 9,
    "residual_convs": 3,
    "upsampler": "nearest+conv",
}


class SwinIR(nn.Module):
    """The generator of SwinIR: classical, lightweight and real-world.

    Stochastic depth, which the published training has at 0.1, is left out.

    Source: Liang et al. 2021, "SwinIR: Image Restoration Using Swin Transformer", section 3.
    """

    scales: ClassVar[tuple[int, ...]] = SCALES
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "swinir": {},
        "swinir_light": LIGHT,
        "swinir_real": {"upsampler": "nearest+conv"},
        "swinir_real_large": LARGE,
    }

    scale: int  # scale factor: 1, 2, 3, 4 or 8
    channels: Literal[1, 3, 4] = 3  # of the image
    width: Annotated[int, Bound(1, 4096)] = 180  # channels of the trunk
    depths: tuple[int, ...] = (6,) * 6  # blocks of each group
    heads: tuple[int, ...] = (6,) * 6  # of attention, in each group
    window: Annotated[int, Bound(1, 256)] = 8  # side of a window, pixels
    mlp_ratio: float = 2.0  # hidden channels of the MLP to those of the trunk
    qkv_bias: bool = True  # of query, key and value
    residual_convs: Literal[1, 3] = 1  # 3x3 convolutions at the end of a group; 3 saves parameters
    # none: the image is restored at its size, and the network adds to it
    upsampler: Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv", "none"] = (
        "pixelshuffle"
    )
    features: Annotated[int, Bound(1, 4096)] = 64  # channels while upsampling
    unshuffle: Annotated[int, Bound(1, 8)] = 1  # pixels folded into channels first, and upsampled
    img_range: float = 1.0  # the value of white inside the network; 255 in the JPEG models
    dtype: DType = "float32"  # of the computation; parameters are float32
    remat: bool = False  # compute blocks again in the backward pass, to save memory

    @staticmethod
    def check(fields: Mapping[str, Any], *, scale: int) -> None:
        """Raise a UserError for values and combinations that cannot work."""
        check_groups(fields)
        inner, upsampler = scale * fields["unshuffle"], fields["upsampler"]
        allowed = {"none": (1,), "pixelshuffle": (2, 3, 4, 8), "nearest+conv": (2, 4, 8)}
        if inner not in allowed.get(upsampler, (inner,)):
            scales = ", ".join(map(str, allowed[upsampler]))
            raise UserError(
                f"generator.upsampler={upsampler} upscales by {scales}, and here it would have to "
                f"by {inner} (scale times generator.unshuffle)"
            )

    @property
    def approximate(self) -> Approximate:
        """Why tiles are approximate."""
        return Approximate("attention in windows", self.window * self.unshuffle, blend=False)

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n sh sw c"]:
        """Upscale a batch of images."""
        dtype, mean = jnp.dtype(self.dtype), mean_of(self.channels)
        padded = reflected(lr, self.window * self.unshuffle)
        image = (padded - mean) * self.img_range
        x = space_to_depth(image, self.unshuffle).astype(dtype)
        first = "conv_first.1" if self.unshuffle > 1 else "conv_first"
        x = head = conv(self.width, gain=PUBLISHED, dtype=dtype, name=first)(x)
        x = self._trunk(x, dtype)
        x = head + residual_conv(x, self.residual_convs, name="conv_after_body", dtype=dtype)
        if self.upsampler == "none":
            residual = conv(self.channels, gain=0.0, dtype=dtype, name="conv_last")(x)
            sr = image + residual.astype(jnp.float32)
        else:
            sr = reconstruct(
                x,
                self.upsampler,
                self.scale * self.unshuffle,
                channels=self.channels,
                features=self.features,
                dtype=dtype,
            ).astype(jnp.float32)
        sr = sr / self.img_range + mean
        return sr[:, : self.scale * lr.shape[1], : self.scale * lr.shape[2]]

    def _trunk(self, x: Float[Array, "n h w c"], dtype: Any) -> Float[Array, "n h w c"]:
        shift = self.window // 2
        mask = shift_mask(x.shape[1:3], (self.window,) * 2, (shift,) * 2)
        x = layer_norm(name="patch_embed.norm", dtype=dtype)(x)
        for i, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            y = x
            for j in range(depth):
                block = SwinBlock(
                    heads,
                    self.window,
                    shift * (j % 2),
                    round(self.width * self.mlp_ratio),
                    self.qkv_bias,
                    dtype,
                    name=f"layers.{i}.residual_group.blocks.{j}",
                )
                y = recomputed(block, lambda block, y: block(y, mask), y, remat=self.remat)
            x = x + residual_conv(y, self.residual_convs, name=f"layers.{i}.conv", dtype=dtype)
        return layer_norm(name="norm", dtype=dtype)(x)
