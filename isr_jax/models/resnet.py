"""Residual generators: a configurable one, for SRResNet and EDSR, and BasicSR's MSRResNet.

head conv -> N residual blocks -> conv -> (+ long skip) -> sub-pixel tail -> (+ resized input)
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from isr_jax import resize
from isr_jax.errors import UserError
from isr_jax.models.fields import Bound, DType, check_mean
from isr_jax.models.layers import (
    ACTIVATIONS,
    DIV2K_MEAN,
    FACTORS,
    SCALES,
    Activation,
    Normaliser,
    ResidualBlock,
    SubPixel,
    conv,
    recomputed,
)

SRRESNET: dict[str, Any] = {
    "activation": "prelu",
    "batch_norm": True,
    "kernel": 9,
    "head_activation": True,
    "tail_activation": True,
}
EDSR_BASELINE: dict[str, Any] = {
    "rgb_mean": DIV2K_MEAN,
    "img_range": 255.0,
}


class ResNet(nn.Module):
    """The configurable residual generator: SRResNet, EDSR and smaller ones.

    SRResNet has prelu, batch_norm, kernel=9, head_activation and tail_activation; EDSR has 3x3
    convolutions and ReLU, subtracts `rgb_mean` and adds it back, and works in 0..255 (`img_range`).

    An equivariant network commutes with changes of contrast and colour: for a number a >= 0 and a
    colour b, it maps a lr + b to a sr + b. So a flat area keeps its colour, up to the image's
    border. It has no biases, and its first convolution, in float32, is one of differences. It
    needs a global skip, and neither batch norm nor `rgb_mean`.

    Source: Ledig et al. 2017 (SRGAN), section 2.1.1; Lim et al. 2017 (EDSR), section 3. Without
    biases: Mohan et al. 2020, "Robust and Interpretable Blind Image Denoising via Bias-Free
    Convolutional Neural Networks". Equivariant: Herbreteau et al. 2023, "Normalization-Equivariant
    Neural Networks with Application to Image Denoising", there by weights that sum to 1 in
    every layer, here by a global skip that carries the level.
    """

    scales: ClassVar[tuple[int, ...]] = SCALES
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "srresnet": SRRESNET,
        "edsr_baseline": EDSR_BASELINE,
        "edsr": {**EDSR_BASELINE, "width": 256, "blocks": 32, "residual_scale": 0.1},
    }

    scale: int  # scale factor: 1, 2, 3, 4 or 8
    channels: Literal[1, 3, 4] = 3  # of the image: gray, RGB, RGB and alpha
    width: Annotated[int, Bound(1, 4096)] = 64  # channels of the trunk
    blocks: Annotated[int, Bound(0, 1024)] = 16  # residual blocks
    convs: Literal[1, 2] = 2  # 3x3 convolutions per block
    skip: Literal["add", "concat"] = "add"  # concat: and a 1x1 convolution
    activation: Activation = "relu"  # leaky_relu has slope 0.2
    residual_scale: float = 1.0  # factor of a block's residual
    batch_norm: bool = False  # normalise after each convolution of the trunk
    long_skip: bool = True  # add the head's features to the trunk's
    kernel: Annotated[int, Bound(1, 99)] = 3  # of the first and last convolution, pixels, odd
    head_activation: bool = False  # after the first convolution
    # progressive: a sub-pixel layer for each factor of 2 or 3 and a last convolution; direct: one
    # sub-pixel layer to the image (Shi et al. 2016); hr_conv: one to `tail_width` channels and a
    # last convolution, which sees the neighbours that the others compute apart
    tail: Literal["direct", "hr_conv", "progressive"] = "progressive"
    tail_width: Annotated[int, Bound(1, 4096)] = 16  # of hr_conv
    tail_activation: bool = False  # after each sub-pixel layer but a direct one
    global_skip: Literal["none", "nearest", "bilinear", "bicubic"] = "none"  # add the resized input
    # Subtracted from the input and, without a global skip, added to the output; in [0, 1]. Images
    # other than RGB have none.
    rgb_mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    img_range: float = 1.0  # the value of white inside the network, above 0
    equivariant: bool = False  # commute with changes of contrast and of colour
    dtype: DType = "float32"  # of the computation; parameters are float32
    remat: bool = False  # compute blocks again in the backward pass, to save memory
    axis_name: str | None = None  # pmap axis over which batch norm takes its statistics

    @staticmethod
    def check(fields: Mapping[str, Any], *, scale: int) -> None:
        """Raise a UserError for values and combinations that cannot work."""
        if fields["kernel"] % 2 == 0:
            raise UserError(f"generator.kernel is {fields['kernel']}; it must be odd")
        check_mean(fields)
        level = fields["global_skip"] == "none" or fields["batch_norm"] or any(fields["rgb_mean"])
        if fields["equivariant"] and level:
            raise UserError(
                "generator.equivariant needs a global_skip, such as bicubic, and neither "
                "batch_norm nor rgb_mean; set these, or equivariant=False"
            )

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n sh sw c"]:
        """Upscale a batch of images."""
        dtype = jnp.dtype(self.dtype)
        mean = jnp.asarray(self.rgb_mean if self.channels == 3 else 0.0, jnp.float32)
        x = (lr - mean) * self.img_range
        x = head = self._activated(self._first()(x).astype(dtype), "head")
        for i in range(self.blocks):
            block = ResidualBlock(
                self.convs,
                self.skip,
                self.activation,
                self.residual_scale,
                self.batch_norm,
                self.axis_name,
                dtype,
                bias=self._bias,
                name=f"ResidualBlock_{i}",
            )
            x = recomputed(block, lambda block, x: block(x, train=train), x, remat=self.remat)
        if self.long_skip:
            bias = self._bias and not self.batch_norm
            x = conv(self.width, bias=bias, gain=1.0, dtype=dtype)(x)
            x = Normaliser(self.batch_norm, self.axis_name, dtype)(x, train=train) + head
        sr = self._upsampled(x, dtype).astype(jnp.float32) / self.img_range
        if self.global_skip == "none":
            return sr + mean
        return sr + resize.upsample(lr, scale=self.scale, method=self.global_skip)

    @property
    def _bias(self) -> bool:
        return not self.equivariant

    def _first(self) -> nn.Conv:
        # In bfloat16 a colour is too coarse: differences would be noise.
        if self.equivariant:
            return conv(
                self.width, kernel=self.kernel, bias=False, differences=True, dtype=jnp.float32
            )
        return conv(self.width, kernel=self.kernel, dtype=jnp.dtype(self.dtype))

    def _activated(self, x: Array, place: Literal["head", "tail"]) -> Array:
        active = self.head_activation if place == "head" else self.tail_activation
        return ACTIVATIONS[self.activation]()(x) if active else x

    def _upsampled(self, x: Array, dtype: Any) -> Array:
        # With a global skip the network starts at zero, and so as the interpolation.
        gain = 1.0 if self.global_skip == "none" else 0.0
        if self.tail == "direct":
            return SubPixel(self.scale, self.channels, gain, dtype, self._bias)(x)
        progressive = self.tail == "progressive"
        width = self.width if progressive else self.tail_width
        for factor in FACTORS[self.scale] if progressive else (self.scale,):
            x = self._activated(SubPixel(factor, width, 1.0, dtype, self._bias)(x), "tail")
        last = conv(self.channels, kernel=self.kernel, bias=self._bias, gain=gain, dtype=dtype)
        return last(x)


class MSRResNet(nn.Module):
    """BasicSR's modified SRResNet: no batch norm, a leaky head and tail, a bilinear global skip.

    All convolutions are initialised at a tenth of He's deviation.

    Source: BasicSR's MSRResNet, after Ledig et al. 2017 (SRGAN), section 2.1.1.
    """

    scales: ClassVar[tuple[int, ...]] = (2, 3, 4)
    variants: ClassVar[dict[str, dict[str, Any]]] = {"msrresnet": {}}

    scale: int  # scale factor: 2, 3 or 4
    channels: Literal[1, 3, 4] = 3  # of the image: gray, RGB, RGB and alpha
    width: Annotated[int, Bound(1, 4096)] = 64  # channels
    blocks: Annotated[int, Bound(0, 1024)] = 16  # of two 3x3 convolutions with a ReLU between
    dtype: DType = "float32"  # of the computation; parameters are float32
    remat: bool = False  # compute blocks again in the backward pass, to save memory

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n sh sw c"]:
        """Upscale a batch of images."""
        dtype, gain = jnp.dtype(self.dtype), 0.02
        x = nn.leaky_relu(conv(self.width, gain=gain, dtype=dtype)(lr.astype(dtype)), 0.1)
        for i in range(self.blocks):
            name = f"ResidualBlock_{i}"
            block = ResidualBlock(2, "add", "relu", 1.0, False, None, dtype, gain, name=name)
            x = recomputed(block, lambda block, x: block(x, train=train), x, remat=self.remat)
        for factor in FACTORS[self.scale]:
            x = nn.leaky_relu(SubPixel(factor, self.width, gain, dtype)(x), 0.1)
        x = nn.leaky_relu(conv(self.width, gain=gain, dtype=dtype)(x), 0.1)
        x = conv(self.channels, gain=gain, dtype=dtype)(x).astype(jnp.float32)
        return x + resize.upsample(lr, scale=self.scale, method="bilinear")
