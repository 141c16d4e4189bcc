"""Progress bars on standard error."""

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    """Steps, or frames, per second, or seconds per step if that is the larger number."""

    def __init__(self, unit: str = "step") -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Draw the column."""
        speed = task.speed or task.finished_speed
        if not speed:
            return Text(f"- {self._unit}/s")
        slow = f"{1 / speed:.1f} s/{self._unit}"
        return Text(f"{speed:.1f} {self._unit}/s" if speed >= 1 else slow)


def _is_terminal() -> bool:
    return Console(stderr=True).is_terminal


def training_bar(console: Console, *, total: int, step: int, title: str = "training") -> Progress:
    """Return a bar over the steps, with rate, loss and time left; `loss` is a field of its task."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TextColumn("loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=60,
    )
    bar.add_task(title, total=total, completed=step, loss="-")
    return bar


class SparseLog:
    """Says now and then how far a job is, on a standard error that is no terminal."""

    def __init__(
        self,
        total: int,
        *,
        shown: bool,
        every: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start.

        Args:
            total: number of images.
            shown: whether to say anything; nothing is said in a terminal.
            every: seconds between lines, at least; none before so many.
            clock: seconds.
        """
        self._shown = shown and not _is_terminal()
        self._total, self._every, self._clock = total, every, clock
        self._start = self._last = clock()
        self._done = 0

    def advance(self, *, failed: int) -> None:
        """Count one image; `failed` is how many have failed."""
        self._done += 1
        now = self._clock()
        if not self._shown or now - self._last < self._every or self._done == self._total:
            return
        self._last = now
        left = (now - self._start) / self._done * (self._total - self._done)
        hours, minutes = divmod(round(left / 60), 60)
        time_left = f"{hours} h {minutes} min" if hours else f"{minutes} min"
        said = f"{self._done} of {self._total} images done, {failed} failed, {time_left} left"
        print(f"isr upscale: {said}", file=sys.stderr, flush=True)


def image_bar(*, shown: bool) -> Progress:
    """Return a bar over images on standard error, shown only in a terminal."""
    # Quiet as well, for rich 13 ends a disabled bar by a blank line.
    hidden = not (shown and _is_terminal())
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, quiet=hidden),
        disable=hidden,
        transient=True,
    )


def frame_bar(*, shown: bool) -> Progress:
    """Return a bar over the frames of a video on standard error, with rate and time left."""
    hidden = not (shown and _is_terminal())
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        _Rate("frame"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True, quiet=hidden),
        disable=hidden,
        transient=True,
        speed_estimate_period=120,
    )


def download_bar() -> Progress:
    """Return a bar over the bytes of a download, with rate and time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
