"""Upscale files and folders of photos: what `isr upscale` does."""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from isr_jax.errors import UsageError, UserError, one_line, printable
from isr_jax.files import check_name
from isr_jax.photo.finding import say_closed, say_passed_over
from isr_jax.photo.formats import format_of
from isr_jax.photo.limits import MAX_PIXELS, memory
from isr_jax.photo.pixels import Page
from isr_jax.photo.reading import OpenPhoto, Photo, open_photo
from isr_jax.photo.writing import check_fits, fit, holds_all, lost, write_photo
from isr_jax.pretrained import PRETRAINED
from isr_jax.progress import SparseLog, image_bar
from isr_jax.tiling.cutting import Sides
from isr_jax.upscaling.any_size import SizedUpscaler
from isr_jax.upscaling.planning import plan_tasks
from isr_jax.upscaling.tasks import (
    Outcome,
    Task,
    counted_notice,
    fault_of,
    is_bug,
    own_share,
    suffix_of,
)
from isr_jax.upscaling.upscaler import Upscaler

# The most that decoded photos waiting for the device may take, and again upscaled ones waiting for
# the disk; a single larger one is let through.
_WAITING_BYTES = 2**31

# Of JPEGs: below it photo-x4's stage by L1 has a better PSNR than compact-x4 (docs/upscaling.md).
_LOW_QUALITY = 75

AnyUpscaler = Upscaler | SizedUpscaler


def upscale_files(
    upscaler: AnyUpscaler | Mapping[str, AnyUpscaler],
    inputs: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    format: str = "same",
    suffix: str | None = None,
    quality: int | None = None,
    overwrite: bool = False,
    jobs: int = 2,
    shard: tuple[int, int] | None = None,
    in_place: bool = False,
    max_pixels: int = MAX_PIXELS,
    bands: Sequence[int] | None = None,
    progress: bool = False,
) -> Outcome:
    """Upscale image files; a bad one does not stop the others.

    Existing outputs are skipped, so the same call continues where an earlier one stopped. Files are
    written whole or not at all.

    Args:
        upscaler: the model, or models with the size of every image. Or several by their names,
            which then end the names of their outputs; each photo is upscaled by each.
        inputs: files, folders, which are searched at any depth, and patterns with * and **.
        out: a folder, in which the files of an input folder keep their relative paths; or, for a
            single image, the file to write. None to write beside each image.
        format: png, jpeg, webp, tiff, bmp, gif, avif, jxl, or same: that of the input's suffix, and
            png for GIF and HEIC.
        suffix: appended to each name; None for _ and the upscaler's label.
        quality: of JPEG, WebP, AVIF and JPEG XL, 1 to 100; all but JPEG are lossless at 100. None
            for 95, or for a lossless file where the input is lossless.
        overwrite: replace existing outputs.
        jobs: threads that decode and encode while the device computes.
        shard: (i, n), 1 <= i <= n, to take every nth file from the ith on; None for a shard for
            each process of the job that srun or mpirun started.
        in_place: replace the inputs themselves where an output has the same name.
        max_pixels: the most that an input image may have, all its pages together.
        bands: of multispectral TIFF files, those to take, counted from 1: one, or red, green, blue.
        progress: show bars on standard error, or, where that is no terminal, a line a minute.

    Raises:
        UserError: an input does not exist or is a folder without images, or two images would be
            written to one file; nothing has been written then.
    """
    upscalers = upscaler if isinstance(upscaler, Mapping) else {"": upscaler}
    suffixes = {
        name: suffix_of(one.label, given=suffix, model=name) for name, one in upscalers.items()
    }
    if bands and (len(bands) not in (1, 3) or min(bands) < 1):
        raise UsageError(f"bands are {tuple(bands)}; give one, or three such as (3, 2, 1)")
    planned = plan_tasks(inputs, out=out, format=format, suffixes=suffixes)
    plan, todo = own_share(planned.tasks, shard, overwrite=overwrite, in_place=in_place)
    failed: dict[Task, str] = {}
    bugs: list[Exception] = []
    notices: Counter[str] = Counter()
    names: dict[str, list[str]] = {}  # of the files that a notice is of
    told: dict[tuple[str, Path], str] = {}  # by which model
    if planned.earlier:
        notices["the output of an earlier run was left out; name it alone to upscale it"] = (
            planned.earlier
        )
    writing: dict[Future, tuple[Task, int]] = {}
    log = SparseLog(len(todo), shown=progress)
    with image_bar(shown=progress) as bar, _threads(jobs) as pool:
        images = bar.add_task("", total=len(plan), completed=len(plan) - len(todo))
        tiles = bar.add_task("tiles", visible=False)

        def done(task: Task, error: BaseException | None) -> None:
            if error and not isinstance(error, Exception):
                raise error
            if error:
                memory = "choose a smaller --tile, or --jobs 1"
                failed[task] = fault_of(task.file, error, memory=memory)
                bugs.extend([error] if is_bug(error) else [])
            bar.advance(images)
            log.advance(failed=len(failed))

        def make_room(size: int | float) -> None:
            """Wait until so many bytes more may wait to be written."""
            while writing and (
                len(writing) >= jobs or sum(n for _, n in writing.values()) + size > _WAITING_BYTES
            ):
                for future in wait(writing, return_when=FIRST_COMPLETED).done:
                    done(writing.pop(future)[0], future.exception())

        def show(done_tiles: int, total_tiles: int) -> None:
            bar.update(tiles, completed=done_tiles, total=total_tiles, visible=total_tiles > 1)

        def tell(task: Task, lines: Sequence[str]) -> None:
            """Count a line for each page of a file, by the first model that says it."""
            for line in lines:
                if told.setdefault((line, task.file), task.model) == task.model:
                    notices[line] += 1
                    names.setdefault(line, []).append(printable(task.file.name))

        def upscaled(task: Task, pages: Iterator[Page], target_format: str) -> Iterator[Page]:
            upscaler = upscalers[task.model]
            for page in pages:
                (pixels, icc), changes = fit(page, target_format)
                size = pixels.shape[0], pixels.shape[1]
                channels = pixels.shape[2] if pixels.ndim == 3 else 1
                _check_size(target_format, upscaler.result_size(size), channels, pixels.itemsize)
                tell(task, changes)
                notices.update(upscaler.remarks(size))
                yield Page(upscaler(pixels, progress=show), icc)

        opened = partial(open_photo, max_pixels=max_pixels, bands=bands)
        for task, reading, room in _decoded(todo, upscalers, opened, jobs, pool):
            bar.update(images, description=printable(task.file.name))
            photo = None
            try:
                photo, target_format = reading.result(), _target_format(task)
                tell(task, (*photo.notices, *lost(photo, target_format), *_hint(photo, upscalers)))
                pages = upscaled(task, photo.pages, target_format)
                if photo.page_count > 1 and holds_all(target_format, photo):
                    _write(task, target_format, pages, photo, quality)
                    done(task, None)
                    continue
                make_room(room)
                page = next(pages)
                future = pool.submit(_write, task, target_format, iter([page]), photo, quality)
                writing[future] = task, page.pixels.nbytes
                del page  # or it would outlive its writing, beside the next one
            except Exception as error:
                done(task, error)
            finally:
                if photo:
                    photo.pages.close()
        make_room(math.inf)
    lines = [failed[task] for task in todo if task in failed]
    outputs = [task for task in plan if task not in failed]
    counted = [counted_notice(line, n, names.get(line, ())) for line, n in notices.items()]
    if planned.passed:
        counted.append(say_passed_over(planned.passed))
    if planned.closed:
        counted.append(say_closed(planned.closed))
    return Outcome(len(todo) - len(failed), len(plan) - len(todo), lines, counted, bugs, outputs)


def _hint(photo: Photo, upscalers: Mapping[str, AnyUpscaler]) -> tuple[str, ...]:
    """Return a line for a photo that asks for another model than the shipped ones of the run."""
    titles = {upscaler.title for upscaler in upscalers.values()}
    better = f"photo-x{2 if all(title.endswith('x2') for title in titles) else 4}"
    clean = {"compact", *(name for name in PRETRAINED if not name.startswith("photo"))}
    if (photo.jpeg_quality or 100) >= _LOW_QUALITY or better not in PRETRAINED or titles - clean:
        return ()
    return (f"for JPEGs of low quality there is --model {better}",)


def _target_format(task: Task) -> str:
    """Return the format of a task's output."""
    format = format_of(task.target)
    assert format  # see plan_tasks
    return format


def _open(task: Task, upscaler: AnyUpscaler, opened: Callable[[Path], OpenPhoto]) -> OpenPhoto:
    """Open a task's file; raise a UserError where its output would be too large for anything."""
    format = _target_format(task)
    check_name(task.target)
    photo = opened(task.file)
    head = photo.head
    try:
        for size in head.sizes:
            least, _ = _results(upscaler, size)
            _check_size(format, least, head.channels, head.bits // 8)
    except UserError:
        photo.close()
        raise
    return photo


def _results(upscaler: AnyUpscaler, size: Sides) -> list[Sides]:
    """Return the smaller and the larger result of a width and height in a header.

    The header does not tell which way is up.
    """
    upright, turned = (size[1], size[0]), size
    return sorted(map(upscaler.result_size, (upright, turned)), key=math.prod)


def _check_size(format: str, result: Sides, channels: int, channel_bytes: int) -> None:
    """Raise a UserError where a result, of a height and width, is too large for anything."""
    height, width = result
    check_fits(format, width, height, channels)
    size = width * height * channels * channel_bytes
    if size > memory():
        raise UserError(
            f"the upscaled image has {width}x{height} pixels, {size / 1e9:.0f} GB, more than this "
            f"machine's memory of {memory() / 1e9:.0f} GB: cut it into parts"
        )


def _decoded(
    todo: Sequence[Task],
    upscalers: Mapping[str, AnyUpscaler],
    opened: Callable[[Path], OpenPhoto],
    jobs: int,
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[Task, Future[Photo], int]]:
    """Yield every task with its photo and the bytes of its result; some are decoded ahead."""
    ahead: deque[tuple[Task, Future[Photo], int, int]] = deque()
    for task in todo:
        reading: Future[Photo] = Future()
        photo, size, result, upscaler = None, 0, 0, upscalers[task.model]
        try:
            photo = _open(task, upscaler, opened)
            first, pixel_bytes = photo.head.sizes[0], photo.head.pixel_bytes
            size = math.prod(first) * pixel_bytes
            result = math.prod(_results(upscaler, first)[1]) * pixel_bytes
        except Exception as error:
            reading.set_exception(error)
        while ahead and (len(ahead) >= jobs or sum(n for *_, n in ahead) + size > _WAITING_BYTES):
            yield ahead.popleft()[:3]
        if photo:
            reading = pool.submit(photo.read)
        ahead.append((task, reading, result, size))
    while ahead:
        yield ahead.popleft()[:3]


def _write(
    task: Task, format: str, pages: Iterator[Page], photo: Photo, quality: int | None
) -> None:
    """Write a task's output, and raise a UserError where that fails."""
    try:
        write_photo(task.target, format, pages, photo, quality=quality)
    except UserError:
        raise
    # The encoders of Pillow, tifffile and imagecodecs can raise anything.
    except Exception as error:
        reason = (isinstance(error, OSError) and error.strerror) or one_line(error)
        raise UserError(f"{task.file}: {task.target} cannot be written: {reason}") from error


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a thread pool; on an error or Ctrl-C its threads finish what they have begun."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
