"""The PatchGAN discriminator of pix2pix."""

from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from isr_jax.models.fields import Bound, DType
from isr_jax.models.layers import Features, Normaliser, conv, leaky


class Patch(nn.Module):
    """The PatchGAN discriminator of pix2pix: 4x4 convolutions and a logit per patch.

    Batch norm follows every convolution but the first and the last. The side of a crop must be at
    least 3 * 2**layers pixels.

    Source: Isola et al. 2017 (pix2pix), sections 3.2.2 and 6.1.2.
    """

    variants: ClassVar[dict[str, dict[str, Any]]] = {"patch": {}}
    crops: ClassVar[str] = "of 3 * 2**layers px or more"

    width: Annotated[int, Bound(1, 4096)] = 64  # channels of the first; they double, up to 8 times
    # Convolutions of stride 2; two of stride 1 follow. 1 to 5 of them see patches of 16, 34, 70,
    # 142 and 286 pixels.
    layers: Annotated[int, Bound(1, 8)] = 3
    dtype: DType = "float32"  # of the computation; parameters and logits are float32
    axis_name: str | None = None  # pmap axis over which batch norm takes its statistics

    def accepts(self, crop: int) -> bool:
        """Return whether it accepts images of this side, in pixels."""
        return crop >= 3 << self.layers

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], *, train: bool
    ) -> tuple[Float[Array, "n ph pw"], Features]:
        """Return logits of being real, and features."""
        dtype = jnp.dtype(self.dtype)
        x = (2.0 * images - 1.0).astype(dtype)
        features: list[Array] = []
        for i in range(self.layers + 1):
            width, stride = self.width * min(2**i, 8), 2 if i < self.layers else 1
            x = conv(width, kernel=4, stride=stride, bias=i == 0, dtype=dtype)(x)
            x = leaky(Normaliser(i > 0, self.axis_name, dtype)(x, train=True))
            features.append(x)
        logits = conv(1, kernel=4, gain=1.0, dtype=dtype)(x)
        return logits[..., 0].astype(jnp.float32), tuple(features)
