"""Which candidate is ahead, with intervals that treat seeds and images as crossed random effects.

Scores are float64 [candidate seed image metric], every candidate's by the same seeds and on the
same images; higher is better. A score is a mean, plus what its seed, what its image, and what their
interaction and chance add, all drawn at random. So the interval of a mean, or of a mean difference,
is for other seeds and other images of their kind. Its variance comes from the mean squares of a
two-way analysis of variance with one value per cell, and Student's t has the degrees of freedom of
Satterthwaite: few where few seeds decide, as the t interval of the seeds' means has them.

A resampling of both factors (Owen 2007, "The pigeonhole bootstrap", The Annals of Applied
Statistics 1) needs many seeds: with five its intervals are too narrow where seeds decide. The
intervals are of one difference at a time, not of all at once.

Source: Searle, Casella & McCulloch 1992, "Variance Components", chapter 4; Satterthwaite 1946, "An
Approximate Distribution of Estimates of Variance Components", Biometrics Bulletin 2. Hillis 2007,
"A comparison of denominator degrees of freedom methods for multiple observer ROC analysis",
Statistics in Medicine 26, does the same for readers and patients, with negative estimates of a
component set to 0, as here.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Integer
from scipy.stats import rankdata, t

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
        difference: mean score of candidate a less that of candidate b, by the seeds that both have,
            [a b m].
        tied: whether the interval of that difference holds 0, [a b m].
        rank: by each metric, 1 + the number of candidates that are ahead without a tie, [c m].
        mean_rank: over the metrics, the mean of the ranks by mean scores, where equal ones share
            the mean of theirs, [c].
        ahead: whether candidate a is ahead of b without a tie by more metrics than b of a, [a b].
    """

    gain: Interval
    difference: Interval
    tied: Bool[np.ndarray, "a b m"]
    rank: Integer[np.ndarray, "c m"]
    mean_rank: Float64[np.ndarray, " c"]
    ahead: Bool[np.ndarray, "a b"]


def compare(
    scores: Float64[np.ndarray, "candidate seed image metric"],
    baseline: Float64[np.ndarray, "image metric"],
) -> Comparison:
    """Compare candidates with each other and with a baseline that has no seed, as bicubic.

    Args:
        scores: higher is better; nan for a seed that a candidate did not finish.
        baseline: of the same images.
    """
    finished = np.asarray(np.isfinite(scores).all(axis=(2, 3)))

    def of_seeds(
        values: Float64[np.ndarray, "seed image m"], which: Bool[np.ndarray, " seed"]
    ) -> Interval:
        return crossed_interval(np.moveaxis(values[which], -1, 0))

    gains = [of_seeds(one - baseline, own) for one, own in zip(scores, finished, strict=True)]
    gain = Interval(*map(np.stack, zip(*gains, strict=True)))
    pairs = [
        of_seeds(a - b, finished[i] & finished[j])
        for i, a in enumerate(scores)
        for j, b in enumerate(scores)
    ]
    c, m = gain.mean.shape
    difference = Interval(*(np.stack(x).reshape(c, c, m) for x in zip(*pairs, strict=True)))
    won = difference.low > 0
    wins = won.sum(axis=2)
    return Comparison(
        gain=gain,
        difference=difference,
        tied=(difference.low <= 0) & (difference.high >= 0),
        rank=1 + won.sum(axis=0),
        mean_rank=np.asarray(rankdata(-gain.mean, axis=0)).mean(axis=1),
        ahead=wins > wins.T,
    )


def crossed_interval(values: Float64[np.ndarray, "*shape seed image"]) -> Interval:
    """Return the mean over seeds and images, and its interval for other seeds and images.

    Of a single seed, or a single image, the interval knows the other factor's variance alone; of
    one value, or none, it has no limits.
    """
    *shape, seeds, images = values.shape
    if not seeds or not images:
        nothing = np.zeros(shape)
        return Interval(nothing, nothing - np.inf, nothing + np.inf)
    mean = values.mean(axis=(-2, -1))
    by_seed, by_image = values.mean(axis=-1), values.mean(axis=-2)
    effects = by_seed[..., :, None] + by_image[..., None, :] - mean[..., None, None]
    free = np.array([seeds - 1, images - 1, (seeds - 1) * (images - 1)])
    squares = np.stack(
        [
            images * ((by_seed - mean[..., None]) ** 2).sum(axis=-1),
            seeds * ((by_image - mean[..., None]) ** 2).sum(axis=-1),
            ((values - effects) ** 2).sum(axis=(-2, -1)),
        ],
        axis=-1,
    ) / np.maximum(free, 1)
    rest = squares[..., 2]
    # A factor whose mean square is no larger than the rest's has no variance of its own.
    seed, image = (np.where(x > rest, x, 0.0) for x in (squares[..., 0], squares[..., 1]))
    both, neither = (seed > 0) & (image > 0), (seed == 0) & (image == 0)
    terms = np.stack([seed, image, np.where(both | neither, rest, 0.0)], axis=-1)
    sign = np.where(both, -1.0, 1.0)
    total = terms[..., 0] + terms[..., 1] + sign * terms[..., 2]
    spread = (terms**2 / np.maximum(free, 1)).sum(axis=-1)
    degrees = np.divide(total**2, spread, out=np.ones(shape), where=spread > 0)
    half = t.ppf((1 + LEVEL) / 2, degrees) * np.sqrt(total / (seeds * images))
    if seeds == images == 1:
        half = np.full(shape, np.inf)
    mean = np.round(mean, DECIMALS)
    return Interval(*map(np.asarray, (mean, mean - half, mean + half)))
