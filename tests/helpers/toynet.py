"""A toy architecture, as a contributor would add it: the first of two files, models/NAME.py."""

from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from isr_jax.models.fields import Bound, DType
from isr_jax.models.layers import SubPixel, conv, upsample_nearest


class ToyNet(nn.Module):
    """Two convolutions, a sub-pixel layer, and the nearest-neighbour input added."""

    scales: ClassVar[tuple[int, ...]] = (2, 3)
    variants: ClassVar[dict[str, dict[str, Any]]] = {"toynet": {}, "toynet_wide": {"width": 12}}

    scale: int  # scale factor: 2 or 3
    width: Annotated[int, Bound(1, 64)] = 6  # channels
    dtype: DType = "float32"  # of the computation

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w 3"], *, train: bool) -> Float[Array, "n sh sw 3"]:
        """Upscale a batch of images."""
        dtype = jnp.dtype(self.dtype)
        x = nn.relu(conv(self.width, dtype=dtype)(lr.astype(dtype)))
        x = nn.relu(conv(self.width, dtype=dtype)(x))
        x = SubPixel(self.scale, 3, 1.0, dtype)(x).astype(jnp.float32)
        return x + upsample_nearest(lr, self.scale)
