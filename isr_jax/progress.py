"""Progress bars on standard error."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    """Steps per second, or seconds per step if that is the larger number."""

    def render(self, task: Task) -> Text:
        """Draw the column."""
        speed = task.speed or task.finished_speed
        if not speed:
            return Text("- step/s")
        return Text(f"{speed:.1f} step/s" if speed >= 1 else f"{1 / speed:.1f} s/step")


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


def image_bar(*, shown: bool) -> Progress:
    """Return a bar over images on standard error, shown only in a terminal."""
    # Quiet as well, for rich 13 ends a disabled bar by a blank line.
    hidden = not (shown and Console(stderr=True).is_terminal)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, quiet=hidden),
        disable=hidden,
        transient=True,
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
