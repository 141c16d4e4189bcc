"""The smoke variant of every recipe: does the loss fall, and does it resume bit for bit?

    python -m benchmarks.recipes [--only NAME ...]

Each trains for 150 updates on the sample photos. A copy of the run without its last checkpoint
repeats the second half, and must end with the same bits. The loss is the mean of the first and of
the last 30 updates.
"""

import shutil
import time
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

import isr_jax
from benchmarks import timing
from benchmarks.soak import arrays
from isr_jax.training.record import read_records

CONFIGS = Path(__file__).parents[1] / "configs"
STEPS = 150


def main() -> None:
    """Print a Markdown table."""
    recipes = sorted(path.stem for path in CONFIGS.glob("*.py") if ":smoke" in path.read_text())
    parser = timing.parser(__doc__)
    parser.add_argument("--only", nargs="+", default=recipes, choices=recipes)
    options = parser.parse_args()
    timing.print_machine()
    print("| recipe | loss, first | last | PSNR, dB | resumes bit for bit | seconds |")
    print("|---|---:|---:|---:|---|---:|")
    for name in options.only:
        with TemporaryDirectory() as folder:
            print(f"| {name} | {' | '.join(_row(name, Path(folder)))} |", flush=True)


def _row(name: str, folder: Path) -> list[str]:
    config = import_module(f"configs.{name}").get_config("smoke")
    config.train.checkpoint_every = STEPS // 2
    straight, resumed = folder / "straight", folder / "resumed"
    silent, start = Console(quiet=True), time.perf_counter()
    isr_jax.train(config, straight, console=silent)
    seconds = time.perf_counter() - start
    shutil.copytree(straight, resumed)
    shutil.rmtree(resumed / "checkpoints" / str(STEPS))
    isr_jax.train(config, resumed, console=silent)
    first, second = arrays(straight), arrays(resumed)
    same = first.keys() == second.keys() and all(
        first[key].tobytes() == second[key].tobytes() for key in first
    )
    records = read_records(straight)
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    psnr = [record["psnr"] for record in records if record["kind"] == "validation"][-1]
    means = (f"{sum(part) / 3:.4f}" for part in (losses[:3], losses[-3:]))
    return [*means, f"{psnr:.2f}", "yes" if same else "NO", f"{seconds:.0f}"]


if __name__ == "__main__":
    main()
