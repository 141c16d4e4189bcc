"""Scores of a run's EMA and of interpolation on the validation set, by the vdsr protocol."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import UInt8

from isr_jax.data.examples import ImagePair
from isr_jax.scoring import METRICS, Scorer
from isr_jax.state import State
from isr_jax.training.program import Program

BASELINES = ("nearest", "bilinear", "bicubic")


def validate(
    program: Program, state: State, photos: Sequence[ImagePair], *, scale: int
) -> tuple[dict[str, float], list[UInt8[np.ndarray, "h w 3"]]]:
    """Return the EMA's mean scores over whole images, and its images."""
    # On one device: a replicated state would have each of them do the same.
    ema, stats = jax.tree.map(lambda x: x.addressable_data(0), (state.ema, state.g_stats))
    outputs = [np.asarray(program.upscale(ema, stats, photo.lr)) for photo in photos]
    scorer = Scorer(scale)
    rows = [scorer.image(sr, photo.hr) for sr, photo in zip(outputs, photos, strict=True)]
    return _means(rows), outputs


def interpolations(photos: Sequence[ImagePair], *, scale: int) -> dict[str, dict[str, float]]:
    """Return the mean scores of nearest, bilinear and bicubic over whole images."""
    scorer = Scorer(scale)
    return {
        method: _means([scorer.interpolation(one.lr, one.hr, method=method) for one in photos])
        for method in BASELINES
    }


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric; no image of a validation set is too small for one."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def score_line(step: int, scores: Mapping[str, float], bicubic: Mapping[str, float]) -> str:
    """Return the line that a validation prints."""
    parts = [
        f"{METRICS[name].score(value)} ({METRICS[name].gain(value - bicubic[name])})"
        for name, value in scores.items()
    ]
    return f"step {step}: {', '.join(parts)}; gain over bicubic in parentheses"
