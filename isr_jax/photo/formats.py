"""The file formats of photos: their suffixes, what each can hold, and the photos of a folder."""

from pathlib import Path
from typing import Literal, NamedTuple

from PIL import ExifTags


class Format(NamedTuple):
    """What a file format can hold.

    Attributes:
        title: its usual spelling.
        suffixes: the first is the one that new files get.
        longest: the largest width or height in pixels.
        alpha: whether it holds transparency.
        deep: whether it holds 16 bits per channel.
        metadata: whether it holds an ICC profile; `metadata.HOLDS` says what else it holds.
        multiple: frames (an animation), pages, or None where it holds a single image.
    """

    title: str
    suffixes: tuple[str, ...]
    longest: int
    alpha: bool
    deep: bool
    metadata: bool
    multiple: Literal["frames", "pages"] | None


# The longest sides are the limits of libpng, libjpeg, libwebp and of the headers' fields.
FORMATS = {
    "png": Format("PNG", (".png", ".apng"), 1_000_000, True, True, True, "frames"),
    "jpeg": Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), 65_500, False, False, True, None),
    "webp": Format("WebP", (".webp",), 16_383, True, False, True, "frames"),
    "tiff": Format("TIFF", (".tif", ".tiff"), 2**31 - 1, True, True, True, "pages"),
    "bmp": Format("BMP", (".bmp", ".dib"), 2**31 - 1, False, False, False, None),
}
# A GIF is read where it is named, but in a folder of photos it is mostly decoration.
SUFFIXES = tuple(suffix for known in FORMATS.values() for suffix in known.suffixes)
KINDS = "PNG, JPEG, WebP, TIFF or BMP"  # for messages

# A TIFF file keeps the layout of its pixels among its EXIF tags; these describe the photo.
TIFF_METADATA = {
    *(
        ExifTags.Base[name]
        for name in ("ImageDescription", "Make", "Model", "Software", "DateTime")
    ),
    *(ExifTags.Base[name] for name in ("Artist", "HostComputer", "Copyright", "Rating")),
    *(ExifTags.Base[f"XP{name}"] for name in ("Title", "Comment", "Author", "Keywords", "Subject")),
}


def format_of(path: Path) -> str | None:
    """Return the key in FORMATS of a file's suffix, None for any other."""
    return next((name for name, f in FORMATS.items() if path.suffix.lower() in f.suffixes), None)


def is_photo(file: Path) -> bool:
    """Return whether a path is a file that is named like a photo, and is not hidden."""
    # macOS leaves ._NAME.jpg beside NAME.jpg.
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def image_files(root: Path) -> list[Path]:
    """Return the photos below a folder at any depth, sorted by path; hidden folders are skipped."""
    files = (
        file
        for file in root.rglob("*")
        if is_photo(file)
        and not any(part.startswith(".") for part in file.relative_to(root).parts[:-1])
    )
    return sorted(files, key=lambda file: file.relative_to(root).as_posix())
