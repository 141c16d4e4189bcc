"""What a run records: metrics.jsonl, pictures, what its trackers get, and the table at its end."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from rich.console import Console
from rich.table import Table

from isr_jax.console import print_table
from isr_jax.errors import UserError
from isr_jax.files import replacing, to_quarantine
from isr_jax.photo.reading import decode_rgb
from isr_jax.scoring import METRICS
from isr_jax.training.trackers import Picture, Tracker

KINDS = ("train", "validation", "baselines")


def read_records(run: Path) -> list[dict[str, Any]]:
    """Return the records of RUN/metrics.jsonl; damaged lines are left out."""
    return [record for record in map(_record, _lines(run)) if record]


def _lines(run: Path) -> list[bytes]:
    """Return the lines of RUN/metrics.jsonl, without a last one that a kill cut short."""
    path = run / "metrics.jsonl"
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def _record(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None where it is damaged."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or type(record.get("step")) is not int:
        return None
    kind, values = record.get("kind"), [v for name, v in record.items() if name != "kind"]
    if kind == "baselines":
        values = [v for row in values if isinstance(row, dict) for v in row.values()]
    good = kind in KINDS and all(isinstance(value, int | float) for value in values)
    return record if good else None


class RunFolder:
    """The tracker of every run: RUN/metrics.jsonl, and RUN/images/ with a picture per validation.

    A line of metrics.jsonl is {"kind": "train" | "validation" | "baselines", "step": int, ...}, and
    is on disk as soon as it is written.
    """

    def __init__(self, run: Path, *, step: int, warn: Callable[[str], None]) -> None:
        """Drop the records after `step`; where lines are damaged, keep the file in quarantine/."""
        records, lines = read_records(run), len(_lines(run))
        kept = [record for record in records if record["step"] <= step]
        tables = [record.get("bicubic") for record in kept if record["kind"] == "baselines"]
        self._compared = tables[-1] if tables else None
        # Replaced as a whole: a kill in between must not lose the records.
        path = run / "metrics.jsonl"
        with replacing(path) as renewed:
            renewed.write_text("".join(json.dumps(record) + "\n" for record in kept))
            if len(records) < lines:
                aside = to_quarantine(path, run)
                warn(f"left {lines - len(records)} damaged lines out of {path}; {aside} has them")
        self._file = open(path, "a")  # noqa: SIM115 (closed on exit)
        self._run = run
        self._images = run / "images"
        self.last = step

    def _write(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Write a line."""
        self._write({"kind": kind, "step": step, **values})

    def baselines(self, table: Mapping[str, Mapping[str, float]]) -> None:
        """Write the scores of interpolation, unless they are the last ones."""
        if self._compared != table["bicubic"]:
            self._compared = table["bicubic"]
            self._write({"kind": "baselines", "step": 0, **table})

    def picture(self, step: int, image: Picture) -> None:
        """Write images/step_NNNNNN.png."""
        self._images.mkdir(exist_ok=True)
        PIL.Image.fromarray(image).save(self._picture(step))

    def _picture(self, step: int) -> Path:
        return self._images / f"step_{step:06d}.png"

    def tell(self, tracker: Tracker) -> None:
        """Tell a tracker what it does not have of earlier starts."""
        for record in read_records(self._run):
            kind, step = record.pop("kind"), record.pop("step")
            if kind == "baselines" or step <= tracker.last:
                continue
            if kind == "validation" and self._picture(step).is_file():
                with open(self._picture(step), "rb") as file, suppress(UserError):
                    tracker.picture(step, decode_rgb(file, name=file.name))
            tracker.scalars(kind, step, record)

    def flush(self) -> None:
        """Do nothing: every line is flushed."""

    def close(self) -> None:
        """Close metrics.jsonl."""
        self._file.close()


class Recorder:
    """Tell the run folder and the trackers what they are to keep."""

    def __init__(
        self,
        folder: RunFolder,
        trackers: Sequence[Tracker],
        *,
        unrecorded: Mapping[str, list[float]] | None = None,
    ) -> None:
        """Resume with what `unrecorded` returned at the last update that was done."""
        for tracker in trackers:
            folder.tell(tracker)
            tracker.flush()
        self._folder = folder
        self._trackers: list[Tracker] = [folder, *trackers]
        before = {name: np.array(x, np.float32) for name, x in (unrecorded or {}).items()}
        self._window: list[Mapping[str, np.ndarray]] = [before] if before else []

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Record values of one step."""
        for tracker in self._trackers:
            tracker.scalars(kind, step, values)

    def picture(self, step: int, image: Picture) -> None:
        """Record the picture of a validation."""
        for tracker in self._trackers:
            tracker.picture(step, image)

    def training(self, step: int, series: Mapping[str, np.ndarray], *, flush: bool) -> None:
        """Take the metrics of the updates up to `step`; with `flush`, record their means.

        Args:
            step: the last update of the series.
            series: each metric, one value per update.
            flush: whether to record now.
        """
        self._window.append(series)
        if flush:
            means = {
                name: float(np.concatenate([s[name] for s in self._window if name in s]).mean())
                for name in series
            }
            self.scalars("train", step, means)
            self._window.clear()

    def baselines(self, table: Mapping[str, Mapping[str, float]]) -> None:
        """Record the scores of interpolation, by method, in the run folder."""
        self._folder.baselines(table)

    def unrecorded(self) -> dict[str, list[float]]:
        """Return the metrics of the updates since the last record, for the next start to go on."""
        names = dict.fromkeys(name for series in self._window for name in series)
        return {
            name: np.concatenate([s[name] for s in self._window if name in s]).tolist()
            for name in names
        }

    def flush(self) -> None:
        """Bring what was recorded to the files, before a checkpoint from which a run resumes."""
        for tracker in self._trackers:
            tracker.flush()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *exception: object) -> None:
        # Each, whatever becomes of the others.
        with ExitStack() as stack:
            for tracker in reversed(self._trackers):
                stack.callback(tracker.close)


def closing_table(
    console: Console, scores: dict[str, float], baselines: dict[str, dict[str, float]], title: str
) -> None:
    """Print the generator's scores beside those of interpolation, with the gain over bicubic."""
    table = Table("method", title=title)
    for name in scores:
        table.add_column(METRICS[name].titled(luma=True), justify="right")
    for method, row in {**baselines, "SR": scores}.items():
        table.add_row(method, *(METRICS[name].number(row[name]) for name in scores))
    table.add_section()
    bicubic = baselines["bicubic"]
    gains = (METRICS[name].gain(value - bicubic[name]) for name, value in scores.items())
    table.add_row("SR - bicubic", *gains)
    print_table(console, table)
