"""Where a run's scalars and pictures go besides its folder: TensorBoard, Weights & Biases.

TRACKERS is the table; `config.train.trackers` names those of a run. To add one: a class with the
methods of `Tracker`, whose constructor is called as `Kind.open`, and a line there.
"""

import json
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from isr_jax import errors
from isr_jax.errors import UserError, one_line
from isr_jax.files import replacing

Picture = UInt8[np.ndarray, "h w 3"]


@runtime_checkable
class Tracker(Protocol):
    """What a run tells a tracker, in the order of the steps.

    Attributes:
        last: the last step that it has of earlier starts; it is told again what comes after.
    """

    last: int

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Take values of one step, whose kind is train or validation."""
        ...

    def picture(self, step: int, image: Picture) -> None:
        """Take the picture of a validation."""
        ...

    def flush(self) -> None:
        """Bring what was taken to where the next start, with its `last`, counts on it."""
        ...

    def close(self) -> None:
        """Flush, and let go of files and processes."""
        ...


class TensorBoard:
    """Events in RUN/events.out.tfevents.*; where a resumed run repeats steps, they replace.

    RUN/tensorboard.json has the last step that they hold: a run may go on without TensorBoard for a
    while. Events are written by the caller's thread, and are on disk after a flush.
    """

    def __init__(
        self, run: Path, *, step: int, config: ConfigDict, warn: Callable[[str], None]
    ) -> None:
        """Open a new file of events; TensorBoard forgets those after `step` of earlier ones."""
        self._file = run / "tensorboard.json"
        self.last = self._taken = min(step, _flushed(self._file, default=step))
        if not any(run.glob("events.out.tfevents.*")):
            self.last = self._taken = 0
        # Imported late: it imports PyTorch where that is installed, which takes a second.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2
        from tensorboardX.summary import image, scalar

        # Without the thread of SummaryWriter, which a kill would catch with events in its queue.
        # Names hold the second; of two files of one second, the later would replace the other.
        self._events = EventsWriter(str(run / "events"), f".{time.time_ns()}.{os.getpid()}")
        messages: Any = event_pb2
        self._event, self._scalar, self._image = messages.Event, scalar, image
        begin = messages.SessionLog(status=messages.SessionLog.START)
        self._write(step + 1, session_log=begin)

    def _write(self, step: int, **content: Any) -> None:
        self._events.write_event(self._event(wall_time=time.time(), step=step, **content))

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Write each value as KIND/NAME."""
        self._taken = step
        for name, value in values.items():
            self._write(step, summary=self._scalar(f"{kind}/{name}", value))

    def picture(self, step: int, image: Picture) -> None:
        """Write a picture as validation/images."""
        self._write(step, summary=self._image("validation/images", image, dataformats="HWC"))

    def flush(self) -> None:
        """Bring the events to the file, and note up to which step."""
        self._events.flush()
        with replacing(self._file) as unfinished:
            unfinished.write_text(json.dumps({"step": self._taken}) + "\n")

    def close(self) -> None:
        """Flush and close the file."""
        self.flush()
        self._events.close()


def _flushed(file: Path, *, default: int) -> int:
    """Return the step that a file notes; the default where it does not, as older runs."""
    try:
        return int(json.loads(file.read_text())["step"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return default


class WeightsAndBiases:
    """A run of Weights & Biases with the name of the run folder, resumed with it.

    RUN/wandb.json has its id, and RUN/wandb/ the package's own files. The package sends from a
    process of its own, and a kill loses what that has in memory; so its server says which steps it
    has, and without one each start has them all. WANDB_MODE, WANDB_PROJECT and its other variables
    apply.
    """

    def __init__(
        self, run: Path, *, step: int, config: ConfigDict, warn: Callable[[str], None]
    ) -> None:
        """Start the W&B run, or resume it.

        Raises:
            UserError: nobody is logged in, or W&B does not answer.
        """
        wandb = import_module("wandb")
        name = _wandb_id(run / "wandb.json")
        try:
            self._run = wandb.init(
                id=name,
                name=run.absolute().name,
                dir=str(run),
                resume="allow",
                config=config.to_dict(),
                allow_val_change=True,
                # Its capture of what is printed would take the progress bar for lines.
                settings=wandb.Settings(console="off"),
            )
        except (wandb.Error, OSError) as error:
            raise UserError(
                f"W&B does not start ({one_line(error, limit=300)}); log in with `wandb login`, "
                "set WANDB_MODE=offline, or leave wandb out of config.train.trackers"
            ) from error
        self.last = self._run.step - 1
        self._image, self._warn, self._working = wandb.Image, warn, True
        self._row: dict[str, Any] = {}
        self._step = 0

    def _take(self, step: int, values: Mapping[str, Any]) -> None:
        if step != self._step:
            self.flush()
        # W&B takes no step that it has, which a resumed run repeats.
        if step > self.last:
            self._step = step
            self._row |= values

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Take each value as KIND/NAME."""
        self._take(step, {f"{kind}/{name}": value for name, value in values.items()})

    def picture(self, step: int, image: Picture) -> None:
        """Take a picture as validation/images."""
        self._take(step, {"validation/images": self._image(image)})

    def flush(self) -> None:
        """Send what was taken of a step, as one row."""
        if self._row:
            row, self._row, self.last = self._row, {}, self._step
            self._do(lambda: self._run.log(row, step=self._step, commit=True))

    def close(self) -> None:
        """Send the rest and wait until W&B has it."""
        self.flush()
        self._do(self._run.finish)

    def _do(self, action: Callable[[], None]) -> None:
        """Call the package, unless it failed before: a run does not end because its process has."""
        try:
            if self._working:
                action()
        # A connection that is lost raises an error of whichever library noticed.
        except Exception as error:
            self._working = False
            self._warn(
                f"W&B has failed ({one_line(error)}); training continues without it, and the next "
                "start sends what it lacks"
            )


def _wandb_id(file: Path) -> str:
    """Return the id of a W&B run; a new one, which is noted, where there is none."""
    try:
        name = json.loads(file.read_text())["id"]
        if re.fullmatch("[0-9a-f]{16}", name):
            return name
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    name = secrets.token_hex(8)
    with replacing(file) as unfinished:
        unfinished.write_text(json.dumps({"id": name}) + "\n")
    return name


class Kind(NamedTuple):
    """A kind of tracker.

    Attributes:
        open: (run folder, *, step, config, warn) -> a tracker of a run that is at this step; warn
            takes a line for the user.
        package: what it imports.
        install: what pip calls that.
    """

    open: Callable[..., Tracker]
    package: str
    install: str


TRACKERS: dict[str, Kind] = {
    "tensorboard": Kind(TensorBoard, "tensorboardX", "tensorboardX"),
    "wandb": Kind(WeightsAndBiases, "wandb", "'isr-jax[wandb]'"),
}


def check_trackers(names: Sequence[str]) -> None:
    """Check `config.train.trackers`.

    Raises:
        UserError: for an unknown name, or a package that is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise errors.unknown("config.train.trackers", name, TRACKERS)
        spec = find_spec(TRACKERS[name].package)
        # A folder of this name, such as the one that W&B makes, is found too.
        if spec is None or spec.origin is None:
            raise UserError(
                f"config.train.trackers names {name}, which is not installed: "
                f"pip install {TRACKERS[name].install}, or leave it out"
            )


def open_trackers(
    names: Sequence[str],
    run: Path,
    *,
    step: int,
    config: ConfigDict,
    warn: Callable[[str], None],
) -> list[Tracker]:
    """Open the trackers that are named, for a run that is at a step.

    Raises:
        UserError: one cannot be opened.
    """
    return [
        TRACKERS[name].open(run, step=step, config=config, warn=warn)
        for name in dict.fromkeys(names)
    ]
