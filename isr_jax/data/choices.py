"""Which image of a source a crop is drawn from, and with which of its LR images."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32

from isr_jax.data.sources import SeveralSources, Source
from isr_jax.errors import UserError


class Choices(NamedTuple):
    """What a crop can be drawn from.

    Attributes:
        image: number of the image in its source.
        own: whether the LR crop is of the image's own LR image; else it is made of HR.
        chances: cumulative, the last is 1; None where all choices are equally likely.
    """

    image: Int32[np.ndarray, " m"]
    own: Bool[np.ndarray, " m"]
    chances: Float64[np.ndarray, " m"] | None

    @property
    def mixed(self) -> bool:
        """Whether some LR crops are the source's own, and others made."""
        return bool(self.own.any() and not self.own.all())


def make_choices(
    source: Source,
    images: Int[np.ndarray, " n"],
    areas: Float64[np.ndarray, " n"] | None,
    *,
    weights: Sequence[float | int],
    paired_share: float,
) -> Choices:
    """Return the choices among images of a source.

    Args:
        source: where they are.
        images: their numbers.
        areas: of each, in any unit, by which the images of one source are weighted; None for equal
            weights.
        weights: of each part of `SeveralSources`; () for the number of its images, or their area.
        paired_share: of an image with an LR image of its own, the share of crops that use it.

    Raises:
        UserError: there are more or fewer weights than sources, or no image can be used.
    """
    each = np.ones(len(images)) if areas is None else areas.astype(np.float64)
    if weights:
        parts = len(source.parts) if isinstance(source, SeveralSources) else 1
        if len(weights) != parts:
            raise UserError(
                f"config.data.weights has {len(weights)} values, and config.data.train {parts} "
                "sources; give one for each"
            )
        if isinstance(source, SeveralSources):
            part = np.array([source.place(int(i))[0] for i in images])
            total = np.bincount(part, each, minlength=parts)
            for one in np.flatnonzero(total == 0):
                raise UserError(
                    f"{source.parts[one].name}: none of its images can be read, so "
                    "config.data.weights cannot give it a share: leave it out"
                )
            each = each * np.asarray(weights, np.float64)[part] / total[part]
    if not each.any():
        raise UserError(f"{source.name}: none of its {len(source)} images can be read")
    paired = np.array([source.paired(int(i)) for i in images])
    # An image with an LR image of its own is up to two choices.
    shares = [(np.where(paired, paired_share, 0.0), True), (1.0 - paired * paired_share, False)]
    kept = [(share > 0, share, own) for share, own in shares]
    chosen = np.concatenate([np.flatnonzero(some) for some, _, _ in kept])
    own = np.concatenate([np.full(some.sum(), own) for some, _, own in kept])
    chance = np.concatenate([(each * share)[some] for some, share, _ in kept])
    order = np.argsort(chosen, kind="stable")
    chosen, own, chance = chosen[order], own[order], chance[order]
    equal = areas is None and not weights and len(chosen) == len(images)
    return Choices(
        images[chosen].astype(np.int32),
        own,
        None if equal else np.cumsum(chance) / chance.sum(),
    )


def share_of_pairs(
    *, degradation: str, paired_share: float | None, spec: str | Sequence[str]
) -> float:
    """Return the share of crops with an LR image of the source's own, where there is one.

    Unless it is given: all with `bicubic`, none with other degradations, as it has always been of
    TFDS data sets; of pairs it must be given then.

    Args:
        degradation: of the config.
        paired_share: of the config.
        spec: what the source was opened by.

    Raises:
        UserError: pairs with a degradation, and no share.
    """
    if paired_share is not None:
        return paired_share
    if degradation == "bicubic":
        return 1.0
    pairs = _pairs_of(spec)
    if pairs:
        raise UserError(
            f"{pairs[0]} has LR images, and config.data.degradation={degradation} makes others: "
            "set config.data.paired_share, to 1 for the pairs' own, to 0 for those that are made, "
            "or between"
        )
    return 0.0


def scored_on_own(
    *, degradation: str, paired_share: float | None, spec: str | Sequence[str]
) -> bool:
    """Return whether validation uses the LR images of a source's own, where there are any.

    It does where training would, and of pairs unless `paired_share` is 0: who names pairs to
    validate on wants their LR images.

    Args:
        degradation: of the config.
        paired_share: of the config.
        spec: what the source of validation images was opened by.
    """
    if paired_share is not None:
        return paired_share > 0
    return degradation == "bicubic" or bool(_pairs_of(spec))


def _pairs_of(spec: str | Sequence[str]) -> list[str]:
    specs = [spec] if isinstance(spec, str) else spec
    return [one for one in specs if one.startswith("pairs:")]
