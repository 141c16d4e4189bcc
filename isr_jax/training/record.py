"""What a run records: metrics.jsonl, TensorBoard events, and the table at its end."""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from isr_jax.checkpoints.runs import set_aside
from isr_jax.scoring import METRICS

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


class Recorder:
    """Write scalars to RUN/metrics.jsonl and TensorBoard; a resumed run replaces what it repeats.

    A line of metrics.jsonl is {"kind": "train" | "validation" | "baselines", "step": int, ...}.
    """

    def __init__(
        self,
        run: Path,
        *,
        step: int,
        unrecorded: Mapping[str, list[float]] | None = None,
        warn: Callable[[str], None],
    ) -> None:
        """Resume from `step`: records after it, of a run that was killed, are dropped.

        Where lines are damaged, the file as it was is kept in RUN/quarantine/.

        Args:
            run: the run folder.
            step: the last update that was done.
            unrecorded: what `unrecorded` returned then.
            warn: takes a line for the user.
        """
        records, lines = read_records(run), len(_lines(run))
        kept = [record for record in records if record["step"] <= step]
        self.has_baselines = any(record["kind"] == "baselines" for record in kept)
        # Replaced as a whole: a kill in between must not lose the records.
        path, renewed = run / "metrics.jsonl", run / "metrics.jsonl.new"
        renewed.write_text("".join(json.dumps(record) + "\n" for record in kept))
        if len(records) < lines:
            aside = set_aside(path, run)
            warn(f"left {lines - len(records)} damaged lines out of {path}; {aside} has them")
        renewed.replace(path)
        self._file = open(path, "a")  # noqa: SIM115 (closed on exit)
        # Imported late: it imports PyTorch where that is installed, which takes a second.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2
        from tensorboardX.summary import scalar

        # Without the thread of SummaryWriter, which a kill would catch with events in its queue.
        self._events = EventsWriter(str(run / "events"), f".{os.getpid()}")
        messages: Any = event_pb2
        self._event, self._scalar = messages.Event, scalar
        # Of an earlier start, TensorBoard is to forget what comes after this step.
        begin = messages.SessionLog(status=messages.SessionLog.START)
        first = self._event(wall_time=time.time(), step=step + 1, session_log=begin)
        self._events.write_event(first)
        before = {name: np.array(x, np.float32) for name, x in (unrecorded or {}).items()}
        self._window: list[Mapping[str, np.ndarray]] = [before] if before else []

    def _write(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Record values of one step."""
        self._write({"kind": kind, "step": step, **values})
        for name, value in values.items():
            summary = self._scalar(f"{kind}/{name}", value)
            event = self._event(wall_time=time.time(), step=step, summary=summary)
            self._events.write_event(event)

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
        """Record the scores of interpolation, by method."""
        self._write({"kind": "baselines", "step": 0, **table})

    def unrecorded(self) -> dict[str, list[float]]:
        """Return the metrics of the updates since the last record, for the next start to go on."""
        names = dict.fromkeys(name for series in self._window for name in series)
        return {
            name: np.concatenate([s[name] for s in self._window if name in s]).tolist()
            for name in names
        }

    def flush(self) -> None:
        """Bring what was recorded to the files, before a checkpoint from which a run resumes."""
        self._events.flush()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._events.close()


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
    console.print(table)
