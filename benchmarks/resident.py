"""Resident memory of training over many updates: it must not grow.

    python -m benchmarks.resident [--steps N]

A tiny GAN is trained by run.py; its memory is read after N / 10 updates and after N.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import timing
from isr_jax.training.record import read_records
from tests.helpers.tiny_runs import overrides, write_photos


def resident(process: int) -> float:
    """Return the resident memory of a process, in MB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Print a Markdown table."""
    parser = timing.parser(__doc__)
    parser.add_argument("--steps", type=int, default=5000, help="updates; default: 5000")
    steps = parser.parse_args().steps
    timing.print_machine()
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        photos = Path(folder) / "photos"
        photos.mkdir()
        fields = overrides(
            write_photos(photos),
            **{
                "train.steps": 2 * steps,
                "train.log_every": steps // 100,
                "train.validate_every": steps // 20,
                "train.checkpoint_every": steps // 20,
            },
        )
        command = [sys.executable, "run.py", "--config", "configs/base.py", f"--workdir={run}"]
        command += [f"--config.{name}={value}" for name, value in fields.items()]
        marks = {steps // 10: 0.0, steps: 0.0}
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as child:
            for mark in marks:
                while not (run / "metrics.jsonl").exists() or _step(run) < mark:
                    time.sleep(0.05)
                marks[mark] = resident(child.pid)
            child.terminate()
    print("| updates | resident, MB |\n|---:|---:|")
    for mark, size in marks.items():
        print(f"| {mark} | {size:.0f} |")
    first, last = marks.values()
    print(f"\nGrowth: {100 * (last / first - 1):.1f}%")


def _step(run: Path) -> int:
    steps = [record["step"] for record in read_records(run) if record["kind"] == "train"]
    return max(steps, default=0)


if __name__ == "__main__":
    main()
