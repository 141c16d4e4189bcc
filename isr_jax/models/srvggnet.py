"""Real-ESRGAN's compact generator: a plain stack of convolutions at the input's size."""

from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from isr_jax.models.fields import Bound, DType
from isr_jax.models.layers import ACTIVATIONS, SCALES, SubPixel, conv, upsample_nearest


class SRVGGNetCompact(nn.Module):
    """Convolutions with activations, a sub-pixel layer, and the nearest-neighbour input added.

    The last convolution starts at zero, so the network starts as nearest-neighbour interpolation.

    Source: Wang et al. 2021 (Real-ESRGAN), the compact models of its code.
    """

    scales: ClassVar[tuple[int, ...]] = SCALES
    variants: ClassVar[dict[str, dict[str, Any]]] = {"srvggnet": {}}

    scale: int  # scale factor: 1, 2, 3, 4 or 8
    channels: Literal[1, 3, 4] = 3  # of the image: gray, RGB, RGB and alpha
    width: Annotated[int, Bound(1, 4096)] = 64  # channels of the trunk
    # 3x3 convolutions between the first and the last: 16 for video, 32 for photos
    layers: Annotated[int, Bound(0, 1024)] = 32
    activation: Literal["prelu", "relu"] = "prelu"  # after each but the last convolution
    dtype: DType = "float32"  # of the computation; parameters are float32

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n sh sw c"]:
        """Upscale a batch of images."""
        dtype = jnp.dtype(self.dtype)
        x = lr.astype(dtype)
        for _ in range(1 + self.layers):
            x = ACTIVATIONS[self.activation]()(conv(self.width, dtype=dtype)(x))
        x = SubPixel(self.scale, self.channels, 0.0, dtype)(x).astype(jnp.float32)
        return x + upsample_nearest(lr, self.scale)
