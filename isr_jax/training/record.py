"""What a run records: metrics.jsonl, TensorBoard events, and the table at its end."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from isr_jax.scoring import METRICS


def read_records(run: Path) -> list[dict[str, Any]]:
    """Return the records of RUN/metrics.jsonl, without a last line that a kill cut short."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


class Recorder:
    """Write scalars to RUN/metrics.jsonl and TensorBoard; a resumed run replaces what it repeats.

    A line of metrics.jsonl is {"kind": "train" | "validation" | "baselines", "step": int, ...}.
    """

    def __init__(self, run: Path, *, step: int) -> None:
        """Resume from `step`: records after it, of a run that was killed, are dropped."""
        kept = [record for record in read_records(run) if record["step"] <= step]
        self.has_baselines = any(record["kind"] == "baselines" for record in kept)
        # Replaced as a whole: a kill in between must not lose the records.
        path, renewed = run / "metrics.jsonl", run / "metrics.jsonl.new"
        renewed.write_text("".join(json.dumps(record) + "\n" for record in kept))
        renewed.replace(path)
        self._file = open(path, "a")  # noqa: SIM115 (closed on exit)
        # Imported late: it imports PyTorch where that is installed, which takes a second.
        from tensorboardX import SummaryWriter

        self._events = SummaryWriter(str(run), purge_step=step + 1)
        self._window: list[Mapping[str, np.ndarray]] = []

    def _write(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Record values of one step."""
        self._write({"kind": kind, "step": step, **values})
        for name, value in values.items():
            self._events.add_scalar(f"{kind}/{name}", value, step)

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
