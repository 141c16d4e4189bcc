"""SRGAN's discriminator."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from isr_jax.errors import UserError
from isr_jax.models.fields import Bound, DType
from isr_jax.models.layers import Features, Normaliser, conv, leaky


class Classifier(nn.Module):
    """SRGAN's discriminator: strided convolutions and two dense layers, for crops of any side.

    Source: Ledig et al. 2017 (SRGAN), section 2.1.1 and figure 4.
    """

    variants: ClassVar[dict[str, dict[str, Any]]] = {"classifier": {}}
    crops: ClassVar[str] = "of any side"

    widths: tuple[int, ...] = (64, 128, 256, 512)  # channels of each pair of 3x3 convolutions
    dense: Annotated[int, Bound(1, 65536)] = 1024  # units of the hidden dense layer
    batch_norm: bool = True  # normalise after each convolution but the first
    dtype: DType = "float32"  # of the computation; parameters and logits are float32
    axis_name: str | None = None  # pmap axis over which batch norm takes its statistics

    @staticmethod
    def check(fields: Mapping[str, Any]) -> None:
        """Raise a UserError for widths that a convolution cannot have."""
        widths = list(fields["widths"])
        if not widths or not all(1 <= width <= 4096 for width in widths):
            raise UserError(
                f"discriminator.widths is {widths}; give at least one, each in [1, 4096]"
            )

    def accepts(self, crop: int) -> bool:
        """Return whether it accepts images of this side, in pixels."""
        return crop > 0

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], *, train: bool
    ) -> tuple[Float[Array, " n"], Features]:
        """Return logits of being real, and features."""
        dtype = jnp.dtype(self.dtype)
        x = (2.0 * images - 1.0).astype(dtype)
        features: list[Array] = []
        for width in self.widths:
            for stride in (1, 2):
                normalised = self.batch_norm and bool(features)
                x = conv(width, stride=stride, bias=not normalised, dtype=dtype)(x)
                x = leaky(Normaliser(normalised, self.axis_name, dtype)(x, train=True))
                features.append(x)
        x = x.reshape(x.shape[0], -1)
        x = leaky(nn.Dense(self.dense, dtype=dtype)(x))
        return nn.Dense(1, dtype=dtype)(x)[:, 0].astype(jnp.float32), tuple(features)
