"""DAT: attention in windows and over channels in turn, each beside a depthwise convolution.

conv -> groups of (blocks, conv) -> conv -> (+ long skip) -> upsampling
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from isr_jax.errors import UserError
from isr_jax.models.attention import (
    Size,
    attend,
    dense,
    from_windows,
    gelu,
    inverse_norm,
    layer_norm,
    relative_bias,
    shift_mask,
    shifted,
    to_windows,
)
from isr_jax.models.fields import Bound, DType, check_groups
from isr_jax.models.layers import (
    PUBLISHED,
    SCALES,
    Approximate,
    DepthwiseConv,
    conv,
    mean_of,
    recomputed,
    reconstruct,
    residual_conv,
)

SMALL: dict[str, Any] = {"split": (8, 16), "mlp_ratio": 2.0}
LIGHT: dict[str, Any] = {
    "width": 60,
    "depths": (18,),
    "heads": (6,),
    "mlp_ratio": 2.0,
    "residual_convs": 3,
    "upsampler": "pixelshuffledirect",
}


class PositionBias(nn.Module):
    """Biases of relative positions, learned as a function of the two distances.

    Source: Wang et al. 2022 (CrossFormer), section 3.3, by way of DAT's code.
    """

    hidden: int
    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, size: Size) -> Float[Array, "heads tokens tokens"]:
        """Return the biases of the pairs of pixels in a window."""
        rows, columns = (np.arange(1 - side, side, dtype=np.float32) for side in size)
        places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
        x = dense(self.hidden, name="pos_proj", dtype=self.dtype)(places)
        for i, width in enumerate((self.hidden, self.hidden, self.heads), start=1):
            x = nn.relu(layer_norm(name=f"pos{i}.0", dtype=self.dtype)(x))
            x = dense(width, name=f"pos{i}.2", dtype=self.dtype)(x)
        return relative_bias(x[::-1, ::-1], size, size)


class AdaptiveAttention(nn.Module):
    """Attention beside a depthwise convolution of the values; each weighs the other.

    Source: Chen et al. 2023 (DAT), sections 3.2 and 3.3.
    """

    heads: int
    split: Size  # of windows; () to attend over channels
    shift: Size  # of windows
    qkv_bias: bool
    axis_name: str | None
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h w c"]:
        """Apply the attention; the number of channels stays the same."""
        width = x.shape[-1]
        qkv = dense(3 * width, name="qkv", bias=self.qkv_bias, dtype=self.dtype)(x)
        far = self._in_windows(qkv) if self.split else self._over_channels(qkv)
        near = DepthwiseConv(self.dtype, name="dwconv.0")(qkv[..., 2 * width :])
        near = gelu(self._norm("dwconv.1", near, train=train))
        # Each branch weighs the other: over channels by its mean, and over pixels.
        if self.split:
            far, near = far * self._channels(near, train), near * self._pixels(far, train)
        else:
            far, near = far * self._pixels(near, train), near * self._channels(far, train)
        return dense(width, name="proj", dtype=self.dtype)(far + near)

    def _norm(self, name: str, x: Array, *, train: bool) -> Array:
        return nn.BatchNorm(
            not train, momentum=0.9, axis_name=self.axis_name, dtype=self.dtype, name=name
        )(x)

    def _interaction(
        self, x: Array, name: str, *, first: int, widths: tuple[int, int], train: bool
    ) -> Array:
        names = [f"{name}.{first + i}" for i in (0, 1, 3)]
        x = conv(widths[0], kernel=1, gain=PUBLISHED, dtype=self.dtype, name=names[0])(x)
        x = gelu(self._norm(names[1], x, train=train))
        x = conv(widths[1], kernel=1, gain=PUBLISHED, dtype=self.dtype, name=names[2])(x)
        return nn.sigmoid(x)

    def _channels(self, x: Array, train: bool) -> Float[Array, "n 1 1 c"]:
        c = x.shape[-1]
        return self._interaction(
            x.mean((1, 2), keepdims=True),
            "channel_interaction",
            first=1,
            widths=(c // 8, c),
            train=train,
        )

    def _pixels(self, x: Array, train: bool) -> Float[Array, "n h w 1"]:
        return self._interaction(
            x, "spatial_interaction", first=0, widths=(x.shape[-1] // 16, 1), train=train
        )

    def _over_channels(self, qkv: Array) -> Array:
        """Attend over channels: each head's channels see each other by all of the image."""
        n, h, w, _ = qkv.shape
        qkv = qkv.reshape(n, h * w, 3, self.heads, -1)
        q, k, v = (qkv[:, :, i] for i in range(3))
        temperature = self.param("temperature", nn.initializers.ones, (self.heads, 1, 1))
        q, k = (x * inverse_norm(x, axis=1) for x in (q, k))
        scores = jnp.einsum("nthc,nthd->nhcd", q, k).astype(jnp.float32) * temperature
        x = jnp.einsum("nhcd,nthd->nthc", jax.nn.softmax(scores).astype(v.dtype), v)
        return x.reshape(n, h, w, -1)

    def _in_windows(self, qkv: Array) -> Array:
        """Attend in upright windows by half of the channels, in wide ones by the other half."""
        n, h, w, c = qkv.shape
        qkv = qkv.reshape(n, h, w, 3, 2, c // 6)
        largest = max(self.split)
        down, right = -h % largest, -w % largest
        qkv = jnp.pad(qkv, ((0, 0), (0, down), (0, right), (0, 0), (0, 0), (0, 0)))
        image = (h + down, w + right)
        halves = []
        for i, flip in enumerate((1, -1)):
            size, shift = self.split[::flip], self.shift[::flip]
            half = shifted(qkv[..., i, :].reshape(n, *image, c // 2), shift)
            heads = self.heads // 2
            bias = PositionBias(c // 6 // 16, heads, self.dtype, name=f"attns.{i}.pos")(size)
            mask = shift_mask(image, size, shift) if any(shift) else None
            q, k, v = jnp.split(to_windows(half, size), 3, axis=-1)
            x = from_windows(attend(q, k, v, bias, mask, heads=heads), size, image)
            halves.append(shifted(x, (-shift[0], -shift[1]))[:, :h, :w])
        return jnp.concatenate(halves, axis=-1)


class GatedMLP(nn.Module):
    """An MLP of which half gates the other, by way of a depthwise convolution.

    Source: Chen et al. 2023 (DAT), section 3.4.
    """

    hidden: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Apply the layers; the number of channels stays the same."""
        y, gate = jnp.split(gelu(dense(self.hidden, name="fc1", dtype=self.dtype)(x)), 2, axis=-1)
        gate = layer_norm(name="sg.norm", dtype=self.dtype)(gate)
        gate = DepthwiseConv(self.dtype, name="sg.conv")(gate)
        return dense(x.shape[-1], name="fc2", dtype=self.dtype)(y * gate)


class DAT(nn.Module):
    """The generator of DAT: full, 2, small and light.

    Stochastic depth, which the published training has at 0.1, is left out.

    Source: Chen et al. 2023, "Dual Aggregation Transformer for Image Super-Resolution", section 3.
    """

    scales: ClassVar[tuple[int, ...]] = SCALES
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "dat": {},
        "dat_2": {"mlp_ratio": 2.0},
        "dat_small": SMALL,
        "dat_light": LIGHT,
    }

    scale: int  # scale factor: 1, 2, 3, 4 or 8
    channels: Literal[1, 3, 4] = 3  # of the image
    width: Annotated[int, Bound(32, 4096)] = 180  # channels of the trunk
    depths: tuple[int, ...] = (6,) * 6  # blocks of each group
    heads: tuple[int, ...] = (6,) * 6  # of attention, in each group; even
    split: tuple[int, ...] = (8, 32)  # height and width of a window, pixels; then turned
    mlp_ratio: float = 4.0  # hidden channels of the MLP to those of the trunk
    qkv_bias: bool = True  # of query, key and value
    residual_convs: Literal[1, 3] = 1  # 3x3 convolutions at the end of a group; 3 saves parameters
    upsampler: Literal["pixelshuffle", "pixelshuffledirect"] = "pixelshuffle"
    features: Annotated[int, Bound(1, 4096)] = 64  # channels while upsampling
    img_range: float = 1.0  # the value of white inside the network
    dtype: DType = "float32"  # of the computation; parameters are float32
    remat: bool = False  # compute blocks again in the backward pass, to save memory
    axis_name: str | None = None  # pmap axis over which batch norm takes its statistics

    @staticmethod
    def check(fields: Mapping[str, Any], *, scale: int) -> None:
        """Raise a UserError for values and combinations that cannot work."""
        check_groups(fields)
        split = tuple(fields["split"])
        if len(split) != 2 or min(split) < 1 or max(split) > 256 or max(split) % min(split):
            raise UserError(
                f"generator.split is {split}; it is a height and a width up to 256 of which one "
                "divides the other"
            )
        if fields["width"] % 2 or any(n % 2 for n in fields["heads"]):
            raise UserError("generator.width and generator.heads must be even: each half splits")

    @property
    def approximate(self) -> Approximate:
        """Why tiles are approximate."""
        return Approximate("attention over channels of the image", max(self.split))

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n sh sw c"]:
        """Upscale a batch of images."""
        dtype, mean = jnp.dtype(self.dtype), mean_of(self.channels)
        x = ((lr - mean) * self.img_range).astype(dtype)
        x = head = conv(self.width, gain=PUBLISHED, dtype=dtype, name="conv_first")(x)
        x = layer_norm(name="before_RG.1", dtype=dtype)(x)
        for i, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            y = x
            for j in range(depth):
                block = partial(
                    DAT._block,
                    name=f"layers.{i}.blocks.{j}",
                    heads=heads,
                    group=i,
                    block=j,
                    train=train,
                )
                y = recomputed(self, block, y, remat=self.remat)
            x = x + residual_conv(y, self.residual_convs, name=f"layers.{i}.conv", dtype=dtype)
        x = layer_norm(name="norm", dtype=dtype)(x)
        x = head + residual_conv(x, self.residual_convs, name="conv_after_body", dtype=dtype)
        sr = reconstruct(
            x,
            self.upsampler,
            self.scale,
            channels=self.channels,
            features=self.features,
            dtype=dtype,
        )
        return sr.astype(jnp.float32) / self.img_range + mean

    def _block(
        self, x: Array, name: str, heads: int, *, group: int, block: int, train: bool
    ) -> Array:
        dtype = jnp.dtype(self.dtype)
        split = () if block % 2 else tuple(self.split)
        shift = tuple(side // 2 for side in split) if shifts(group, block) else (0, 0)
        y = layer_norm(name=f"{name}.norm1", dtype=dtype)(x)
        attention = AdaptiveAttention(
            heads, split, shift, self.qkv_bias, self.axis_name, dtype, name=f"{name}.attn"
        )
        x = x + attention(y, train=train)
        y = layer_norm(name=f"{name}.norm2", dtype=dtype)(x)
        return x + GatedMLP(round(self.width * self.mlp_ratio), dtype, name=f"{name}.ffn")(y)


def shifts(group: int, block: int) -> bool:
    """Return whether the windows of a block are shifted: of every other one with windows."""
    return block % 4 == (0 if group % 2 else 2)
