"""TIFF, written by tifffile: 16 bits, pages and BigTIFF, a page in memory at a time.

tifffile writes no EXIF or GPS directories, so they are appended here by hand.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tifffile
from PIL import ExifTags, Image, TiffImagePlugin

from isr_jax.photo.contents import Photo
from isr_jax.photo.formats import TIFF_METADATA
from isr_jax.photo.pixels import Page


def write_tiff(
    file: Path, pages: Iterator[Page], photo: Photo, exif: Image.Exif, *, size: int
) -> None:
    """Write a deflated TIFF, page by page.

    Args:
        file: where to.
        pages: in order.
        photo: the file that they come from, for its resolution.
        exif: the EXIF to write.
        size: bytes of all pixels, which decide whether it is a BigTIFF.
    """
    big = size > 2**32 - 2**25
    directories = {
        tag: ifd for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) if (ifd := exif.get_ifd(tag))
    }
    tags = [_tag(tag, exif[tag]) for tag in exif if tag in TIFF_METADATA]
    # tifffile writes no such directories: a tag of the number before keeps each one's place.
    tags += [(tag - 1, 16 if big else 4, 1, 0, True) for tag in directories]
    with tifffile.TiffWriter(file, bigtiff=big, byteorder="<") as tiff:
        for pixels, icc in pages:
            channels = pixels.shape[2] if pixels.ndim == 3 else 1
            tiff.write(
                pixels,
                photometric="rgb" if channels > 2 else "minisblack",
                planarconfig="contig" if channels > 1 else None,
                extrasamples=["unassalpha"] if channels in (2, 4) else None,
                compression="zlib",
                predictor=True,
                maxworkers=1,
                iccprofile=icc,
                resolution=photo.dpi,
                resolutionunit="inch" if photo.dpi else None,
                extratags=tags,
                software=False,
                metadata=None,
                contiguous=False,
            )
            tags = []
    for tag, directory in directories.items():
        _append_directory(file, tag, directory)


def _tag(tag: int, value: str | bytes | int) -> tuple[int, int, int, bytes | int, bool]:
    """Return an EXIF tag as tifffile takes it."""
    if isinstance(value, int):
        return tag, 3, 1, value, True
    if isinstance(value, bytes):
        return tag, 1, len(value), value, True
    text = value.encode("latin-1", "replace") + b"\0"
    return tag, 2, len(text), text, True


def _append_directory(file: Path, tag: int, directory: dict[int, Any]) -> None:
    """Append an EXIF directory to a TIFF file, and put its offset into the tag before `tag`."""
    with tifffile.TiffFile(file, mode="r+") as tiff:
        head = b"II+\0\x08\0\0\0" + bytes(8) if tiff.is_bigtiff else b"II*\0" + bytes(4)
        written = TiffImagePlugin.ImageFileDirectory_v2(ifh=head)
        written.update(directory)
        place = -(-tiff.filehandle.size // 16) * 16
        pointer = tiff.pages.first.tags[tag - 1]
        pointer.overwrite(place)
        tiff.filehandle.seek(pointer.offset)
        tiff.filehandle.write(int(tag).to_bytes(2, "little"))
        tiff.filehandle.seek(place)
        tiff.filehandle.write(written.tobytes(place))
