"""Discriminators: image -> logit of being real, as pure functions of a parameter tree."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from isr_jax.models.layers import Normaliser, Params, conv


class Discriminator(NamedTuple):
    """A discriminator as pure functions.

    Attributes:
        init: key -> params, for images of the crop it was built for.
        apply: (params, images) -> logits [n]; images float [n crop crop 3] in [0, 1]. Batch norm
            always takes the batch's own statistics, so there are no running ones to keep.
    """

    init: Callable[[Key[Array, ""]], Params]
    apply: Callable[[Params, Float[Array, "n h w 3"]], Float[Array, " n"]]


class Classifier(nn.Module):
    """A strided convolutional image classifier with one logit."""

    widths: tuple[int, ...]
    dense: int
    batch_norm: bool
    dtype: str
    axis_name: str | None

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"]) -> Float[Array, " n"]:
        """Logits of being real."""
        dtype = jnp.dtype(self.dtype)
        x = (2.0 * images - 1.0).astype(dtype)
        for i, width in enumerate(self.widths):
            for stride in (1, 2):
                normalised = self.batch_norm and (i, stride) != (0, 1)
                x = conv(width, stride=stride, bias=not normalised, dtype=dtype)(x)
                x = Normaliser(normalised, self.axis_name, dtype)(x, True)
                x = nn.leaky_relu(x, 0.2)
        x = x.reshape(x.shape[0], -1)
        x = nn.leaky_relu(nn.Dense(self.dense, dtype=dtype)(x), 0.2)
        return nn.Dense(1, dtype=dtype)(x)[:, 0].astype(jnp.float32)


def discriminator(
    *,
    crop: int,
    widths: tuple[int, ...] = (64, 128, 256, 512),
    dense: int = 1024,
    batch_norm: bool = True,
    dtype: str = "float32",
    axis_name: str | None = None,
) -> Discriminator:
    """SRGAN's discriminator; the defaults are the paper's.

    Args:
        crop: side of the images in pixels; any size.
        widths: channels of each pair of convolutions, of stride 1 and of stride 2.
        dense: units of the hidden fully connected layer.
        batch_norm: normalise after each convolution but the first.
        dtype: of the computation, "float32" or "bfloat16"; parameters and logits are float32.
        axis_name: pmap axis over which batch norm takes its statistics; None for one program.

    Source: Ledig et al. 2017 (SRGAN), section 2.1.1 and figure 4.
    """
    module = Classifier(widths, dense, batch_norm, dtype, axis_name)

    def init(key: Key[Array, ""]) -> Params:
        return jax.jit(module.init)(key, jnp.zeros((1, crop, crop, 3)))["params"]

    def apply(params: Params, images: Float[Array, "n h w 3"]) -> Float[Array, " n"]:
        logits, _ = module.apply({"params": params}, images, mutable=["batch_stats"])
        return logits

    return Discriminator(init, apply)
