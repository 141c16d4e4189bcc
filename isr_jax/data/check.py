"""Look for what is wrong with folders of images, before a model is trained on them.

Every image is decoded as for training, a few at a time, and only its size, its contrast and a
perceptual hash are kept.
"""

import math
import os
import statistics
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
from jaxtyping import UInt8

from isr_jax.data.duplicates import CHANGES, Hash, nearest, perceptual_hash
from isr_jax.data.pairs import lr_folders
from isr_jax.errors import UserError, printable
from isr_jax.files import expanded
from isr_jax.photo.finding import all_files, closed_below, image_files, is_passed_over, say_closed
from isr_jax.photo.formats import KINDS
from isr_jax.photo.pixels import over_white, to_8_bits
from isr_jax.photo.reading import open_photo
from isr_jax.progress import image_bar

FLAT = 2.0  # levels of 255; the least contrast of an image that is not flat
_AT_ONCE = 2**26  # pixels of the images that are decoded at once, at about 20 bytes each
_STRIP = 2**20  # values that are converted at once


class FolderSummary(TypedDict):
    """What a folder holds; all but the first four count only images that can be read.

    Attributes:
        folder: as it was given.
        images: image files at any depth.
        lr_images: LR images of benchmark sets, which are left out of `images`.
        unreadable: files that cannot be decoded, folders that may not be read, and links to missing
            files.
        gray: images with one channel, or with three that are equal.
        deep: images with more than 8 bits per channel.
        alpha: images with transparency.
        megapixels: of all images together.
        sizes: how many different sizes there are.
        smallest_side: in pixels, of all widths and heights; None without images.
        median_side: likewise.
        largest_side: likewise.
    """

    folder: str
    images: int
    lr_images: int
    unreadable: int
    gray: int
    deep: int
    alpha: int
    megapixels: float
    sizes: int
    smallest_side: int | None
    median_side: float | None
    largest_side: int | None


class Unreadable(TypedDict):
    """A file or folder that cannot be read, and why."""

    file: str
    reason: str


class Tiny(TypedDict):
    """An image that is smaller than a crop."""

    file: str
    width: int
    height: int


class Flat(TypedDict):
    """An image with hardly any contrast, in levels of 255."""

    file: str
    contrast: float


class Duplicate(TypedDict):
    """An image that is nearly the same as another.

    Attributes:
        file: the image.
        of: the one that it is most like: of the folders, one before it; or one of `against`.
        against: the folder of `of`, where that is one of `against`; else None.
        distance: bits in which their hashes differ, 0 to 255.
        change: what makes `file` of `of`, such as "flipped left-right"; "" for nothing.
        others: how many more of these folders are near-duplicates of it.
    """

    file: str
    of: str
    against: str | None
    distance: int
    change: str
    others: int


class Report(TypedDict):
    """What `check` returns and `isr data check --json` writes.

    `passed_over` are files of `folders` that look like photos, of formats that are not read.
    """

    crop: int
    folders: list[FolderSummary]
    against: list[FolderSummary]
    passed_over: list[str]
    unreadable: list[Unreadable]
    tiny: list[Tiny]
    flat: list[Flat]
    duplicates: list[Duplicate]


class _Facts(NamedTuple):
    """What is kept of an image; `hash` is None where it is flat."""

    width: int
    height: int
    gray: bool
    deep: bool
    alpha: bool
    contrast: float
    hash: Hash | None


class _Folder(NamedTuple):
    """A folder as it was given, its image files, those that are left out, and what is closed.

    `passed_over` are files that look like photos, of formats that are not read.
    """

    name: str
    files: list[Path]
    lr_images: int
    closed: dict[Path, str]
    passed_over: list[Path]


class _Room:
    """Room in memory for so many pixels, which threads share."""

    def __init__(self, pixels: int) -> None:
        self._all = self._left = pixels
        self._given_back = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait for room; an image that is larger than all of it waits until it is alone."""
        pixels = min(pixels, self._all)
        with self._given_back:
            self._given_back.wait_for(lambda: self._left >= pixels)
            self._left -= pixels
        try:
            yield
        finally:
            with self._given_back:
                self._left += pixels
                self._given_back.notify_all()


def check(
    folders: Sequence[str | Path],
    *,
    against: Sequence[str | Path] = (),
    crop: int,
    progress: bool = False,
) -> Report:
    """Decode every image of some folders, and report what is wrong with them.

    Near-duplicates are looked for within the folders together, and between them and each of
    `against`, by `duplicates.perceptual_hash`; flat images take no part in it. LR images of
    benchmark sets, in the layouts of `data.pairs`, are left out.

    Args:
        folders: of images at any depth, such as those of a training set.
        against: the same, or benchmark sets, whose images should not be among them. Of these,
            unreadable files are reported, and neither tiny nor flat images.
        crop: images with a smaller height or width are tiny; the side of a training crop, pixels.
        progress: show a bar on standard error, where that is a terminal.

    Raises:
        UserError: a folder does not exist, holds no image, or lies within another one.
    """
    checked, compared = ([_open(folder) for folder in group] for group in (folders, against))
    _check_apart([*folders, *against])
    files = [file for folder in (*checked, *compared) for file in folder.files]
    with image_bar(shown=progress) as bar:
        task = bar.add_task("", total=len(files))
        looked: dict[Path, _Facts | str] = {}
        for file, facts in zip(files, _look_at_all(files), strict=True):
            looked[file] = facts
            bar.update(task, advance=1, description=printable(file.name))
    looked |= {file: why for folder in (*checked, *compared) for file, why in folder.closed.items()}
    ours = _readable(checked, looked)
    return {
        "crop": crop,
        "folders": [_summary(folder, looked) for folder in checked],
        "against": [_summary(folder, looked) for folder in compared],
        "passed_over": [str(file) for folder in checked for file in folder.passed_over],
        "unreadable": [
            {"file": str(file), "reason": facts}
            for file, facts in looked.items()
            if isinstance(facts, str)
        ],
        "tiny": [
            {"file": str(file), "width": facts.width, "height": facts.height}
            for file, facts in ours.items()
            if min(facts.width, facts.height) < crop
        ],
        "flat": [
            {"file": str(file), "contrast": facts.contrast}
            for file, facts in ours.items()
            if facts.hash is None
        ],
        "duplicates": [
            *_duplicates(ours, None, None),
            *(
                duplicate
                for folder in compared
                for duplicate in _duplicates(ours, _readable([folder], looked), folder.name)
            ),
        ],
    }


def contrast(pixels: UInt8[np.ndarray, "h w *c"]) -> float:
    """Return the RMS contrast of an image, in levels of 255.

    It is the standard deviation over all pixels, of the channel where that is largest.
    """
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    totals, squares = np.zeros(channels), np.zeros(channels)
    for strip in _strips(pixels):
        values = np.ascontiguousarray(strip.reshape(-1, channels).T, np.float64)
        totals += values.sum(axis=1)
        squares += np.einsum("cn,cn->c", values, values)
    means = totals * channels / pixels.size
    variances = squares * channels / pixels.size - np.square(means)
    return math.sqrt(max(0.0, variances.max()))


def _strips(pixels: UInt8[np.ndarray, "h w *c"]) -> Iterator[UInt8[np.ndarray, "rows w *c"]]:
    """Yield an image in strips of rows, of a bounded size."""
    rows = max(1, _STRIP // pixels[0].size)
    return (pixels[start : start + rows] for start in range(0, len(pixels), rows))


def _check_apart(folders: Sequence[str | Path]) -> None:
    """Raise a UserError where a folder is another one, or lies within it."""
    places = [expanded(folder).resolve() for folder in folders]
    for i, place in enumerate(places):
        for j, other in enumerate(places):
            if i != j and (other == place or other in place.parents):
                raise UserError(
                    f"{folders[i]} lies within {folders[j]}, so that each of its images would be "
                    "a duplicate of itself: name folders that hold different files"
                )


def _open(folder: str | Path) -> _Folder:
    """Find the images of a folder."""
    root = expanded(folder)
    if not root.is_dir():
        what = "is a file" if root.is_file() else "does not exist"
        raise UserError(f"{folder} {what}: name a folder of images")
    lr, closed = lr_folders(root), closed_below(root)
    found = image_files(root)
    files = [file for file in found if not any(path in lr for path in file.parents)]
    if not files:
        why = f" ({say_closed(closed)})" if closed else ""
        raise UserError(f"{folder} holds no {KINDS} file{why}: name another folder")
    passed_over = [file for file in all_files(root) if is_passed_over(file)]
    return _Folder(str(folder), files, len(found) - len(files), closed, passed_over)


def _look_at_all(files: Sequence[Path]) -> Iterator[_Facts | str]:
    """Yield what is to know of each file, or why it cannot be read."""
    room = _Room(_AT_ONCE)
    # Decoding and NumPy both release the interpreter lock, so threads are enough.
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield from pool.map(lambda file: _look_at(file, room), files)
    finally:
        # On Ctrl-C, threads finish only what they have begun.
        pool.shutdown(cancel_futures=True)


def _look_at(file: Path, room: _Room) -> _Facts | str:
    """Return what is to know of a file, or why it cannot be read."""
    try:
        photo = open_photo(file)
        try:
            with room.taken(math.prod(photo.head.sizes[0])):
                stored = next(photo.read(first_only=True).pages).pixels
                pixels = to_8_bits(over_white(stored))
                found = contrast(pixels)
                return _Facts(
                    width=pixels.shape[1],
                    height=pixels.shape[0],
                    gray=pixels.ndim == 2 or all((s == s[..., :1]).all() for s in _strips(pixels)),
                    deep=photo.head.bits > 8,
                    alpha=stored.shape[2:] in ((2,), (4,)),
                    contrast=found,
                    hash=perceptual_hash(pixels) if found >= FLAT else None,
                )
        finally:
            photo.close()
    except UserError as error:
        reason = str(error).removeprefix(f"{printable(str(file))}: ")
        return reason.removeprefix("unreadable: ")


def _readable(folders: Sequence[_Folder], looked: dict[Path, _Facts | str]) -> dict[Path, _Facts]:
    """Return the images of some folders that could be read."""
    found = {file: looked[file] for folder in folders for file in folder.files}
    return {file: facts for file, facts in found.items() if isinstance(facts, _Facts)}


def _summary(folder: _Folder, looked: dict[Path, _Facts | str]) -> FolderSummary:
    images = list(_readable([folder], looked).values())
    sides = [side for facts in images for side in (facts.width, facts.height)]
    return {
        "folder": folder.name,
        "images": len(folder.files),
        "lr_images": folder.lr_images,
        "unreadable": len(folder.files) - len(images) + len(folder.closed),
        "gray": sum(facts.gray for facts in images),
        "deep": sum(facts.deep for facts in images),
        "alpha": sum(facts.alpha for facts in images),
        "megapixels": sum(facts.width * facts.height for facts in images) / 1e6,
        "sizes": len({(facts.width, facts.height) for facts in images}),
        "smallest_side": min(sides, default=None),
        "median_side": statistics.median(sides) if sides else None,
        "largest_side": max(sides, default=None),
    }


def _duplicates(
    ours: dict[Path, _Facts], known: dict[Path, _Facts] | None, against: str | None
) -> list[Duplicate]:
    """Return our images that are nearly the same as a known one; as one before where None."""

    def hashed(images: dict[Path, _Facts]) -> dict[Path, Hash]:
        return {file: facts.hash for file, facts in images.items() if facts.hash is not None}

    mine = hashed(ours)
    theirs = None if known is None else hashed(known)
    names, other_names = list(mine), list(mine if theirs is None else theirs)
    found = nearest(list(mine.values()), None if theirs is None else list(theirs.values()))
    return [
        {
            "file": str(names[match.image]),
            "of": str(other_names[match.of]),
            "against": against,
            "distance": match.distance,
            "change": CHANGES[match.change],
            "others": match.others,
        }
        for match in found
    ]
