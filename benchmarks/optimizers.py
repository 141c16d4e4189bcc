"""Validation PSNR of configs/l1.py with each optimizer, at equal updates.

    python -m benchmarks.optimizers [--steps N] [--plot FILE]

All are trained with seed 0, so on the same crops, with the learning rate of the config and a
warm-up of an eighth of the updates; nothing is tuned. The schedule is the config's cosine, but for
schedule_free_adamw, which has none. The EMA is short, as fits so few updates.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from rich.console import Console

import isr_jax
from benchmarks import timing
from configs import l1
from isr_jax.training.record import read_records

POINTS = 8  # validations of a run
CASES: dict[str, dict[str, Any]] = {
    "adam": {},
    "adamw": {"weight_decay": 0.01},
    "adan": {"b1": 0.98, "b2": 0.92},
    "schedule_free_adamw": {"schedule": "constant"},
    "muon": {},
}

Curve = list[tuple[int, float]]


def main() -> None:
    """Print a Markdown table, and draw the curves."""
    parser = timing.parser(__doc__)
    parser.add_argument("--steps", type=int, default=400, help="updates; default: 400")
    parser.add_argument("--plot", type=Path, help="a PNG file for the curves")
    options = parser.parse_args()
    timing.print_machine()
    curves: dict[str, Curve] = {}
    for name, fields in CASES.items():
        curves[name], bicubic = _train(_config(name, fields, steps=options.steps))
        if len(curves) == 1:
            _print_row("PSNR, dB, after", [f"{step}" for step, _ in curves[name]])
            _print_row("---", ["---:"] * POINTS)
        _print_row(f"`{name}`", [f"{psnr:.2f}" for _, psnr in curves[name]])
    print(f"\nBicubic: {bicubic:.2f} dB")
    if options.plot:
        _draw(curves, bicubic, options.plot)


def _print_row(title: str, cells: Sequence[str]) -> None:
    print(f"| {' | '.join([title, *cells])} |", flush=True)


def _config(name: str, fields: Mapping[str, Any], *, steps: int) -> ConfigDict:
    config = l1.get_config()
    for section in ("g_optimizer", "d_optimizer"):
        config[section].warmup_steps = steps // 8
    config.g_optimizer.update({"name": name, **fields})
    config.train.steps = steps
    config.train.ema_decay = 0.95
    config.train.validate_every = config.train.checkpoint_every = max(1, steps // POINTS)
    return config


def _train(config: ConfigDict) -> tuple[Curve, float]:
    """Return the validation PSNR in dB after some updates, and that of bicubic."""
    with TemporaryDirectory() as folder:
        result = isr_jax.train(config, Path(folder) / "run", console=Console(quiet=True))
        records = read_records(result.run)
    curve = [(r["step"], r["psnr"]) for r in records if r["kind"] == "validation"]
    return curve, result.baselines["bicubic"]["psnr"]


def _draw(curves: Mapping[str, Curve], bicubic: float, file: Path) -> None:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), marker=".", label=name)
    axes.axhline(bicubic, color="gray", linestyle=":", label="bicubic")
    axes.set(xlabel="updates", ylabel="validation PSNR-Y of the EMA, dB")
    axes.legend()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
