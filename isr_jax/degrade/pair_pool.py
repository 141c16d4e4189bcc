"""Real-ESRGAN's training pair pool: batches mixed with earlier ones, as a pure function."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from isr_jax.errors import UserError
from isr_jax.images import to_float, to_uint8

Images = Float[Array, "n h w 3"]


class PairPool(NamedTuple):
    """Pairs of earlier batches. Pixels are kept in 8 bits, which is exact for 8-bit images.

    Attributes:
        lr, hr: the pairs; HR as it is in the file, not sharpened.
        filled: how many there are.
    """

    lr: UInt8[Array, "pairs lh lw 3"]
    hr: UInt8[Array, "pairs h w 3"]
    filled: Int[Array, ""]


def init_pair_pool(*, crop: int, scale: int, pairs: int = 180) -> PairPool:
    """An empty pool of pairs whose HR side is `crop` pixels; Real-ESRGAN's holds 180."""
    lr, hr = (jnp.zeros((pairs, side, side, 3), jnp.uint8) for side in (crop // scale, crop))
    return PairPool(lr, hr, jnp.zeros((), jnp.int32))


def push_and_draw(
    key: Key[Array, ""], pool: PairPool, lr: Float[Array, "n lh lw 3"], hr: Images
) -> tuple[PairPool, Float[Array, "n lh lw 3"], Images]:
    """Exchange a batch for as many random pairs of the pool; while it fills, keep a copy only.

    Args:
        key: which pairs are drawn, without repetition.
        pool: of a size that is a multiple of the batch.
        lr, hr: 8-bit images in [0, 1].

    Raises:
        UserError: the pool is no multiple of the batch.

    Source: Wang et al. 2021 (Real-ESRGAN), section 4.1, "training pair pool".
    """
    pairs, n = len(pool.lr), len(lr)
    if pairs % n:
        raise UserError(f"a pool of {pairs} pairs is no multiple of the batch of {n}")
    full = pool.filled == pairs
    random = jax.random.choice(key, pairs, (n,), replace=False)
    slots = jnp.where(full, random, pool.filled + jnp.arange(n))
    new_pool = PairPool(
        pool.lr.at[slots].set(to_uint8(lr)),
        pool.hr.at[slots].set(to_uint8(hr)),
        jnp.minimum(pool.filled + n, pairs),
    )
    drawn_lr, drawn_hr = to_float(pool.lr[slots]), to_float(pool.hr[slots])
    return new_pool, jnp.where(full, drawn_lr, lr), jnp.where(full, drawn_hr, hr)
