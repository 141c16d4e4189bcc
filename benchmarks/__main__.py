"""Measure speed beside PyTorch, and write benchmarks/RESULTS.md.

    python -m benchmarks [--pythons PYTHON ...] [--torch PYTHON] [--rounds N] [--only WORD ...]

Each Python has isr_jax with a JAX of its own; one has PyTorch. The processes take turns, so that
what disturbs the machine disturbs all of them; a figure is the median of the rounds, with half of
the distance between the quartiles. First steps are of new processes, without and then with JAX's
cache of compiled programs.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import timing

OUT = Path(__file__).parent / "RESULTS.md"
MEGAPIXELS = 768 * 576 * 16 / 1e6
# GFLOP of ten convolutions of [16 24 24 64] by 3x3 kernels, and of a product of 2048.
CONVOLUTIONS, PRODUCT = 10 * 2 * 16 * 24 * 24 * 64 * 64 * 9 / 1e9, 2 * 2048**3 / 1e9


class Row(NamedTuple):
    """What is timed.

    Attributes:
        title: of the row.
        ours, theirs: a kind of benchmarks.cases and of torch_cases.
        case: the name that both take.
        unit: (seconds -> the figure) as a factor; a work in GFLOP for rates.
        rate: whether the figure is work by seconds.
        training: whether a CPU is split as for training.
    """

    title: str
    ours: str
    theirs: str
    case: str
    unit: float
    rate: bool = False
    training: bool = False


def rows() -> dict[str, list[Row]]:
    """Return the rows of each table."""
    networks = ("SRVGG-16", "compact-x4", "MSRResNet", "RRDBNet-6")
    upscaling = [
        Row(f"{name}, {how}", ours, theirs, name, 1 / MEGAPIXELS)
        for name in networks
        for how, ours, theirs in (
            ("default tiles; PyTorch 256 + 10", "tiles", "tiles"),
            ("whole", "whole", "whole"),
        )
    ]
    updates = [
        Row("MSRResNet, L1, eager", "update", "update", "MSRResNet", 1e3, training=True),
        Row(
            "MSRResNet, L1, channels_last",
            "update",
            "update, channels_last",
            "MSRResNet",
            1e3,
            training=True,
        ),
        Row("configs/msssim.py, the GAN", "update", "update", "msssim", 1e3, training=True),
    ]
    rates = [
        Row(part, "convolution", "convolution", part, CONVOLUTIONS, rate=True)
        for part in ("forward", "input gradient", "weight gradient")
    ]
    rates.append(Row("product of 2048x2048", "product", "product", "", PRODUCT, rate=True))
    return {
        "Upscaling 768x576 at 4x, s per output megapixel": upscaling,
        "Updates of batches of 16 crops of 96 px (MSRResNet) and 4 of 176 (msssim), ms": updates,
        "Convolutions of [16 24 24 64] by 3x3 kernels, GFLOP/s": rates,
    }


class Worker:
    """A process that answers what it is asked to time."""

    def __init__(self, python: str, library: str, *, training: bool) -> None:
        command = [python, "-m", "benchmarks.worker", library]
        self._process = subprocess.Popen(
            command + ["--training"] * training,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.library, self.version, self.python = self._read()

    @property
    def title(self) -> str:
        """The column's title."""
        name = "JAX" if self.library == "jax" else "PyTorch"
        return f"{name} {self.version.split('+')[0]}, Python {self.python}"

    def time(self, kind: str, case: str) -> list[float]:
        """Return the seconds of a call, and of the first one where this was it."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([kind, case]) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _read(self) -> list[Any]:
        assert self._process.stdout
        while line := self._process.stdout.readline():
            if line.startswith("["):
                return json.loads(line)
        raise RuntimeError(f"a worker of {self._process.args} ended")


def figure(row: Row, seconds: list[float]) -> tuple[str, float]:
    """Return the median with its spread as text, and the median."""
    values = row.unit / np.array(seconds) if row.rate else row.unit * np.array(seconds)
    low, middle, high = np.percentile(values, [25, 50, 75])
    digits = 0 if middle >= 20 else 3
    return f"{middle:.{digits}f} ± {(high - low) / 2:.{digits}f}", float(middle)


def table(title: str, chosen: list[Row], pythons: list[str], torch: str, rounds: int) -> str:
    """Measure the rows of a table."""
    training = chosen[0].training
    workers = [Worker(python, "jax", training=training) for python in pythons]
    peer = Worker(torch, "torch", training=False)
    names = [worker.title for worker in workers]
    columns = [*names, peer.title, *(f"{name.split(',')[0]} / PyTorch" for name in names)]
    lines = [f"| {title} | {' | '.join(columns)} |", "|---" + "|---:" * len(columns) + "|"]
    for row in chosen:
        seconds: list[list[float]] = [[] for _ in range(len(workers) + 1)]
        for _ in range(rounds + 1):
            for taken, worker in zip(seconds, [*workers, peer], strict=True):
                kind = row.theirs if worker is peer else row.ours
                taken.append(worker.time(kind, row.case)[0])
        # The first round is left out: PyTorch's first calls are slower, too.
        texts, medians = zip(*(figure(row, taken[1:]) for taken in seconds), strict=True)
        ratios = [f"{ours / medians[-1]:.2f}" for ours in medians[:-1]]
        lines.append(f"| {row.title} | {' | '.join([*texts, *ratios])} |")
        print(lines[-1], flush=True)
    for worker in (*workers, peer):
        worker.close()
    return "\n".join(lines)


def first_steps(pythons: list[str], names: tuple[str, ...]) -> str:
    """Measure the first update of new processes, without and with the cache of programs."""
    lines = ["| first update, s | without the cache | with it |", "|---|---:|---:|"]
    code = (
        "import time, sys, jax; from isr_jax.training.runtime import *; use_all_cores(16);"
        "use_compilation_cache(); jax.config.update('jax_enable_compilation_cache', True);"
        "from benchmarks.cases import update; run = update(sys.argv[1]);"
        "start = time.perf_counter(); run(); print(jax.__version__, time.perf_counter() - start)"
    )
    for python in pythons:
        for name in names:
            with tempfile.TemporaryDirectory() as cache:
                surroundings = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
                command = [python, "-c", code, name]
                both = [
                    subprocess.run(
                        command, capture_output=True, text=True, check=True, env=surroundings
                    ).stdout.split()
                    for _ in range(2)
                ]
            (version, cold), (_, warm) = both
            lines.append(f"| {name}, JAX {version} | {float(cold):.1f} | {float(warm):.1f} |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    """Write the file."""
    parser = timing.parser(__doc__, rounds=5)
    parser.add_argument("--pythons", nargs="+", default=[sys.executable], help="with isr_jax")
    parser.add_argument("--torch", default=sys.executable, help="a Python with PyTorch")
    parser.add_argument("--only", nargs="+", default=[""], help="words in the titles of tables")
    parser.add_argument("--out", type=Path, default=OUT, help=f"default: {OUT.name}")
    options = parser.parse_args()
    parts = [
        "# Results\n\nWritten by `python -m benchmarks`, which measures isr_jax beside PyTorch in "
        f"one run, on {timing.machine()}.\nMedians of {options.rounds} calls, ± half of the "
        "distance between the quartiles. The last columns are isr_jax's time\n(or rate) by "
        "PyTorch's."
    ]
    for title, chosen in rows().items():
        if any(word in title for word in options.only):
            print(f"\n{title}", flush=True)
            measured = table(title, chosen, options.pythons, options.torch, options.rounds)
            parts.append(f"## {title.split(',')[0]}\n\n{measured}")
    if any(word in "First steps" for word in options.only):
        steps = first_steps(options.pythons, ("MSRResNet", "ESRGAN-23"))
        parts.append(f"## First steps\n\n{steps}")
    options.out.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
