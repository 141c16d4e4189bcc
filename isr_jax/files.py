"""Files that are written whole or not at all, and folders that can be written."""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isr_jax.errors import UserError


def expanded(path: str | Path) -> Path:
    """Return a path, with ~ and ~USER as their home folders.

    Raises:
        UserError: there is no such user, or the user has no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: there is no home folder {Path(path).parts[0]}") from error


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a temporary name beside a file; what was written there replaces the file at the end.

    The folder is created if needed. If an exception is raised, the file stays as it was.

    Raises:
        UserError: there is something else than a file of that name, such as a device.
    """
    if file.exists() and not file.is_file():
        raise UserError(f"{file} is not a file: name another to write")
    file.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, so that no search of the folder takes it for a photo; short, because a file system
    # bounds the length of names.
    unfinished = file.with_name(f".{uuid.uuid4().hex[:12]}.part")
    try:
        yield unfinished
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(file) as unfinished:
        unfinished.write_text(text)


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(file, json.dumps(content, indent=1) + "\n")


def read_json(file: Path) -> Any:
    """Return a JSON file of a dictionary, or None if it is missing or damaged."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def is_writable(folder: Path) -> bool:
    """Return whether files can be made in a folder, which is created."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def fault_of_folder(folder: Path) -> str | None:
    """Return why files cannot be made in a folder, which may not exist yet; None where they can."""
    above = next(place for place in (folder, *folder.absolute().parents) if os.path.exists(place))
    if not os.path.isdir(above):
        return f"{above} is a file: name a folder for the outputs"
    if not os.access(above, os.W_OK | os.X_OK):
        return f"files cannot be written in {above}: name another folder by --out"
    return None


def check_name(file: Path) -> None:
    """Raise a UserError for a name that is longer than the file system takes.

    The folders above it may not exist yet.
    """
    folder = next(above for above in (*file.absolute().parents, Path()) if above.exists())
    try:
        most = os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows has no such function
        most = 255
    size = len(os.fsencode(file.name))
    if size > most:
        raise UserError(
            f"the name of {file} has {size} bytes, and the file system takes {most}: rename the "
            "input, or give a shorter --suffix or an --out file"
        )


def to_quarantine(path: Path, run: Path) -> Path:
    """Move a damaged file or folder of a run into RUN/quarantine/; return where it is now."""
    place = run / "quarantine"
    if place.exists() and not place.is_dir():
        place.rename(place.with_name(f"quarantine.{time.time_ns()}"))
    place.mkdir(exist_ok=True)
    target = place / path.name
    if target.exists():
        target = place / f"{path.name}.{time.time_ns()}"
    shutil.move(path, target)
    return target


def new_folder(path: str | Path) -> Path:
    """Create a folder, or accept an existing empty one.

    Raises:
        UserError: it is not empty or cannot be created.
    """
    folder = expanded(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        used = any(folder.iterdir())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: name another folder") from error
    if used:
        raise UserError(f"{path} is not empty: name a new folder")
    return folder
