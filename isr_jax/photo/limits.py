"""What decoding a file may take: judged by its header, before any of it is taken.

A small file can declare an enormous image, or pages without end, to exhaust whoever opens it.
"""

import logging
import math
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from isr_jax.errors import UserError

MAX_PIXELS = 10**9  # of all pages together
MAX_PAGES = 1000
# The most pixels that a byte of the file can stand for. Deflate turns a byte into 1032 at most, of
# 8 pixels each. JPEG takes a bit or more for a block of 64 pixels, or an eighth of that where it is
# coded arithmetically. One of GIF's codes of up to 12 bits stands for 4096 at most.
_PIXELS_PER_BYTE = {"png": 1032 * 8, "jpeg": 8 * 8 * 64, "gif": 4096}

_lifting = threading.Lock()
_lifted = 0
_before: tuple[int | None, int] = (None, 0)
_silence = warnings.catch_warnings()


def check(
    format: str, sizes: Sequence[tuple[int, int]], *, pixel_bytes: int, file_bytes: int, most: int
) -> None:
    """Raise a UserError for an image that is too large to decode, or cannot be as large as it says.

    Args:
        format: png, jpeg, webp, tiff, bmp or gif.
        sizes: width and height of each page.
        pixel_bytes: of a decoded pixel.
        file_bytes: size of the file.
        most: the most pixels that all pages may have together.
    """
    check_page_count(len(sizes))
    total = sum(width * height for width, height in sizes)
    if total > most:
        width, height = sizes[0]
        pages = f" on {len(sizes)} pages" if len(sizes) > 1 else ""
        raise UserError(
            f"declares {width}x{height} pixels{pages}, more than the limit of {most}; if you trust "
            "the file, `isr upscale --max-pixels` raises it"
        )
    width, height = max(sizes, key=math.prod)
    if width * height > _PIXELS_PER_BYTE.get(format, math.inf) * file_bytes:
        raise UserError(
            f"declares {width}x{height} pixels, but {file_bytes} bytes cannot hold so many: "
            "the file is damaged"
        )
    needed = width * height * pixel_bytes
    if needed > memory() / 2:
        raise UserError(
            f"declares {width}x{height} pixels, which take {needed / 1e9:.1f} GB; this machine's "
            f"memory of {memory() / 1e9:.1f} GB is too small to decode them"
        )


def check_page_count(count: int) -> None:
    """Raise a UserError for more pages or frames than are read."""
    if count > MAX_PAGES:
        raise UserError(f"has more than {MAX_PAGES} pages or frames: cut it into several files")


def memory() -> float:
    """Return the memory in bytes of this machine or container; infinity where it is unknown."""
    if not hasattr(os, "sysconf"):
        return math.inf
    machine = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    try:
        container = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return machine
    return min(machine, float(container)) if container.isdecimal() else machine


@contextmanager
def own_limits() -> Iterator[None]:
    """Lift Pillow's own pixel limit, in place of which `check` stands, and silence its warnings.

    They are global to the process, and therefore lifted only while some thread reads a file.
    """
    global _lifted, _before, _silence
    logger = logging.getLogger("tifffile")
    with _lifting:
        if not _lifted:
            _before, _silence = (Image.MAX_IMAGE_PIXELS, logger.level), warnings.catch_warnings()
            _silence.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
            Image.MAX_IMAGE_PIXELS = None
            logger.setLevel(logging.CRITICAL)
        _lifted += 1
    try:
        yield
    finally:
        with _lifting:
            _lifted -= 1
            if not _lifted:
                Image.MAX_IMAGE_PIXELS = _before[0]
                logger.setLevel(_before[1])
                _silence.__exit__(None, None, None)
