"""What the digests of a checkpoint cost, beside writing and reading it.

    python -m benchmarks.checkpoint [--mb N] [--rounds N]

Medians of a generator of so many megabytes, in seconds per GB: its digests, and all of writing and
reading it by Orbax, digests included.
"""

import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import jax
import numpy as np

from benchmarks import timing
from isr_jax.checkpoints.digests import digests_of
from isr_jax.checkpoints.runs import open_manager, save
from isr_jax.config import get_config
from isr_jax.state import State


def main() -> None:
    """Print a Markdown table."""
    parser = timing.parser(__doc__, rounds=3)
    parser.add_argument("--mb", type=int, default=256)
    options = parser.parse_args()
    timing.print_machine()
    rng = np.random.default_rng(0)
    arrays = {str(i): rng.normal(size=2**18).astype(np.float32) for i in range(options.mb)}
    params = jax.device_put(arrays)
    state = State(jax.numpy.int32(1), params, {}, {}, {}, {}, {}, {})
    seconds: dict[str, list[float]] = {"digests": [], "writing": [], "reading": []}
    for _ in range(options.rounds):
        with TemporaryDirectory() as folder, open_manager(Path(folder)) as manager:
            for name, act in {
                "digests": lambda: digests_of({"generator": {"params": params}}),
                "writing": lambda: (
                    save(manager, state, get_config(), data={}, scores=None),
                    manager.wait_until_finished(),
                ),
                "reading": lambda: manager.restore(1),
            }.items():
                begin = time.monotonic()
                act()
                seconds[name].append(time.monotonic() - begin)
    print("| | seconds per GB |\n|---|---:|")
    for name, values in seconds.items():
        print(f"| {name} | {median(values) / (options.mb * 2**20 / 1e9):.2f} |")


if __name__ == "__main__":
    main()
