"""A process of `python -m benchmarks`: time what the lines of standard input name.

A line is a JSON list, ["tiles", "MSRResNet"]; so is its answer, the seconds of one call after a
first one, and of the first one where it was made for this line. Idle in between, so that several
libraries and versions take turns on one machine.
"""

import argparse
import importlib
import json
import platform
import sys
import time
from functools import cache
from typing import Any


def main() -> None:
    """Answer until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=["jax", "torch"])
    parser.add_argument("--training", action="store_true", help="split the CPU as training does")
    options = parser.parse_args()
    if options.training:
        from isr_jax.training.runtime import use_all_cores

        use_all_cores(16)
    name = "benchmarks.cases" if options.library == "jax" else "benchmarks.torch_cases"
    cases: dict[str, Any] = importlib.import_module(name).CASES
    version = importlib.import_module(options.library).__version__
    answer([options.library, version, platform.python_version()])

    @cache
    def ready(kind: str, case: str) -> tuple[Any, list[float]]:
        start = time.perf_counter()
        run = cases[kind](case)
        run()
        return run, [time.perf_counter() - start]

    for line in sys.stdin:
        run, first = ready(*json.loads(line))
        start = time.perf_counter()
        run()
        answer([time.perf_counter() - start, *first])
        first.clear()


def answer(content: list[Any]) -> None:
    """Print a line."""
    print(json.dumps(content), flush=True)


if __name__ == "__main__":
    main()
