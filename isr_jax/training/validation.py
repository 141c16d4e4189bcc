"""Scores of a run's EMA and of interpolation on the validation set."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, UInt8
from ml_collections import ConfigDict

from isr_jax.data.examples import ImagePair
from isr_jax.degrade import make_degradation, sharpen
from isr_jax.errors import UserError
from isr_jax.images import to_float, to_uint8
from isr_jax.models.generators import Generator, make_upscale
from isr_jax.scoring import METRICS, Scorer, means
from isr_jax.state import State
from isr_jax.tiling.tiles import make_tiled, plan
from isr_jax.tiling.windows import windowed

VALIDATION_SEED = 0  # of the degradation of validation images, whatever the run's seed
BASELINES = ("nearest", "bilinear", "bicubic")


# (params, stats, images) -> their SR images
UpscaleAll = Callable[[Any, Any, Sequence[ImagePair]], list[UInt8[np.ndarray, "h w c"]]]


def make_upscale_all(generator: Generator, photos: Sequence[ImagePair]) -> UpscaleAll:
    """Return a function that upscales validation images, by one compiled program if it can.

    A network whose tiles are exact sees them in windows as large as the largest image, or in tiles
    where that would not fit in memory; another one sees each image as a whole.

    Args:
        generator: the network.
        photos: all images that will come.
    """
    network = windowed(generator)
    if network.approximate:
        upscale = make_upscale(generator)
        return lambda params, stats, photos: [
            np.asarray(upscale(params, stats, photo.lr)) for photo in photos
        ]
    # On one device: what is replicated would have each of them do the same.
    tiled = make_tiled(
        network,
        plan(network),
        sizes=[photo.lr.shape[:2] for photo in photos],
        devices=jax.local_devices()[:1],
    )

    def upscale_all(
        params: Any, stats: Any, photos: Sequence[ImagePair]
    ) -> list[UInt8[np.ndarray, "h w c"]]:
        upscale = tiled(params, stats)
        return [upscale(photo.lr[None])[0] for photo in photos]

    return upscale_all


def validate(
    upscale: UpscaleAll, state: State, photos: Sequence[ImagePair], *, scorer: Scorer
) -> tuple[dict[str, float], list[UInt8[np.ndarray, "h w c"]]]:
    """Return the EMA's mean scores over whole images, and its images."""
    ema, stats = jax.tree.map(lambda x: x.addressable_data(0), (state.ema, state.g_stats))
    outputs = upscale(ema, stats, photos)
    rows = [scorer.image(sr, photo.hr) for sr, photo in zip(outputs, photos, strict=True)]
    return means(rows), outputs


def degraded(photos: Sequence[ImagePair], config: ConfigDict) -> list[ImagePair]:
    """Return images with LR images of `data.degradation`, but for those of their own.

    Image i is degraded by the same random parameters in every run. All are computed by one compiled
    program, of the size of the largest. With bicubic, the images are returned as they are.
    """
    if config.data.degradation == "bicubic":
        return list(photos)
    scale, sharpened = config.scale, config.data.sharpen
    sides = [max(side) for side in zip(*(photo.hr.shape[:2] for photo in photos), strict=True)]
    degrade = make_degradation(config.data.degradation, scale=scale)

    @jax.jit
    def run(hr: Array, size: Array, first: Array) -> Array:
        image = to_float(hr)[None]
        image = sharpen(image) if sharpened else image
        lr = degrade(jax.random.key(VALIDATION_SEED), image, first=first, sizes=size[None])
        return to_uint8(lr[0])

    def with_lr(i: int, photo: ImagePair) -> ImagePair:
        if photo.own:
            return photo
        h, w, _ = photo.hr.shape
        # Beyond the image its edge repeats; the degradation stops at its size.
        padding = [(0, sides[0] - h), (0, sides[1] - w), (0, 0)]
        padded = np.pad(photo.hr, padding, mode="edge")
        lr = np.asarray(run(padded, np.array([h, w], np.int32), np.int32(i)))
        return photo._replace(lr=lr[: h // scale, : w // scale])

    return [with_lr(i, photo) for i, photo in enumerate(photos)]


def interpolations(photos: Sequence[ImagePair], *, scorer: Scorer) -> dict[str, dict[str, float]]:
    """Return the mean scores of nearest, bilinear and bicubic over whole images.

    Raises:
        UserError: all images are too small for a metric.
    """
    scores = {
        method: means([scorer.interpolation(one.lr, one.hr, method=method) for one in photos])
        for method in BASELINES
    }
    for name, value in scores["bicubic"].items():
        if math.isnan(value):
            raise UserError(
                f"config.train.validation_metrics names {name}, for which all {len(photos)} images "
                "of config.data.validation are too small; give larger ones, or leave it out"
            )
    return scores


def score_line(step: int, scores: Mapping[str, float], bicubic: Mapping[str, float]) -> str:
    """Return the line that a validation prints."""
    parts = [
        f"{METRICS[name].score(value)} ({METRICS[name].gain(value - bicubic[name])})"
        for name, value in scores.items()
    ]
    lower = [METRICS[name].heading for name in scores if METRICS[name].sign < 0]
    note = f" (lower is better for {' and '.join(lower)})" if lower else ""
    return f"step {step}: {', '.join(parts)}; gain over bicubic in parentheses{note}"
