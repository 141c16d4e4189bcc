"""What a generator learns in a given time on this machine: which size, crop, batch and rate.

    python -m benchmarks.budget PHOTOGRAPHS [--minutes 10] [--only NAME ...] [--folder runs/budget]

Every candidate trains for as many updates as it makes in so many minutes, measured beforehand, by
L1 from scratch, with the cosine schedule of that length. It is scored on the last 40 photographs,
which none is trained on. Intervals are over these photographs: there is one seed, the same for all,
which draws the same crops. Runs in FOLDER are kept and continued.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

import isr_jax
from benchmarks import timing
from benchmarks.cases import updating
from configs import compact
from isr_jax import protocols
from isr_jax.checkpoints.restore import restore_generator
from isr_jax.loss_study.comparison import crossed_interval
from isr_jax.models.generators import GENERATORS
from isr_jax.photo.finding import image_files
from isr_jax.resize import resize_uint8
from isr_jax.training.loaders import open_validation

HELD_OUT = 40
TIMED = 30  # updates
BASE = "resnet 64x8"
DEEPER = {"generator.width": 48, "generator.blocks": 14}
MUON = {"g_optimizer.name": "muon"}
HR_CONV = {
    "generator.tail": "hr_conv",
    "generator.tail_width": 8,
    "generator.tail_activation": True,
}
# What differs from configs/compact.py.
CANDIDATES: dict[str, dict[str, Any]] = {
    BASE: {"generator.width": 64},
    "resnet 64x8, not equivariant": {"generator.width": 64, "generator.equivariant": False},
    "resnet 32x30": {"generator.blocks": 30},
    "resnet 48x14": {"generator.width": 48, "generator.blocks": 14},
    "resnet 96x3": {"generator.width": 96, "generator.blocks": 3},
    "span 48": {"generator": {**GENERATORS["span"], "channels": 3}},
    "resnet 64x8, 4 crops": {"generator.width": 64, "data.batch": 4},
    "resnet 64x8, crops of 24": {"generator.width": 64, "data.crop": 96},
    "resnet 64x8, crops of 48": {"generator.width": 64, "data.crop": 192, "data.batch": 4},
    "resnet 64x8, rate 1e-3": {"generator.width": 64, "g_optimizer.learning_rate": 1e-3},
    "resnet 64x8, rate 4e-3": {"generator.width": 64, "g_optimizer.learning_rate": 4e-3},
    "resnet 64x8, muon": {"generator.width": 64, **MUON},
    "resnet 64x8, muon, rate 1e-3": {
        "generator.width": 64,
        **MUON,
        "g_optimizer.learning_rate": 1e-3,
    },
    "resnet 64x8, muon, rate 4e-3": {
        "generator.width": 64,
        **MUON,
        "g_optimizer.learning_rate": 4e-3,
    },
    "resnet 64x8, muon, 4 crops": {"generator.width": 64, **MUON, "data.batch": 4},
    "resnet 64x8, muon, 16 crops": {"generator.width": 64, **MUON, "data.batch": 16},
    "resnet 64x8, muon, HR convolution": {"generator.width": 64, **MUON, **HR_CONV},
    "resnet 48x14, muon": {**DEEPER, **MUON},
    "resnet 48x14, muon, not equivariant": {**DEEPER, **MUON, "generator.equivariant": False},
    "resnet 48x14, muon, crops of 48": {**DEEPER, **MUON, "data.crop": 192, "data.batch": 4},
    "resnet 48x14, muon, more sizes": {
        **DEEPER,
        **MUON,
        "data.resized": (0.9, 0.8, 0.7, 0.6),
    },
    "resnet 48x14, muon, MSE": {
        **DEEPER,
        **MUON,
        "loss.content.l1": 0.0,
        "loss.content.mse": 1.0,
    },
    "resnet 32x8, muon": MUON,
    "span 48, muon": {"generator": {**GENERATORS["span"], "channels": 3}, **MUON},
    "resnet 96x3, muon": {"generator.width": 96, "generator.blocks": 3, **MUON},
}


class Result(NamedTuple):
    """What became of a candidate; gains in dB over bicubic, one for each held-out photograph."""

    parameters: int
    milliseconds: float
    updates: int
    gains: list[float]


def main() -> None:
    """Print a Markdown table, a row as soon as a candidate is done."""
    parser = make_parser(__doc__, names=list(CANDIDATES), folder=Path("runs/budget"))
    parser.add_argument("--minutes", type=float, default=10, help="of training; default: 10")
    options = parser.parse_args()
    timing.print_machine()
    data = split(options.photographs, options.folder)
    print("| candidate | parameters | ms/update | updates | gain, dB | beside the first, dB |")
    print("|---|---:|---:|---:|---|---|")
    first: Result | None = None
    for name in options.only:
        config = _config(CANDIDATES[name], data)
        folder = options.folder / name.replace(" ", "_")
        result = _result(config, folder, minutes=options.minutes)
        first = first or result
        print(_row(name, result, first), flush=True)


def make_parser(doc: str | None, *, names: Sequence[str], folder: Path) -> argparse.ArgumentParser:
    """Return a parser of what experiments on a folder of photographs have in common.

    Args:
        doc: the docstring of the experiment.
        names: of all that is compared.
        folder: default of the folder of the runs.
    """
    parser = timing.parser(doc)
    parser.add_argument("photographs", type=Path, help="a folder")
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="NAME")
    parser.add_argument("--folder", type=Path, default=folder)
    return parser


def changed(
    config: ConfigDict, fields: Mapping[str, Any], data: Mapping[str, str], *, network: str
) -> ConfigDict:
    """Return a config with other fields.

    Args:
        config: a recipe's.
        fields: by name; that of the network, such as "generator", has all fields of another one.
        data: fields of `config.data`.
        network: which network `fields` may replace.
    """
    config = config.copy_and_resolve_references().unlock()
    if network in fields:
        config[network] = ConfigDict(fields[network])
    config.update_from_flattened_dict({k: v for k, v in fields.items() if k != network})
    config.data.update(data)
    return config.lock()


def split(photographs: Path, folder: Path) -> dict[str, str]:
    """Write two lists of files, and return the fields of `config.data` that name them.

    Validation has the last HELD_OUT photographs, and training the others.
    """
    names = [str(file.relative_to(photographs)) for file in image_files(photographs)]
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": names[:-HELD_OUT], "validation": names[-HELD_OUT:]}
    for part, files in parts.items():
        (folder / f"{part}.txt").write_text("\n".join(files) + "\n")
    return {part: f"list:{folder / part}.txt:{photographs}" for part in parts}


def _config(fields: Mapping[str, Any], data: Mapping[str, str]) -> ConfigDict:
    config = changed(compact.get_config(), fields, data, network="generator")
    config.train.checkpoint_every = 500
    return config


def _result(config: ConfigDict, folder: Path, *, minutes: float) -> Result:
    file = folder / "result.json"
    if not file.exists():
        duration = milliseconds(config)
        updates = round(minutes * 60e3 / duration)
        _train(config, folder / "run", steps=updates)
        upscaler = isr_jax.load(folder / "run")
        gains = [
            _score(upscaler(pair.lr), pair.hr) - _score(resize_uint8(pair.lr, scale=4), pair.hr)
            for pair in open_validation(config, print)
        ]
        params = restore_generator(folder / "run").params
        parameters = sum(x.size for x in jax.tree.leaves(params))
        result = Result(parameters, duration, updates, gains)
        file.write_text(json.dumps(result._asdict()))
    return Result(**json.loads(file.read_text()))


def milliseconds(config: ConfigDict) -> float:
    """Return the median time of an update, after compilation."""
    (seconds,) = timing.interleaved({"": updating(config)}, rounds=TIMED, warm_up=3).values()
    return 1e3 * median(seconds)


def _train(config: ConfigDict, folder: Path, *, steps: int) -> None:
    config = config.copy_and_resolve_references()
    config.train.steps = config.train.validate_every = steps
    if isr_jax.train(config, folder, console=Console(quiet=True)).step < steps:
        raise SystemExit("stopped")


def _score(sr: np.ndarray, hr: np.ndarray) -> float:
    return protocols.measure(sr, hr, crop=4).psnr


def _row(name: str, result: Result, first: Result) -> str:
    gains = np.array([result.gains, first.gains])
    gain, ahead = (crossed_interval(x[None]) for x in (gains[0], gains[0] - gains[1]))
    cells = [f"{x.mean:+.3f} [{x.low:+.3f}, {x.high:+.3f}]" for x in (gain, ahead)]
    figures = f"{result.parameters:,} | {result.milliseconds:.0f} | {result.updates:,}"
    return f"| {name} | {figures} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
