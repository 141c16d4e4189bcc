"""Which candidate is ahead, with intervals: a paired bootstrap over seeds and images, and ranks.

Scores are float64 [candidate seed image metric], every candidate's by the same seeds and on the
same images; higher is better. A resample draws as many seeds and as many images as there are, with
replacement and the same for all candidates: what makes an image hard, or a seed lucky, cancels in a
difference.

The intervals are of one difference at a time, not of all at once. Where there are few seeds they
are narrower than they should be, for a bootstrap knows no more than it was given; where chance
strikes each pair of a seed and an image on its own, they are wider.

Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3 (percentile
intervals); Owen 2007, "The pigeonhole bootstrap", section 2 (both factors resampled).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Integer
from scipy.stats import rankdata

LEVEL = 0.95
# Means that agree to so many decimals are equal: they differ by the order of their sums.
DECIMALS = 10


class Interval(NamedTuple):
    """An estimate, and the limits of its 95% interval."""

    mean: Float64[np.ndarray, "*shape"]
    low: Float64[np.ndarray, "*shape"]
    high: Float64[np.ndarray, "*shape"]


class Comparison(NamedTuple):
    """What `compare` finds of c candidates by m metrics.

    Attributes:
        gain: mean score of each candidate less the baseline's, [c m].
        difference: mean score of candidate a less that of candidate b, [a b m].
        tied: whether the interval of that difference holds 0, [a b m].
        rank: by each metric, 1 + the number of candidates that are ahead without a tie, [c m].
        mean_rank: over the metrics, the mean of the ranks by mean scores, where equal ones share
            the mean of theirs, [c].
        overall_tied: whether the interval of the difference of two mean ranks holds 0, [a b].
    """

    gain: Interval
    difference: Interval
    tied: Bool[np.ndarray, "a b m"]
    rank: Integer[np.ndarray, "c m"]
    mean_rank: Interval
    overall_tied: Bool[np.ndarray, "a b"]


def compare(
    scores: Float64[np.ndarray, "candidate seed image metric"],
    baseline: Float64[np.ndarray, "image metric"],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare candidates with each other and with a baseline that has no seed, as bicubic.

    Args:
        scores: finite; higher is better.
        baseline: of the same images.
        resamples: the number of resamples.
        seed: of the resampling; equal scores and an equal seed give equal intervals.
    """
    c, seeds, images, m = scores.shape
    weights = _weights(seeds, images, resamples=resamples, seed=seed)

    def means(values: Float64[np.ndarray, "seed image m"]) -> Float64[np.ndarray, "resample m"]:
        return np.round(weights @ values.reshape(seeds * images, m), DECIMALS)

    gain = np.stack([means(one - baseline) for one in scores], axis=1)
    # Of differences, so that two candidates with equal scores differ by 0 in every resample.
    difference = np.stack([means(a - b) for a in scores for b in scores], axis=1)
    differences = _interval(difference.reshape(-1, c, c, m))
    ahead = differences.low > 0
    # In each resample, and each metric, the best has rank 1.
    ranks = np.asarray(rankdata(-gain, axis=1)).mean(axis=2)
    return Comparison(
        gain=_interval(gain),
        difference=differences,
        tied=_holds_zero(differences),
        rank=1 + ahead.sum(axis=0),
        mean_rank=_interval(ranks),
        overall_tied=_holds_zero(_interval(ranks[:, :, None] - ranks[:, None, :])),
    )


def _weights(
    seeds: int, images: int, *, resamples: int, seed: int
) -> Float64[np.ndarray, "resample cell"]:
    """Return the weight of each (seed, image) in the mean, then in that of each resample."""
    rng = np.random.default_rng(seed)
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    by_image = rng.multinomial(images, np.full(images, 1 / images), resamples) / images
    cells = seeds * images
    drawn = (by_seed[:, :, None] * by_image[:, None, :]).reshape(resamples, cells)
    return np.concatenate([np.full((1, cells), 1 / cells), drawn])


def _interval(values: Float64[np.ndarray, " resample *shape"]) -> Interval:
    """Return the first value, with the limits of the middle 95% of the others."""
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Interval(values[0], low, high)


def _holds_zero(interval: Interval) -> Bool[np.ndarray, "*shape"]:
    return (interval.low <= 0) & (interval.high >= 0)
