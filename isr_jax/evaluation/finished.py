"""SR images that other programs have made: found beside benchmark sets, and decoded."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from isr_jax import images
from isr_jax.data.examples import Pixels, modcrop
from isr_jax.data.pair_names import by_truth, files_by_stem, match_names
from isr_jax.data.pairs import (
    BenchmarkSet,
    PairFiles,
    read_image,
    read_pair,
    transparency_notices,
)
from isr_jax.errors import UserError
from isr_jax.files import expanded
from isr_jax.photo.pixels import to_16_bits


def find_finished(
    folder: str | Path, sets: Sequence[BenchmarkSet], *, scales: Sequence[int]
) -> list[BenchmarkSet]:
    """Return the sets with the SR images that a folder has of them, in the pairs' `sr`.

    Those of SET are in SET/xSCALE, as `isr evaluate --save` writes them, or in SET; those of an
    only set, or one by whose name the folder is called, also in xSCALE or in the folder itself.

    Args:
        folder: of SR images that another program has made.
        sets: the sets that are scored.
        scales: those that were asked for; where none were, a set is left out at the scales that
            the folder does not have.

    Raises:
        UserError: there is no such folder, it has no image of the sets, or it does not tell which
            scale it is of.
    """
    root = expanded(folder)
    if not root.is_dir():
        raise UserError(f"{folder} is not a folder: name one of finished pictures")
    places = [_place(root, found, only=len({s.name for s in sets}) == 1) for found in sets]
    names = dict.fromkeys(found.name for found in sets)
    if not any(places):
        example = next(iter(names))
        at = " or ".join(f"{root / example}{end}" for end in ("", f"/x{sets[0].scale}"))
        raise UserError(
            f"{folder} holds no images of {', '.join(names)}: put those of a set in {at}"
        )
    results = []
    for found, place in zip(sets, places, strict=True):
        others = [p for s, p in zip(sets, places, strict=True) if s.name == found.name and p]
        if place is None and others and not scales:
            continue
        if place and others.count(place) > 1:
            has = ", ".join(str(s.scale) for s in sets if s.name == found.name)
            raise UserError(
                f"{place} does not tell its scale, and {found.name} has {has}: give one"
            )
        results.append(_paired(root, found, place))
    return results


def _place(root: Path, found: BenchmarkSet, *, only: bool) -> Path | None:
    """Return the folder of the SR images of a set, where there is one."""
    own, scale, last = found.name.split("/"), f"x{found.scale}", found.name.split("/")[-1]
    called = last.casefold() in (root.name.casefold(), root.parent.name.casefold())
    ways = [[*own, scale], own, [last, scale], [last], [scale, *own], [scale, last]]
    ways += [[scale], []] if only or called else []
    for way in ways:
        for place in _below(root, way):
            if files_by_stem(place):
                return place
    return None


def _below(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """Yield the folders at a path, in upper or lower case."""
    if not parts:
        yield folder
        return
    for path in sorted(folder.iterdir()):
        if path.name.casefold() == parts[0].casefold() and path.is_dir():
            yield from _below(path, parts[1:])


def _paired(root: Path, found: BenchmarkSet, place: Path | None) -> BenchmarkSet:
    """Return a set with its SR images; its faults are those of their names."""
    if not found.pairs:
        return found._replace(faults=())
    if place is None:
        fault = f"{root} holds no images of {found.name} at x{found.scale}"
        return found._replace(pairs=(), faults=(fault,))
    hr = found.pairs[0].hr.parent
    truth = files_by_stem(hr)
    given = by_truth(files_by_stem(place), truth, scale=found.scale, finished=True)
    matched, faults = match_names(truth, given, folders=(hr, place))
    files = {name: file for name, _, file in matched}
    if not matched:
        faults = [f"no image of {hr} has a counterpart in {place} (first, {faults[0]})"]
    pairs = [pair._replace(sr=files[pair.name]) for pair in found.pairs if pair.name in files]
    return found._replace(pairs=tuple(pairs), faults=tuple(faults))


def load_finished(pair: PairFiles, *, scale: int) -> tuple[Pixels, Pixels, tuple[str, ...]]:
    """Decode the SR image of a pair as (SR, HR, notices); HR as the pair has it for a model.

    SR has the size of the HR file, or this cut or rounded up to a multiple of the scale, and is cut
    likewise. Beside gray, RGB becomes its luma, as what a model makes of gray does.

    Raises:
        UserError: naming the file that is unreadable or of another size.
    """
    assert pair.sr
    truth = read_pair(pair, scale=scale, make_lr=False)
    sr, transparent = read_image(pair.sr)
    (h, w), (sr_h, sr_w), hr = truth.size, sr.shape[:2], truth.hr
    down, up = ((h // scale * scale, w // scale * scale), (-(-h // scale), -(-w // scale)))
    if (sr_h, sr_w) not in ((h, w), down, (up[0] * scale, up[1] * scale)):
        or_cut = "" if down == (h, w) else f" or {down[1]}x{down[0]}"
        raise UserError(
            f"{pair.sr}: it has {sr_w}x{sr_h} pixels, but beside {pair.hr} it needs {w}x{h}{or_cut}"
        )
    if sr.ndim > hr.ndim:
        sr = images.rgb_to_gray(sr)[..., 0]
    elif sr.ndim < hr.ndim:
        sr = np.stack([sr] * 3, axis=-1)
    if sr.dtype != hr.dtype:
        sr, hr = to_16_bits(sr), to_16_bits(hr)
    notices = transparency_notices(hr=truth.transparent, beside=transparent, other="SR")
    return modcrop(sr[:h, :w], scale), hr, notices
