"""TIFF, written by tifffile: 16 bits, pages and BigTIFF, a page in memory at a time.

tifffile writes no EXIF or GPS directories, so they are appended here by hand.
"""

from collections.abc import Iterator
from pathlib import Path

import tifffile

from isr_jax.photo import exif
from isr_jax.photo.contents import Metadata
from isr_jax.photo.exif import Directory, Order
from isr_jax.photo.formats import TIFF_METADATA
from isr_jax.photo.limits import own_limits
from isr_jax.photo.metadata import packet_for
from isr_jax.photo.pixels import Page


def write_tiff(file: Path, pages: Iterator[Page], metadata: Metadata, *, size: int) -> None:
    """Write a deflated TIFF, page by page.

    Args:
        file: where to.
        pages: in order.
        metadata: of the photo as it is written.
        size: bytes of all pixels, which decide whether it is a BigTIFF.
    """
    big = size > 2**32 - 2**25
    found = metadata.exif
    directories = {tag: value for tag, value in found.items() if isinstance(value, dict)}
    values = {tag: value for tag, value in found.items() if isinstance(value, exif.Value)}
    values = {tag: value for tag, value in values.items() if tag in TIFF_METADATA}
    packet, _ = packet_for("tiff", metadata.xmp)
    if packet:
        values[exif.XMP] = exif.Value(1, packet)
    if metadata.iptc:
        values[exif.IPTC] = exif.Value(7, metadata.iptc)
    tags = [exif.as_tiff(tag, value, metadata.order) for tag, value in values.items()]
    density = metadata.dpi or metadata.density
    # tifffile writes no such directories: a tag of the number before keeps each one's place.
    tags += [(tag - 1, 16 if big else 4, 1, 0, True) for tag in directories]
    with tifffile.TiffWriter(file, bigtiff=big, byteorder=metadata.order) as tiff:
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
                resolution=density,
                resolutionunit=("inch" if metadata.dpi else "none") if density else None,
                extratags=tags,
                software=False,
                metadata=None,
                contiguous=False,
            )
            tags = []
    for tag, directory in directories.items():
        _append_directory(file, tag, directory, metadata.order)


def _append_directory(file: Path, tag: int, directory: Directory, order: Order) -> None:
    """Append an EXIF directory to a TIFF file, and put its offset into the tag before `tag`."""
    with own_limits(), tifffile.TiffFile(file, mode="r+") as tiff:
        place = -(-tiff.filehandle.size // 16) * 16
        pointer = tiff.pages.first.tags[tag - 1]
        pointer.overwrite(place)
        tiff.filehandle.seek(pointer.offset)
        tiff.filehandle.write(int(tag).to_bytes(2, "little" if order == "<" else "big"))
        tiff.filehandle.seek(place)
        tiff.filehandle.write(exif.pack(directory, place, order=order, big=tiff.is_bigtiff))
