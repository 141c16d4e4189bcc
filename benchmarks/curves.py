"""Curves of configs/l1.py with each optimizer, and with each loss against what it is good for.

    python -m benchmarks.curves [--steps N] [--plot FILE]

All runs have seed 0, so the same crops, and the learning rate of the config with a warm-up of an
eighth of the updates; nothing is tuned. The schedule is the config's cosine, but for
schedule_free_adamw, which has none. The EMA is short, as fits so few updates. LPIPS and DISTS are
left out: they need weight files.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from rich.console import Console

import isr_jax
from benchmarks import timing
from configs import l1
from isr_jax.training.record import read_records

POINTS = 8  # of a curve
BASE = "adam, L1"
# Too small a weight to change an update in float32; a loss is recorded if it has a weight.
WATCHED = {"loss.content.chroma": 1e-12, "loss.ldl": 1e-12}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    BASE: WATCHED,
    "adamw": {"g_optimizer.name": "adamw", "g_optimizer.weight_decay": 0.01},
    "adan": {"g_optimizer.name": "adan", "g_optimizer.b1": 0.98, "g_optimizer.b2": 0.92},
    "schedule_free_adamw": {
        "g_optimizer.name": "schedule_free_adamw",
        "g_optimizer.schedule": "constant",
    },
    "muon": {"g_optimizer.name": "muon"},
}
LOSSES: dict[str, dict[str, Any]] = {
    "+ 0.5 chroma": {**WATCHED, "loss.content.chroma": 0.5},
    "+ LDL": {**WATCHED, "loss.ldl": 1.0},
    "+ R1, gamma 1": {**WATCHED, "loss.r1": 1.0},
    "+ pauses below 1.2": {**WATCHED, "loss.d_pause": 1.2},
}


class Measure(NamedTuple):
    """What a panel shows: records of a kind, a value of theirs, and the runs beside BASE."""

    title: str
    kind: str
    value: str
    others: tuple[str, ...]


MEASURES = (
    Measure("validation PSNR-Y, dB: optimizers", "validation", "psnr", tuple(OPTIMIZERS)[1:]),
    Measure("validation PSNR-Y, dB: losses", "validation", "psnr", tuple(LOSSES)),
    Measure("error of Oklab's a and b", "train", "chroma", ("+ 0.5 chroma",)),
    Measure("LDL: artifacts that the EMA lacks", "train", "ldl", ("+ LDL",)),
    Measure(
        "loss of the discriminator (cannot tell: 1.386)",
        "train",
        "d_loss",
        ("+ R1, gamma 1", "+ pauses below 1.2"),
    ),
)

Records = list[dict[str, Any]]


def main() -> None:
    """Print a Markdown table for each measure, and draw the curves."""
    parser = timing.parser(__doc__)
    parser.add_argument("--steps", type=int, default=600, help="updates; default: 600")
    parser.add_argument("--plot", type=Path, help="a PNG file for the curves")
    options = parser.parse_args()
    timing.print_machine()
    runs = {
        name: _train(_config(fields, steps=options.steps))
        for name, fields in {**OPTIMIZERS, **LOSSES}.items()
    }
    for measure in MEASURES:
        _print_table(measure, runs)
    if options.plot:
        _draw(runs, options.plot)


def _config(fields: Mapping[str, Any], *, steps: int) -> ConfigDict:
    config = l1.get_config()
    for section in ("g_optimizer", "d_optimizer"):
        config[section].warmup_steps = steps // 8
    config.train.steps = steps
    config.train.ema_decay = 0.95
    config.train.log_every = config.train.validate_every = max(1, steps // POINTS)
    config.train.checkpoint_every = steps
    config.update_from_flattened_dict(fields)
    return config


def _train(config: ConfigDict) -> Records:
    with TemporaryDirectory() as folder:
        result = isr_jax.train(config, Path(folder) / "run", console=Console(quiet=True))
        records = list(read_records(result.run))
    if records[-1]["step"] < config.train.steps:
        raise SystemExit("stopped")
    return records


def _curve(measure: Measure, records: Records) -> list[tuple[int, float]]:
    return [(r["step"], r[measure.value]) for r in records if r["kind"] == measure.kind]


def _print_table(measure: Measure, runs: Mapping[str, Records]) -> None:
    places = 2 if measure.value == "psnr" else 4
    for name in (BASE, *measure.others):
        curve = _curve(measure, runs[name])
        if name == BASE:
            print(f"\n| {measure.title}; updates | {' | '.join(f'{step}' for step, _ in curve)} |")
            print(f"|---|{'---:|' * len(curve)}")
        cells = " | ".join(f"{value:.{places}f}" for _, value in curve)
        print(f"| {name} | {cells} |", flush=True)


def _draw(runs: Mapping[str, Records], file: Path) -> None:
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    *panels, spare = figure.subplots(2, 3).flat
    for measure, axes in zip(MEASURES, panels, strict=True):
        _draw_panel(axes, measure, runs)
    spare.remove()
    figure.savefig(file, dpi=110)


def _draw_panel(axes: Axes, measure: Measure, runs: Mapping[str, Records]) -> None:
    for name in (BASE, *measure.others):
        axes.plot(*zip(*_curve(measure, runs[name]), strict=True), marker=".", label=name)
    axes.set_title(measure.title, fontsize=10)
    axes.set(xlabel="updates")
    axes.set_ylim(bottom=0) if measure.kind == "train" else None
    axes.legend(fontsize=8)


if __name__ == "__main__":
    main()
