"""Find the photos of folders and patterns; links to folders are followed, each folder once."""

import fnmatch
import glob
import itertools
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from isr_jax.errors import printable
from isr_jax.photo.formats import FORMATS, is_named_like_a_photo

# Files that a user may take for photos, in formats that are not read.
_OTHERS = (
    *(".3fr", ".ai", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dds", ".dng", ".eps", ".erf"),
    *(".exr", ".fff", ".hdr", ".heic", ".heif", ".hif", ".ico", ".iiq", ".j2k", ".jp2", ".jpf"),
    *(".jpx", ".jxr", ".kdc", ".kra", ".mos", ".mrw", ".nef", ".nrw", ".ora", ".orf", ".pam"),
    *(".pbm", ".pcx", ".pef", ".pgm", ".pnm", ".ppm", ".psb", ".psd", ".qoi", ".raf", ".raw"),
    *(".rw2", ".rwl", ".sr2", ".srf", ".srw", ".svg", ".svgz", ".tga", ".wdp", ".x3f", ".xcf"),
)
_HEIC = {*FORMATS["heic"].suffixes}


def is_photo(file: Path) -> bool:
    """Return whether a path is a file that is named like a photo, and is not hidden."""
    # macOS leaves ._NAME.jpg beside NAME.jpg.
    return is_named_like_a_photo(file) and not file.name.startswith(".") and file.is_file()


def image_files(root: Path) -> list[Path]:
    """Return the photos below a folder at any depth, sorted by path; hidden folders are skipped.

    Links to folders are followed. A folder that is reached in several ways is searched once, by its
    own name rather than that of a link.
    """
    return [file for file in all_files(root) if is_photo(file)]


def all_files(root: Path) -> list[Path]:
    """Return the files below a folder as `image_files` does, whatever they are."""
    return sorted(
        (path for path, is_folder in _walk(root, hidden=False) if not is_folder),
        key=lambda file: file.relative_to(root).as_posix(),
    )


def matching(pattern: Path) -> list[Path]:
    """Return the files and folders that match a pattern with *, ? and [], sorted by path.

    ** stands for any folders, and follows links as `image_files` does.
    """
    parts = pattern.parts
    if "**" not in parts:
        return [Path(match) for match in sorted(glob.glob(str(pattern)))]
    place = parts.index("**")
    start, rest = Path(*parts[:place]), parts[place:]
    magic = glob.has_magic(str(start))
    roots = [Path(match) for match in glob.glob(str(start))] if magic else [start]
    hidden = any(part.startswith(".") for part in rest)
    found = {root for root in roots if root.is_dir() and _fits((), rest)}
    for root in roots:
        for path, _ in _walk(root, hidden=hidden):
            if _fits(path.relative_to(root).parts, rest):
                found.add(path)
    return sorted(found)


def is_passed_over(file: Path) -> bool:
    """Return whether a path is named like a photo of a format that is not read."""
    suffix = file.suffix.lower()
    return suffix in _OTHERS and not is_named_like_a_photo(file) and not file.name.startswith(".")


def say_passed_over(files: Collection[Path]) -> str:
    """Return the line that says how many files were passed over."""
    counts = Counter(file.suffix.lower() for file in files)
    kinds = ", ".join(f"{n} {suffix}" for suffix, n in sorted(counts.items()))
    one = len(files) == 1
    looks = "file that looks like a photo was" if one else "files that look like photos were"
    hint = " (HEIC is read after pip install 'isr-jax[heic]')" if counts.keys() & _HEIC else ""
    return f"{len(files)} {looks} passed over, of formats that are not read: {kinds}{hint}"


def closed_below(root: Path) -> dict[Path, str]:
    """Return what `image_files` cannot look into below a folder, and why.

    These are folders that may not be read, and links to missing files that are named like photos.
    """
    closed: dict[Path, str] = {}
    for path, is_folder in _walk(root, hidden=False, closed=closed):
        if not is_folder and is_named_like_a_photo(path) and not path.exists():
            closed[path] = "a link to a file that is missing"
    return closed


def say_closed(closed: Mapping[Path, str]) -> str:
    """Return the line that says how much could not be looked into, and names the first."""
    first, why = next(iter(closed.items()))
    count = "1 path was" if len(closed) == 1 else f"{len(closed)} paths were"
    more = "" if len(closed) == 1 else " and others"
    return f"{count} left out that cannot be read: {printable(str(first))} ({why}){more}"


def _walk(
    root: Path, *, hidden: bool, closed: dict[Path, str] | None = None
) -> Iterator[tuple[Path, bool]]:
    """Yield the files and folders below a folder, and whether each is a folder.

    What may not be looked into is put into `closed`, with the reason.
    """
    seen: set[str] = set()
    folders, links = [root], []
    while folders or links:
        # Links come last, so that a folder is found by its own name.
        folder = folders.pop() if folders else links.pop(0)
        place = os.path.realpath(folder)
        if place in seen:
            continue
        seen.add(place)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if closed is not None:
                closed[folder] = str(error.strerror)
            continue
        for entry in entries:
            if entry.name.startswith(".") and not hidden:
                continue
            path = folder / entry.name
            try:
                is_folder = entry.is_dir()
            except OSError as error:  # of a link in a circle, or into a closed folder
                if closed is not None:
                    closed[path] = str(error.strerror)
                continue
            if is_folder:
                (links if entry.is_symlink() else folders).append(path)
            yield path, is_folder


def _fits(names: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Return whether the names of a relative path match the parts of a pattern."""
    if not parts:
        return not names
    if parts[0] == "**":
        # As in glob, only what begins with a dot matches what is hidden.
        shown = itertools.takewhile(lambda name: not name.startswith("."), names)
        return any(_fits(names[i:], parts[1:]) for i in range(len(list(shown)) + 1))
    if not names or (names[0].startswith(".") and not parts[0].startswith(".")):
        return False
    return fnmatch.fnmatch(names[0], parts[0]) and _fits(names[1:], parts[1:])
