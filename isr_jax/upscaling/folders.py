"""Folders of photographs through an Upscaler: what `isr upscale` does."""

import glob
import itertools
import logging
import math
import os
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
from PIL import Image

from isr_jax.data.sources import EXTENSIONS, image_files
from isr_jax.errors import UsageError, UserError, one_line
from isr_jax.photo.reading import MAX_PIXELS, Head, Page, Photo, probe, read_photo
from isr_jax.photo.writing import (
    FORMATS,
    check_fits,
    exif_fits,
    fit,
    format_of,
    holds_all,
    write_photo,
)
from isr_jax.progress import image_bar
from isr_jax.upscaling.upscaler import Upscaler

# An image too large for the memory or the disk; the next one may not be. Anything else is a bug.
_EXCUSED = (UserError, MemoryError, OSError, jax.errors.JaxRuntimeError)

# Decoded photographs waiting for the device, and enlarged ones waiting for the disk, each: more
# only where a single one is larger.
_WAITING_BYTES = 2**31


class Job(NamedTuple):
    """An image file, and the file that it is to become."""

    file: Path
    target: Path


class Outcome(NamedTuple):
    """What became of the files.

    Attributes:
        enlarged: how many were written.
        skipped: how many were left because their output was there.
        failed: a line for each that could not be enlarged.
        notices: a line for each thing that an output's format could not hold.
    """

    enlarged: int
    skipped: int
    failed: list[str]
    notices: list[str]


def upscale_files(
    upscaler: Upscaler,
    inputs: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    form: str = "same",
    suffix: str | None = None,
    quality: int = 95,
    overwrite: bool = False,
    jobs: int = 2,
    shard: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: bool = False,
) -> Outcome:
    """Enlarge image files; a bad one does not stop the others.

    An output that is there is left alone, so that the same call again does what is left to do. Each
    file is written under another name first, so that there are no halves.

    Args:
        upscaler: the model.
        inputs: files, folders, whose images are taken at any depth, and patterns with * and **.
        out: a folder, in which those of an input folder keep their places; or, for a single image,
            the file to write. None for beside each image.
        form: png, jpeg, webp, tiff, bmp, or same, which is what the file's suffix says.
        suffix: put behind each name; None for _xSCALE.
        quality: of JPEG and WebP, 1 to 100; WebP is lossless at 100.
        overwrite: replace outputs that are there.
        jobs: threads that decode and encode while the device computes.
        shard: (i, n), 1 <= i <= n, to take each nth file from the ith on; None for one for each
            JAX process, where there are several.
        max_pixels: the most that an image may have before it is enlarged.
        progress: show bars on standard error, where that is a terminal.

    Raises:
        UserError: where an input is nothing, or a folder without images, or two images would become
            one file; before anything is written.
    """
    suffix = f"_x{upscaler.scale}" if suffix is None else suffix
    plan = plan_jobs(inputs, out=out, form=form, suffix=suffix)
    i, n = shard or (jax.process_index() + 1, jax.process_count())
    plan = plan[i - 1 :: n]
    # lexists: a link to nowhere is there too, and a name that cannot be is not.
    todo = [job for job in plan if overwrite or not os.path.lexists(job.target)]
    failed: dict[Path, str] = {}
    notices: Counter[str] = Counter()
    writing: dict[Future, tuple[Job, int]] = {}
    with _own_limits(), image_bar(shown=progress) as bar, _threads(jobs) as pool:
        images = bar.add_task("", total=len(plan), completed=len(plan) - len(todo))
        tiles = bar.add_task("tiles", visible=False)

        def done(job: Job, error: BaseException | None) -> None:
            if error and not isinstance(error, _EXCUSED):
                raise error
            if error:
                line = one_line(error, limit=1000)
                named = line.startswith(str(job.file))
                failed[job.file] = line if named else f"{job.file}: {line}"
            bar.advance(images)

        def make_room(size: int | float) -> None:
            """Wait until so many bytes more may wait to be written."""
            while writing and (
                len(writing) >= jobs or sum(n for _, n in writing.values()) + size > _WAITING_BYTES
            ):
                for future in wait(writing, return_when=FIRST_COMPLETED).done:
                    done(writing.pop(future)[0], future.exception())

        def show(done_tiles: int, total_tiles: int) -> None:
            bar.update(tiles, completed=done_tiles, total=total_tiles, visible=total_tiles > 1)

        def enlarged(pages: Iterator[Page], target_form: str) -> Iterator[Page]:
            for page in pages:
                (pixels, icc), told = fit(page, target_form)
                notices.update(told)
                yield Page(upscaler(pixels, progress=show), icc)

        for job, reading in _decoded(todo, upscaler.scale, jobs, max_pixels, pool):
            bar.update(images, description=job.file.name)
            try:
                photo, target_form = reading.result(), _target_form(job)
                notices.update((*photo.notices, *_losses(photo, target_form)))
                pages = enlarged(photo.pages, target_form)
                if photo.page_count > 1 and holds_all(target_form, photo):
                    _write(job, target_form, pages, photo, quality)
                    done(job, None)
                    continue
                make_room(photo.first_bytes * upscaler.scale**2)
                page = next(pages)
                future = pool.submit(_write, job, target_form, iter([page]), photo, quality)
                writing[future] = job, page.pixels.nbytes
                del page  # or it would outlive its writing, beside the next one
            except Exception as error:
                done(job, error)
        make_room(math.inf)
    lines = [failed[job.file] for job in todo if job.file in failed]
    counted = [f"{line} ({n} image{'s' * (n > 1)})" for line, n in notices.items()]
    return Outcome(len(todo) - len(failed), len(plan) - len(todo), lines, counted)


def plan_jobs(
    inputs: Sequence[str | Path], *, out: str | Path | None, form: str, suffix: str
) -> list[Job]:
    """What is to become what, sorted by the outputs; arguments and errors of `upscale_files`.

    Left out is what an earlier run has made: inputs that are the output of another one, and what a
    walk finds in the folder `out`.
    """
    if os.path.basename(suffix) != suffix:
        raise UsageError(f"--suffix {suffix} is no part of a name")
    out = None if out is None else Path(out).expanduser()
    found: dict[Path, tuple[Path, Path]] = {}
    for entry in inputs:
        for file, place in _images_at(entry, out):
            found.setdefault(file.resolve(), (file, place))
    if out and format_of(out) and not out.is_dir():
        if len(found) > 1:
            raise UsageError(f"--out {out} is one file, for {len(found)} images: name a folder")
        if form not in ("same", format_of(out)):
            raise UsageError(f"--out {out} is no name for --format {form}")
        return [Job(file, out) for file, _ in found.values()]
    plan: dict[Path, Job] = {}
    targets: dict[Path, Path] = {}  # of each file, both resolved
    clash = None
    for resolved, (file, place) in found.items():
        same = form in ("same", format_of(file))
        name = place.stem + suffix + (file.suffix if same else FORMATS[form].suffixes[0])
        target = (out / place if out else file).with_name(name)
        targets[resolved] = target.resolve()
        plan[resolved] = Job(file, target)
    made = {target: file for file, target in targets.items()}
    plan = {file: job for file, job in plan.items() if made.get(file, file) == file}
    taken: dict[Path, Job] = {}
    for file, job in plan.items():
        clash = taken.setdefault(targets[file], job)
        if clash is not job:
            raise UserError(
                f"{clash.file} and {job.file} would both become {job.target}: rename one of them, "
                "or enlarge them into different folders"
            )
    return sorted(plan.values(), key=lambda job: job.target.as_posix())


def _images_at(entry: str | Path, out: Path | None) -> list[tuple[Path, Path]]:
    """Each image file, with its place below the folder; none of those in `out` further below."""
    path = Path(entry).expanduser()
    if path.is_file():
        return [(path, Path(path.name))]
    if path.is_dir():
        root, files = path, image_files(path)
        nothing = f"{path} holds no PNG, JPEG, WebP, BMP or TIFF file"
    elif glob.has_magic(str(path)):
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        files = [file for match in matches if match.is_dir() for file in image_files(match)]
        matches = [match for match in matches if match.is_file()]
        files += [file for file in matches if file.suffix.lower() in (*EXTENSIONS, ".gif")]
        nothing = f"no image file matches {path}"
    else:
        raise UserError(f"there is no file or folder {path}")
    if out and root.resolve() in out.resolve().parents:
        files = [file for file in files if out.resolve() not in file.resolve().parents]
    if not files:
        raise UserError(nothing)
    return [(file, file.relative_to(root)) for file in files]


def _target_form(job: Job) -> str:
    """The format of a job's output."""
    form = format_of(job.target)
    if form is None:
        kind = job.target.suffix or "nameless"
        raise UserError(f"{job.file}: a {kind} file cannot be written: add --format png")
    return form


def _look(job: Job, scale: int, max_pixels: int) -> Head:
    """A file's header. Raises UserError where its output would be too large for anything."""
    head, form = probe(job.file, max_pixels=max_pixels), _target_form(job)
    for width, height in head.sizes:
        check_fits(form, width * scale, height * scale, head.channels)
        size = width * height * head.pixel_bytes * scale**2
        if size > _memory():
            raise UserError(
                f"enlarged, it has {width * scale}x{height * scale} pixels, {size / 1e9:.0f} GB, "
                f"more than this machine's memory of {_memory() / 1e9:.0f} GB: cut it into parts"
            )
    return head


def _memory() -> float:
    """The machine's memory in bytes; infinite where it does not say."""
    if not hasattr(os, "sysconf"):
        return math.inf
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _losses(photo: Photo, form: str) -> tuple[str, ...]:
    """What a format cannot hold of pages and frames, and of EXIF."""
    title, notices = FORMATS[form].title, []
    if not holds_all(form, photo):
        notices.append(f"only the first page was enlarged, as {title} holds just one")
    elif photo.animated and FORMATS[form].many == "pages":
        notices.append(f"frames became pages, without their times, as {title} has none")
    if not exif_fits(form, photo.exif):
        notices.append(f"EXIF was left out, as {title} holds at most 64 KiB of it")
    return tuple(notices)


def _decoded(
    todo: Sequence[Job], scale: int, jobs: int, max_pixels: int, pool: ThreadPoolExecutor
) -> Iterator[tuple[Job, Future[Photo]]]:
    """Every job with its photograph, some of which are decoded ahead."""
    ahead: deque[tuple[Job, Future[Photo], int]] = deque()
    for job in todo:
        reading: Future[Photo] = Future()
        size = 0
        try:
            head = _look(job, scale, max_pixels)
            size = math.prod(head.sizes[0]) * head.pixel_bytes
        except Exception as error:
            reading.set_exception(error)
        while ahead and (len(ahead) >= jobs or sum(n for *_, n in ahead) + size > _WAITING_BYTES):
            yield ahead.popleft()[:2]
        if size:
            reading = pool.submit(read_photo, job.file, head)
        ahead.append((job, reading, size))
    while ahead:
        yield ahead.popleft()[:2]


def _write(job: Job, form: str, pages: Iterator[Page], photo: Photo, quality: int) -> None:
    """Write a job's output. Raises UserError where that cannot be."""
    try:
        write_photo(job.target, form, pages, photo, quality=quality)
    except UserError:
        raise
    # The encoders of Pillow, tifffile and imagecodecs raise whatever they stumble over.
    except Exception as error:
        reason = (isinstance(error, OSError) and error.strerror) or one_line(error)
        raise UserError(f"{job.file}: {job.target} cannot be written: {reason}") from error


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads; at an error, or at Ctrl-C, they finish what they have begun and no more."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _own_limits() -> Iterator[None]:
    """`probe` in place of Pillow's own limit of pixels, and no libraries' warnings."""
    limit, logger = Image.MAX_IMAGE_PIXELS, logging.getLogger("tifffile")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        Image.MAX_IMAGE_PIXELS = None
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
            logger.setLevel(level)
