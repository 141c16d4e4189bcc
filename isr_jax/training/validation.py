"""Scores of a run's EMA and of interpolation on the validation set, by the vdsr protocol."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import UInt8

from isr_jax import protocols
from isr_jax.data.examples import ImagePair
from isr_jax.state import State
from isr_jax.training.program import Program

BASELINES = ("nearest", "bilinear", "bicubic")


def validate(
    program: Program, state: State, photos: Sequence[ImagePair], *, scale: int
) -> tuple[dict[str, float], list[UInt8[np.ndarray, "h w 3"]]]:
    """Return the EMA's mean scores over whole images, and its images."""
    # On one device: a replicated state would have each of them do the same.
    ema, stats = jax.device_put((state.ema, state.g_stats), jax.local_devices()[0])
    outputs = [np.asarray(program.upscale(ema, stats, photo.lr)) for photo in photos]
    scores = [
        protocols.measure(sr, photo.hr, crop=scale)
        for sr, photo in zip(outputs, photos, strict=True)
    ]
    return _mean(scores), outputs


def _mean(scores: Sequence[protocols.Scores]) -> dict[str, float]:
    return dict(zip(protocols.Scores._fields, np.mean(scores, axis=0).tolist(), strict=True))


def interpolations(photos: Sequence[ImagePair], *, scale: int) -> dict[str, dict[str, float]]:
    """Return the mean scores of nearest, bilinear and bicubic over whole images."""
    return {
        method: _mean(
            [
                protocols.measure_interpolation(photo.lr, photo.hr, scale=scale, method=method)
                for photo in photos
            ]
        )
        for method in BASELINES
    }


def score_line(step: int, scores: Mapping[str, float], bicubic: Mapping[str, float]) -> str:
    """Return the line that a validation prints."""
    names = {"psnr": ("PSNR-Y", "{:.2f} dB", "{:+.2f}"), "ssim": ("SSIM-Y", "{:.4f}", "{:+.4f}")}
    names["ms_ssim"] = ("MS-SSIM", "{:.4f}", "{:+.4f}")
    parts = [
        f"{label} {value.format(scores[name])} ({gain.format(scores[name] - bicubic[name])})"
        for name, (label, value, gain) in names.items()
    ]
    return f"step {step}: {', '.join(parts)}; gain over bicubic in parentheses"
