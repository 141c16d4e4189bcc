"""Files that are written whole or not at all."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isr_jax.errors import UserError


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


def new_folder(path: str | Path) -> Path:
    """Create a folder, or accept an existing empty one.

    Raises:
        UserError: it is not empty or cannot be created.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        used = any(folder.iterdir())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: name another folder") from error
    if used:
        raise UserError(f"{path} is not empty: name a new folder")
    return folder
