"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isr_jax.errors import UserError


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A new name in the file's folder, which is made; what is there at the end becomes the file.

    Where something is raised there is nothing but what was there before.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, so that no walk over the folder takes it for a photograph.
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        yield unfinished
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def new_folder(path: str | Path) -> Path:
    """A folder that is there and empty, made where it is missing.

    Raises:
        UserError: where it holds something or cannot be made.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        used = any(folder.iterdir())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: name another folder") from error
    if used:
        raise UserError(f"{path} is in use: name a new folder")
    return folder
