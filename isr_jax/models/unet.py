"""Real-ESRGAN's discriminator: a U-Net with spectral normalisation."""

from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from isr_jax import resize
from isr_jax.models.fields import Bound, DType
from isr_jax.models.layers import Features, conv, leaky


class SpectralConv(nn.Module):
    """A convolution whose kernel W, as a matrix, is divided by its largest singular value sigma.

    sigma = u^T W v, where u and v approach W's first singular vectors by one power iteration per
    training call, v <- W^T u / |.|, u <- W v / |.|, and are constants to the gradient.

    Source: Miyato et al. 2018, "Spectral Normalization for GANs", section 2.1 and algorithm 1.
    """

    width: int
    kernel: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n oh ow d"]:
        """Convolve, zero-padded by 1."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.width)
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        kernel = self.param("kernel", init, shape)
        matrix = kernel.reshape(-1, self.width)  # W^T
        fixed = lax.stop_gradient(matrix)
        draw = lambda: jax.random.normal(self.make_rng("params"), (self.width,))  # noqa: E731
        u = self.variable("spectral", "u", lambda: _unit(draw()))
        v = self.variable("spectral", "v", lambda: _unit(_product(fixed, u.value)))
        if train:
            v.value = _unit(_product(fixed, u.value))
            u.value = _unit(_product(v.value, fixed))
        sigma = _product(_product(v.value, matrix), u.value)
        return lax.conv_general_dilated(
            x,
            (kernel / sigma).astype(self.dtype),
            (self.stride, self.stride),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _unit(x: Float[Array, " n"]) -> Float[Array, " n"]:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


class UNet(nn.Module):
    """Real-ESRGAN's discriminator: a U-Net with spectral normalisation and a logit per pixel.

    The side of a crop must be divisible by 8.

    Source: Wang et al. 2021 (Real-ESRGAN), section 3.4; BasicSR's UNetDiscriminatorSN.
    """

    variants: ClassVar[dict[str, dict[str, Any]]] = {"unet": {}}
    crops: ClassVar[str] = "whose side is divisible by 8"

    width: Annotated[int, Bound(1, 4096)] = 64  # channels of the first; they double 3 times
    skip: bool = True  # add features of the way down to those of the same size on the way up
    dtype: DType = "float32"  # of the computation; parameters and logits are float32

    def accepts(self, crop: int) -> bool:
        """Return whether it accepts images of this side, in pixels."""
        return crop > 0 and crop % 8 == 0

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], *, train: bool
    ) -> tuple[Float[Array, "n h w"], Features]:
        """Return logits of being real, and features."""
        dtype = jnp.dtype(self.dtype)

        def spectral(x: Array, factor: int, kernel: int = 3, stride: int = 1) -> Array:
            layer = SpectralConv(self.width * factor, kernel, stride, dtype)
            return leaky(layer(x, train=train))

        down = [leaky(conv(self.width, dtype=dtype)(images.astype(dtype)))]
        for factor in (2, 4, 8):
            down.append(spectral(down[-1], factor, kernel=4, stride=2))
        x, features = down[-1], list(down)
        for factor, across in zip((4, 2, 1), down[-2::-1], strict=True):
            x = spectral(resize.resize(x, scale=2, method="bilinear"), factor)
            x = x + across if self.skip else x
            features.append(x)
        for _ in range(2):
            x = spectral(x, 1)
            features.append(x)
        logits = conv(1, gain=1.0, dtype=dtype)(x)
        return logits[..., 0].astype(jnp.float32), tuple(features)
