"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
