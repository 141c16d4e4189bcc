"""SPAN: convolutions whose own output decides, without parameters, what passes."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from isr_jax.images import depth_to_space
from isr_jax.models.fields import Bound, DType, check_mean
from isr_jax.models.layers import DIV2K_MEAN, PUBLISHED, SCALES, conv, recomputed

BLOCKS = 6


class Affine(nn.Module):
    """The kernel and the bias of a convolution that another module applies."""

    kernel: tuple[int, int, int, int]

    @nn.compact
    def __call__(self) -> tuple[Float[Array, "k k c d"], Float[Array, " d"]]:
        """Return the kernel and the bias."""
        init = nn.initializers.variance_scaling(PUBLISHED, "fan_in", "normal")
        bias = self.param("bias", nn.initializers.zeros, self.kernel[-1:])
        return jnp.asarray(self.param("kernel", init, self.kernel)), jnp.asarray(bias)


class MergedConv(nn.Module):
    """A 3x3 convolution that is the sum of a 1x1 one and a sequence of 1x1, 3x3 and 1x1.

    The parts are merged before they are applied, in training too, where the published code pads
    what the first of the sequence returns. So it has the same function in both.

    Source: Wan et al. 2024 (SPAN), section 3.4; the merging: Ding et al. 2021 (RepVGG).
    """

    width: int
    dtype: Any
    kernel_size: tuple[int, int] = (3, 3)  # a convolution's, for `tiling`
    conv_general_dilated: None = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w d"]:
        """Apply the convolution."""
        c, d = x.shape[-1], self.width
        with jax.default_matmul_precision("highest"):
            first, a = Affine((1, 1, c, 2 * c), name="conv.0")()
            middle, b = Affine((3, 3, 2 * c, 2 * d), name="conv.1")()
            last, e = Affine((1, 1, 2 * d, d), name="conv.2")()
            skip, s = Affine((1, 1, c, d), name="sk")()
            kernel = jnp.einsum("ci,hwio,od->hwcd", first[0, 0], middle, last[0, 0])
            kernel = kernel.at[1, 1].add(skip[0, 0])
            bias = (a @ middle.sum((0, 1)) + b) @ last[0, 0] + e + s
        y = jax.lax.conv_general_dilated(
            x,
            kernel.astype(self.dtype),
            (1, 1),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + bias.astype(self.dtype)


class SPAN(nn.Module):
    """The generator of SPAN, which won NTIRE 2024's challenge of efficient super-resolution.

    Source: Wan et al. 2024, "Swift Parameter-free Attention Network for Efficient
    Super-Resolution", section 3.
    """

    scales: ClassVar[tuple[int, ...]] = SCALES
    variants: ClassVar[dict[str, dict[str, Any]]] = {"span": {}}

    scale: int  # scale factor: 1, 2, 3, 4 or 8
    channels: Literal[1, 3, 4] = 3  # of the image
    width: Annotated[int, Bound(1, 4096)] = 48  # channels of the trunk
    merged: bool = False  # one kernel for each convolution instead of the parts it is trained as
    norm: bool = True  # subtract rgb_mean and multiply by img_range
    rgb_mean: tuple[float, ...] = DIV2K_MEAN  # in [0, 1]; other than RGB images have none
    img_range: float = 255.0  # the value of white inside the network
    dtype: DType = "float32"  # of the computation; parameters are float32
    remat: bool = False  # compute blocks again in the backward pass, to save memory

    @staticmethod
    def check(fields: Mapping[str, Any], *, scale: int) -> None:
        """Raise a UserError for values that cannot work."""
        check_mean(fields)

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n sh sw c"]:
        """Upscale a batch of images."""
        dtype = jnp.dtype(self.dtype)
        mean = jnp.asarray(self.rgb_mean if self.channels == 3 else 0.0, jnp.float32)
        x = (lr - mean) * self.img_range if self.norm else lr
        x = head = self._conv(x.astype(dtype), "conv_1")
        outputs, first = [], x
        for i in range(1, BLOCKS + 1):
            block = partial(SPAN._block, name=f"block_{i}")
            x, first = recomputed(self, block, x, remat=self.remat)
            outputs.append(x)
        x = self._conv(x, "conv_2")
        x = jnp.concatenate([head, x, outputs[0], first], axis=-1)
        x = conv(self.width, kernel=1, gain=PUBLISHED, dtype=dtype, name="conv_cat")(x)
        last = conv(self.channels * self.scale**2, gain=PUBLISHED, dtype=dtype, name="upsampler.0")
        sr = depth_to_space(last(x), self.scale)
        return sr.astype(jnp.float32)

    def _block(self, x: Array, name: str) -> tuple[Array, Array]:
        """Return (y + x) (sigmoid(y) - 1/2), where y is three convolutions of x, and the first."""
        first = nn.silu(self._conv(x, f"{name}.c1_r"))
        y = self._conv(first, f"{name}.c2_r")
        y = self._conv(nn.silu(y), f"{name}.c3_r")
        return (y + x) * (nn.sigmoid(y) - 0.5), first

    def _conv(self, x: Array, name: str) -> Array:
        dtype = jnp.dtype(self.dtype)
        if self.merged:
            return conv(self.width, gain=PUBLISHED, dtype=dtype, name=f"{name}.eval_conv")(x)
        return MergedConv(self.width, dtype, name=name)(x)
