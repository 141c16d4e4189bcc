"""Which files are upscaled to which, without those that earlier runs have written."""

import glob
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from isr_jax.errors import UsageError, UserError
from isr_jax.files import expanded
from isr_jax.photo.finding import (
    all_files,
    closed_below,
    is_passed_over,
    matching,
    say_closed,
    say_passed_over,
)
from isr_jax.photo.formats import FORMATS, KINDS, format_of, is_named_like_a_photo, output_suffix
from isr_jax.photo.reading import open_photo
from isr_jax.upscaling.sizes import LABEL, size_of, target_of
from isr_jax.upscaling.tasks import Task, check_distinct, without_outputs


class Plan(NamedTuple):
    """What is to be done.

    Attributes:
        tasks: sorted by output.
        earlier: number of files that were left out as the output of an earlier run.
        passed: files that look like photos but are of formats that are not read.
        closed: what cannot be looked into, and why.
    """

    tasks: list[Task]
    earlier: int
    passed: set[Path]
    closed: dict[Path, str]


class _Found(NamedTuple):
    """A photo, its path below an input folder, and whether the user named it."""

    file: Path
    place: Path
    named: bool


def plan_tasks(
    inputs: Sequence[str | Path],
    *,
    out: str | Path | None,
    format: str,
    suffixes: Mapping[str, str],
) -> Plan:
    """Return what is upscaled to what; arguments and errors of `upscale_files`.

    `suffixes` are those of each model. What an earlier run has written is left out: inputs that are
    the output of another input, whatever a search finds in the folder `out`, and files that are
    named as the output, at any size, of a photo beside them. Of the last, those are kept that were
    named without that photo.
    """
    for suffix in suffixes.values():
        if os.path.basename(suffix) != suffix:
            raise UsageError(f"--suffix {suffix} cannot be part of a file name")
    out = None if out is None else expanded(out)
    found: dict[Path, _Found] = {}
    passed: set[Path] = set()
    closed: dict[Path, str] = {}
    for entry in inputs:
        images, others, unread = _images_at(entry, out)
        passed |= others
        closed |= unread
        for image in images:
            known = found.setdefault(image.file.resolve(), image)
            if image.named and not known.named:
                found[image.file.resolve()] = known._replace(named=True)
    is_file = out is not None and not os.path.isdir(out)
    if out and is_file:
        _check_kind(out)
    if out and is_file and format_of(out):
        if len(found) > 1:
            raise UsageError(
                f"--out {out} is one file, but there are {len(found)} images: name a folder"
            )
        if format not in ("same", format_of(out)):
            raise UsageError(f"--out {out} does not match --format {format}")
        if len(suffixes) > 1:
            raise UsageError(
                f"--out {out} is one file, but there are {len(suffixes)} models: name a folder"
            )
        tasks = [Task(image.file, out, *suffixes) for image in found.values()]
        return Plan(tasks, 0, passed, closed)
    beside = earlier_outputs(is_named_like_a_photo)
    named = {x for x, image in found.items() if image.named}
    named |= {file.with_suffix("") for file in named}
    earlier = {
        file
        for file, image in found.items()
        if (original := beside(file)) and (not image.named or original in named)
    }
    plan = without_outputs(_targets(found, out=out, format=format, suffixes=suffixes))
    left_out = earlier & {file for file, _ in plan}
    tasks = [task for file, task in plan if file not in left_out]
    check_distinct(tasks)
    tasks = sorted(tasks, key=lambda task: task.target.as_posix())
    return Plan(tasks, len(left_out), passed, closed)


def _check_kind(out: Path) -> None:
    """Raise a UsageError for the name of a file of a format that is not written."""
    known = format_of(out)
    if is_passed_over(out) or (known and FORMATS[known].writes == "never"):
        raise UsageError(f"--out {out}: {out.suffix} files cannot be written: name a .png file")


def _targets(
    found: Mapping[Path, _Found], *, out: Path | None, format: str, suffixes: Mapping[str, str]
) -> list[tuple[Path, Task]]:
    """Return the tasks of each file, which is resolved."""
    plan: list[tuple[Path, Task]] = []
    used: set[Path] = set()
    # Those that become PNG come last: what would be taken then gets a name with the suffix of both.
    own_first = sorted(found, key=lambda file: _falls_back(found[file].file, format))
    for model, suffix in suffixes.items():
        for resolved in own_first:
            file, place, _ = found[resolved]
            kind = output_suffix(file, format)
            target = (out / place if out else file).with_name(place.stem + suffix + kind)
            if _falls_back(file, format) and target.resolve() in used:
                target = target.with_name(place.name + suffix + kind)
            used.add(target.resolve())
            plan.append((resolved, Task(file, target, model)))
    return plan


def _falls_back(file: Path, format: str) -> bool:
    """Return whether a file has an output of another format, which was not asked for."""
    own = format_of(file)
    return format == "same" and own is not None and FORMATS[own].writes != "always"


def earlier_outputs(is_input: Callable[[Path], bool]) -> Callable[[Path], Path | None]:
    """Return a function that gives the original of a file that is named as an output.

    An output's name is that of a file beside it, followed by one size or several, as in photo_x2,
    photo_x2_w1920 and photo.gif_x2. The name of a model may follow, as in photo_x4_compact-x4: any
    name is one where the pixels are as many as the size says. The file is returned, without its
    suffix if the output's name lacks it; None where there is none.

    Args:
        is_input: whether a path has the suffix of an input.
    """

    @cache
    def beside(folder: Path) -> dict[str, Path]:
        inputs = [path for path in folder.iterdir() if is_input(path)]
        return {name: path for path in inputs for name in (path.stem, path.name)}

    def original(file: Path) -> Path | None:
        for match in LABEL.finditer(file.stem):
            name = file.stem[: match.start()]
            source = beside(file.parent).get(name)
            sizes_alone = not LABEL.sub("", file.stem[match.start() :])
            if source and (sizes_alone or _has_size(file, source, label=match[1])):
                return file.with_name(name)
        return None

    return original


def _has_size(file: Path, source: Path, *, label: str) -> bool:
    """Return whether a photo has the size that a label says of what is made of a source."""
    try:
        (width, height), own = _size(source), _size(file)
        target = target_of(label)
        # Headers do not tell which way is up.
        sizes = [size_of(target, (height, width)), size_of(target, (width, height))]
    except (UserError, ArithmeticError):
        return False
    return sorted(own) in [sorted(size) for size in sizes]


def _size(file: Path) -> tuple[int, int]:
    photo = open_photo(file)
    photo.close()
    return photo.head.sizes[0]


def _images_at(
    entry: str | Path, out: Path | None
) -> tuple[list[_Found], set[Path], dict[Path, str]]:
    """Return each image, except those inside `out`, what is passed over, and what is closed."""
    path, closed = expanded(entry), {}
    if path.is_file():
        return [_Found(path, Path(path.name), True)], set(), closed
    if path.is_dir():
        root, files, closed = path, all_files(path), closed_below(path)
        nothing = f"{path} holds no {KINDS} file"
    elif glob.has_magic(str(path)):
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        matches = matching(path)
        folders = [match for match in matches if match.is_dir()]
        files = [file for folder in folders for file in all_files(folder)]
        closed = {path: why for folder in folders for path, why in closed_below(folder).items()}
        files += [match for match in matches if match.is_file()]
        nothing = f"no image file matches {path}"
    else:
        raise UserError(f"no such file or folder: {path}")
    if out and root.resolve() in out.resolve().parents:
        files = [file for file in files if out.resolve() not in file.resolve().parents]
    others = {file.resolve() for file in files if is_passed_over(file)}
    # Of a file that is reached in several ways, the shortest.
    images = [file for file in files if is_named_like_a_photo(file) and file.is_file()]
    images.sort(key=lambda file: (len(file.parts), file))
    if not images:
        why = [nothing]
        why += [say_passed_over(others)] if others else []
        why += [say_closed(closed)] if closed else []
        raise UserError("; ".join(why))
    return [_Found(file, file.relative_to(root), False) for file in images], others, closed
