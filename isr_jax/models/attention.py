"""Attention in windows, which transformer generators share. Feature maps are [n h w c].

Windows are [n windows tokens c]: row by row, in the image and within a window. Submodules have the
names that the published code gives them, so `pytorch` needs no table of names.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Size = tuple[Any, ...]  # height and width in pixels; ints, but of unknown images in an export

DENSE = nn.initializers.truncated_normal(0.02)


def dense(width: int, *, name: str, dtype: Any, bias: bool = True) -> nn.Dense:
    """Return a dense layer on channels, initialised as Swin Transformer's."""
    return nn.Dense(width, use_bias=bias, kernel_init=DENSE, dtype=dtype, name=name)


def layer_norm(*, name: str, dtype: Any, epsilon: float = 1e-5) -> nn.LayerNorm:
    """Return a layer normalisation over channels, with PyTorch's epsilon."""
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, dtype=dtype, name=name)


@jax.jit
def gelu(x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    """Return x Phi(x), exactly, as PyTorch does by default."""
    return nn.gelu(x, approximate=False)


def to_windows(x: Float[Array, "n h w c"], size: Size) -> Float[Array, "n windows tokens c"]:
    """Cut feature maps, whose sides are multiples of the size, into windows."""
    n, h, w, c = x.shape
    rows, columns = size
    x = x.reshape(n, h // rows, rows, w // columns, columns, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, (h // rows) * (w // columns), rows * columns, c)


def from_windows(
    windows: Float[Array, "n windows tokens c"], size: Size, image: Size
) -> Float[Array, "n h w c"]:
    """Undo `to_windows` for feature maps of a size."""
    n, c = windows.shape[0], windows.shape[-1]
    (rows, columns), (h, w) = size, image
    x = windows.reshape(n, h // rows, w // columns, rows, columns, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)


def shifted(x: Float[Array, "n h w c"], shift: Size) -> Float[Array, "n h w c"]:
    """Shift feature maps cyclically: up and left by `shift`, or the other way if negative."""
    return jnp.roll(x, (-shift[0], -shift[1]), axis=(1, 2)) if any(shift) else x


def shift_mask(image: Size, size: Size, shift: Size) -> Float[Array, "windows tokens tokens"]:
    """Return what is added to the scores of shifted windows: -100 between different regions.

    A cyclic shift brings together what is not adjacent in the image.

    Source: Liu et al. 2021 (Swin Transformer), section 3.2.
    """

    def regions(length: Any, side: int, shift: int) -> Array:
        at = jnp.arange(length)
        last, beyond = at >= length - side, at >= length - shift
        return last.astype(jnp.float32) + beyond.astype(jnp.float32)

    ids = 3 * regions(image[0], size[0], shift[0])[:, None]
    ids = ids + regions(image[1], size[1], shift[1])
    tokens = to_windows(ids[None, :, :, None], size)[0, :, :, 0]
    return jnp.where(tokens[:, :, None] == tokens[:, None, :], 0.0, -100.0)


def relative_bias(
    table: Float[Array, "rows columns heads"], query: Size, key: Size
) -> Float[Array, "heads q k"]:
    """Spread a table of relative positions over all pairs of a query and a key.

    Entry [key row - query row + query height - 1, the same for columns] belongs to a pair. The
    table is sliced, not gathered: a gather is slow on accelerators.
    """
    (h, w), heads = query, table.shape[-1]
    rows = jnp.stack([table[h - 1 - i :][: key[0]] for i in range(h)])
    pairs = jnp.stack([rows[:, :, w - 1 - i :][:, :, : key[1]] for i in range(w)], axis=1)
    return pairs.reshape(h * w, key[0] * key[1], heads).transpose(2, 0, 1)


def attend(
    q: Float[Array, "n windows q c"],
    k: Float[Array, "n windows k c"],
    v: Float[Array, "n windows k c"],
    bias: Float[Array, "heads q k"] | None,
    mask: Float[Array, "windows q k"] | None,
    *,
    heads: int,
) -> Float[Array, "n windows q c"]:
    """Attend within windows: softmax(q k / sqrt(d) + bias + mask) v, in d = c / heads channels.

    The softmax is in float32.

    Source: Vaswani et al. 2017, section 3.2; the bias: Liu et al. 2021 (Swin Transformer), eq. 4.
    """
    q, k, v = (x.reshape(*x.shape[:-1], heads, -1) for x in (q, k, v))
    scores = jnp.einsum("nwqhd,nwkhd->nwhqk", q * q.shape[-1] ** -0.5, k).astype(jnp.float32)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores + mask[:, None]
    x = jnp.einsum("nwhqk,nwkhd->nwqhd", jax.nn.softmax(scores).astype(v.dtype), v)
    return x.reshape(*x.shape[:-2], -1)


def inverse_norm(x: Float[Array, "*shape"], *, axis: int) -> Float[Array, "*reduced"]:
    """Return 1 / |x| along an axis, which is kept; 1e12 at most, as PyTorch's `normalize`."""
    squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=axis, keepdims=True)
    return jax.lax.rsqrt(jnp.maximum(squares, 1e-24)).astype(x.dtype)


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias of relative positions.

    Source: Liu et al. 2021 (Swin Transformer), section 3.2.
    """

    heads: int
    size: Size
    bias: bool
    dtype: Any

    @nn.compact
    def __call__(
        self,
        windows: Float[Array, "n windows tokens c"],
        mask: Float[Array, "windows tokens tokens"] | None,
    ) -> Float[Array, "n windows tokens c"]:
        """Apply the attention."""
        sides = [2 * side - 1 for side in self.size]
        table = self.param(
            "relative_position_bias_table", DENSE, (sides[0] * sides[1], self.heads)
        ).reshape(*sides, self.heads)
        bias = relative_bias(jnp.asarray(table)[::-1, ::-1], self.size, self.size)
        width = windows.shape[-1]
        qkv = dense(3 * width, name="qkv", bias=self.bias, dtype=self.dtype)(windows)
        q, k, v = jnp.split(qkv, 3, axis=-1)
        x = attend(q, k, v, bias, mask, heads=self.heads)
        return dense(width, name="proj", dtype=self.dtype)(x)


class MLP(nn.Module):
    """Two dense layers with a GELU between."""

    hidden: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        """Apply the layers; the number of channels stays the same."""
        hidden = gelu(dense(self.hidden, name="fc1", dtype=self.dtype)(x))
        return dense(x.shape[-1], name="fc2", dtype=self.dtype)(hidden)


class SwinBlock(nn.Module):
    """x + attention of norm(x), then the same with an MLP.

    A subclass adds what it computes `beside` the attention.

    Source: Liu et al. 2021 (Swin Transformer), section 3.2; Liang et al. 2021 (SwinIR), figure 2.
    """

    heads: int
    window: int
    shift: int
    hidden: int
    qkv_bias: bool
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], mask: Float[Array, "windows tokens tokens"]
    ) -> Float[Array, "n h w c"]:
        """Apply the block; the number of channels stays the same."""
        size, shift, image = (self.window,) * 2, (self.shift,) * 2, x.shape[1:3]
        normed = layer_norm(name="norm1", dtype=self.dtype)(x)
        attention = WindowAttention(self.heads, size, self.qkv_bias, self.dtype, name="attn")
        y = attention(to_windows(shifted(normed, shift), size), mask if self.shift else None)
        x = x + shifted(from_windows(y, size, image), (-self.shift,) * 2)
        if (beside := self.beside(normed)) is not None:
            x = x + beside
        y = layer_norm(name="norm2", dtype=self.dtype)(x)
        return x + MLP(self.hidden, self.dtype, name="mlp")(y)

    def beside(self, normed: Float[Array, "n h w c"]) -> Float[Array, "n h w c"] | None:
        """Return what is added beside the attention; None for nothing."""
        return None
