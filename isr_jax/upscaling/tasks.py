"""What upscaling photos and videos share: tasks, whose they are, and what is said of failures."""

import os
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from isr_jax.errors import UsageError, UserError, is_out_of_memory, one_line, printable
from isr_jax.files import fault_of_folder

_NAMED = 3  # files of a notice


class Task(NamedTuple):
    """A photo or video, and the file that it becomes.

    Attributes:
        file: the input.
        target: the output.
        model: the name of the model, where there are several.
    """

    file: Path
    target: Path
    model: str = ""


class Outcome(NamedTuple):
    """What was done.

    Attributes:
        upscaled: number of files written.
        skipped: number of files whose output already exists.
        failed: a line for each file that could not be upscaled.
        notices: a line for each kind of content that was left out or changed, which counts the
            images and names the first of their files.
        bugs: of the failures, the errors that no file should be able to cause.
        outputs: what is upscaled, by this run or an earlier one.
    """

    upscaled: int
    skipped: int
    failed: list[str]
    notices: list[str]
    bugs: list[Exception]
    outputs: Sequence[Task] = ()


def is_bug(error: Exception) -> bool:
    """Return whether an error is not of a kind that one image can cause: the next may succeed."""
    import jax

    excusable = (UserError, MemoryError, OSError, jax.errors.JaxRuntimeError)
    return not isinstance(error, excusable) and not is_out_of_memory(error)


def fault_of(file: Path, error: Exception, *, memory: str) -> str:
    """Return the line that says why a file could not be upscaled.

    Args:
        file: which begins the line.
        error: what was raised.
        memory: what to do where memory was missing.
    """
    line, name = one_line(error, limit=1000), printable(str(file))
    if is_out_of_memory(error):
        line = f"out of memory: {memory}"
    elif is_bug(error):
        line = f"a bug in isr_jax, {type(error).__name__}: {line}"
    return line if line.startswith(name) else f"{name}: {line}"


def counted_notice(line: str, count: int, names: Sequence[str]) -> str:
    """Return a notice that says of how many images it is, and names the first of them.

    Args:
        line: what happened.
        count: number of images.
        names: of their files; none where it is of no file in particular.
    """
    files = list(dict.fromkeys(names))
    named = ", ".join(files[:_NAMED]) + (" and others" if len(files) > _NAMED else "")
    return f"{line} ({count} image{'s' * (count > 1)}{': ' if files else ''}{named})"


def suffix_of(label: str, *, given: str | None, model: str) -> str:
    """Return what names of outputs end with.

    Args:
        label: of the upscaler.
        given: by the user, in place of _ and the label.
        model: its name, where there are several; else empty.
    """
    return (f"_{label}" if given is None else given) + (model and f"_{model}")


def without_outputs(plan: Sequence[tuple[Path, Task]]) -> list[tuple[Path, Task]]:
    """Return the tasks of a plan whose input is not the output of another input.

    One that would also be its own output stays: `check_distinct` refuses the two.

    Args:
        plan: tasks, each after its input, resolved.
    """
    made = {task.target.resolve(): file for file, task in plan}
    return [
        (file, task)
        for file, task in plan
        if made.get(file, file) == file or task.target.resolve() == file
    ]


def check_distinct(tasks: Sequence[Task]) -> None:
    """Raise a UserError where two inputs would be written to one file."""
    taken: dict[Path, Task] = {}
    for task in tasks:
        other = taken.setdefault(task.target.resolve(), task)
        if other is not task:
            raise UserError(
                f"{other.file} and {task.file} would both be written to {task.target}: rename one "
                "of them, or upscale them into different folders"
            )


def own_share(
    plan: Sequence[Task], shard: tuple[int, int] | None, *, overwrite: bool, in_place: bool
) -> tuple[list[Task], list[Task]]:
    """Return the part of a plan that is this process's, and what of it is still to be done.

    Arguments are those of `upscale_files`.

    Raises:
        UsageError: a file would replace itself, and not `in_place`.
        UserError: no output can be written in its folder.
    """
    for task in plan:
        if not in_place and task.target.resolve() == task.file.resolve():
            raise UsageError(
                f"{task.file} would replace itself: give --out or another --suffix, or --in-place "
                "if it should"
            )
    import jax  # here, so that the command line is parsed without it

    from isr_jax import distributed

    process, processes = max(
        distributed.place(), (jax.process_index(), jax.process_count()), key=itemgetter(1)
    )
    i, n = shard or (process + 1, processes)
    own = list(plan[i - 1 :: n])
    todo = [
        task
        for task in own
        if overwrite
        or (in_place and task.target.resolve() == task.file.resolve())
        or not _is_there(task.target)
    ]
    # Of several folders, some may be read-only: their photos fail, and the others do not.
    faults = [fault_of_folder(folder) for folder in {task.target.parent: None for task in todo}]
    if faults and faults[0] and all(faults):
        raise UserError(faults[0])
    return own, todo


def _is_there(target: Path) -> bool:
    """Return whether an output exists; a folder is none, and fails when it is written."""
    # lexists: a dangling link exists too, and a name that cannot exist does not.
    return os.path.lexists(target) and not os.path.isdir(target)
