"""Residual generators: a configurable one, for SRResNet and EDSR, and BasicSR's MSRResNet.

head conv -> N residual blocks -> conv -> (+ long skip) -> sub-pixel tail -> (+ resized input)
"""

from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from isr_jax import resize
from isr_jax.models.layers import ACTIVATIONS, Activation, Normaliser, ResidualBlock, SubPixel, conv

# The sub-pixel layers of a progressive tail.
FACTORS: dict[int, tuple[int, ...]] = {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}


class ResNet(nn.Module):
    """The configurable residual generator: SRResNet, EDSR and smaller ones.

    SRResNet has prelu, batch_norm, kernel=9, head_activation and tail_activation; EDSR has 3x3
    convolutions and ReLU, takes off and puts back `rgb_mean`, and works in 0..255 (`img_range`).

    Attributes:
        scale: factor of enlargement: 2, 3, 4 or 8.
        width: channels of the trunk (64; EDSR: 256).
        blocks: residual blocks (16; EDSR: 32).
        convs: 3x3 convolutions per block, 1 or 2.
        skip: how a block joins its input: by addition, or by concatenation and a 1x1 convolution.
        activation: "relu", "leaky_relu" (slope 0.2) or "prelu".
        residual_scale: factor of a block's residual (EDSR: 0.1).
        batch_norm: normalise after each convolution of the trunk (SRResNet).
        long_skip: add the head's features to the trunk's.
        kernel: size of the first convolution, and of the last where the tail is progressive.
        head_activation: activation after the first convolution (SRResNet).
        tail: "progressive", a sub-pixel layer for each factor of 2 or 3 and a last convolution, or
            "direct", one sub-pixel layer to RGB (Shi et al. 2016).
        tail_activation: activation after each progressive sub-pixel layer (SRResNet).
        global_skip: add the input resized by this method; "none" adds nothing.
        rgb_mean: subtracted from the input and, without a global skip, added to the output, in
            [0, 1] (EDSR).
        img_range: the value of white inside the network (EDSR: 255).
        equivariant: commute with changes of contrast and of colour: what it makes of a lr + b, for
            a number a >= 0 and a colour b, is a sr + b. So a flat area stays as it is, up to the
            image's border. It has no biases, and its first convolution, in float32, is one of
            differences; it takes a global skip, and neither batch norm nor `rgb_mean`.
        dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
        axis_name: pmap axis over which batch norm takes its statistics; None for one program.

    Source: Ledig et al. 2017 (SRGAN), section 2.1.1; Lim et al. 2017 (EDSR), section 3. Without
    biases: Mohan et al. 2020, "Robust and Interpretable Blind Image Denoising via Bias-Free
    Convolutional Neural Networks". Equivariant: Herbreteau et al. 2023, "Normalization-Equivariant
    Neural Networks with Application to Image Denoising", by weights that sum to 1 in every layer,
    where here a global skip carries the level.
    """

    scales: ClassVar[tuple[int, ...]] = tuple(FACTORS)

    scale: int
    width: int = 64
    blocks: int = 16
    convs: int = 2
    skip: Literal["add", "concat"] = "add"
    activation: Activation = "relu"
    residual_scale: float = 1.0
    batch_norm: bool = False
    long_skip: bool = True
    kernel: int = 3
    head_activation: bool = False
    tail: Literal["direct", "progressive"] = "progressive"
    tail_activation: bool = False
    global_skip: Literal["none", "nearest", "bilinear", "bicubic"] = "none"
    rgb_mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    img_range: float = 1.0
    equivariant: bool = False
    dtype: str = "float32"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w 3"], train: bool) -> Float[Array, "n sh sw 3"]:
        """Enlarge a batch of images."""
        dtype = jnp.dtype(self.dtype)
        mean = jnp.asarray(self.rgb_mean, jnp.float32)
        x = (lr - mean) * self.img_range
        x = head = self._activated(self._first()(x).astype(dtype), "head")
        for _ in range(self.blocks):
            x = ResidualBlock(
                self.convs,
                self.skip,
                self.activation,
                self.residual_scale,
                self.batch_norm,
                self.axis_name,
                dtype,
                bias=self._bias,
            )(x, train)
        if self.long_skip:
            bias = self._bias and not self.batch_norm
            x = conv(self.width, bias=bias, gain=1.0, dtype=dtype)(x)
            x = Normaliser(self.batch_norm, self.axis_name, dtype)(x, train) + head
        sr = self._enlarged(x, dtype).astype(jnp.float32) / self.img_range
        if self.global_skip == "none":
            return sr + mean
        return sr + resize.upsample(lr, scale=self.scale, method=self.global_skip)

    @property
    def _bias(self) -> bool:
        return not self.equivariant

    def _first(self) -> nn.Conv:
        # Differences of what bfloat16 has left of a colour would be noise.
        if self.equivariant:
            return conv(self.width, self.kernel, bias=False, differences=True, dtype=jnp.float32)
        return conv(self.width, self.kernel, dtype=jnp.dtype(self.dtype))

    def _activated(self, x: Array, place: Literal["head", "tail"]) -> Array:
        active = self.head_activation if place == "head" else self.tail_activation
        return ACTIVATIONS[self.activation]()(x) if active else x

    def _enlarged(self, x: Array, dtype: Any) -> Array:
        # Next to a resized input the network starts at zero, so that it starts as that resizer.
        gain = 1.0 if self.global_skip == "none" else 0.0
        if self.tail == "direct":
            return SubPixel(self.scale, 3, gain, dtype, self._bias)(x)
        for factor in FACTORS[self.scale]:
            x = self._activated(SubPixel(factor, self.width, 1.0, dtype, self._bias)(x), "tail")
        return conv(3, self.kernel, bias=self._bias, gain=gain, dtype=dtype)(x)


class MSRResNet(nn.Module):
    """BasicSR's modified SRResNet: no batch norm, a leaky head and tail, a bilinear global skip.

    All convolutions start at a tenth of He's deviation.

    Attributes:
        scale: factor of enlargement: 2, 3 or 4.
        width: channels (64).
        blocks: residual blocks of two 3x3 convolutions with a ReLU between (16).
        dtype: of the computation, "float32" or "bfloat16"; parameters are float32.

    Source: BasicSR's MSRResNet, after Ledig et al. 2017 (SRGAN), section 2.1.1.
    """

    scales: ClassVar[tuple[int, ...]] = (2, 3, 4)

    scale: int
    width: int = 64
    blocks: int = 16
    dtype: str = "float32"

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w 3"], train: bool) -> Float[Array, "n sh sw 3"]:
        """Enlarge a batch of images."""
        dtype, gain = jnp.dtype(self.dtype), 0.02
        x = nn.leaky_relu(conv(self.width, gain=gain, dtype=dtype)(lr.astype(dtype)), 0.1)
        for _ in range(self.blocks):
            x = ResidualBlock(2, "add", "relu", 1.0, False, None, dtype, gain)(x, train)
        for factor in FACTORS[self.scale]:
            x = nn.leaky_relu(SubPixel(factor, self.width, gain, dtype)(x), 0.1)
        x = nn.leaky_relu(conv(self.width, gain=gain, dtype=dtype)(x), 0.1)
        x = conv(3, gain=gain, dtype=dtype)(x).astype(jnp.float32)
        return x + resize.upsample(lr, scale=self.scale, method="bilinear")
