"""Generators: LR image -> SR image, as pure functions of a parameter tree.

One configurable residual network covers the family of the SRGAN paper and its heirs:

    head conv -> N residual blocks -> conv -> (+ long skip) -> sub-pixel tail -> (+ resized input)

SRResNet: blocks=16, width=64, batch_norm, prelu, kernel=9, head_activation, tail="progressive",
tail_activation. EDSR-baseline: blocks=16, width=64, relu, kernel=3, tail="progressive", rgb_mean;
EDSR: blocks=32, width=256, residual_scale=0.1.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from isr_jax import resize
from isr_jax.models.layers import (
    ACTIVATIONS,
    Activation,
    Normaliser,
    Params,
    ResidualBlock,
    SubPixel,
    conv,
)

SCALES: dict[int, tuple[int, ...]] = {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}


class Generator(NamedTuple):
    """A generator as pure functions.

    Attributes:
        init: key -> (params, stats); stats are batch norm's running ones, {} without batch norm.
        apply: (params, stats, lr, train) -> (sr, stats); lr float [n h w 3] in [0, 1],
            sr float32 [n scale*h scale*w 3], nominally in [0, 1] and not clipped.
        scale: the factor of enlargement.
    """

    init: Callable[[Key[Array, ""]], tuple[Params, Params]]
    apply: Callable[
        [Params, Params, Float[Array, "n h w 3"], bool], tuple[Float[Array, "n sh sw 3"], Params]
    ]
    scale: int


class ResNet(nn.Module):
    """The residual generator; its fields are `generator`'s arguments."""

    scale: int
    width: int
    blocks: int
    convs: int
    skip: Literal["add", "concat"]
    activation: Activation
    residual_scale: float
    batch_norm: bool
    long_skip: bool
    kernel: int
    head_activation: bool
    tail: Literal["direct", "progressive"]
    tail_activation: bool
    global_skip: Literal["none", "nearest", "bilinear", "bicubic"]
    rgb_mean: tuple[float, float, float]
    dtype: str
    axis_name: str | None

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w 3"], train: bool) -> Float[Array, "n sh sw 3"]:
        """Enlarge a batch of images."""
        dtype = jnp.dtype(self.dtype)
        mean = jnp.asarray(self.rgb_mean, jnp.float32)
        x = (lr - mean).astype(dtype)
        x = head = self._activated(conv(self.width, self.kernel, dtype=dtype)(x), "head")
        for _ in range(self.blocks):
            x = ResidualBlock(
                self.convs,
                self.skip,
                self.activation,
                self.residual_scale,
                self.batch_norm,
                self.axis_name,
                dtype,
            )(x, train)
        if self.long_skip:
            x = conv(self.width, bias=not self.batch_norm, gain=1.0, dtype=dtype)(x)
            x = Normaliser(self.batch_norm, self.axis_name, dtype)(x, train) + head
        sr = self._enlarged(x, dtype).astype(jnp.float32)
        if self.global_skip == "none":
            return sr + mean
        return sr + resize.resize(lr, scale=self.scale, method=self.global_skip)

    def _activated(self, x: Array, place: Literal["head", "tail"]) -> Array:
        active = self.head_activation if place == "head" else self.tail_activation
        return ACTIVATIONS[self.activation]()(x) if active else x

    def _enlarged(self, x: Array, dtype: Any) -> Array:
        # Next to a resized input the network starts at zero, so that it starts as that resizer.
        gain = 1.0 if self.global_skip == "none" else 0.0
        if self.tail == "direct":
            return SubPixel(self.scale, 3, gain, dtype)(x)
        for factor in SCALES[self.scale]:
            x = self._activated(SubPixel(factor, self.width, 1.0, dtype)(x), "tail")
        return conv(3, self.kernel, gain=gain, dtype=dtype)(x)


def generator(
    *,
    scale: int,
    width: int,
    blocks: int,
    convs: int = 2,
    skip: Literal["add", "concat"] = "add",
    activation: Activation = "relu",
    residual_scale: float = 1.0,
    batch_norm: bool = False,
    long_skip: bool = True,
    kernel: int = 3,
    head_activation: bool = False,
    tail: Literal["direct", "progressive"] = "progressive",
    tail_activation: bool = False,
    global_skip: Literal["none", "nearest", "bilinear", "bicubic"] = "none",
    rgb_mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
    dtype: str = "float32",
    axis_name: str | None = None,
) -> Generator:
    """The residual generator.

    Args:
        scale: factor of enlargement: 2, 3, 4 or 8.
        width: channels of the trunk.
        blocks: residual blocks.
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
        dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
        axis_name: pmap axis over which batch norm takes its statistics; None for one program.

    Source: Ledig et al. 2017 (SRGAN), section 2.1.1; Lim et al. 2017 (EDSR), section 3.
    """
    module = ResNet(
        scale=scale,
        width=width,
        blocks=blocks,
        convs=convs,
        skip=skip,
        activation=activation,
        residual_scale=residual_scale,
        batch_norm=batch_norm,
        long_skip=long_skip,
        kernel=kernel,
        head_activation=head_activation,
        tail=tail,
        tail_activation=tail_activation,
        global_skip=global_skip,
        rgb_mean=rgb_mean,
        dtype=dtype,
        axis_name=axis_name,
    )

    def init(key: Key[Array, ""]) -> tuple[Params, Params]:
        variables = jax.jit(module.init, static_argnums=2)(key, jnp.zeros((1, 8, 8, 3)), False)
        return variables["params"], variables.get("batch_stats", {})

    def apply(
        params: Params, stats: Params, lr: Float[Array, "n h w 3"], train: bool
    ) -> tuple[Float[Array, "n sh sw 3"], Params]:
        variables = {"params": params, "batch_stats": stats}
        sr, updated = module.apply(variables, lr, train, mutable=["batch_stats"] if train else [])
        return sr, updated.get("batch_stats", stats)

    return Generator(init, apply, scale)
