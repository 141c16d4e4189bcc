"""RCAN: residual groups whose blocks weigh their channels by the image's means."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from isr_jax.errors import UserError
from isr_jax.images import space_to_depth
from isr_jax.models.fields import Bound, DType
from isr_jax.models.layers import (
    FACTORS,
    PUBLISHED,
    SCALES,
    Approximate,
    channel_attention,
    conv,
    mean_of,
    named_sub_pixel,
    recomputed,
    reflected,
)


class RCAN(nn.Module):
    """The generator of RCAN, of 400 convolutions in blocks in groups, each with a skip.

    Source: Zhang et al. 2018, "Image Super-Resolution Using Very Deep Residual Channel Attention
    Networks", section 3.
    """

    scales: ClassVar[tuple[int, ...]] = SCALES
    variants: ClassVar[dict[str, dict[str, Any]]] = {"rcan": {}}

    scale: int  # scale factor: 1, 2, 3, 4 or 8
    channels: Literal[1, 3, 4] = 3  # of the image
    width: Annotated[int, Bound(1, 4096)] = 64  # channels of the trunk
    groups: Annotated[int, Bound(1, 1024)] = 10  # residual groups
    blocks: Annotated[int, Bound(1, 1024)] = 20  # residual blocks of a group
    squeezed: Annotated[int, Bound(1, 4096)] = 4  # channels between attention's two layers
    kernel: Literal[1, 3, 5, 7, 9] = 3  # of the convolutions, pixels
    norm: bool = True  # subtract DIV2K's mean, and work in 0..255
    unshuffle: Literal[1, 2, 4] = 1  # pixels folded into channels first, and upsampled
    dtype: DType = "float32"  # of the computation; parameters are float32
    remat: bool = False  # compute blocks again in the backward pass, to save memory

    @staticmethod
    def check(fields: Mapping[str, Any], *, scale: int) -> None:
        """Raise a UserError for a scale that the tail does not have."""
        if scale * fields["unshuffle"] not in FACTORS:
            raise UserError(
                f"generator.unshuffle={fields['unshuffle']} at scale {scale} makes rcan upscale by "
                f"{scale * fields['unshuffle']}; it can by {', '.join(map(str, FACTORS))}"
            )

    @property
    def approximate(self) -> Approximate:
        """Why tiles are approximate."""
        return Approximate("channel attention over the image", self.unshuffle)

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n sh sw c"]:
        """Upscale a batch of images."""
        dtype, img_range = jnp.dtype(self.dtype), 255.0 if self.norm else 1.0
        mean = mean_of(self.channels if self.norm else 1)
        x = (reflected(lr, self.unshuffle) - mean) * img_range
        x = space_to_depth(x, self.unshuffle).astype(dtype)
        x = head = self._conv(x, f"head.{int(self.unshuffle > 1)}")
        for i in range(self.groups):
            group = x
            for j in range(self.blocks):
                name = f"body.{i}.body.{j}.body"
                residual = partial(RCAN._residual, name=name)
                x = x + recomputed(self, residual, x, remat=self.remat)
            x = group + self._conv(x, f"body.{i}.body.{self.blocks}")
        x = head + self._conv(x, f"body.{self.groups}")
        for i, factor in enumerate(FACTORS[self.scale * self.unshuffle]):
            x = named_sub_pixel(x, factor, self.width, name=f"tail.0.{2 * i}", dtype=dtype)
        sr = conv(self.channels, kernel=self.kernel, gain=PUBLISHED, dtype=dtype, name="tail.1")(x)
        sr = sr.astype(jnp.float32) / img_range + mean
        return sr[:, : self.scale * lr.shape[1], : self.scale * lr.shape[2]]

    def _conv(self, x: Array, name: str) -> Array:
        dtype = jnp.dtype(self.dtype)
        return conv(self.width, kernel=self.kernel, gain=PUBLISHED, dtype=dtype, name=name)(x)

    def _residual(self, x: Array, name: str) -> Array:
        dtype = jnp.dtype(self.dtype)
        y = self._conv(nn.relu(self._conv(x, f"{name}.0")), f"{name}.2")
        names = (f"{name}.3.conv_du.0", f"{name}.3.conv_du.2")
        return channel_attention(y, self.squeezed, names=names, dtype=dtype)
