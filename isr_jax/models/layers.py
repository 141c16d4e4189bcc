"""Layers that generators and discriminators share. Feature maps are NHWC."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from isr_jax.images import depth_to_space, pad_edge

Params = Any  # a pytree of float32 arrays
Features = tuple[Float[Array, "n _ _ _"], ...]  # activations of a discriminator's convolutions

Activation = Literal["relu", "leaky_relu", "prelu"]
ACTIVATIONS: dict[str, Callable[[], Callable[[Array], Array]]] = {
    "relu": lambda: nn.relu,
    "leaky_relu": lambda: lambda x: nn.leaky_relu(x, 0.2),
    "prelu": lambda: PReLU(),
}


def count_params(params: Params) -> int:
    """Return the number of scalars in a parameter tree."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def leaky(x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    """Apply a leaky ReLU of slope 0.2, as discriminators do."""
    return nn.leaky_relu(x, 0.2)


class PReLU(nn.Module):
    """max(0, x) + a min(0, x), with a learned slope a per channel, initially 0.25.

    Source: He et al. 2015, "Delving Deep into Rectifiers", section 2.1.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        """Apply the activation."""
        slope = self.param("slope", nn.initializers.constant(0.25), (x.shape[-1],))
        return prelu(x, slope.astype(x.dtype))


# Jitted, like `upsample_nearest`, to stay one call in a trace, for which `export` has a rule.
@jax.jit
def prelu(x: Float[Array, "*b c"], slope: Float[Array, " c"]) -> Float[Array, "*b c"]:
    """Return max(0, x) + slope min(0, x)."""
    return jnp.where(x >= 0, x, slope * x)


def conv(
    width: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    bias: bool = True,
    gain: float = 2.0,
    differences: bool = False,
    dtype: Any,
) -> nn.Conv:
    """Return a zero-padded convolution with He initialisation of variance `gain` / fan_in.

    With `differences`, it ignores the level of each channel: the mean of every kernel is
    subtracted, and the border repeats its nearest pixel instead of zeros.

    Source: He et al. 2015, "Delving Deep into Rectifiers", section 2.2 (gain 2 before a ReLU).
    """
    init = nn.initializers.variance_scaling(gain, "fan_in", "normal") if gain else nn.zeros
    # Explicit padding, because "SAME" at stride 2 pads one side only and other frameworks pad both.
    # A kernel of 4 is also padded by 1, which at stride 2 halves the side.
    pad = (kernel - 1) // 2
    return nn.Conv(
        width,
        (kernel, kernel),
        strides=stride,
        padding=((pad, pad), (pad, pad)),
        use_bias=bias,
        kernel_init=init,
        conv_general_dilated=convolve_differences if differences else None,
        dtype=dtype,
    )


def convolve_differences(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "k k c d"],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    dimension_numbers: Any,
    feature_group_count: int,
    precision: Any,
) -> Float[Array, "n h w d"]:
    """Convolve as `jax.lax.conv_general_dilated`, called by `nn.Conv`, with differences.

    The mean of every kernel is subtracted, and the border repeats its nearest pixel.
    """
    kernel = kernel - kernel.mean(axis=(0, 1), keepdims=True)
    x = pad_edge(x, padding[0][0])
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        "VALID",
        lhs_dilation,
        rhs_dilation,
        dimension_numbers,
        feature_group_count,
        precision=precision,
    )


class Normaliser(nn.Module):
    """Batch normalisation, or the identity; statistics are over all devices of `axis_name`."""

    active: bool
    axis_name: str | None
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h w c"]:
        """Normalise by the batch's statistics when training, else by the running ones."""
        if not self.active:
            return x
        return nn.BatchNorm(
            use_running_average=not train, momentum=0.9, axis_name=self.axis_name, dtype=self.dtype
        )(x)


class ResidualBlock(nn.Module):
    """x + residual_scale * f(x), or a 1x1 convolution of [x, residual_scale * f(x)].

    f is `convs` convolutions, each followed by batch normalisation where that is on, with an
    activation after each but the last (a single one has it too). All but the last are initialised
    with a variance of `gain` / fan_in.

    Source: Ledig et al. 2017 (SRGAN), figure 4, with batch norm and PReLU; Lim et al. 2017 (EDSR),
    section 3.1, without batch norm and with residual scaling. Small first residuals: Wang et al.
    2018 (ESRGAN), section 3.1.
    """

    convs: int
    skip: Literal["add", "concat"]
    activation: Activation
    residual_scale: float
    batch_norm: bool
    axis_name: str | None
    dtype: Any
    gain: float = 2.0
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h w c"]:
        """Apply the block; the number of channels stays the same."""
        width = x.shape[-1]
        y = x
        for i in range(self.convs):
            # At a tenth of He's deviation, so that blocks do not each triple the variance.
            gain = 0.02 if i == self.convs - 1 else self.gain
            bias = self.bias and not self.batch_norm
            y = conv(width, bias=bias, gain=gain, dtype=self.dtype)(y)
            y = Normaliser(self.batch_norm, self.axis_name, self.dtype)(y, train=train)
            if i < self.convs - 1 or self.convs == 1:
                y = ACTIVATIONS[self.activation]()(y)
        y = y * self.residual_scale
        if self.skip == "add":
            return x + y
        joined = jnp.concatenate([x, y], axis=-1)
        return conv(width, kernel=1, bias=self.bias, gain=1.0, dtype=self.dtype)(joined)


@partial(jax.jit, static_argnames="factor")
def upsample_nearest(x: Float[Array, "n h w c"], factor: int) -> Float[Array, "n fh fw c"]:
    """Repeat each pixel `factor` times down and across."""
    n, h, w, c = x.shape
    blocks = jnp.broadcast_to(x[:, :, None, :, None], (n, h, factor, w, factor, c))
    return blocks.reshape(n, h * factor, w * factor, c)


class SubPixel(nn.Module):
    """Upsample by a convolution to factor**2 times the channels and depth-to-space.

    Source: Shi et al. 2016 (ESPCN), section 3.2.
    """

    factor: int
    width: int
    gain: float
    dtype: Any
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n rh rw d"]:
        """Upsample feature maps to `width` channels."""
        width = self.width * self.factor**2
        x = conv(width, bias=self.bias, gain=self.gain, dtype=self.dtype)(x)
        return depth_to_space(x, self.factor)
