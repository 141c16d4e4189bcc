"""Benchmark sets on disk: folders of HR images and of their LR images.

A set is recognised by the names of its folders, in upper or lower case, at any depth, in any of
these layouts:

    SET/hr/NAME.png             SET/lr/NAME.png               or SET/x4/hr and SET/x4/lr
    SET/HR/NAME.png             SET/LR_bicubic/X4/NAMEx4.png, or SET/LR/X4   (EDSR)
    SET/GTmod12/NAME.png        SET/LRbicx4/NAME.png                         (BasicSR)
    SET/DIV2K_valid_HR/...      SET/DIV2K_valid_LR_bicubic/X4/...            (DIV2K)

The LR image of NAME or NAME_HR is NAME, NAMEx4, NAME_x4, x4_NAME or NAME_LR, or what has several of
these marks, in upper or lower case. Where a set has no folder of LR images, they are made by the
exact bicubic of its HR images; a folder that is there is never passed over.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt16

from isr_jax.data.examples import Pixels, UnusableImageError, decode_image, fit, shrink
from isr_jax.errors import UserError
from isr_jax.photo.finding import is_photo
from isr_jax.photo.formats import KINDS
from isr_jax.photo.pixels import to_16_bits
from isr_jax.photo.reading import open_photo

# The folder of HR images, and that of LR images, in lower case.
LAYOUTS = (
    ("hr", "lr_bicubic/x{scale}"),
    ("hr", "lr/x{scale}"),
    ("hr", "lr"),
    ("gtmod12", "lrbicx{scale}"),
    ("div2k_valid_hr", "div2k_valid_lr_bicubic/x{scale}"),
)


class PairFiles(NamedTuple):
    """The files of one image; lr is None where it is made by the exact bicubic of hr."""

    name: str
    hr: Path
    lr: Path | None


class BenchmarkSet(NamedTuple):
    """The images of a set at one scale.

    Attributes:
        name: the path of its folder below the one that was searched.
        scale: the scale factor.
        pairs: the images, in natural order of their names.
        faults: a line for each file that has no counterpart.
    """

    name: str
    scale: int
    pairs: tuple[PairFiles, ...]
    faults: tuple[str, ...]


def find_sets(data: str | Path, *, scales: Sequence[int] = ()) -> list[BenchmarkSet]:
    """Find every set at or below a folder, at each requested scale that it has.

    Args:
        data: a set, or a tree of sets.
        scales: the requested scales; none for all those of the LR images. A set without LR images
            has every scale.

    Raises:
        UserError: there is no folder or no set, no set has a requested scale, or a set has no LR
            images and no scale was requested.
    """
    root = Path(data).expanduser()
    if not root.is_dir():
        raise UserError(f"{data} is not a folder: name one that holds hr/, or sets that do")
    found = [(folder, *layout) for folder, layout in _layouts(root)]
    if not found:
        raise UserError(
            f"{data} holds no benchmark set: put HR images into hr/ and their LR images, where "
            "there are any, into lr/ by the same names"
        )
    sets: list[BenchmarkSet] = []
    known: set[int] = set()
    for folder, hr, lr_folders in found:
        name, lr_of = _name_and_scales(folder, root, hr, lr_folders)
        if not lr_of and not scales:
            raise UserError(f"{folder} has no LR images to infer its scale from: give the scale")
        known |= set(lr_of)
        wanted = [s for s in scales or lr_of if s in lr_of or not lr_of]
        sets += [_paired(name, scale, hr, lr_of.get(scale)) for scale in wanted]
    for scale in set(scales) - {found.scale for found in sets}:
        has = ", ".join(map(str, sorted(known)))
        raise UserError(f"{data} has no set at scale {scale}; it has {has}")
    return sorted(sets, key=lambda found: (_natural(found.name), found.scale))


def pair_folders(hr: Path, lr: Path, *, scale: int) -> BenchmarkSet:
    """Pair the images directly in two folders by their names.

    Raises:
        UserError: there is no such folder.
    """
    for folder in (hr, lr):
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder: name one of HR and one of LR images")
    return _paired(hr.name, scale, hr, lr)


def lr_folders(root: Path) -> set[Path]:
    """Return the folders of LR images of every set at or below a folder."""
    return {folder for _, (_, folders) in _layouts(root) for folder in folders.values()}


def load_pair(
    pair: PairFiles, *, scale: int
) -> tuple[
    UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"],
    UInt8[np.ndarray, "sh sw *c"] | UInt16[np.ndarray, "sh sw *c"],
]:
    """Decode a pair as (LR, HR), with HR cropped to scale times the size of LR.

    One channel of gray stays one channel, [h, w], where both files have just that. Both images are
    uint16 where one of the files has more than 8 bits: 8-bit values are the same fractions of 65535
    there.

    Raises:
        UserError: naming the file that is unreadable, too small or of another scale.
    """
    hr = _read(pair.hr)
    lr = None if pair.lr is None else _read(pair.lr)
    if lr is not None and lr.ndim != hr.ndim:
        hr, lr = (np.stack([x] * 3, axis=-1) if x.ndim == 2 else x for x in (hr, lr))
    if lr is not None and lr.dtype != hr.dtype:
        hr, lr = to_16_bits(hr), to_16_bits(lr)
    _, hr, lr = fit(str(pair.lr or pair.hr), hr, lr, scale=scale)
    if not hr.size:
        raise UnusableImageError(f"{pair.hr}: smaller than {scale}x{scale} pixels")
    return (shrink(hr, scale=scale) if lr is None else lr), hr


def _read(file: Path) -> Pixels:
    try:
        opened = open(file, "rb")  # noqa: SIM115 (closed by the decoder)
    except OSError as error:
        raise UnusableImageError(f"{file}: {error.strerror}") from error
    return decode_image(opened, name=str(file), keep_gray=True, keep_bits=True)


Layout = tuple[Path, dict[int | None, Path]]


def _layouts(root: Path) -> Iterator[tuple[Path, Layout]]:
    """Yield each set's folder at or below root with its layout; hidden folders are skipped."""
    for path, below, _ in os.walk(root):
        layout = _layout(Path(path), set(below))
        below[:] = [] if layout else sorted(name for name in below if not name.startswith("."))
        if layout:
            yield Path(path), layout


def _layout(folder: Path, below: set[str]) -> Layout | None:
    """Return the HR folder and the LR folders by scale (None: not in the name), or None."""
    named = {name.casefold(): folder / name for name in sorted(below, reverse=True)}
    fitting = [(named[hr], _lr_folders(folder, lr)) for hr, lr in LAYOUTS if hr in named]
    # The first that has LR images, or else the first.
    return max(fitting, key=lambda layout: bool(layout[1]), default=None)


def _lr_folders(folder: Path, template: str) -> dict[int | None, Path]:
    name = re.compile(re.escape(template).replace(r"\{scale\}", r"(\d+)"), re.IGNORECASE)
    paths = [
        path for path in folder.glob("/".join("*" * (template.count("/") + 1))) if path.is_dir()
    ]
    matches = [
        (name.fullmatch(path.relative_to(folder).as_posix()), path) for path in sorted(paths)
    ]
    if "{" not in template:
        return dict([(None, path) for match, path in matches if match][:1])
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def _name_and_scales(
    folder: Path, root: Path, hr: Path, lr_folders: dict[int | None, Path]
) -> tuple[str, dict[int, Path | None]]:
    """Return a set's name, and the LR folder of each scale that it has."""
    parts = (root.resolve().name, *folder.relative_to(root).parts)
    named = re.fullmatch(r"[xX]([1-9]\d*)", parts[-1])
    if named:
        parts = parts[:-1] or (root.resolve().parent.name,)
    name = "/".join(parts[1:]) or parts[0]
    if named and (not lr_folders or None in lr_folders):
        return name, {int(named[1]): lr_folders.get(None)}
    if None in lr_folders:
        lr = lr_folders[None]
        scale = _scale_of(hr, lr)
        if not scale:
            fault = next(iter(_paired(name, 0, hr, lr).faults), f"the pairs of {lr} are unreadable")
            raise UserError(f"{fault}; rename the files, or remove {lr} to have LR images made")
        return name, {scale: lr}
    return name, {scale: path for scale, path in lr_folders.items() if scale}


def _scale_of(hr: Path, lr: Path) -> int | None:
    """Return the ratio of the sizes of the first pair that can be read."""
    truth = _files(hr)
    for name, files in _by_truth(_files(lr), truth, scale=None).items():
        try:
            heights = [_height(truth[name][0]), _height(files[0])]
        except (KeyError, UserError):
            continue
        return max(1, round(heights[0] / heights[1]))
    return None


def _height(file: Path) -> int:
    """Return the height that an image's header declares."""
    photo = open_photo(file)
    photo.close()
    return photo.head.sizes[0][1]


def _paired(name: str, scale: int, hr: Path, lr: Path | None) -> BenchmarkSet:
    """Pair the files by name."""
    truth = _files(hr)
    given = _by_truth(_files(lr), truth, scale=scale) if lr else {}
    pairs, faults = [], []
    for stem in sorted(truth.keys() | given.keys(), key=_natural):
        hrs, lrs = truth.get(stem, []), given.get(stem, []) if lr else [None]
        if len(hrs) == len(lrs) == 1:
            pairs.append(PairFiles(stem, hrs[0], lrs[0]))
        elif not lrs:
            faults.append(f"{hrs[0]}: no file in {lr} has its name")
        elif not hrs:
            faults.append(f"{lrs[0]}: no file in {hr} has its name")
        else:
            faults.append(f"{hrs[0]}: several files have its name; keep one")
    if not truth:
        faults = [f"{hr} holds no {KINDS} file"]
    elif not pairs:
        faults = [f"no image of {hr} has a counterpart (first, {faults[0]})"]
    return BenchmarkSet(name, scale, tuple(pairs), tuple(faults))


def _by_truth(
    files: Mapping[str, list[Path]], truth: Mapping[str, list[Path]], *, scale: int | None
) -> dict[str, list[Path]]:
    """Return LR files by the stems of their HR files, or by their own where they have none.

    Args:
        files: LR files by their stems.
        truth: HR files by their stems.
        scale: the scale factor in the names; None for any.
    """
    known = {stem: stem for stem in truth}
    for stem in truth:
        known.setdefault(stem.casefold(), stem)
    for stem in truth:
        known.setdefault(re.sub("[_-]hr$", "", stem.casefold()), stem)
    found: dict[str, list[Path]] = {}
    for stem, paths in files.items():
        names = _without_marks(stem, scale)
        names += [name.casefold() for name in names]
        own = next((known[name] for name in names if name in known), stem)
        found.setdefault(own, []).extend(paths)
    return found


def _without_marks(stem: str, scale: int | None) -> list[str]:
    """Return the names that an LR file can stand for, its own first."""
    factor, names = rf"x{scale or '[0-9]+'}", [stem]
    for name in names:  # grows
        for mark in (rf"[_-]?{factor}$", r"[_-]lr$", rf"^({factor}|lr)[_-]"):
            shorter = re.sub(mark, "", name, flags=re.IGNORECASE)
            names += [shorter] if shorter and shorter not in names else []
    return names


def _files(folder: Path) -> dict[str, list[Path]]:
    """Return the image files directly in a folder, by their stems."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if is_photo(path):
            files.setdefault(path.stem, []).append(path)
    return files


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts Set5 before Set14."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
