"""ESRGAN's discriminator."""

from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from isr_jax.models.fields import Bound, DType
from isr_jax.models.layers import Features, Normaliser, conv, leaky


class VGG(nn.Module):
    """ESRGAN's discriminator as BasicSR has it: stages of a 3x3 and a strided 4x4 convolution.

    Each stage halves the side and doubles the channels, up to 8 times, until the side is 3 or 4
    pixels: five stages at 96 and 128 pixels, six at 192 and 256. Two dense layers follow. Batch
    norm follows every convolution but the first.

    Source: Wang et al. 2018 (ESRGAN), section 3.2; BasicSR's VGGStyleDiscriminator.
    """

    variants: ClassVar[dict[str, dict[str, Any]]] = {"vgg": {}}
    crops: ClassVar[str] = "of 96, 128, 192 or 256 px, or others that halve to 3 or 4 px"

    width: Annotated[int, Bound(1, 4096)] = 64  # channels of the first stage
    dense: Annotated[int, Bound(1, 65536)] = 100  # units of the hidden dense layer
    dtype: DType = "float32"  # of the computation; parameters and logits are float32
    axis_name: str | None = None  # pmap axis over which batch norm takes its statistics

    def accepts(self, crop: int) -> bool:
        """Return whether it accepts images of this side, in pixels."""
        halvings = _stages(crop)
        return halvings > 0 and crop in (3 << halvings, 4 << halvings)

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], *, train: bool
    ) -> tuple[Float[Array, " n"], Features]:
        """Return logits of being real, and features."""
        dtype = jnp.dtype(self.dtype)
        x = images.astype(dtype)
        features: list[Array] = []
        for stage in range(_stages(images.shape[1])):
            for kernel, stride in ((3, 1), (4, 2)):
                width, normalised = self.width * min(2**stage, 8), bool(features)
                x = conv(width, kernel=kernel, stride=stride, bias=not normalised, dtype=dtype)(x)
                x = leaky(Normaliser(normalised, self.axis_name, dtype)(x, train=True))
                features.append(x)
        x = x.reshape(x.shape[0], -1)
        x = leaky(nn.Dense(self.dense, dtype=dtype)(x))
        return nn.Dense(1, dtype=dtype)(x)[:, 0].astype(jnp.float32), tuple(features)


def _stages(crop: int) -> int:
    """Return how many halvings take a side to 3 or 4 pixels."""
    return (crop // 3).bit_length() - 1
