"""TFDS data sets as sources: the embedded samples, and any that TensorFlow Datasets knows."""

import atexit
import contextlib
import dataclasses
import io
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from isr_jax.data.examples import Decoded, UnusableImageError, area_of, decode_image, fit
from isr_jax.data.prepare import find_builder, prepare
from isr_jax.data.samples import IsrSamples
from isr_jax.errors import UserError, one_line
from isr_jax.files import expanded, is_writable


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsSource:
    """One split of a prepared TFDS data set: `records` gives undecoded examples by index."""

    name: str
    scale: int
    records: Sequence[dict[str, Any]]
    hr_key: str
    lr_key: str | None
    name_key: str | None

    def __len__(self) -> int:
        return len(self.records)

    def load(self, i: int) -> Decoded:
        """Decode example `i`.

        Raises:
            UnusableImageError: its HR or LR image is unreadable.
            UserError: its LR image is not `scale` times smaller than its HR image.
        """
        record = self.records[i]
        name = record[self.name_key].decode() if self.name_key else f"{self.name}[{i}]"
        hr = decode_image(io.BytesIO(record[self.hr_key]), name=name)
        lr = None
        if self.lr_key:
            lr = decode_image(io.BytesIO(record[self.lr_key]), name=f"{name} (LR)")
        return fit(name, hr, lr, scale=self.scale)

    @property
    def faults(self) -> tuple[str, ...]:
        """Return none."""
        return ()

    def paired(self, i: int) -> bool:
        """Return whether the data set has LR images."""
        return self.lr_key is not None

    def area(self, i: int) -> int:
        """Return the number of HR pixels of example `i`."""
        return area_of(io.BytesIO(self.records[i][self.hr_key]))

    def fingerprint(self) -> str:
        """Return the number of examples: TFDS keeps what a version of a data set holds."""
        return f"{self.name}, {len(self)} images"


def open_samples(split: str, *, scale: int, tfds_dir: str | None) -> TfdsSource:
    """Open a split of the embedded sample photos; arguments and errors of `sources.open_source`."""
    data_dir = _expand(tfds_dir)
    if data_dir is None and not _can_hold(IsrSamples().data_path):
        data_dir = _temporary_folder()
    builder = prepare(lambda: IsrSamples(data_dir=data_dir), "samples", quiet=True)
    return _tfds_source("samples", builder, split, scale=scale)


def _can_hold(data_set: os.PathLike[str]) -> bool:
    path = Path(data_set)
    return path.exists() or is_writable(path.parent)


@cache
def _temporary_folder() -> str:
    """Return a folder that is deleted when this process ends."""
    folder = tempfile.mkdtemp(prefix="isr-samples-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def open_tfds(spec: str, split: str, *, scale: int, tfds_dir: str | None) -> TfdsSource:
    """Open tfds:NAME[:SPLIT]; arguments and errors of `sources.open_source`."""
    name, chosen = _parse_tfds(spec.removeprefix("tfds:"))
    data_dir = _expand(tfds_dir)

    builder = prepare(lambda: find_builder(name, data_dir, spec), spec, quiet=False)
    splits = list(builder.info.splits)
    if chosen is None:
        wanted = ("train",) if split == "train" else ("validation", "test")
        chosen = next((s for s in wanted if s in splits), None)
        if chosen is None:
            raise UserError(
                f"{spec} has no {' or '.join(wanted)} split: choose one of {', '.join(splits)}, "
                f"such as tfds:{name}:{splits[0]}"
            )
    return _tfds_source(spec, builder, chosen, scale=scale)


def _parse_tfds(text: str) -> tuple[str, str | None]:
    """NAME[/CONFIG][:VERSION][:SPLIT] -> (all but SPLIT, SPLIT or None)."""
    # A version starts with a digit or a star, a split with a letter.
    match = re.fullmatch(r"([^:]+(?::[\d*][^:]*)?)(?::([A-Za-z_].*))?", text)
    if match is None:
        raise UserError(f"tfds:{text} is not tfds:NAME[/CONFIG][:VERSION][:SPLIT]: correct it")
    return match[1], match[2]


def _tfds_source(
    spec: str, builder: tfds.core.DatasetBuilder, split: str, *, scale: int
) -> TfdsSource:
    features = dict(getattr(builder.info.features, "items", dict)())
    # A LabeledImage holds classes and a uint16 one depths: neither is a photograph.
    images = [
        key
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image)
        and not isinstance(feature, tfds.features.LabeledImage)
        and feature.np_dtype == np.uint8
    ]
    if not images:
        raise UserError(f"{spec} holds no images: choose a data set with an image feature")
    hr_key = "hr" if "hr" in images else images[0]
    lr_key = "lr" if hr_key == "hr" and "lr" in images else None
    texts = [k for k, feature in features.items() if isinstance(feature, tfds.features.Text)]
    name_key = next((k for k in ("name", "file_name", "filename") if k in texts), None)

    random_access = tfds.core.FileFormat.with_random_access()
    stored = builder.info.file_format
    found = stored.value if stored else "other files"
    if not builder.info.available_file_formats() & random_access:
        raise UserError(
            f"{spec} is prepared in {builder.data_path} as {found}, which "
            "has no random access: move that folder away, or set another config.data.tfds_dir, to "
            "have it prepared as ArrayRecord"
        )
    skip = {key: tfds.decode.SkipDecoding() for key in images}
    read_split: Any = builder.as_data_source  # its decorator hides its parameters
    try:
        records = read_split(split=split, decoders=skip)
    # TFDS's answers to a bad or empty slice and to an unknown split.
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{spec}: there is nothing to read in {split} (the splits are "
            f"{', '.join(builder.info.splits)}): {one_line(error)}"
        ) from error
    source = TfdsSource(spec, scale, records, hr_key, lr_key, name_key)
    if lr_key:
        # A wrong scale is best told now, not after all the images are decoded.
        with contextlib.suppress(UnusableImageError):
            source.load(0)
    return source


def _expand(path: str | None) -> str | None:
    return str(expanded(path)) if path else None
