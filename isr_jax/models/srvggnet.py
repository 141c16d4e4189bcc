"""Real-ESRGAN's compact generator: a plain stack of convolutions at the input's size."""

from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from isr_jax.models.fields import Bound, DType
from isr_jax.models.layers import PReLU, SubPixel, conv, upsample_nearest


class SRVGGNetCompact(nn.Module):
    """Convolutions with PReLU, a sub-pixel layer to RGB, and the nearest-neighbour input added.

    The last convolution starts at zero, so the network starts as nearest-neighbour interpolation.

    Source: Wang et al. 2021 (Real-ESRGAN), the compact models of its code.
    """

    scales: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 8)
    variants: ClassVar[dict[str, dict[str, Any]]] = {"srvggnet": {}}

    scale: int  # scale factor: 1, 2, 3, 4 or 8
    width: Annotated[int, Bound(1, 4096)] = 64  # channels
    # 3x3 convolutions between the first and the last: 16 for video, 32 for photos
    layers: Annotated[int, Bound(0, 1024)] = 32
    dtype: DType = "float32"  # of the computation; parameters are float32

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w 3"], *, train: bool) -> Float[Array, "n sh sw 3"]:
        """Upscale a batch of images."""
        dtype = jnp.dtype(self.dtype)
        x = lr.astype(dtype)
        for _ in range(1 + self.layers):
            x = PReLU()(conv(self.width, dtype=dtype)(x))
        x = SubPixel(self.scale, 3, 0.0, dtype)(x).astype(jnp.float32)
        return x + upsample_nearest(lr, self.scale)
