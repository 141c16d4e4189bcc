"""Upscale files and folders of photos: what `isr upscale` does."""

import glob
import itertools
import math
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from isr_jax.errors import UsageError, UserError, one_line, printable
from isr_jax.photo.formats import FORMATS, KINDS, SUFFIXES, format_of, image_files
from isr_jax.photo.limits import MAX_PIXELS, memory
from isr_jax.photo.pixels import Page
from isr_jax.photo.reading import OpenPhoto, Photo, open_photo
from isr_jax.photo.writing import check_fits, fit, holds_all, lost, write_photo
from isr_jax.progress import image_bar
from isr_jax.tiling.cutting import Sides
from isr_jax.upscaling.any_size import SizedUpscaler
from isr_jax.upscaling.sizes import OUTPUT_NAME
from isr_jax.upscaling.tasks import (
    Outcome,
    Task,
    counted_notice,
    fault_of,
    is_bug,
    own_share,
)
from isr_jax.upscaling.upscaler import Upscaler

# The most that decoded photos waiting for the device may take, and again upscaled ones waiting for
# the disk; a single larger one is let through.
_WAITING_BYTES = 2**31


def upscale_files(
    upscaler: Upscaler | SizedUpscaler,
    inputs: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    format: str = "same",
    suffix: str | None = None,
    quality: int = 95,
    overwrite: bool = False,
    jobs: int = 2,
    shard: tuple[int, int] | None = None,
    in_place: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: bool = False,
) -> Outcome:
    """Upscale image files; a bad one does not stop the others.

    Existing outputs are skipped, so the same call continues where an earlier one stopped. Files are
    written whole or not at all.

    Args:
        upscaler: the model, or models with the size of every image.
        inputs: files, folders, which are searched at any depth, and patterns with * and **.
        out: a folder, in which the files of an input folder keep their relative paths; or, for a
            single image, the file to write. None to write beside each image.
        format: png, jpeg, webp, tiff, bmp, or same (that of the input's suffix).
        suffix: appended to each name; None for _ and the upscaler's label.
        quality: of JPEG and WebP, 1 to 100; WebP is lossless at 100.
        overwrite: replace existing outputs.
        jobs: threads that decode and encode while the device computes.
        shard: (i, n), 1 <= i <= n, to take every nth file from the ith on; None for a shard for
            each process of the job that srun or mpirun started.
        in_place: replace the inputs themselves where an output has the same name.
        max_pixels: the most that an input image may have, all its pages together.
        progress: show bars on standard error, where that is a terminal.

    Raises:
        UserError: an input does not exist or is a folder without images, or two images would be
            written to one file; nothing has been written then.
    """
    suffix = f"_{upscaler.label}" if suffix is None else suffix
    plan, earlier = plan_tasks(inputs, out=out, format=format, suffix=suffix)
    plan, todo = own_share(plan, shard, overwrite=overwrite, in_place=in_place)
    failed: dict[Path, str] = {}
    bugs: list[Exception] = []
    notices: Counter[str] = Counter()
    names: dict[str, list[str]] = {}  # of the files that a notice is of
    if earlier:
        notices["the output of an earlier run was left out; name it alone to upscale it"] = earlier
    writing: dict[Future, tuple[Task, int]] = {}
    with image_bar(shown=progress) as bar, _threads(jobs) as pool:
        images = bar.add_task("", total=len(plan), completed=len(plan) - len(todo))
        tiles = bar.add_task("tiles", visible=False)

        def done(task: Task, error: BaseException | None) -> None:
            if error and not isinstance(error, Exception):
                raise error
            if error:
                memory = "choose a smaller --tile, or --jobs 1"
                failed[task.file] = fault_of(task.file, error, memory=memory)
                bugs.extend([error] if is_bug(error) else [])
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

        def tell(task: Task, lines: Sequence[str]) -> None:
            notices.update(lines)
            for line in lines:
                names.setdefault(line, []).append(printable(task.file.name))

        def upscaled(task: Task, pages: Iterator[Page], target_format: str) -> Iterator[Page]:
            for page in pages:
                (pixels, icc), changes = fit(page, target_format)
                size = pixels.shape[0], pixels.shape[1]
                channels = pixels.shape[2] if pixels.ndim == 3 else 1
                _check_size(target_format, upscaler.result_size(size), channels, pixels.itemsize)
                tell(task, changes)
                notices.update(upscaler.remarks(size))
                yield Page(upscaler(pixels, progress=show), icc)

        for task, reading, room in _decoded(todo, upscaler, jobs, max_pixels, pool):
            bar.update(images, description=printable(task.file.name))
            photo = None
            try:
                photo, target_format = reading.result(), _target_format(task)
                tell(task, (*photo.notices, *lost(photo, target_format)))
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
    lines = [failed[task.file] for task in todo if task.file in failed]
    counted = [counted_notice(line, n, names.get(line, ())) for line, n in notices.items()]
    return Outcome(len(todo) - len(failed), len(plan) - len(todo), lines, counted, bugs)


def plan_tasks(
    inputs: Sequence[str | Path], *, out: str | Path | None, format: str, suffix: str
) -> tuple[list[Task], int]:
    """Return what is upscaled to what, sorted by output; arguments and errors of `upscale_files`.

    What an earlier run has written is left out: inputs that are the output of another input, and
    whatever a walk finds in the folder `out`. So are inputs that are named as the output of another
    one at any size, which are counted.
    """
    if os.path.basename(suffix) != suffix:
        raise UsageError(f"--suffix {suffix} cannot be part of a file name")
    out = None if out is None else Path(out).expanduser()
    found: dict[Path, tuple[Path, Path]] = {}
    for entry in inputs:
        for file, place in _images_at(entry, out):
            found.setdefault(file.resolve(), (file, place))
    stems = {file.with_suffix("") for file in found}
    earlier = {file for file in found if _input_of(file) in stems}
    if out and format_of(out) and not out.is_dir():
        if len(found) > 1:
            raise UsageError(
                f"--out {out} is one file, but there are {len(found)} images: name a folder"
            )
        if format not in ("same", format_of(out)):
            raise UsageError(f"--out {out} does not match --format {format}")
        return [Task(file, out) for file, _ in found.values()], 0
    plan: dict[Path, Task] = {}
    targets: dict[Path, Path] = {}  # of each file, both resolved
    clash = None
    for resolved, (file, place) in found.items():
        same = format in ("same", format_of(file))
        name = place.stem + suffix + (file.suffix if same else FORMATS[format].suffixes[0])
        target = (out / place if out else file).with_name(name)
        targets[resolved] = target.resolve()
        plan[resolved] = Task(file, target)
    made = {target: file for file, target in targets.items()}
    plan = {file: task for file, task in plan.items() if made.get(file, file) == file}
    left_out = earlier & plan.keys()
    plan = {file: task for file, task in plan.items() if file not in left_out}
    taken: dict[Path, Task] = {}
    for file, task in plan.items():
        clash = taken.setdefault(targets[file], task)
        if clash is not task:
            raise UserError(
                f"{clash.file} and {task.file} would both be written to {task.target}: rename one "
                "of them, or upscale them into different folders"
            )
    return sorted(plan.values(), key=lambda task: task.target.as_posix()), len(left_out)


def _input_of(file: Path) -> Path | None:
    """Return the path, without a suffix, of the image whose output a file is named as."""
    name, ends = OUTPUT_NAME.subn("", file.stem)
    return file.with_name(name) if ends and name else None


def _images_at(entry: str | Path, out: Path | None) -> list[tuple[Path, Path]]:
    """Return each image file with its path below the folder, except those inside `out`."""
    path = Path(entry).expanduser()
    if path.is_file():
        return [(path, Path(path.name))]
    if path.is_dir():
        root, files = path, image_files(path)
        nothing = f"{path} holds no {KINDS} file"
    elif glob.has_magic(str(path)):
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        files = [file for match in matches if match.is_dir() for file in image_files(match)]
        matches = [match for match in matches if match.is_file()]
        files += [file for file in matches if file.suffix.lower() in (*SUFFIXES, ".gif")]
        nothing = f"no image file matches {path}"
    else:
        raise UserError(f"no such file or folder: {path}")
    if out and root.resolve() in out.resolve().parents:
        files = [file for file in files if out.resolve() not in file.resolve().parents]
    if not files:
        raise UserError(nothing)
    return [(file, file.relative_to(root)) for file in files]


def _target_format(task: Task) -> str:
    """Return the format of a task's output."""
    format = format_of(task.target)
    if format is None:
        kind = task.target.suffix or "nameless"
        raise UserError(f"{task.file}: a {kind} file cannot be written: add --format png")
    return format


def _open(task: Task, upscaler: Upscaler | SizedUpscaler, max_pixels: int) -> OpenPhoto:
    """Open a task's file; raise a UserError where its output would be too large for anything."""
    format = _target_format(task)
    photo = open_photo(task.file, max_pixels=max_pixels)
    head = photo.head
    try:
        for size in head.sizes:
            least, _ = _results(upscaler, size)
            _check_size(format, least, head.channels, head.bits // 8)
    except UserError:
        photo.close()
        raise
    return photo


def _results(upscaler: Upscaler | SizedUpscaler, size: Sides) -> list[Sides]:
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
    upscaler: Upscaler | SizedUpscaler,
    jobs: int,
    max_pixels: int,
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[Task, Future[Photo], int]]:
    """Yield every task with its photo and the bytes of its result; some are decoded ahead."""
    ahead: deque[tuple[Task, Future[Photo], int, int]] = deque()
    for task in todo:
        reading: Future[Photo] = Future()
        photo, size, result = None, 0, 0
        try:
            photo = _open(task, upscaler, max_pixels)
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


def _write(task: Task, format: str, pages: Iterator[Page], photo: Photo, quality: int) -> None:
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
