"""The file formats of photos: their suffixes, and what each can hold."""

import importlib.util
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import ExifTags


class Format(NamedTuple):
    """What a file format can hold.

    Attributes:
        title: its usual spelling.
        suffixes: the first is the one that new files get.
        longest: the largest width or height in pixels.
        bits: the most per channel.
        alpha: whether it holds transparency.
        metadata: the kinds of metadata that it holds, by their names in messages.
        icc: whether it holds an ICC profile.
        lossless: whether it is lossless at a quality of 100, and lossy below.
        multiple: frames (an animation), pages, or None where it holds a single image.
        writes: whether inputs of the format have outputs of it: always, where that is asked for,
            or never; they have FALLBACK else.
    """

    title: str
    suffixes: tuple[str, ...]
    longest: int
    bits: int
    alpha: bool = False
    metadata: tuple[str, ...] = ()
    icc: bool = False
    lossless: bool = False
    multiple: Literal["frames", "pages"] | None = None
    writes: Literal["always", "asked", "never"] = "always"


_WHOLE: Any = {"alpha": True, "icc": True}
_USUAL = ("EXIF", "XMP")
_OF_JPEG = (*_USUAL, "IPTC", "comments")
_OF_PNG = (*_OF_JPEG, "PNG text", "colour")
# The longest sides are the limits of libpng, libjpeg, libwebp and of the headers' fields.
FORMATS = {
    "png": Format(
        "PNG", (".png", ".apng"), 1_000_000, 16, metadata=_OF_PNG, multiple="frames", **_WHOLE
    ),
    "jpeg": Format(
        "JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), 65_500, 8, metadata=_OF_JPEG, icc=True
    ),
    "webp": Format(
        "WebP", (".webp",), 16_383, 8, metadata=_USUAL, lossless=True, multiple="frames", **_WHOLE
    ),
    "tiff": Format(
        "TIFF",
        (".tif", ".tiff"),
        2**31 - 1,
        16,
        metadata=(*_USUAL, "IPTC"),
        multiple="pages",
        **_WHOLE,
    ),
    "bmp": Format("BMP", (".bmp", ".dib"), 2**31 - 1, 8),
    "gif": Format("GIF", (".gif",), 65_535, 8, alpha=True, multiple="frames", writes="asked"),
    "avif": Format(
        "AVIF", (".avif",), 32_768, 12, metadata=_USUAL, lossless=True, multiple="frames", **_WHOLE
    ),
    "heic": Format("HEIC", (".heic", ".heif", ".hif"), 2**31 - 1, 12, writes="never", **_WHOLE),
    "jxl": Format("JPEG XL", (".jxl",), 2**30, 16, alpha=True, metadata=_USUAL, lossless=True),
}
FALLBACK = "png"
READS_HEIC = importlib.util.find_spec("pi_heif") is not None  # an extra
# Of the files that are found in a folder.
SUFFIXES = tuple(
    suffix
    for name, known in FORMATS.items()
    for suffix in known.suffixes
    if name != "heic" or READS_HEIC
)
_TITLES = [known.title for known in FORMATS.values()]
KINDS = f"{', '.join(_TITLES[:-1])} or {_TITLES[-1]}"  # for messages

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


def is_named_like_a_photo(file: Path) -> bool:
    """Return whether a path has the suffix of a format that is read."""
    return file.suffix.lower() in SUFFIXES


def output_suffix(file: Path, format: str) -> str:
    """Return the suffix of the output of a file: its own where the format is the same.

    Args:
        file: the input.
        format: a key of FORMATS, or same; a format whose outputs have to be asked for becomes PNG.
    """
    own = format_of(file)
    if format == "same":
        format = own if own and FORMATS[own].writes == "always" else FALLBACK
    return file.suffix if format == own else FORMATS[format].suffixes[0]
