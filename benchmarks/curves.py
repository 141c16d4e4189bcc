"""Curves of configs/l1.py with each optimizer and content loss, and of losses against GANs' faults.

    python -m benchmarks.curves [--steps N] [--folder FOLDER] [--plot FILE]

All runs have seed 0, so the same crops, and the learning rate of the config with a warm-up of an
eighth of the updates; nothing is tuned. The schedule is the config's cosine, but for
schedule_free_adamw, which has none. The EMA is short, as fits so few updates. LPIPS and DISTS are
left out: they need weight files.

The adversarial weight beside L1 is that of configs/l1.py, and beside each other content loss as
small a part as there. The losses against faults of GANs are added to one with 300 times the weight,
which makes such faults.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from rich.console import Console

import isr_jax
from benchmarks import timing
from configs import l1, study
from isr_jax.training.record import read_records

POINTS = 8  # of a curve
L1, GAN = "adam, L1", "strong GAN"
OPTIMIZERS: dict[str, dict[str, Any]] = {
    L1: {},
    "adamw": {"g_optimizer.name": "adamw", "g_optimizer.weight_decay": 0.01},
    "adan": {"g_optimizer.name": "adan", "g_optimizer.b1": 0.98, "g_optimizer.b2": 0.92},
    "schedule_free_adamw": {
        "g_optimizer.name": "schedule_free_adamw",
        "g_optimizer.schedule": "constant",
    },
    "muon": {"g_optimizer.name": "muon"},
}
CONTENT: dict[str, dict[str, Any]] = {
    name: {
        "loss.content.l1": 0.0,
        **{f"loss.content.{term}": value for term, value in weights.items()},
        "loss.adversarial_weight": adversarial / 90,
    }
    for name, (weights, adversarial) in study.LOSSES.items()
    if name != "l1"
}
# Too small a weight to change an update in float32; a loss is recorded if it has a weight.
_STRONG = {"loss.adversarial_weight": 0.03, "loss.content.chroma": 1e-12, "loss.ldl": 1e-12}
FAULTS: dict[str, dict[str, Any]] = {
    GAN: _STRONG,
    "+ chroma": {**_STRONG, "loss.content.chroma": 1.0},
    "+ LDL": {**_STRONG, "loss.ldl": 1.0},
    "+ R1, gamma 1": {**_STRONG, "loss.r1": 1.0},
    "+ pauses below 1.2": {**_STRONG, "loss.d_pause": 1.2},
    "+ 0.05 feature matching": {**_STRONG, "loss.feature_matching": 0.05},
}


class Measure(NamedTuple):
    """What a panel shows: a value of records of a kind, of some of the runs."""

    title: str
    kind: str
    value: str
    runs: tuple[str, ...]


MEASURES = (
    Measure("validation PSNR-Y, dB: optimizers", "validation", "psnr", tuple(OPTIMIZERS)),
    Measure("validation PSNR-Y, dB: content losses", "validation", "psnr", (L1, *CONTENT)),
    Measure("validation PSNR-Y, dB: a strong GAN", "validation", "psnr", (L1, *FAULTS)),
    Measure("error of Oklab's a and b", "train", "chroma", (GAN, "+ chroma")),
    Measure("LDL: artifacts that the EMA lacks", "train", "ldl", (GAN, "+ LDL")),
    Measure(
        "loss of the discriminator (cannot tell: 1.386)",
        "train",
        "d_loss",
        (GAN, "+ R1, gamma 1", "+ pauses below 1.2"),
    ),
)

Records = list[dict[str, Any]]


def main() -> None:
    """Print a Markdown table for each measure, and draw the curves."""
    parser = timing.parser(__doc__)
    parser.add_argument("--steps", type=int, default=600, help="updates; default: 600")
    parser.add_argument(
        "--folder", type=Path, help="where runs are kept and continued; default: not kept"
    )
    parser.add_argument("--plot", type=Path, help="a PNG file for the curves")
    options = parser.parse_args()
    timing.print_machine()
    with TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        runs = {
            name: _train(_config(fields, steps=options.steps), folder / f"{i:02}")
            for i, (name, fields) in enumerate({**OPTIMIZERS, **CONTENT, **FAULTS}.items())
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


def _train(config: ConfigDict, folder: Path) -> Records:
    records: Records = []
    if (folder / "metrics.jsonl").exists():
        records = list(read_records(folder))
    if not records or records[-1]["step"] < config.train.steps:
        isr_jax.train(config, folder, console=Console(quiet=True))
        records = list(read_records(folder))
    if records[-1]["step"] < config.train.steps:
        raise SystemExit("stopped")
    return records


def _curve(measure: Measure, records: Records) -> list[tuple[int, float]]:
    return [(r["step"], r[measure.value]) for r in records if r["kind"] == measure.kind]


def _print_table(measure: Measure, runs: Mapping[str, Records]) -> None:
    places = 2 if measure.value == "psnr" else 4
    curves = {name: _curve(measure, runs[name]) for name in measure.runs}
    steps = [f"{step}" for step, _ in curves[measure.runs[0]]]
    print(f"\n| {measure.title}; updates | {' | '.join(steps)} |")
    print(f"|---|{'---:|' * len(steps)}")
    for name, curve in curves.items():
        cells = " | ".join(f"{value:.{places}f}" for _, value in curve)
        print(f"| {name} | {cells} |", flush=True)


def _draw(runs: Mapping[str, Records], file: Path) -> None:
    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    for measure, axes in zip(MEASURES, figure.subplots(2, 3).flat, strict=True):
        for name in measure.runs:
            axes.plot(*zip(*_curve(measure, runs[name]), strict=True), marker=".", label=name)
        axes.set_title(measure.title, fontsize=10)
        axes.set(xlabel="updates")
        if measure.kind == "train":
            axes.set_ylim(bottom=0 if measure.value != "d_loss" else 1)
        axes.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
