"""Where batches come from: the pool in device memory, or the Grain stream."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from isr_jax.config import sampled_crop
from isr_jax.data import pool, sources, stream
from isr_jax.training.program import on_all


@dataclass
class Loader:
    """Where batches come from.

    Attributes:
        take: n -> the data for n updates, as `make_dispatch` wants it.
        place: the place in the data, for a checkpoint.
        restore: go to such a place.
        close: end worker processes.
    """

    take: Callable[[int], Any]
    place: Callable[[], dict[str, Any]]
    restore: Callable[[dict[str, Any]], None]
    close: Callable[[], None]


def open_loader(
    config: ConfigDict, devices: Sequence[jax.Device], warn: Callable[[str], None]
) -> Loader:
    """The pool in device memory, or the Grain stream."""
    options, crop = config.data, sampled_crop(config)
    source = sources.open_source(
        options.train, "train", scale=config.scale, tfds_dir=options.tfds_dir or None
    )
    if options.loader == "pool":
        photos = sources.load_all(source, min_size=crop, scale=config.scale, warn=warn)
        resident = jax.device_put(pool.make_pool(photos), on_all(devices))
        return Loader(lambda n: resident, dict, lambda place: None, lambda: None)

    batches = stream.open_stream(
        source,
        scale=config.scale,
        crop=crop,
        batch=options.batch,
        seed=config.seed,
        workers=options.workers,
        warn=warn,
    )

    def take(n: int) -> dict[str, np.ndarray]:
        drawn = [next(batches) for _ in range(n)]
        return {name: np.stack([batch[name] for batch in drawn]) for name in ("lr", "hr")}

    return Loader(take, batches.get_state, batches.set_state, batches.close)


def open_validation(config: ConfigDict, warn: Callable[[str], None]) -> list[sources.Photo]:
    """The whole held-out photographs, the first `config.data.validation_images` of them."""
    options = config.data
    source = sources.open_source(
        options.validation, "validation", scale=config.scale, tfds_dir=options.tfds_dir or None
    )
    # SSIM's window must fit once the border is cropped.
    least = 11 + 2 * config.scale
    return sources.load_all(
        source,
        min_size=least,
        scale=config.scale,
        warn=warn,
        most=options.validation_images or None,
    )
