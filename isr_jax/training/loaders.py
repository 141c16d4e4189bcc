"""Where batches come from: the pool in device memory, or the Grain stream."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np
from ml_collections import ConfigDict

from isr_jax import distributed
from isr_jax.config import sampled_crop
from isr_jax.data import pool, sources
from isr_jax.data.examples import ImagePair
from isr_jax.training.program import AXIS, Devices, Inputs, on_all


@runtime_checkable
class Loader(Protocol):
    """What the loop asks of a loader."""

    def take(self, n: int) -> Inputs:
        """Return the inputs of n updates."""
        ...

    def state(self) -> dict[str, Any]:
        """Return the loader state for a checkpoint, as JSON."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a loader state."""

    def close(self) -> None:
        """End worker processes."""


class PoolLoader:
    """Every image in device memory: all updates share the same inputs, and there is no state."""

    def __init__(self, photos: Sequence[ImagePair], *, frozen: Any, devices: Devices) -> None:
        """Put the images and the frozen parameters on all devices."""
        inputs = Inputs(frozen=frozen, images=pool.make_pool(photos))
        self._inputs = distributed.on_devices(inputs, on_all(devices))

    def take(self, n: int) -> Inputs:
        """Return the pool: each update draws its batch from it by its key."""
        return self._inputs

    def state(self) -> dict[str, Any]:
        """Return {}."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Do nothing: what an update draws depends on its step alone."""

    def close(self) -> None:
        """Do nothing."""


class StreamLoader:
    """Batches that Grain cuts on the host, for data sets that do not fit in device memory."""

    def __init__(
        self,
        source: sources.Source,
        config: ConfigDict,
        *,
        frozen: Any,
        devices: Devices,
        warn: Callable[[str], None],
    ) -> None:
        """Open the stream, and put the frozen parameters on all devices."""
        # Imported late: the pool does not need Grain.
        from isr_jax.data.stream import open_stream

        self._batches = open_stream(
            source,
            crop=sampled_crop(config),
            batch=config.data.batch,
            seed=config.seed,
            workers=config.data.workers,
            process=(jax.process_index(), jax.process_count()),
            warn=warn,
        )
        self._frozen = distributed.on_devices(frozen, on_all(devices))
        self._devices = devices

    def take(self, n: int) -> Inputs:
        """Return the next n batches, stacked."""
        drawn = [next(self._batches) for _ in range(n)]
        images = {name: np.stack([batch[name] for batch in drawn]) for name in ("lr", "hr")}
        if jax.process_count() > 1:
            images = distributed.on_devices(images, on_all(self._devices, axis=AXIS, at=1))
        return Inputs(frozen=self._frozen, images=images)

    def state(self) -> dict[str, Any]:
        """Return {"next": number of the next batch}."""
        return self._batches.get_state()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue with the batch that the state names."""
        self._batches.set_state(state)

    def close(self) -> None:
        """End worker processes."""
        self._batches.close()


def open_loader(
    config: ConfigDict,
    devices: Devices,
    *,
    frozen: Any = (),
    warn: Callable[[str], None],
) -> Loader:
    """Open the training images by `config.data.loader`.

    Args:
        config: the run's configuration.
        devices: those that train.
        frozen: what updates read besides images: `Program.frozen`.
        warn: takes one line for the user, such as a skipped image.

    Raises:
        UserError: for a data set that cannot be read or has no usable image.
    """
    options = config.data
    source = _open(config, "train")
    if options.loader == "stream":
        return StreamLoader(source, config, frozen=frozen, devices=devices, warn=warn)
    crop = sampled_crop(config)
    photos = sources.load_all(source, min_size=crop, warn=warn)
    return PoolLoader(photos, frozen=frozen, devices=devices)


def fingerprints(config: ConfigDict) -> dict[str, str]:
    """Return the fingerprint of the images of `data.train` and `data.validation`."""
    return {split: _open(config, split).fingerprint() for split in ("train", "validation")}


def _open(config: ConfigDict, split: Literal["train", "validation"]) -> sources.Source:
    return sources.open_source(
        config.data[split], split, scale=config.scale, tfds_dir=config.data.tfds_dir or None
    )


def open_validation(config: ConfigDict, warn: Callable[[str], None]) -> list[ImagePair]:
    """Return the validation set: whole images, the first `config.data.validation_images`."""
    options = config.data
    source = _open(config, "validation")
    # SSIM's window must fit once the border is cropped.
    least = 11 + 2 * config.scale
    return sources.load_all(
        source,
        min_size=least,
        warn=warn,
        most=options.validation_images or None,
    )
