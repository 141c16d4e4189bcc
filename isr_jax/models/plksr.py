"""PLKSR and RealPLKSR: a large kernel on some of the channels, and attention to each element."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from isr_jax.errors import UserError
from isr_jax.models.attention import gelu
from isr_jax.models.fields import Bound, DType
from isr_jax.models.layers import (
    PUBLISHED,
    SCALES,
    Approximate,
    conv,
    named_sub_pixel,
    recomputed,
    upsample_nearest,
)

Mixer = Literal["CCM", "ICCM", "DCCM"]
# The kernels of a mixer's two convolutions.
MIXERS: dict[Mixer, tuple[int, int]] = {"CCM": (3, 1), "ICCM": (1, 3), "DCCM": (3, 3)}


@jax.jit
def mish(x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    """Return x tanh(softplus(x)). Source: Misra 2020, "Mish"."""
    return x * jnp.tanh(nn.softplus(x))


def _partial_block(
    x: Float[Array, "n h w c"],
    name: str,
    *,
    mixer: str,
    activation: Callable[[Array], Array],
    kernels: tuple[int, int],
    large: int,
    partial: int,
    identity: bool,
    attention: bool,
    dtype: Any,
) -> Float[Array, "n h w c"]:
    """Return what a block adds to its input.

    Called within a module's `nn.compact`; the layers are the module's.

    Source: Lee et al. 2024 (PLKSR), section 3.
    """
    width = x.shape[-1]

    def layer(channels: int, kernel: int, part: str) -> nn.Conv:
        return conv(channels, kernel=kernel, gain=PUBLISHED, dtype=dtype, name=f"{name}.{part}")

    x = activation(layer(2 * width, kernels[0], f"{mixer}.0")(x))
    x = layer(width, kernels[1], f"{mixer}.2")(x)
    seen = jax.lax.slice_in_dim(x, 0, partial, axis=3)
    rest = jax.lax.slice_in_dim(x, partial, width, axis=3)
    far = layer(partial, large, "lk.conv")(seen)
    x = jnp.concatenate([far + seen if identity else far, rest], axis=-1)
    if attention:
        x = x * nn.sigmoid(layer(width, 3, "attn.f.0")(x))
    return layer(width, 1, "refine")(x)


def _check(fields: Mapping[str, Any], *, scale: int) -> None:
    """Raise a UserError for values and combinations that cannot work."""
    if fields["kernel"] % 2 == 0:
        raise UserError(f"generator.kernel is {fields['kernel']}; it must be odd")
    if fields["partial"] > fields["width"]:
        raise UserError(
            f"generator.partial={fields['partial']} is more than "
            f"generator.width={fields['width']}; give fewer channels to the large kernel"
        )
    groups = fields.get("norm_groups", 1)
    if fields.get("norm", "") == "group" and fields["width"] % groups:
        raise UserError(
            f"generator.width={fields['width']} is not divisible by generator.norm_groups={groups}"
        )


class PLKSR(nn.Module):
    """The generator of PLKSR, with dense large kernels.

    Source: Lee et al. 2024, "Partial Large Kernel CNNs for Efficient Super-Resolution", section 3.
    """

    scales: ClassVar[tuple[int, ...]] = SCALES
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "plksr": {},
        "plksr_tiny": {"blocks": 12, "kernel": 13, "attention": False},
    }

    scale: int  # scale factor: 1, 2, 3, 4 or 8
    channels: Literal[1, 3, 4] = 3  # of the image: gray, RGB, RGB and alpha
    width: Annotated[int, Bound(1, 4096)] = 64  # channels of the trunk
    blocks: Annotated[int, Bound(0, 1024)] = 28
    kernel: Annotated[int, Bound(1, 99)] = 17  # of the large convolution, pixels, odd
    partial: Annotated[int, Bound(1, 4096)] = 16  # channels that the large kernel sees
    mixer: Mixer = "DCCM"  # kernels of a block's first two convolutions: 3 and 1, 1 and 3, 3 and 3
    attention: bool = True  # multiply each element by a sigmoid of a convolution
    identity: bool = False  # add what the large kernel sees to what it returns
    dtype: DType = "float32"  # of the computation; parameters are float32
    remat: bool = False  # compute blocks again in the backward pass, to save memory

    check = staticmethod(_check)

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n sh sw c"]:
        """Upscale a batch of images."""
        dtype = jnp.dtype(self.dtype)
        x = conv(self.width, gain=PUBLISHED, dtype=dtype, name="feats.0")(lr.astype(dtype))
        for i in range(1, self.blocks + 1):
            block = partial(
                _partial_block,
                name=f"feats.{i}",
                mixer="channe_mixer",  # as published
                activation=gelu,
                kernels=MIXERS[self.mixer],
                large=self.kernel,
                partial=self.partial,
                identity=self.identity,
                attention=self.attention,
                dtype=dtype,
            )
            x = x + recomputed(self, lambda _, x, block=block: block(x), x, remat=self.remat)
        last = f"feats.{self.blocks + 1}"
        sr = named_sub_pixel(x, self.scale, self.channels, name=last, dtype=dtype)
        return sr.astype(jnp.float32) + upsample_nearest(lr, self.scale)


class RealPLKSR(nn.Module):
    """The generator of RealPLKSR: PLKSR with Mish, normalisation and learned sampling.

    Source: after Lee et al. 2024 (PLKSR); neosr's and Spandrel's code of RealPLKSR.
    """

    scales: ClassVar[tuple[int, ...]] = SCALES
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "realplksr": {},
        "realplksr_dysample": {"upsampler": "dysample"},
        "realplksr_layer_norm": {"norm": "layer"},
    }

    scale: int  # scale factor: 1, 2, 3, 4 or 8
    channels: Literal[1, 3, 4] = 3  # of the image: gray, RGB, RGB and alpha
    width: Annotated[int, Bound(1, 4096)] = 64  # channels of the trunk
    blocks: Annotated[int, Bound(0, 1024)] = 28
    kernel: Annotated[int, Bound(1, 99)] = 17  # of the large convolution, pixels, odd
    partial: Annotated[int, Bound(1, 4096)] = 16  # channels that the large kernel sees
    attention: bool = True  # multiply each element by a sigmoid of a convolution
    norm: Literal["group", "layer"] = "group"  # at a block's end over the image; first, per pixel
    norm_groups: Annotated[int, Bound(1, 4096)] = 4  # of channels, for norm=group
    upsampler: Literal["pixelshuffle", "dysample"] = "pixelshuffle"
    dtype: DType = "float32"  # of the computation; parameters are float32
    remat: bool = False  # compute blocks again in the backward pass, to save memory

    check = staticmethod(_check)

    @property
    def approximate(self) -> Approximate | None:
        """Why tiles are approximate, if they are."""
        if self.norm == "group":
            return Approximate("group normalisation over the image")
        if self.upsampler == "dysample":
            return Approximate("sampling at learned places")
        return None

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n sh sw c"]:
        """Upscale a batch of images."""
        dtype = jnp.dtype(self.dtype)
        x = conv(self.width, gain=PUBLISHED, dtype=dtype, name="feats.0")(lr.astype(dtype))
        for i in range(1, self.blocks + 1):
            residual = partial(RealPLKSR._residual, name=f"feats.{i}", dtype=dtype)
            x = x + recomputed(self, residual, x, remat=self.remat)
        # A dropout layer, 0 in what is published, has a place in the sequence.
        last = f"feats.{self.blocks + 2}"
        if self.upsampler == "pixelshuffle":
            sr = named_sub_pixel(x, self.scale, self.channels, name=last, dtype=dtype)
            return sr.astype(jnp.float32) + upsample_nearest(lr, self.scale)
        pixels = self.channels * self.scale**2
        x = conv(pixels, gain=PUBLISHED, dtype=dtype, name=last)(x).astype(jnp.float32)
        return self._sampled(x + jnp.repeat(lr, self.scale**2, axis=-1))

    def _residual(self, x: Array, name: str, dtype: Any) -> Array:
        if self.norm == "layer":
            layer = nn.LayerNorm(1e-6, dtype, use_fast_variance=False, name=f"{name}.layer_norm")
            x = layer(x)
        x = _partial_block(
            x,
            name,
            mixer="channel_mixer",
            activation=mish,
            kernels=(3, 3),
            large=self.kernel,
            partial=self.partial,
            identity=False,
            attention=self.attention,
            dtype=dtype,
        )
        if self.norm == "layer":
            return x
        groups = nn.GroupNorm(
            self.norm_groups,
            epsilon=1e-5,
            use_fast_variance=False,
            dtype=dtype,
            name=f"{name}.norm",
        )
        return groups(x)

    def _sampled(self, x: Float[Array, "n h w d"]) -> Float[Array, "n sh sw c"]:
        """Upsample by bilinear samples near each pixel, at places that depend on the features.

        Source: Liu et al. 2023, "Learning to Upsample by Learning to Sample" (DySample), section 3.
        """
        r, groups = self.scale, sample_groups(self.scale, self.channels)

        def layer(channels: int, part: str, *, bias: bool = True) -> nn.Conv:
            return conv(channels, kernel=1, gain=0.02, bias=bias, dtype=jnp.float32, name=part)

        offset = layer(2 * groups * r * r, "to_img.offset")(x)
        scope = nn.sigmoid(layer(2 * groups * r * r, "to_img.scope", bias=False)(x))
        offset = 0.5 * offset * scope + initial_places(r, self.channels).ravel()
        sr = sample(x, offset, factor=r, groups=groups)
        return layer(self.channels, "to_img.end_conv")(sr) if r > 1 else sr


def sample_groups(scale: int, channels: int) -> int:
    """Return into how many groups of channels, each with its own places, DySample divides.

    Args:
        scale: scale factor.
        channels: of the image.
    """
    return channels if scale % 2 else 4


def initial_places(factor: int, channels: int) -> Float[np.ndarray, "2 g r r"]:
    """Return the places of bilinear interpolation, right and down from the pixel's centre.

    Args:
        factor: of upsampling.
        channels: of the image.
    """
    at = ((np.arange(factor) - (factor - 1) / 2) / factor).astype(np.float32)
    places = np.stack(np.broadcast_arrays(at, at[:, None]))
    return np.repeat(places[:, None], sample_groups(factor, channels), axis=1)


@jax.named_call
def sample(
    x: Float[Array, "n h w c"], offset: Float[Array, "n h w o"], *, factor: int, groups: int
) -> Float[Array, "n rh rw c"]:
    """Sample each group of channels bilinearly at `factor` times `factor` places near each pixel.

    Args:
        x: features; outside, the nearest pixel.
        offset: of the places in pixels: right, down; then by group, row and column of the result.
        factor: of upsampling.
        groups: of channels.
    """
    n, h, w, c = x.shape
    offset = offset.reshape(n, h, w, 2, groups, factor, factor)
    rows, columns = jnp.arange(h)[:, None, None, None, None], jnp.arange(w)[:, None, None, None]
    right = jnp.clip(columns.astype(x.dtype) + offset[:, :, :, 0], 0, w - 1)
    down = jnp.clip(rows.astype(x.dtype) + offset[:, :, :, 1], 0, h - 1)
    # [n h w groups r r] -> [n rh rw groups]
    down, right = (
        place.transpose(0, 1, 4, 2, 5, 3).reshape(n, h * factor, w * factor, groups)
        for place in (down, right)
    )
    top, left = jnp.floor(down).astype(jnp.int32), jnp.floor(right).astype(jnp.int32)
    bottom, end = jnp.minimum(top + 1, h - 1), jnp.minimum(left + 1, w - 1)
    images, grouped = jnp.arange(n)[:, None, None, None], x.reshape(n, h, w, groups, c // groups)

    def at(rows: Array, columns: Array) -> Array:
        return grouped[images, rows, columns, jnp.arange(groups)]

    y = (down - jnp.floor(down))[..., None]
    z = (right - jnp.floor(right))[..., None]
    upper = at(top, left) * (1 - z) + at(top, end) * z
    lower = at(bottom, left) * (1 - z) + at(bottom, end) * z
    return (upper * (1 - y) + lower * y).reshape(n, h * factor, w * factor, c)
