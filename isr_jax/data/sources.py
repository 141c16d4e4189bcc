"""Where photographs come from: folders, pairs of folders, lists, TFDS data sets, or several.

A source is a small immutable object with a `name`, a length, and `load(i)`, which reads image `i`
from disk whenever it is asked: random access, no state, cheap to pickle for worker processes.
Pixels are RGB, uint8 or, of files with more bits, uint16. Embedded colour profiles are ignored, as
the literature's loaders do.
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from isr_jax.data.examples import (
    Decoded,
    UnusableImageError,
    area_of,
    decode_image,
    fit,
)
from isr_jax.data.pairs import PairFiles, find_sets, pair_folders
from isr_jax.errors import UserError
from isr_jax.files import expanded
from isr_jax.photo.finding import closed_below, image_files, say_closed
from isr_jax.photo.formats import KINDS


@runtime_checkable
class Source(Protocol):
    """A finite, ordered collection of photographs on disk."""

    @property
    def name(self) -> str:
        """The user's name for it, for messages."""
        ...

    @property
    def scale(self) -> int:
        """The scale factor between HR and LR."""
        ...

    @property
    def faults(self) -> tuple[str, ...]:
        """A line for each file that is left out."""
        ...

    def __len__(self) -> int: ...

    def load(self, i: int) -> Decoded:
        """Decode image `i`, 0 <= i < len; raise `UnusableImageError` where it is unreadable."""
        ...

    def paired(self, i: int) -> bool:
        """Return whether image `i` has an LR image of its own."""
        ...

    def area(self, i: int) -> int:
        """Return the number of HR pixels of image `i`, by its header; 0 if it cannot be read."""
        ...

    def fingerprint(self) -> str:
        """Return a line that is the same as long as the images are: their number, and a digest."""
        ...


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """Image files below `root`; `files` are POSIX paths relative to it, which name the images."""

    name: str
    scale: int
    root: Path
    files: tuple[str, ...]
    faults: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def load(self, i: int) -> Decoded:
        """Decode file `i`; raise `UnusableImageError` where it is unreadable."""
        file = self.files[i]
        return fit(file, _decode(self.root / file, name=file), None, scale=self.scale)

    def paired(self, i: int) -> bool:
        """Return False: LR images are made of the HR images."""
        return False

    def area(self, i: int) -> int:
        """Return the number of pixels of file `i`."""
        return area_of(self.root / self.files[i])

    def fingerprint(self) -> str:
        """Return the number of files, and a digest of their names and sizes."""
        return fingerprint([(file, (self.root / file).stat().st_size) for file in self.files])


@dataclasses.dataclass(frozen=True)
class PairSource:
    """HR files with their LR files, as `data.pairs` finds them."""

    name: str
    scale: int
    files: tuple[PairFiles, ...]
    faults: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def load(self, i: int) -> Decoded:
        """Decode pair `i`.

        Raises:
            UnusableImageError: a file of it is unreadable.
            UserError: the LR image is not `scale` times smaller than the HR image.
        """
        pair = self.files[i]
        hr = _decode(pair.hr, name=str(pair.hr))
        lr = None if pair.lr is None else _decode(pair.lr, name=str(pair.lr))
        return fit(str(pair.lr or pair.hr), hr, lr, scale=self.scale)

    def paired(self, i: int) -> bool:
        """Return whether pair `i` has an LR file."""
        return self.files[i].lr is not None

    def area(self, i: int) -> int:
        """Return the number of HR pixels of pair `i`."""
        return area_of(self.files[i].hr)

    def fingerprint(self) -> str:
        """Return the number of files, and a digest of their names and sizes."""
        files = [file for pair in self.files for file in (pair.hr, pair.lr) if file]
        return fingerprint(sorted({(file.as_posix(), file.stat().st_size) for file in files}))


@dataclasses.dataclass(frozen=True)
class SeveralSources:
    """Several sources, one after the other."""

    name: str
    scale: int
    parts: tuple[Source, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """Those of all."""
        return tuple(line for part in self.parts for line in part.faults)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def load(self, i: int) -> Decoded:
        """Decode image `i`, as its source does."""
        part, j = self.place(i)
        return self.parts[part].load(j)

    def paired(self, i: int) -> bool:
        """Return whether image `i` has an LR image of its own."""
        part, j = self.place(i)
        return self.parts[part].paired(j)

    def area(self, i: int) -> int:
        """Return the number of HR pixels of image `i`."""
        part, j = self.place(i)
        return self.parts[part].area(j)

    def place(self, i: int) -> tuple[int, int]:
        """Return the number of the source of image `i`, and the image's number in it."""
        ends = [*accumulate(map(len, self.parts))]
        part = int(np.searchsorted(ends, i, side="right"))
        return part, i - ends[part] + len(self.parts[part])

    def fingerprint(self) -> str:
        """Return those of all."""
        return " + ".join(part.fingerprint() for part in self.parts)


def _decode(path: Path, *, name: str) -> np.ndarray:
    try:
        opened = open(path, "rb")  # noqa: SIM115 (closed by the decoder)
    except OSError as error:
        raise UnusableImageError(f"{name}: {error.strerror}") from error
    return decode_image(opened, name=name, keep_bits=True)


def fingerprint(sizes: Sequence[tuple[str, int]]) -> str:
    """Return the number of images, and the first digits of a SHA-256 of their names and sizes.

    Their order counts, and how often one is named: images are drawn by number.
    """
    digest = hashlib.sha256(repr(list(sizes)).encode("utf-8", "surrogatepass"))
    return f"{len(sizes)} images ({digest.hexdigest()[:12]})"


def open_source(
    spec: Any,
    split: Literal["train", "validation"],
    *,
    scale: int,
    tfds_dir: str | None = None,
) -> Source:
    """Open the data that `spec` names; a TFDS data set is prepared on first use.

    Args:
        spec: one of the following, or several.
            `samples`: the embedded photographs.
            `folder:PATH`: every file below PATH of a format that is read.
            `pairs:HR:LR`: a folder of HR images, and one of their LR images by the same names, or
            NAMEx4 at scale 4; `pairs:SET`: sets that `data.pairs` knows.
            `list:FILE[:FOLDER]`: the files that a text names, a line each, relative to FOLDER, by
            default that of the list; a size in parentheses after the name is ignored.
            `tfds:NAME[:SPLIT]`: NAME may hold config and version (`tfds:div2k/bicubic_x4`), and
            SPLIT may be a slice (`tfds:div2k/bicubic_x4:train[:80%]`).
        split: of `samples`, and of a TFDS data set without a SPLIT of its own ("validation" falls
            back to "test"). Files have no splits.
        scale: HR images are cropped at the bottom and right to a multiple of it; the data set's own
            LR images must be this many times smaller than its HR images.
        tfds_dir: where TFDS keeps data sets; None is TFDS's default, `~/tensorflow_datasets`.

    Raises:
        UserError: there is no such data, it cannot be prepared or has no images, or its own LR
            images are of another scale.
    """
    if not isinstance(spec, str):
        if not spec or not isinstance(spec, (tuple, list)):
            raise UserError(f"data source {spec!r}: give a text such as folder:PATH, or several")
        for one in spec:
            if not isinstance(one, str):
                raise UserError(f"data source {one!r}: give a text such as folder:PATH")
        parts = tuple(open_source(one, split, scale=scale, tfds_dir=tfds_dir) for one in spec)
        return SeveralSources(" + ".join(part.name for part in parts), scale, parts)
    kind, _, rest = spec.partition(":")
    # Imported here: TFDS takes seconds, and folders do without it.
    if spec == "samples":
        from isr_jax.data.tfds import open_samples

        return open_samples(split, scale=scale, tfds_dir=tfds_dir)
    if kind == "folder" and rest:
        return _open_folder(rest, scale=scale)
    if kind == "pairs" and rest:
        return _open_pairs(rest, scale=scale)
    if kind == "list" and rest:
        return _open_list(rest, scale=scale)
    if kind == "tfds" and rest:
        from isr_jax.data.tfds import open_tfds

        return open_tfds(spec, split, scale=scale, tfds_dir=tfds_dir)
    is_folder = spec != "" and expanded(spec).is_dir()
    kinds = "samples, folder:PATH, pairs:HR:LR, list:FILE or tfds:NAME[:SPLIT]"
    choices = f"folder:{spec}" if is_folder else kinds
    raise UserError(f"unknown data source {spec!r}: use {choices}")


def _open_folder(path: str, *, scale: int) -> FolderSource:
    root, name = expanded(path), f"folder:{path}"
    if root.is_file():
        raise UserError(f"{name} is a file: name the folder that holds the images")
    if not root.is_dir():
        raise UserError(f"{name}: no such folder: check the path")
    files = [file.relative_to(root).as_posix() for file in image_files(root)]
    closed = closed_below(root)
    if not files:
        why = f" ({say_closed(closed)})" if closed else ""
        raise UserError(f"{name} holds no {KINDS} file{why}: name another folder")
    faults = tuple(f"{path}: {why}" for path, why in closed.items())
    return FolderSource(name, scale, root, tuple(files), faults)


def _open_pairs(rest: str, *, scale: int) -> PairSource:
    name = f"pairs:{rest}"
    hr, separator, lr = rest.partition(":")
    if separator and not (hr and lr):
        raise UserError(f"{name}: name both folders, as pairs:HR:LR")
    if separator:
        sets = [pair_folders(expanded(hr), expanded(lr), scale=scale)]
    else:
        sets = find_sets(hr, scales=(scale,))
    pairs = tuple(pair for found in sets for pair in found.pairs)
    faults = tuple(line for found in sets for line in found.faults)
    if not pairs:
        raise UserError(f"{name}: {faults[0]}")
    return PairSource(name, scale, pairs, faults)


def _open_list(rest: str, *, scale: int) -> FolderSource:
    name = f"list:{rest}"
    file, _, folder = rest.partition(":")
    path = expanded(file)
    root = expanded(folder) if folder else path.parent
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text"
        raise UserError(f"{name}: {reason}: name a text file of paths") from error
    # As in BasicSR's meta_info files: 0001_s001.png (480,480,3)
    files = [re.sub(r"\s*\([\d, ]*\)$", "", line.strip()) for line in lines]
    files = [file for file in files if file and not file.startswith("#")]
    if not files:
        raise UserError(f"{name} names no file")
    missing = [file for file in files if not (root / file).is_file()]
    if len(missing) == len(files):
        raise UserError(f"{name}: none of its files is in {root} (first, {files[0]})")
    faults = tuple(f"{file}: no such file in {root}" for file in missing)
    there = tuple(file for file in files if file not in set(missing))
    return FolderSource(name, scale, root, there, faults)
