"""Augmentation of batches inside jit, each example by chance: RGB permutation, MixUp, CutBlur.

Unlike flips and rotations, which cut crops have already, these change colours and contents.

Source: Yoo et al. 2020, "Rethinking Data Augmentation for Image Super-resolution: A Comprehensive
Analysis and a New Strategy", section 2; the settings are those of the authors' program, which draws
once for a whole batch.
"""

import itertools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from isr_jax.degrade.parameters import example_keys

Batch = Mapping[str, Float[Array, "n _ _ c"]]
Keys = Key[Array, " n"]

MIXUP_ALPHA = 1.2  # both parameters of the beta distribution of an example's own share
CUT = 0.7  # mean side of what CutBlur cuts, of the side of the image
CUT_DEVIATION = 0.01  # its standard deviation
_ORDERS = tuple(itertools.permutations(range(3)))  # of the colour channels


def permute_rgb(keys: Keys, batch: Batch) -> Batch:
    """Put the colour channels of each RGB example in a random order, one of six."""
    which = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(_ORDERS)))(keys)
    order = jnp.array(_ORDERS)[which][:, None, None]
    return {name: jnp.take_along_axis(x, order, axis=-1) for name, x in batch.items()}


def mixup(keys: Keys, batch: Batch) -> Batch:
    """Mix each example with its neighbour, which is as random: 0 with 1, 2 with 3, and so on.

    So neighbours must be together wherever a batch is split; their number n is even.
    """

    def neighbours(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)

    own = jax.vmap(lambda key: jax.random.beta(key, MIXUP_ALPHA, MIXUP_ALPHA))(keys)
    own = own[:, None, None, None]
    return {name: own * x + (1.0 - own) * neighbours(x) for name, x in batch.items()}


def cutblur(keys: Keys, batch: Batch) -> Batch:
    """Replace a rectangle of each LR image, or all but it, by what the generator is to make of it.

    LR images must have the size of HR images. The authors upscale theirs by nearest first, and
    change their networks to begin with a pixel-unshuffle.
    """

    def replaced(key: Key[Array, ""]) -> Bool[Array, "h w"]:
        ratio_key, y_key, x_key, side_key = jax.random.split(key, 4)
        ratio = CUT + CUT_DEVIATION * jax.random.normal(ratio_key)

        def within(key: Key[Array, ""], side: int) -> Bool[Array, " side"]:
            length = jnp.clip((side * ratio).astype(jnp.int32), 0, side)
            start = jax.random.randint(key, (), 0, side - length + 1)
            return (jnp.arange(side) >= start) & (jnp.arange(side) < start + length)

        h, w = batch["lr"].shape[1:3]
        inside = within(y_key, h)[:, None] & within(x_key, w)
        return inside == jax.random.bernoulli(side_key)

    mask = jax.vmap(replaced)(keys)[..., None]
    sharp = batch.get("target", batch["hr"])
    return {**batch, "lr": jnp.where(mask, sharp, batch["lr"])}


# In the order in which they are applied.
AUGMENTATIONS: dict[str, Callable[[Keys, Batch], Batch]] = {
    "rgb": permute_rgb,
    "mixup": mixup,
    "cutblur": cutblur,
}


def augment(
    key: Key[Array, ""],
    batch: Batch,
    *,
    chances: Mapping[str, float],
    first: int | Int[Array, ""] = 0,
) -> Batch:
    """Return a batch of which each example was augmented by chance.

    Example i depends on key, first + i, its own images and, with mixup, its neighbour's.

    Args:
        key: for all that is drawn.
        batch: "lr", "hr" and, where there is one, "target", in [0, 1]; all are augmented alike.
        chances: by name, in [0, 1] (static); one of 0 leaves nothing in the program.
        first: number of the first example within the whole batch; even, with mixup.
    """
    for i, (name, function) in enumerate(AUGMENTATIONS.items()):
        chance = chances[name]
        if not chance:
            continue
        keys = example_keys(jax.random.fold_in(key, i), len(batch["hr"]), first)
        whether, how = jax.vmap(jax.random.split, out_axes=1)(keys)
        chosen = jax.vmap(lambda key, p=chance: jax.random.bernoulli(key, p))(whether)
        changed = function(how, batch)
        batch = {
            part: jnp.where(chosen[:, None, None, None], changed[part], x)
            for part, x in batch.items()
        }
    return batch
