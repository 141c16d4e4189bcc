"""Batches of crops from images on disk, with Grain: for data that does not fit device memory.

Batch b is a pure function of the source, the seed and b, so where a stream stands is one number,
whatever the number of its workers.
"""

import signal
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from isr_jax.data.choices import Choices, make_choices
from isr_jax.data.examples import Decoded, UnusableImageError, shrink, stacked
from isr_jax.data.loading import load_usable, no_usable_image
from isr_jax.data.sources import Source
from isr_jax.processes import end_with_parent


class Stream:
    """An endless iterator over batches; made by `open_stream`.

    A batch is {"lr": uint8 [batch, crop/scale, crop/scale, c], "hr": uint8 [batch, crop, crop, c]},
    uint16 where a file of the batch has more than 8 bits, and, where asked for, "own": bool
    [batch], whether LR is the source's own.
    """

    def __init__(
        self, batches: grain.MapDataset, *, workers: int, warn: Callable[[str], None]
    ) -> None:
        self._batches = batches
        self._workers = workers
        self._warn = warn
        self._named: set[str] = set()
        self._next = 0
        self._iterator: grain.DatasetIterator | None = None

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        if self._iterator is None:
            self._iterator = _iterate(self._batches[self._next :], workers=self._workers)
        element = next(self._iterator)
        self._next += 1
        for skipped in element["skipped"]:
            if skipped not in self._named:
                self._named.add(skipped)
                self._warn(f"replaced {skipped}")
        return {name: x for name, x in element.items() if name != "skipped"}

    def get_state(self) -> dict[str, int]:
        """Return where the stream stands, fit for JSON: the number of the next batch."""
        return {"next": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        """Continue from where `get_state` was called on a stream opened alike (any `workers`)."""
        self.close()
        self._next = state["next"]

    def close(self) -> None:
        """End the worker threads and processes; the next batch would start them again."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None


def open_stream(
    source: Source,
    *,
    crop: int,
    batch: int,
    seed: int,
    choices: Choices | None = None,
    flagged: bool = False,
    workers: int = 0,
    process: tuple[int, int] = (0, 1),
    warn: Callable[[str], None],
) -> Stream:
    """Return an endless stream of shuffled random crops of every image of `source`.

    Each epoch visits every image once, in a new order, and takes one crop from it at a uniformly
    random position (a multiple of the scale in HR pixels), flipped and rotated by one of the eight
    symmetries of the square. Where choices have chances, each crop is of an image drawn by them
    instead. LR crops are cut from the source's own LR images, or else are exactly
    what the bicubic of the whole HR image has there. An image that is unreadable or smaller than
    the crop is replaced by the next one in the source's order.

    Args:
        source: where the images are.
        crop: side of the HR crop in pixels, divisible by the scale.
        batch: number of examples in a batch.
        seed: of everything random; 0 <= seed < 2**32.
        choices: the images, and whether their own LR images are used; by default, all of the
            source, with their own.
        flagged: whether batches have "own".
        workers: number of processes that decode images; 0 decodes in threads of this one.
        process: (i, n): of n processes that train together, the ith, from 0. It gets the ith of n
            equal parts of every batch.
        warn: called once for each image that is replaced, with one line.

    Raises:
        UserError: no image of the source can be used.
    """
    # Checked here, not by a worker during training: with one good image `_Cut` never fails.
    _usable_from(source, 0, min_size=crop)
    i, n = process
    if choices is None:
        everything = np.arange(len(source), dtype=np.int32)
        choices = make_choices(source, everything, None, weights=(), paired_share=1.0)
    batches = (
        grain.MapDataset.range(len(choices.image))
        .seed(seed)
        .shuffle()
        .repeat(2**40)  # as good as endless, whose length would overflow in batches of one
        .random_map(_Cut(source, choices, crop=crop, flagged=flagged))
        .batch(batch // n, batch_fn=_stack)
    )[i::n]
    return Stream(batches, workers=workers, warn=warn)


def _iterate(batches: grain.MapDataset, *, workers: int) -> grain.DatasetIterator:
    # Grain's defaults (16 threads, 500 elements) are for small records: these are whole batches.
    ahead = grain.ReadOptions(num_threads=4, prefetch_buffer_size=4)
    dataset = batches.to_iter_dataset(ahead)
    if workers:
        # Grain's processes read absl flags, which a notebook or a test never parses.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers)
        dataset = dataset.mp_prefetch(options, worker_init_fn=_begin_worker)
    return iter(dataset)


def _begin_worker(worker: int, count: int) -> None:
    """Leave it to the process that reads from a worker when to end: on Ctrl-C, and when killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


class _Cut:
    """(index of a choice, random generator) -> one example. A class, so that it can be pickled."""

    def __init__(self, source: Source, choices: Choices, *, crop: int, flagged: bool) -> None:
        self._source, self._choices, self._crop = source, choices, crop
        self._flagged = flagged

    def __call__(self, i: int, rng: np.random.Generator) -> dict[str, Any]:
        image, own, chances = self._choices
        if chances is not None:
            i = min(int(np.searchsorted(chances, rng.random(), side="right")), len(image) - 1)
        photo, skipped = _usable_from(self._source, int(image[i]), min_size=self._crop)
        used = bool(own[i]) and photo.lr is not None
        photo = photo if used else photo._replace(lr=None)
        lr, hr = _cut(photo, rng, scale=self._source.scale, crop=self._crop)
        example = {"lr": lr, "hr": hr, "skipped": skipped}
        return example | ({"own": np.array(used)} if self._flagged else {})


def _usable_from(source: Source, i: int, *, min_size: int) -> tuple[Decoded, list[str]]:
    """Return the first usable image from `i` on, cyclically, and why earlier ones were skipped.

    Raises:
        UserError: there is none.
    """
    skipped: list[UnusableImageError] = []
    for j in range(len(source)):
        try:
            photo = load_usable(source, (i + j) % len(source), min_size=min_size)
        except UnusableImageError as error:
            skipped.append(error)
        else:
            return photo, [str(error) for error in skipped]
    raise no_usable_image(source, skipped[0])


def _cut(
    photo: Decoded, rng: np.random.Generator, *, scale: int, crop: int
) -> tuple[np.ndarray, np.ndarray]:
    size = crop // scale
    y, x = (int(rng.integers(length // scale - size + 1)) for length in photo.hr.shape[:2])
    k = int(rng.integers(8))
    rows, cols = (y, y + size), (x, x + size)
    if photo.lr is None:
        lr = shrink(photo.hr, scale=scale, rows=rows, cols=cols)
    else:
        lr = photo.lr[slice(*rows), slice(*cols)]
    y, x = y * scale, x * scale
    return _dihedral(lr, k), _dihedral(photo.hr[y : y + crop, x : x + crop], k)


def _dihedral(image: np.ndarray, k: int) -> np.ndarray:
    """Apply `images.dihedral` to one NumPy image: a worker process must not acquire a GPU."""
    image = image[::-1] if k & 1 else image
    image = image[:, ::-1] if k & 2 else image
    return image.swapaxes(0, 1) if k & 4 else image


def _stack(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    batch: dict[str, Any] = {
        name: stacked([example[name] for example in examples])
        for name in examples[0]
        if name != "skipped"
    }
    return batch | {"skipped": [line for example in examples for line in example["skipped"]]}
