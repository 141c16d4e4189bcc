"""Layers that generators and discriminators share. Feature maps are NHWC."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from itertools import product
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from isr_jax.images import depth_to_space, pad_edge
from isr_jax.models.cpu_gradients import convolve

# Gain of PyTorch's default initialisation, from which most published networks start.
PUBLISHED = 1 / 3
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)  # red, green, blue, in [0, 1]

# The sub-pixel layers of a progressive tail, by scale.
FACTORS: dict[int, tuple[int, ...]] = {1: (), 2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}
SCALES = tuple(FACTORS)

Params = Any  # a pytree of float32 arrays
Features = tuple[Float[Array, "n _ _ _"], ...]  # activations of a discriminator's convolutions

Upsampler = Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv"]

Activation = Literal["relu", "leaky_relu", "prelu"]
ACTIVATIONS: dict[str, Callable[[], Callable[[Array], Array]]] = {
    "relu": lambda: nn.relu,
    "leaky_relu": lambda: lambda x: nn.leaky_relu(x, 0.2),
    "prelu": lambda: PReLU(),
}


class Approximate(NamedTuple):
    """What a generator declares whose pixels depend on more than a bounded surrounding.

    Its tiles are approximate.

    Attributes:
        why: what sees more, in words.
        multiple: side in LR pixels of the windows that tiles are aligned to; 1 for none.
        blend: whether tiles blend, which is nearer to the whole image unless only windows matter.
    """

    why: str
    multiple: int = 1
    blend: bool = True


def mean_of(channels: int) -> Float[np.ndarray, " c"]:
    """Return the mean colour that a network of so many channels subtracts: DIV2K's, of RGB."""
    return np.array(DIV2K_MEAN if channels == 3 else (0.0,) * channels, np.float32)


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
    name: str | None = None,
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
        name=name,
        conv_general_dilated=convolve_differences if differences else convolve,
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


class DepthwiseConv(nn.Module):
    """A zero-padded 3x3 convolution that mixes no channels."""

    dtype: Any
    bias: bool = True
    kernel_size: tuple[int, int] = (3, 3)  # a convolution's, for `tiling`
    conv_general_dilated: None = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Apply the convolution."""
        c = x.shape[-1]
        init = nn.initializers.variance_scaling(PUBLISHED, "fan_in", "normal")
        kernel = jnp.asarray(self.param("kernel", init, (*self.kernel_size, 1, c)))
        y = weigh_shifted(x.astype(self.dtype), kernel[:, :, 0].astype(self.dtype))
        if not self.bias:
            return y
        return y + jnp.asarray(self.param("bias", nn.initializers.zeros, (c,)), self.dtype)


@jax.jit
def weigh_shifted(
    x: Float[Array, "n h w c"], kernel: Float[Array, "k k c"]
) -> Float[Array, "n h w c"]:
    """Return a depthwise convolution, padded with zeros, as a sum of shifted images.

    XLA fuses the sum into one loop. It has no such convolution for CPUs, where it takes 30 times
    longer.
    """
    (h, w), k = x.shape[1:3], kernel.shape[0]
    sides = (k // 2, k // 2)
    padded = jnp.pad(x, ((0, 0), sides, sides, (0, 0))).astype(jnp.float32)
    places = product(range(k), range(k))
    weighed = (padded[:, i : i + h, j : j + w] * kernel[i, j] for i, j in places)
    return reduce(jnp.add, weighed).astype(x.dtype)


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


def recomputed(
    module: nn.Module, block: Callable[[Any, Array], Any], x: Float[Array, "..."], *, remat: bool
) -> Any:
    """Return block(module, x); with `remat`, what is inside the block is computed again backwards.

    Then the backward pass needs memory for the outputs of the blocks, and for the inside of one.
    The parameters and the numbers stay the same. Called within a module's `nn.compact`.

    Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", section 3.
    """
    return nn.remat(block)(module, x) if remat else block(module, x)


@partial(jax.jit, static_argnames="factor")
def upsample_nearest(x: Float[Array, "n h w c"], factor: int) -> Float[Array, "n fh fw c"]:
    """Repeat each pixel `factor` times down and across."""
    n, h, w, c = x.shape
    blocks = jnp.broadcast_to(x[:, :, None, :, None], (n, h, factor, w, factor, c))
    return blocks.reshape(n, h * factor, w * factor, c)


# Jitted, like `gelu` and `mish`, to stay one call in a trace, for which `export` has a rule.
@jax.jit
def image_mean(x: Float[Array, "n h w c"]) -> Float[Array, "n 1 1 c"]:
    """Return the mean of each channel over the image."""
    return x.mean((1, 2), keepdims=True)


def channel_attention(
    x: Float[Array, "n h w c"], squeezed: int, *, names: tuple[str, str], dtype: Any
) -> Float[Array, "n h w c"]:
    """Weigh each channel by two dense layers, on the image's means, and a sigmoid.

    Called within a module's `nn.compact`; the layers are the module's, 1x1 convolutions.

    Source: Zhang et al. 2018 (RCAN), section 3.3.
    """
    y = nn.relu(conv(squeezed, kernel=1, gain=PUBLISHED, dtype=dtype, name=names[0])(image_mean(x)))
    return x * nn.sigmoid(
        conv(x.shape[-1], kernel=1, gain=PUBLISHED, dtype=dtype, name=names[1])(y)
    )


def named_sub_pixel(
    x: Float[Array, "n h w c"], factor: int, width: int, *, name: str, dtype: Any, bias: bool = True
) -> Float[Array, "n rh rw d"]:
    """Upsample as `SubPixel`, by a convolution that is the calling module's own."""
    x = conv(width * factor**2, gain=PUBLISHED, bias=bias, dtype=dtype, name=name)(x)
    return depth_to_space(x, factor)


def reflected(images: Float[Array, "n h w c"], multiple: int) -> Float[Array, "n ph pw c"]:
    """Reflect images at the bottom and the right, up to sides that are multiples."""
    for axis in (1, 2) if multiple > 1 else ():
        # By indices, not by `jnp.pad`, which refuses the sides of unknown length of an export.
        last = images.shape[axis] - 1
        place = jnp.arange(multiple * -(-images.shape[axis] // multiple)) % jnp.maximum(2 * last, 1)
        images = jnp.take(images, jnp.minimum(place, 2 * last - place), axis=axis)
    return images


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


def residual_conv(
    x: Float[Array, "n h w c"], convs: int, *, name: str, dtype: Any
) -> Float[Array, "n h w c"]:
    """Apply one 3x3 convolution, or three with a quarter of the channels: 3x3, 1x1, 3x3.

    Called within a module's `nn.compact`; the layers are the module's.

    Source: Liang et al. 2021 (SwinIR), its code ("1conv" and "3conv").
    """
    width = x.shape[-1]
    if convs == 1:
        return conv(width, gain=PUBLISHED, dtype=dtype, name=name)(x)
    x = nn.leaky_relu(conv(width // 4, dtype=dtype, name=f"{name}.0")(x), 0.2)
    x = nn.leaky_relu(conv(width // 4, kernel=1, dtype=dtype, name=f"{name}.2")(x), 0.2)
    return conv(width, gain=PUBLISHED, dtype=dtype, name=f"{name}.4")(x)


def reconstruct(
    x: Float[Array, "n h w c"],
    upsampler: Upsampler,
    scale: int,
    *,
    channels: int,
    features: int,
    dtype: Any,
) -> Float[Array, "n sh sw d"]:
    """Turn features into an image `scale` times as large.

    Called within a module's `nn.compact`; the layers are the module's.

    Args:
        x: the features.
        upsampler: pixelshuffle: sub-pixel layers of factors 2 or 3 between two convolutions;
            pixelshuffledirect: one sub-pixel layer; nearest+conv: nearest x2 and convolutions.
        scale: the factor.
        channels: of the image.
        features: channels while upsampling; not of pixelshuffledirect.
        dtype: of the computation.

    Source: Liang et al. 2021 (SwinIR), section 3.1 and its code.
    """
    if upsampler == "pixelshuffledirect":
        return named_sub_pixel(x, scale, channels, name="upsample.0", dtype=dtype)
    x = conv(features, dtype=dtype, name="conv_before_upsample.0")(x)
    x = nn.leaky_relu(x, 0.01)
    if upsampler == "pixelshuffle":
        for i, factor in enumerate(FACTORS[scale]):
            x = named_sub_pixel(x, factor, features, name=f"upsample.{2 * i}", dtype=dtype)
    else:
        for i in range(scale.bit_length() - 1):
            up = conv(features, dtype=dtype, name=f"conv_up{i + 1}")
            x = nn.leaky_relu(up(upsample_nearest(x, 2)), 0.2)
        x = nn.leaky_relu(conv(features, dtype=dtype, name="conv_hr")(x), 0.2)
    return conv(channels, gain=PUBLISHED, dtype=dtype, name="conv_last")(x)
