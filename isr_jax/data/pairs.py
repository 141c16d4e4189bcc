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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt16

from isr_jax.data.examples import Pixels, UnusableImageError, fit, shrink
from isr_jax.data.pair_names import by_truth, files_by_stem, match_names, natural
from isr_jax.errors import UserError
from isr_jax.files import expanded
from isr_jax.photo.formats import KINDS
from isr_jax.photo.pixels import over_white, to_16_bits
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
    """The files of one image.

    Attributes:
        name: of the HR file, without its suffix.
        hr: the HR image.
        lr: the LR image; None where it is made by the exact bicubic of hr.
        sr: an SR image that another program has made, where there is one.
    """

    name: str
    hr: Path
    lr: Path | None
    sr: Path | None = None


class Loaded(NamedTuple):
    """A decoded pair.

    Attributes:
        lr: the LR image; None where it was not asked for and there is no file.
        hr: the HR image, cropped to scale times the size of LR.
        size: height and width of the HR file.
        transparent: whether the HR file has transparent pixels.
        notices: what should be known of it.
    """

    lr: UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"] | None
    hr: UInt8[np.ndarray, "sh sw *c"] | UInt16[np.ndarray, "sh sw *c"]
    size: tuple[int, int]
    transparent: bool
    notices: tuple[str, ...]


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
    root = expanded(data)
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
        _refuse_unread(folder, read=any(lr_of.values()))
        if not lr_of and not scales:
            raise UserError(f"{folder} has no LR images to infer its scale from: give the scale")
        known |= set(lr_of)
        wanted = [s for s in scales or lr_of if s in lr_of or not lr_of]
        sets += [_paired(name, scale, hr, lr_of.get(scale)) for scale in wanted]
    for scale in set(scales) - {found.scale for found in sets}:
        has = ", ".join(map(str, sorted(known)))
        raise UserError(f"{data} has no set at scale {scale}; it has {has}")
    return sorted(sets, key=lambda found: (natural(found.name), found.scale))


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
    loaded = read_pair(pair, scale=scale)
    assert loaded.lr is not None
    return loaded.lr, loaded.hr


def read_pair(pair: PairFiles, *, scale: int, make_lr: bool = True) -> Loaded:
    """Decode a pair as `load_pair`, with what should be known of it.

    Args:
        pair: the files.
        scale: the scale factor.
        make_lr: make the LR image where there is no file of it.

    Raises:
        UserError: as of `load_pair`.
    """
    hr, transparent = read_image(pair.hr)
    notices: tuple[str, ...] = ()
    size, lr = (hr.shape[0], hr.shape[1]), None
    if pair.lr is not None:
        lr, hidden = read_image(pair.lr)
        notices = transparency_notices(hr=transparent, beside=hidden, other="LR")
        if lr.ndim != hr.ndim:
            hr, lr = (np.stack([x] * 3, axis=-1) if x.ndim == 2 else x for x in (hr, lr))
        if lr.dtype != hr.dtype:
            hr, lr = to_16_bits(hr), to_16_bits(lr)
    _, hr, lr = fit(str(pair.lr or pair.hr), hr, lr, scale=scale)
    if not hr.size:
        raise UnusableImageError(f"{pair.hr}: smaller than {scale}x{scale} pixels")
    lr = shrink(hr, scale=scale) if lr is None and make_lr else lr
    return Loaded(lr, hr, size, transparent, notices)


def transparency_notices(*, hr: bool, beside: bool, other: str) -> tuple[str, ...]:
    """Return a line where just one of two images has transparent pixels.

    Args:
        hr: whether HR has.
        beside: whether the other one has.
        other: LR or SR.
    """
    if hr == beside:
        return ()
    has, lacks = ("HR", other) if hr else (other, "HR")
    return (f"the {has} image has transparency, laid over white here, and the {lacks} image none",)


def read_image(file: Path) -> tuple[Pixels, bool]:
    """Decode a file upright, over white, and say whether it has transparent pixels.

    Gray stays one channel, [h, w], and 16 bits are kept.

    Raises:
        UnusableImageError: it is not an image, or a truncated or corrupt one.
    """
    try:
        photo = open_photo(file)
        try:
            pixels = next(photo.read(first_only=True).pages).pixels
        finally:
            photo.close()
    except UserError as error:
        raise UnusableImageError(str(error)) from error
    alpha = pixels[..., -1] if pixels.ndim == 3 and pixels.shape[2] in (2, 4) else None
    transparent = alpha is not None and bool((alpha != np.iinfo(pixels.dtype).max).any())
    return over_white(pixels), transparent


Layout = tuple[Path, dict[int | None, Path]]


def _layouts(root: Path) -> Iterator[tuple[Path, Layout]]:
    """Yield each set's folder at or below root with its layout; hidden folders are skipped.

    Links are followed; a folder that is no set is entered once, whatever leads to it.
    """
    entered: set[str] = set()
    for path, below, _ in os.walk(root, followlinks=True):
        layout = _layout(Path(path), set(below))
        again = os.path.realpath(path) in entered
        entered.add(os.path.realpath(path))
        names = sorted(name for name in below if not name.startswith("."))
        below[:] = [] if layout or again else names
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
    # Not resolved: a set that is a link is called by the name of the link.
    own = Path(os.path.abspath(root))
    parts = (own.name, *folder.relative_to(root).parts)
    named = re.fullmatch(r"[xX]([1-9]\d*)", parts[-1])
    if named:
        parts = parts[:-1] or (own.parent.name,)
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


def _refuse_unread(folder: Path, *, read: bool) -> None:
    """Raise a UserError where a set has LR images, by its folders' names, but none are read."""
    name = re.compile(r"(.*_)?lr(bic.*|x?\d.*|[_-].*)?", re.IGNORECASE)
    named = [path for path in sorted(folder.iterdir()) if name.fullmatch(path.name)]
    unread = [path for path in named if path.is_dir()]
    if not read and unread:
        raise UserError(
            f"{unread[0]} is not where LR images are read from: call it lr, lr/x4, LR_bicubic/X4 "
            "or LRbicx4, or move it away to have them made of the HR images"
        )


def _scale_of(hr: Path, lr: Path) -> int | None:
    """Return the ratio of the sizes of the first pair that can be read."""
    truth = files_by_stem(hr)
    for name, files in by_truth(files_by_stem(lr), truth, scale=None).items():
        try:
            sides = [_longer_side(truth[name][0]), _longer_side(files[0])]
        except (KeyError, UserError):
            continue
        return max(1, round(sides[0] / sides[1]))
    return None


def _longer_side(file: Path) -> int:
    """Return the longer side that an image's header declares, which may lie on its side."""
    photo = open_photo(file)
    photo.close()
    return max(photo.head.sizes[0])


def _paired(name: str, scale: int, hr: Path, lr: Path | None) -> BenchmarkSet:
    """Pair the files by name."""
    truth = files_by_stem(hr)
    given = by_truth(files_by_stem(lr), truth, scale=scale) if lr else None
    pairs, faults = match_names(truth, given, folders=(hr, lr or hr))
    deeper = [
        sub
        for folder in (hr, lr)
        if folder
        for sub in sorted(folder.iterdir())
        if sub.is_dir()
        and sub not in (hr, lr)
        and not sub.name.startswith(".")
        and files_by_stem(sub)
    ]
    faults += [f"{sub}: images in subfolders are not paired; name this folder" for sub in deeper]
    if not truth:
        but = f", but {deeper[0]} does: name that" if deeper else ""
        faults = [f"{hr} holds no {KINDS} file{but}"]
    elif not pairs:
        faults = [f"no image of {hr} has a counterpart (first, {faults[0]})"]
    return BenchmarkSet(name, scale, tuple(PairFiles(*pair) for pair in pairs), tuple(faults))
