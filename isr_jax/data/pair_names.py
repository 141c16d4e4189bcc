"""Which files of two folders belong together, by their names.

Beside the HR images NAME or NAME_HR, an LR image is NAME, NAMEx4, NAME_x4, x4_NAME or NAME_LR, or
what has several of these marks, in upper or lower case. An SR image may be NAME_SR, NAME_SRF_4_SR
or NAME_out too, or have an ending that all those beside it have, as NAME_METHOD.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from isr_jax.photo.finding import is_photo

Files = Mapping[str, list[Path]]  # by their stems


def files_by_stem(folder: Path) -> dict[str, list[Path]]:
    """Return the image files directly in a folder, by their stems."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if is_photo(path):
            files.setdefault(path.stem, []).append(path)
    return files


def natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts Set5 before Set14."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def match_names(
    truth: Files, given: Files | None, *, folders: tuple[Path, Path]
) -> tuple[list[tuple[str, Path, Path | None]], list[str]]:
    """Return (name, HR file, other file) of each pair, and a line for each file without.

    Args:
        truth: HR files.
        given: the other files, by the stems of their HR files; None where there are none.
        folders: where they are, for the lines.
    """
    pairs: list[tuple[str, Path, Path | None]] = []
    faults = []
    for stem in sorted(truth.keys() | (given or {}).keys(), key=natural):
        hrs, others = truth.get(stem, []), [None] if given is None else given.get(stem, [])
        if len(hrs) == len(others) == 1:
            pairs.append((stem, hrs[0], others[0]))
        elif not others:
            faults.append(f"{hrs[0]}: no file in {folders[1]} has its name")
        elif not hrs:
            faults.append(f"{others[0]}: no file in {folders[0]} has its name")
        else:
            faults.append(f"{hrs[0]}: several files have its name; keep one")
    return pairs, faults


def by_truth(
    files: Files, truth: Files, *, scale: int | None, finished: bool = False
) -> dict[str, list[Path]]:
    """Return files by the stems of their HR files, or by their own where they have none.

    Args:
        files: LR or SR files.
        truth: HR files.
        scale: the scale factor in the names; None for any.
        finished: whether they are SR files.
    """
    known = {stem: stem for stem in truth}
    for stem in truth:
        known.setdefault(stem.casefold(), stem)
    for stem in truth:
        known.setdefault(re.sub("[_-]hr$", "", stem.casefold()), stem)
    own: dict[str, str | None] = {}
    for stem in files:
        names = _without_marks(stem, scale, finished=finished)
        names += [name.casefold() for name in names]
        own[stem] = next((known[name] for name in names if name in known), None)
    if finished:
        own |= _by_ending([stem for stem in own if own[stem] is None], known)
    found: dict[str, list[Path]] = {}
    for stem, paths in files.items():
        found.setdefault(own[stem] or stem, []).extend(paths)
    return found


def _without_marks(stem: str, scale: int | None, *, finished: bool) -> list[str]:
    """Return the names that a file can stand for, its own first."""
    factor, names = rf"x{scale or '[0-9]+'}", [stem]
    marks = [rf"[_-]?{factor}$", r"[_-]lr$", rf"^({factor}|lr)[_-]"]
    if finished:
        marks += [r"[_-](sr|out)$", rf"[_-]srf[_-]{scale or '[0-9]+'}$"]
    for name in names:  # grows
        for mark in marks:
            shorter = re.sub(mark, "", name, flags=re.IGNORECASE)
            names += [shorter] if shorter and shorter not in names else []
    return names


def _by_ending(stems: Sequence[str], known: Mapping[str, str]) -> dict[str, str | None]:
    """Return the HR stem of each stem that is one with an ending, where all endings are the same.

    Otherwise none: NAME_A beside NAME_B would be guessed at.
    """
    found: dict[str, str | None] = {}
    endings = set()
    for stem in stems:
        fitting = [
            name
            for name in known
            for spelling in (stem, stem.casefold())
            if re.match(re.escape(name) + "(x[0-9]+)?[_-]", spelling)
        ]
        if not fitting:
            continue  # no file of the set
        name = max(fitting, key=len)
        found[stem] = known[name]
        endings.add(stem[len(name) :])
    return found if len(endings) == 1 else {}
