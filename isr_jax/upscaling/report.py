"""A page of before/after sliders of upscaled photos: one self-contained HTML file.

Before is the input, upscaled by bicubic interpolation to the size of the output. Of a large photo
the page holds the part that has most detail, pixel by pixel, and a small picture of the whole.
"""

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms

from isr_jax.errors import UsageError, UserError, one_line, printable
from isr_jax.files import expanded, replacing
from isr_jax.images import busiest
from isr_jax.pages import page_template
from isr_jax.photo.limits import MAX_PIXELS, own_limits
from isr_jax.photo.pixels import as_image, in_srgb, over_white, to_8_bits
from isr_jax.photo.reading import READABLE, open_photo
from isr_jax.resize import resize_uint8
from isr_jax.tiling.cutting import Sides
from isr_jax.upscaling.tasks import Outcome, Task, fault_of

MARK = b"isr upscale --report"
MOST = 100  # photos
# The largest part that is shown, height and width: of few pictures, and of many.
PARTS, FEW = ((480, 640), (360, 480)), 60
WHOLE = 160  # longer side of the small picture
_COARSE = 512  # longer side of what tells where most detail is, pixels
BEFORE = "before"
_ANY = 10**12  # pixels: of outputs, which this program has made
_FORMS = (("PNG", {}), ("JPEG", {"quality": 92, "subsampling": 0}))

Pixels = UInt8[np.ndarray, "h w *c"]
Box = tuple[slice, slice]


class Version(NamedTuple):
    """One picture of a photo: what made it, what is said of it, its file, and its part.

    Attributes:
        name: before, or the model.
        caption: its size.
        href: a relative link to its file.
        uri: the part that is shown, as a data URI.
    """

    name: str
    caption: str
    href: str
    uri: str


class Row(NamedTuple):
    """A photo: its versions, and, where just a part is shown, the whole and where the part is.

    Attributes:
        name: its path.
        versions: before, and what each model made.
        size: width and height of the part.
        whole: a small picture as a data URI; empty where the part is the whole.
        box: left, top, width and height of the part, percent of the whole.
    """

    name: str
    versions: list[Version]
    size: tuple[int, int]
    whole: str
    box: tuple[float, float, float, float]


def check_report(file: str | Path, *, overwrite: bool) -> None:
    """Check that a report can be written, before photos are upscaled.

    Raises:
        UsageError: it is not named .html.
        UserError: something else than a report is there, and it is not to be replaced.
    """
    path = expanded(file)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {file} is an HTML page: name a .html file")
    if path.is_dir():
        raise UserError(f"--report {file} is a folder: name a .html file")
    if path.exists() and not overwrite:
        with open(path, "rb") as page:
            ours = MARK in page.read(1000)
        if not ours:
            raise UserError(
                f"--report {file} exists and is not a report: name another file, or --overwrite"
            )


def write_report(
    file: str | Path, outcome: Outcome, *, models: Mapping[str, str], max_pixels: int = MAX_PIXELS
) -> list[str]:
    """Write the page of all outputs of a run; return a line for each that it does not show.

    Args:
        file: where to; an earlier report is replaced.
        outcome: of `folders.upscale_files`; outputs of earlier runs are shown too.
        models: how to call the models of its tasks, by their names there.
        max_pixels: the most that an input may have.

    Raises:
        OSError: it cannot be written.
    """
    path = expanded(file)
    photos: dict[Path, list[Task]] = {}
    for task in outcome.outputs:
        photos.setdefault(task.file, []).append(task)
    shown = list(photos.items())[:MOST]
    lines = []
    if len(photos) > MOST:
        lines.append(f"the report shows the first {MOST} of {len(photos)} photos")
    part = PARTS[sum(len(tasks) + 1 for _, tasks in shown) > FEW]
    rows = []
    for photo, tasks in shown:
        try:
            if any(task.target.resolve() == photo.resolve() for task in tasks):
                raise UserError(f"{photo}: the report cannot show what was replaced in place")
            rows.append(_row(photo, tasks, path, part, models, max_pixels))
        except Exception as error:  # a damaged file can raise anything
            lines.append(fault_of(photo, error, memory="the report leaves it out"))
    names = [BEFORE, *dict.fromkeys(models.values())]
    page = page_template("isr_jax.upscaling", "report.html").render(
        rows=rows,
        names=names,
        column=max((row.size[0] for row in rows), default=0),
        failed=[printable(line) for line in dict.fromkeys(outcome.failed)],
        notes=[printable(line) for line in lines],
    )
    with replacing(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return lines


def add_report(
    file: str | Path, outcome: Outcome, *, models: Mapping[str, str], max_pixels: int = MAX_PIXELS
) -> None:
    """Write the page as `write_report`, and add its lines, or its failure, to those of a run."""
    try:
        outcome.notices.extend(write_report(file, outcome, models=models, max_pixels=max_pixels))
    except (OSError, UserError) as error:
        outcome.failed.append(f"--report {file}: {one_line(error, limit=1000)}")


def _row(
    photo: Path,
    tasks: Sequence[Task],
    page: Path,
    part: Sides,
    models: Mapping[str, str],
    max_pixels: int,
) -> Row:
    """Return what is shown of a photo; the largest output sets the size of all versions."""
    order = list(models)
    tasks = sorted(tasks, key=lambda task: order.index(task.model))
    before, icc = _read(photo, max_pixels)
    files = [(BEFORE, photo, (before.shape[0], before.shape[1]))]
    files += [(models[task.model], task.target, _size(task.target)) for task in tasks]
    height, width = size = max((own for *_, own in files[1:]), key=math.prod)
    box = _most_detail(before, size, part)
    versions = []
    for name, file, own in files:
        if file == photo:
            shown = _uri(_resized(before, size, box), icc)
        elif own == size:
            shown = _uri(*_read_part(file, box))
        else:
            pixels, profile = _read(file, _ANY)
            shown = _uri(_resized(pixels, size, box), profile)
        caption = f"{own[1]}x{own[0]}" + ("" if own == size else f", shown at {width}x{height}")
        versions.append(Version(name, caption, quote(os.fsencode(_relative(file, page))), shown))
    small = ""
    if box != (slice(0, height), slice(0, width)):
        ratio = WHOLE / max(height, width)
        sides = max(1, round(height * ratio)), max(1, round(width * ratio))
        small = _uri(resize_uint8(before, size=sides), icc)
    rows, cols = box
    percent = (
        100 * cols.start / width,
        100 * rows.start / height,
        100 * (cols.stop - cols.start) / width,
        100 * (rows.stop - rows.start) / height,
    )
    sides = cols.stop - cols.start, rows.stop - rows.start
    return Row(printable(str(photo)), versions, sides, small, percent)


def _read(file: Path, max_pixels: int) -> tuple[Pixels, bytes | None]:
    """Return the first page of a file, with 8 bits and opaque, and its profile."""
    photo = open_photo(file, max_pixels=max_pixels)
    try:
        page = next(photo.read(first_only=True).pages)
    finally:
        photo.close()
    return over_white(to_8_bits(page.pixels)), page.icc


def _size(output: Path) -> Sides:
    """Return height and width of an output."""
    photo = open_photo(output, max_pixels=_ANY)
    photo.close()
    width, height = photo.head.sizes[0]
    return height, width


def _read_part(output: Path, box: Box) -> tuple[Pixels, bytes | None]:
    """Return a part of an output, as `_read` does, with the memory of 4 bytes for each pixel."""
    rows, cols = box
    photo = open_photo(output, max_pixels=_ANY)
    photo.close()
    if photo.head.bits > 8 or photo.head.format.upper() not in READABLE:
        pixels, icc = _read(output, _ANY)
        return pixels[box], icc
    with own_limits(), Image.open(output, formats=READABLE) as image:
        part = image.crop((cols.start, rows.start, cols.stop, rows.stop))
        gray = part.mode in ("L", "LA")
        mode = ("L" if gray else "RGB") + ("A" if part.has_transparency_data else "")
        return over_white(np.array(part.convert(mode))), image.info.get("icc_profile")


def _resized(pixels: Pixels, size: Sides, box: Box) -> UInt8[np.ndarray, "oh ow *c"]:
    """Return a part of an image that is upscaled by bicubic interpolation."""
    rows, cols = ((one.start, one.stop) for one in box)
    return resize_uint8(pixels, size=size, rows=rows, cols=cols)


def _most_detail(pixels: Pixels, size: Sides, part: Sides) -> Box:
    """Return the part of an upscaled image where the image varies most, at most so large."""
    if size[1] <= part[1] and math.prod(size) <= math.prod(part):
        return slice(0, size[0]), slice(0, size[1])
    sides = min(size[0], part[0]), min(size[1], part[1])
    step = -(-max(pixels.shape[:2]) // _COARSE)
    coarse = pixels[::step, ::step]
    rows, cols = coarse.shape[:2]
    window = max(1, rows * sides[0] // size[0]), max(1, cols * sides[1] // size[1])
    y, x = busiest(coarse, sides=window)
    top = min(y * size[0] // rows, size[0] - sides[0])
    left = min(x * size[1] // cols, size[1] - sides[1])
    return slice(top, top + sides[0]), slice(left, left + sides[1])


def _relative(file: Path, page: Path) -> str:
    """Return the path of a file from the folder of the page."""
    try:
        return Path(os.path.relpath(file, page.parent)).as_posix()
    except ValueError:  # another drive of Windows
        return file.resolve().as_posix()


def _uri(pixels: Pixels, icc: bytes | None) -> str:
    """Return a picture in sRGB as a data URI: PNG, or JPEG where that is smaller."""
    image = as_image(np.ascontiguousarray(pixels))
    if icc:
        try:
            image = in_srgb(image, icc)
        except (ImageCms.PyCMSError, OSError):  # damaged
            image = image.copy()
    encoded = []
    for form, options in _FORMS:
        data = io.BytesIO()
        image.save(data, form, **options)
        encoded.append((len(data.getvalue()), form.lower(), data.getvalue()))
    _, form, content = min(encoded)
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"
