"""Outputs of earlier runs, recognised beside their inputs."""

from collections.abc import Iterable
from pathlib import Path

from isr_jax.errors import UserError
from isr_jax.photo.reading import open_photo
from isr_jax.upscaling.sizes import LABEL, size_of, target_of


def earlier_outputs(files: Iterable[Path]) -> set[Path]:
    """Return the files that are named as the output of another one, at any size.

    Where the name of a model follows the size, as in photo_x4_compact-x4.png, any name may, and the
    pixels must be as many as the size says.
    """
    files = list(files)
    inputs = {file.with_suffix(""): file for file in files}
    found = set()
    for file in files:
        for match in LABEL.finditer(file.stem):
            name = file.stem[: match.start()]
            source = inputs.get(file.with_name(name)) if name else None
            last = match.end() == len(file.stem)
            if source and (last or _has_size(file, source, label=match[1])):
                found.add(file)
    return found


def _has_size(file: Path, source: Path, *, label: str) -> bool:
    """Return whether a file has the size that a label says of what is made of a source."""
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
