"""Time an update of configs/msssim.py alone and as one of several in a compiled loop.

    python -m benchmarks.dispatch [--rounds N]

One update per program (`train.steps_per_dispatch=1`) against several in a `lax.scan`; the median
time of an update, without compilation.
"""

from collections.abc import Callable
from statistics import median
from typing import Any

import jax

from benchmarks import timing
from configs import msssim
from isr_jax.training.loaders import open_loader
from isr_jax.training.program import make_dispatch, make_program


def make_step(n: int) -> Callable[[], Any]:
    """Return a function that runs one program of n updates and returns the new state."""
    config = msssim.get_config()
    program, devices = make_program(config), jax.devices()
    dispatch = make_dispatch(config, program.update, devices)
    loader = open_loader(config, devices, warn=print)
    key = jax.random.key(0)
    states = [jax.jit(program.init)(key)]

    def step() -> Any:
        states[0], _ = dispatch(states[0], loader.take(n), key, n=n, adversarial=True)
        return states[0]

    return step


def main() -> None:
    """Print a Markdown table."""
    rounds = timing.parser(__doc__, rounds=5).parse_args().rounds
    timing.print_machine()
    print("| updates per program | ms per update | ratio |\n|---|---|---|")
    ways = {str(n): make_step(n) for n in (1, 4)}
    # Two warm-up calls: the returned state may have another layout than the first, and recompile.
    times = timing.interleaved(ways, rounds=rounds, warm_up=2)
    first = None
    for n, seconds in times.items():
        ms = 1e3 * median(seconds) / int(n)
        first = first or ms
        print(f"| {n} | {ms:.0f} | {ms / first:.1f} |")


if __name__ == "__main__":
    main()
