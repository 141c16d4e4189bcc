"""Upscale videos: what `isr upscale` does with them.

While the device computes a batch of frames, one thread decodes the next and another encodes the
last, so that memory is that of three batches, however long the video is.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import jax
import numpy as np
from av.error import FFmpegError

import isr_jax
from isr_jax.errors import UserError, disk_error, is_out_of_memory, printable
from isr_jax.files import check_name, read_json, write_json
from isr_jax.photo.limits import MAX_PIXELS, memory
from isr_jax.progress import frame_bar
from isr_jax.upscaling.any_size import SizedUpscaler
from isr_jax.upscaling.tasks import Outcome, Task, fault_of, is_bug, own_share, suffix_of
from isr_jax.upscaling.upscaler import Upscaler
from isr_jax.video.assembling import assemble
from isr_jax.video.colour import RGB, Upscaled
from isr_jax.video.encoding import (
    SEGMENT,
    Segment,
    Target,
    make_encoder,
    make_target,
    read_times,
)
from isr_jax.video.names import choose_codec, plan_videos, without_earlier
from isr_jax.video.reading import Frame, frames, look, reason

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# The most that the upscaled frames of a batch may take, and the most frames that it has.
_BATCH_BYTES, _BATCH_FRAMES = 2**27, 16
_NOTICES = "notices.json"  # of a job: what was left out of its video


AnyUpscaler = Upscaler | SizedUpscaler


class Options(NamedTuple):
    """How videos are written.

    Attributes:
        codec: a key of `names.CODECS`, or same.
        crf: the quality, 0 to 51, lower is better; None for the codec's default.
        resume: continue a job that was interrupted, and keep this one's if it is.
        settings: what else decides on the pixels, such as the model; compared when a job resumes.
    """

    codec: str = "same"
    crf: int | None = None
    resume: bool = False
    settings: Mapping[str, Any] = {}


def upscale_videos(
    upscaler: AnyUpscaler,
    videos: Sequence[tuple[Path, Path]],
    *,
    options: Options,
    out: str | Path | None = None,
    suffix: str | None = None,
    overwrite: bool = False,
    shard: tuple[int, int] | None = None,
    in_place: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: bool = False,
) -> Outcome:
    """Upscale video files; a bad one does not stop the others.

    Existing outputs are skipped. Files are written whole or not at all.

    Args:
        upscaler: the model.
        videos: files, each with its path below an input folder.
        options: how they are written.
        out, suffix, overwrite, shard, in_place, progress: as of `upscale_files`.
        max_pixels: the most that a frame may have.

    Raises:
        UserError: two videos would be written to one file; nothing has been written then.
    """
    suffix = suffix_of(upscaler.label, given=suffix, model="")
    chosen = without_earlier(videos, suffix)
    plan = plan_videos(chosen, out=out, suffix=suffix, codec=options.codec)
    plan, todo = own_share(plan, shard, overwrite=overwrite, in_place=in_place)
    failed: list[str] = []
    notices: list[str] = []
    if left := len(videos) - len(chosen):
        notices.append(
            "the output of an earlier run was left out; name it alone to upscale it "
            f"({left} video{'s' * (left > 1)})"
        )
    bugs: list[Exception] = []
    for task in todo:
        name = printable(str(task.file))
        try:
            lines = upscale_video(
                upscaler,
                task,
                options=options,
                overwrite=overwrite,
                max_pixels=max_pixels,
                progress=progress,
            )
            notices += [f"{name}: {line}" for line in lines]
        except Exception as error:
            known = disk_error(error)
            if isinstance(error, FFmpegError) and not is_out_of_memory(error):
                known = reason(error)
            error = UserError(known) if known else error
            failed.append(fault_of(task.file, error, memory="choose a smaller --tile"))
            bugs.extend([error] if is_bug(error) else [])
    return Outcome(len(todo) - len(failed), len(plan) - len(todo), failed, notices, bugs)


def upscale_video(
    upscaler: AnyUpscaler,
    task: Task,
    *,
    options: Options,
    overwrite: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: bool = False,
) -> list[str]:
    """Upscale one video; return lines on what could not be kept. Arguments as of `upscale_videos`.

    Raises:
        UserError: the video cannot be read or written, or an unfinished job of it is there.
    """
    check_name(task.target)
    video, lines = look(task.file, max_pixels=max_pixels)
    codec = options.codec
    if codec == "same":
        codec = choose_codec(video.codec, target=task.target, bits=video.colour.bits)
    if video.sideways and isinstance(upscaler, SizedUpscaler):
        upscaler = upscaler.sideways()  # its width is that of the frames as they are shown
    size = upscaler.result_size((video.height, video.width))
    target, more = make_target(video, codec=codec, crf=options.crf, size=size)
    _check_memory(target)
    if (
        video.aspect not in (0, 1)
        and codec in ("av1", "ffv1")
        and task.target.suffix.lower()
        in (
            ".mkv",
            ".webm",
        )
    ):
        a = video.aspect
        more.append(
            f"the pixel aspect {a.numerator}:{a.denominator} was left out: FFmpeg's writer of "
            f"{task.target.suffix} takes it from {codec} only where that holds it"
        )
    more += upscaler.remarks((video.height, video.width))
    folder = _job_folder(task.target)
    with _job(folder, _key(task.file, target, upscaler, options), options, overwrite):
        counted = _compute(upscaler, target, folder, progress=progress)
        segments = read_times(folder)
        if not sum(len(times.shown) for times in segments):
            raise UserError(f"{task.file}: no frame of its video can be decoded")
        kept = assemble(target, task.target, folder=folder, segments=segments, size=size)
    return [*lines, *more, *counted, *kept]


def _job_folder(target: Path) -> Path:
    """Return the folder of what is done of a video, which a later run finds again."""
    name = target.name
    if len(os.fsencode(name)) > 200:  # of about 255 that a file system takes
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return target.with_name(f".{name}.job")


def _compute(upscaler: AnyUpscaler, target: Target, folder: Path, *, progress: bool) -> list[str]:
    """Write the segments that are missing; return lines on what was left out of the video."""
    video, notices = target.video, Counter()
    complete = read_times(folder)
    start = sum(len(times.shown) for times in complete)
    if complete and len(complete[-1].shown) < SEGMENT:
        return (read_json(folder / _NOTICES) or {}).get("lines", [])  # what follows is missing
    incoming = frames(video, start=start, notices=notices)
    size = _batch_size(target)
    writer = _Writer(target, folder, len(complete))
    with frame_bar(shown=progress) as bar, ThreadPoolExecutor(2) as pool:
        name = printable(video.file.name)
        row = bar.add_task(name, total=video.length, completed=start)
        last: tuple[RGB, Upscaled] | None = None
        reading, writing = pool.submit(_take, incoming, size), None
        done = start
        try:
            while batch := reading.result():
                reading = pool.submit(_take, incoming, size)

                def show(tiles: int, of: int, n: int = len(batch), before: int = done) -> None:
                    bar.update(row, completed=before + n * tiles / of)

                upscaled = _upscaled(upscaler, batch, last, show)
                last = batch[-1].pixels, upscaled[-1]
                if writing:
                    writing.result()
                writing = pool.submit(writer.add, batch, upscaled)
                done += len(batch)
                bar.update(row, completed=done)
            if writing:
                writing.result()
            writer.close()
        finally:
            # Nothing is decoded or encoded any more when the files are closed.
            pool.shutdown(cancel_futures=True)
            incoming.close()
            writer.abandon()
    lines = [f"{line} ({n})" if n > 1 else line for line, n in notices.items()]
    write_json(folder / _NOTICES, {"lines": lines})
    return lines


def _take(incoming: Iterator[Frame], count: int) -> list[Frame]:
    return list(islice(incoming, count))


def _upscaled(
    upscaler: AnyUpscaler,
    batch: Sequence[Frame],
    last: tuple[RGB, Upscaled] | None,
    show: Callable[[int, int], None],
) -> list[Upscaled]:
    """Return the upscaled frames of a batch; what equals the frame before it is not computed."""
    before = last[0] if last else None
    fresh = []
    for frame in batch:
        fresh.append(before is None or not np.array_equal(before, frame.pixels))
        before = frame.pixels
    todo = [frame.pixels for frame, new in zip(batch, fresh, strict=True) if new]
    computed = iter(upscaler(np.stack(todo), progress=show)) if todo else iter(())
    results: list[Upscaled] = []
    current = last[1] if last else None
    for new in fresh:
        current = next(computed) if new else current
        assert current is not None
        results.append(current)
    return results


class _Writer:
    """Encodes frames, and begins a segment whenever one is full."""

    def __init__(self, target: Target, folder: Path, number: int) -> None:
        self._target, self._folder, self._number = target, folder, number
        self._segment: Segment | None = None

    def add(self, batch: Sequence[Frame], upscaled: Sequence[Upscaled]) -> None:
        for frame, pixels in zip(batch, upscaled, strict=True):
            if self._segment is None:
                encoder = make_encoder(self._target)
                self._segment = Segment(encoder, self._folder, self._number)
            self._segment.add(pixels, pts=frame.pts, duration=frame.duration, target=self._target)
            if len(self._segment.times.shown) == SEGMENT:
                self.close()

    def close(self) -> None:
        if self._segment:
            self._segment.close()
            self._segment, self._number = None, self._number + 1

    def abandon(self) -> None:
        if self._segment:
            self._segment.abandon()


def _batch_size(target: Target) -> int:
    """Return how many frames are upscaled at once: for each device one, and what memory allows."""
    size = target.width * target.height * 3 * (2 if target.video.colour.deep else 1)
    devices = jax.local_device_count()
    fitting = max(1, min(_BATCH_FRAMES, _BATCH_BYTES // size))
    return -(-fitting // devices) * devices


def _check_memory(target: Target) -> None:
    video = target.video
    pixels = target.width * target.height + video.width * video.height
    needed = 3 * _batch_size(target) * pixels * 3 * (2 if video.colour.deep else 1)
    if needed > memory() / 2:
        raise UserError(
            f"{target.video.file}: upscaled frames of {target.width}x{target.height} pixels take "
            f"{needed / 1e9:.0f} GB, more than this machine's memory of {memory() / 1e9:.0f} GB "
            "allows"
        )


def _key(file: Path, target: Target, upscaler: AnyUpscaler, options: Options) -> dict[str, Any]:
    """Return what must be the same for a job to be resumed."""
    state, video = file.stat(), target.video
    sized = isinstance(upscaler, SizedUpscaler)
    networks = upscaler.networks((video.height, video.width)) if sized else [upscaler]
    key = {
        "input": [state.st_size, state.st_mtime_ns],
        "model": [[one.name, one.step, one.scale, *_file_state(one.name)] for one in networks],
        "size": [target.width, target.height],
        "settings": dict(options.settings),
        "codec": [target.codec, target.crf, target.pix_fmt, target.options, SEGMENT],
        "versions": [isr_jax.__version__, av.__version__],
    }
    return json.loads(json.dumps(key))


def _file_state(name: str) -> list[int]:
    with contextlib.suppress(OSError):
        state = os.stat(name)
        return [state.st_size, state.st_mtime_ns]
    return []


@contextmanager
def _job(folder: Path, key: dict[str, Any], options: Options, overwrite: bool) -> Iterator[None]:
    """Hold the folder of a job, and remove it at the end.

    Where the job is interrupted or fails, the folder is kept with `resume`, if it has a segment.
    """
    file = folder / "job.json"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a") as lock:
        if fcntl:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{folder} is in use by another process: wait for it") from None
            except OSError:  # a file system without locks
                pass
        if file.exists() and read_times(folder) and not (options.resume or overwrite):
            raise UserError(
                f"{folder} holds an unfinished job: --resume continues it, --overwrite starts over"
            )
        if options.resume and file.exists():
            differing = _differing(read_json(file) or {}, key)
            if differing:
                raise UserError(
                    f"{folder} cannot be resumed: {' and '.join(differing)} differ from those of "
                    "the job; --overwrite without --resume starts over"
                )
        else:
            for old in folder.iterdir():
                if old.name != "lock":
                    old.unlink()
            write_json(file, key)
        try:
            yield
        except BaseException:
            if options.resume and read_times(folder):
                print(f"isr upscale: {folder} is kept: --resume continues there", file=sys.stderr)
            else:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [f"the {name}" for name in new if old.get(name) != new[name]]
