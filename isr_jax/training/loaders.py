"""Where batches come from: the pool in device memory, whole or sharded, or the Grain stream."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from isr_jax import distributed
from isr_jax.config import sampled_crop
from isr_jax.data import loading, pool, sources
from isr_jax.data.choices import Choices, make_choices, scored_on_own, share_of_pairs
from isr_jax.data.derived import at_sizes, in_gray
from isr_jax.data.examples import ImagePair, stacked, without_own
from isr_jax.errors import UserError
from isr_jax.models.generators import channels_of
from isr_jax.protocols import least_side
from isr_jax.training.program import AXIS, Devices, Inputs, on_all
from isr_jax.training.validation import degraded


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

    def __init__(self, images: pool.Pool, *, frozen: Any) -> None:
        """Keep a pool and the frozen parameters, which are on the devices."""
        self._inputs = Inputs(frozen=frozen, images=images)

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

    def __init__(self, batches: Any, *, frozen: Any, devices: Devices) -> None:
        """Keep a `data.stream.Stream`, and the frozen parameters, which are on the devices."""
        self._batches, self._frozen, self._devices = batches, frozen, devices

    def take(self, n: int) -> Inputs:
        """Return the next n batches, stacked."""
        drawn = [next(self._batches) for _ in range(n)]
        images = {name: stacked([batch[name] for batch in drawn]) for name in drawn[0]}
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
    source = open_images(config, "train")
    for fault in source.faults:
        warn(f"skipped {fault}")
    _check_own(config, source, warn)
    placed = distributed.on_devices(frozen, on_all(devices))
    if options.loader != "stream":
        return PoolLoader(_load_pool(source, config, devices, warn=warn), frozen=placed)
    # Imported late: the pool does not need Grain.
    from isr_jax.data.stream import open_stream

    batches = open_stream(
        source,
        choices=choices_of(config, source, np.arange(len(source))),
        flagged=options.degradation != "bicubic",
        crop=sampled_crop(config),
        batch=options.batch,
        seed=config.seed,
        workers=options.workers,
        process=(jax.process_index(), jax.process_count()),
        warn=warn,
    )
    return StreamLoader(batches, frozen=placed, devices=devices)


def _check_own(config: ConfigDict, source: sources.Source, warn: Callable[[str], None]) -> None:
    """Check what depends on whether any image has an LR image of its own."""
    options = config.data
    if any(source.paired(i) for i in range(len(source))):
        return
    if config.scale == 1 and options.degradation == "bicubic":
        raise UserError(
            f"{source.name} has no LR images, and at config.scale=1 bicubic ones are the images "
            "themselves: give pairs:HR:LR, or another config.data.degradation"
        )
    if options.paired_share is not None:
        warn(
            f"config.data.paired_share has no effect: no image of {source.name} has an LR image "
            "of its own"
        )


def choices_of(
    config: ConfigDict, source: sources.Source, images: Int[np.ndarray, " n"]
) -> Choices:
    """Return what crops are drawn from, among images of `data.train`."""
    options = config.data
    areas = None
    if options.weight_by == "area":
        with ThreadPoolExecutor(os.cpu_count()) as executor:
            areas = np.array([*executor.map(source.area, images.tolist())], np.float64)
    share = share_of_pairs(
        degradation=options.degradation,
        paired_share=options.paired_share,
        spec=options.train,
    )
    return make_choices(source, images, areas, weights=options.weights, paired_share=share)


def _load_pool(
    source: sources.Source, config: ConfigDict, devices: Devices, *, warn: Callable[[str], None]
) -> pool.Pool:
    """Return a pool on the devices: whole on each, or a part on each, of a sharded one.

    Image i of the source is in part i % devices. Every process decodes the images of its own parts,
    and the processes tell each other the sizes.
    """
    sharded, me = config.data.loader == "sharded_pool", jax.process_index()
    parts = len(devices) if sharded else 1
    mine = [i for i, device in enumerate(devices) if device.process_index == me] if sharded else [0]
    part = np.arange(len(source), dtype=np.int32) % parts
    numbers = np.flatnonzero(np.isin(part, mine)).tolist()
    photos, errors = loading.load_some(
        source, numbers, min_size=sampled_crop(config), keep_bits=True
    )
    for error in errors:
        warn(f"skipped {error}")
    known = np.zeros((len(source), 3), np.int32)
    for i, photo in photos.items():
        deep = np.uint16 in (photo.hr.dtype, photo.lr.dtype)
        known[i] = *photo.hr.shape[:2], deep
    if sharded:
        known = distributed.summed(known)
    usable = np.flatnonzero(known[:, 0])
    if not usable.size:
        raise loading.no_usable_image(source, errors[0] if errors else None)
    if skipped := len(source) - len(usable):
        warn(f"{source.name}: skipped {skipped} of {len(source)} images")
    choices = choices_of(config, source, usable)
    degraded = config.data.degradation != "bicubic"
    table = pool.Table(
        known[choices.image, :2],
        part[choices.image],
        choices.image,
        np.zeros(0, np.float32) if choices.chances is None else choices.chances.astype(np.float32),
        choices.own if degraded and choices.own.any() else np.zeros(0, bool),
    )
    chosen = {
        n: photos[i] if own else without_own(photos[i], scale=source.scale)
        for n, (i, own) in enumerate(zip(choices.image.tolist(), choices.own.tolist(), strict=True))
        if i in photos
    }
    deep = bool(known[:, 2].any())
    images = pool.make_parts(
        chosen,
        table,
        scale=source.scale,
        parts=parts,
        mine=mine,
        deep=deep,
        channels=channels_of(config),
    )
    whole = on_all(devices)
    split = on_all(devices, axis=AXIS) if sharded else whole
    shardings = [split if name in pool.PAGES else whole for name in pool.Pool._fields]
    return pool.Pool(*map(distributed.on_devices, images, shardings))


def fingerprints(config: ConfigDict) -> dict[str, str]:
    """Return the fingerprint of the images of `data.train` and `data.validation`."""
    return {split: open_images(config, split).fingerprint() for split in ("train", "validation")}


def open_images(config: ConfigDict, split: Literal["train", "validation"]) -> sources.Source:
    """Open the images of `data.train` or `data.validation`, in gray for a generator of gray.

    Those that are trained on are there at the sizes of `data.resized` too.

    Raises:
        UserError: as for `sources.open_source`.
    """
    source = sources.open_source(
        config.data[split], split, scale=config.scale, tfds_dir=config.data.tfds_dir or None
    )
    if split == "train" and config.data.resized:
        source = at_sizes(source, config.data.resized, least=sampled_crop(config))
    return in_gray(source) if channels_of(config) == 1 else source


def open_validation(config: ConfigDict, warn: Callable[[str], None]) -> list[ImagePair]:
    """Return the validation set: whole images, the first `config.data.validation_images`.

    Their LR images are made as those that are trained on: the data set's own where training uses
    such, or those of `config.data.degradation`, always the same.
    """
    options = config.data
    source = open_images(config, "validation")
    least = least_side(config.scale)
    photos = loading.load_all(
        source,
        min_size=least,
        warn=warn,
        most=options.validation_images or None,
        remedy=f"give config.data.validation readable images of {least}x{least} pixels or more",
    )
    own = scored_on_own(
        degradation=options.degradation,
        paired_share=options.paired_share,
        spec=options.validation,
    )
    if not own:
        photos = [without_own(photo, scale=config.scale) for photo in photos]
    return degraded(photos, config)
