"""OmniSR: attention in blocks and over a grid, of pixels and of channels in turn.

conv -> groups of (blocks, 1x1 conv, ESA) -> conv -> (+ long skip) -> sub-pixel layer
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from isr_jax.errors import UserError
from isr_jax.models.attention import (
    DENSE,
    Size,
    attend,
    dense,
    from_windows,
    gelu,
    inverse_norm,
    layer_norm,
    relative_bias,
    to_windows,
)
from isr_jax.models.fields import Bound, DType
from isr_jax.models.layers import (
    PUBLISHED,
    SCALES,
    Approximate,
    DepthwiseConv,
    conv,
    named_sub_pixel,
    recomputed,
)

HEADS = 4
SMALLEST = 16  # pixels; side of the smallest image that ESA's pooling takes


class OmniSR(nn.Module):
    """The generator of OmniSR.

    Source: Wang et al. 2023, "Omni Aggregation Networks for Lightweight Image Super-Resolution",
    section 3; ESA: Liu et al. 2020 (RFANet), section 3.3.
    """

    scales: ClassVar[tuple[int, ...]] = SCALES
    variants: ClassVar[dict[str, dict[str, Any]]] = {"omnisr": {}}

    scale: int  # scale factor: 1, 2, 3, 4 or 8
    channels: Literal[1, 3, 4] = 3  # of the image
    width: Annotated[int, Bound(4, 4096)] = 64  # channels of the trunk, divisible by 4
    groups: Annotated[int, Bound(1, 1024)] = 5
    blocks: Annotated[int, Bound(1, 1024)] = 1  # of a group
    window: Annotated[int, Bound(1, 256)] = 8  # side of a window, pixels
    position_bias: bool = True  # learn biases of relative positions
    bias: bool = True  # of the convolutions outside of the blocks
    dtype: DType = "float32"  # of the computation; parameters are float32
    remat: bool = False  # compute blocks again in the backward pass, to save memory

    @staticmethod
    def check(fields: Mapping[str, Any], *, scale: int) -> None:
        """Raise a UserError for a width that the heads do not divide."""
        if fields["width"] % HEADS:
            raise UserError(
                f"generator.width is {fields['width']}; it must be divisible by {HEADS}"
            )

    @property
    def approximate(self) -> Approximate:
        """Why tiles are approximate."""
        return Approximate("attention over a grid of the image", self.window)

    @nn.compact
    def __call__(self, lr: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n sh sw c"]:
        """Upscale a batch of images."""
        dtype = jnp.dtype(self.dtype)
        x = self._conv(_padded(lr, self.window).astype(dtype), "input")
        head = x
        for i in range(self.groups):
            name, y = f"residual_layer.{i}", x
            for j in range(self.blocks):
                block = partial(OmniSR._block, name=f"{name}.residual_layer.{j}.layer")
                y = recomputed(self, block, y, remat=self.remat)
            y = self._conv(y, f"{name}.residual_layer.{self.blocks}", kernel=1)
            x = self._spatial(x + y, f"{name}.esa")
        x = head + self._conv(x, "output")
        sr = named_sub_pixel(x, self.scale, self.channels, name="up.0", bias=self.bias, dtype=dtype)
        sr = sr.astype(jnp.float32)
        return sr[:, : self.scale * lr.shape[1], : self.scale * lr.shape[2]]

    def _conv(self, x: Array, name: str, *, kernel: int = 3) -> Array:
        dtype = jnp.dtype(self.dtype)
        return conv(
            self.width, kernel=kernel, gain=PUBLISHED, bias=self.bias, dtype=dtype, name=name
        )(x)

    def _block(self, x: Array, name: str) -> Array:
        x = x + self._local(x, f"{name}.0.fn")
        for first, over_grid in ((2, False), (8, True)):
            y = layer_norm(name=f"{name}.{first}.norm", dtype=jnp.dtype(self.dtype))(x)
            x = x + self._attention(y, f"{name}.{first}.fn", over_grid=over_grid)
            x = self._gated(x, f"{name}.{first + 2}")
            y = self._norm(x, f"{name}.{first + 3}.norm")
            x = x + self._channels(y, f"{name}.{first + 3}.fn", over_grid=over_grid)
            x = self._gated(x, f"{name}.{first + 4}")
        return x

    def _norm(self, x: Array, name: str) -> Array:
        return layer_norm(name=name, dtype=jnp.dtype(self.dtype), epsilon=1e-6)(x)

    def _local(self, x: Array, name: str) -> Array:
        """Return an inverted bottleneck without expansion, with squeeze and excitation."""
        dtype, width = jnp.dtype(self.dtype), x.shape[-1]
        x = gelu(conv(width, kernel=1, gain=PUBLISHED, dtype=dtype, name=f"{name}.0")(x))
        x = gelu(DepthwiseConv(dtype, name=f"{name}.2")(x))
        y = dense(width // 4, name=f"{name}.4.gate.1", bias=False, dtype=dtype)(x.mean((1, 2)))
        y = dense(width, name=f"{name}.4.gate.3", bias=False, dtype=dtype)(nn.silu(y))
        x = x * nn.sigmoid(y)[:, None, None]
        return conv(width, kernel=1, gain=PUBLISHED, dtype=dtype, name=f"{name}.5")(x)

    def _gated(self, x: Array, name: str) -> Array:
        """Return x plus a gated MLP of its norm, with a depthwise convolution."""
        width = x.shape[-1]
        y = self._depthwise(
            self._norm(x, f"{name}.norm"), 2, (f"{name}.fn.project_in", f"{name}.fn.dwconv")
        )
        y, gate = jnp.split(y, 2, axis=-1)
        dtype = jnp.dtype(self.dtype)
        last = conv(
            width, kernel=1, gain=PUBLISHED, bias=False, dtype=dtype, name=f"{name}.fn.project_out"
        )
        return x + last(gelu(y) * gate)

    def _depthwise(self, x: Array, times: int, names: tuple[str, str]) -> Array:
        """Return a 1x1 convolution to `times` the channels, and a depthwise one."""
        width, dtype = times * x.shape[-1], jnp.dtype(self.dtype)
        x = conv(width, kernel=1, gain=PUBLISHED, bias=False, dtype=dtype, name=names[0])(x)
        return DepthwiseConv(dtype, bias=False, name=names[1])(x)

    def _attention(self, x: Array, name: str, *, over_grid: bool) -> Array:
        """Attend within blocks of adjacent pixels, or within grids of pixels far apart."""
        dtype, width, size = jnp.dtype(self.dtype), x.shape[-1], (self.window,) * 2
        bias = None
        if self.position_bias:
            side = 2 * self.window - 1
            table = self.param(f"{name}.rel_pos_bias.weight", DENSE, (side * side, HEADS))
            table = jnp.asarray(table).reshape(side, side, HEADS)[::-1, ::-1]
            bias = relative_bias(table, size, size)
        windows = _cut(x, self.window, over_grid=over_grid)
        qkv = dense(3 * width, name=f"{name}.to_qkv", bias=False, dtype=dtype)(windows)
        q, k, v = jnp.split(qkv, 3, axis=-1)
        y = attend(q, k, v, bias, None, heads=HEADS)
        y = dense(width, name=f"{name}.to_out.0", bias=False, dtype=dtype)(y)
        return _joined(y, x.shape[1:3], self.window, over_grid=over_grid)

    def _channels(self, x: Array, name: str, *, over_grid: bool) -> Array:
        """Let the channels of each block, or of each grid, attend to each other."""
        dtype, width = jnp.dtype(self.dtype), x.shape[-1]
        qkv = self._depthwise(x, 3, (f"{name}.qkv", f"{name}.qkv_dwconv"))
        size = (self.window,) * 2
        # Of a grid: the pixels that have the same place in every block.
        windows = to_windows(qkv, size)
        windows = windows.swapaxes(1, 2) if over_grid else windows
        q, k, v = (
            part.reshape(*part.shape[:-1], HEADS, -1) for part in jnp.split(windows, 3, axis=-1)
        )
        q, k = (part * inverse_norm(part, axis=2) for part in (q, k))
        temperature = self.param(f"{name}.temperature", nn.initializers.ones, (HEADS, 1, 1))
        scores = jnp.einsum("nwthc,nwthd->nwhcd", q, k).astype(jnp.float32) * temperature
        y = jnp.einsum("nwhcd,nwthd->nwthc", jax.nn.softmax(scores).astype(v.dtype), v)
        y = y.reshape(*y.shape[:3], -1)
        y = from_windows(y.swapaxes(1, 2) if over_grid else y, size, x.shape[1:3])
        return conv(
            width, kernel=1, gain=PUBLISHED, bias=False, dtype=dtype, name=f"{name}.project_out"
        )(y)

    def _spatial(self, x: Array, name: str) -> Array:
        """Weigh each pixel by what a strided and pooled surrounding says."""
        width, dtype = max(x.shape[-1] // 4, 16), jnp.dtype(self.dtype)
        small = conv(width, kernel=1, gain=PUBLISHED, dtype=dtype, name=f"{name}.conv1")(x)
        y = nn.Conv(width, (3, 3), 2, padding="VALID", dtype=dtype, name=f"{name}.conv2")(small)
        y = nn.max_pool(y, (7, 7), (3, 3))
        y = conv(width, gain=PUBLISHED, dtype=dtype, name=f"{name}.conv3")(y)
        y = jax.image.resize(y, (*x.shape[:3], width), "linear", antialias=False)
        y = y + conv(width, kernel=1, gain=PUBLISHED, dtype=dtype, name=f"{name}.conv_f")(small)
        y = conv(x.shape[-1], kernel=1, gain=PUBLISHED, dtype=dtype, name=f"{name}.conv4")(y)
        return x * nn.sigmoid(y)


def _padded(images: Float[Array, "n h w c"], multiple: int) -> Float[Array, "n ph pw c"]:
    """Pad with zeros at the bottom and the right, up to multiples and SMALLEST."""
    least = -(-SMALLEST // multiple) * multiple
    down, right = (
        # Sides of unknown length, in an export, are taken to be longer than 8 pixels.
        least - side if isinstance(side, int) and side < least else -side % multiple
        for side in images.shape[1:3]
    )
    return jnp.pad(images, ((0, 0), (0, down), (0, right), (0, 0)))


def _cut(
    x: Float[Array, "n h w c"], side: int, *, over_grid: bool
) -> Float[Array, "n windows tokens c"]:
    """Cut into windows of adjacent pixels; or of as many that are equally far apart."""
    if not over_grid:
        return to_windows(x, (side, side))
    # A grid's pixels are those of the same place in side x side large cells.
    n, h, w, c = x.shape
    x = x.reshape(n, side, h // side, side, w // side, c).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(n, -1, side * side, c)


def _joined(
    windows: Float[Array, "n windows tokens c"],
    image: Size,
    side: int,
    *,
    over_grid: bool,
) -> Float[Array, "n h w c"]:
    """Undo `_cut`."""
    if not over_grid:
        return from_windows(windows, (side, side), image)
    n, c, (h, w) = windows.shape[0], windows.shape[-1], image
    x = windows.reshape(n, h // side, w // side, side, side, c).transpose(0, 3, 1, 4, 2, 5)
    return x.reshape(n, h, w, c)
