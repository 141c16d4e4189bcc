"""Time an update of configs/msssim.py alone and as one of several in a compiled loop.

    python -m benchmarks.dispatch

One update per program (`train.steps_per_dispatch=1`) against several by `lax.scan`.
"""

import time

import jax

from configs import msssim
from isr_jax.training.loaders import open_loader
from isr_jax.training.program import make_dispatch, make_program


def seconds_per_update(n: int, *, dispatches: int) -> float:
    """Mean seconds of an update in programs of n, compiling left out."""
    config = msssim.get_config()
    program, devices = make_program(config), jax.devices()
    dispatch = make_dispatch(config, program.update, devices)
    loader = open_loader(config, devices, warn=print)
    key = jax.random.key(0)
    state = jax.jit(program.init)(key)
    # Twice: the state that comes back may be laid out otherwise than the first, and compile anew.
    for _ in range(2):
        state, _ = dispatch(state, loader.take(n), key, n=n, adversarial=True)
    jax.block_until_ready(state)
    began = time.perf_counter()
    for _ in range(dispatches):
        state, _ = dispatch(state, loader.take(n), key, n=n, adversarial=True)
    jax.block_until_ready(state)
    return (time.perf_counter() - began) / (n * dispatches)


def main() -> None:
    """Print a Markdown table."""
    device = jax.devices()[0]
    print(f"JAX {jax.__version__}, {device.device_kind}, {device.platform}\n")
    print("| updates per program | ms per update | ratio |\n|---|---|---|")
    first = None
    for n, dispatches in ((1, 20), (4, 2)):
        elapsed = 1e3 * seconds_per_update(n, dispatches=dispatches)
        first = first or elapsed
        print(f"| {n} | {elapsed:.0f} | {elapsed / first:.1f} |")


if __name__ == "__main__":
    main()
