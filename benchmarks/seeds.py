"""Time three seeds of one loss in one compiled program, beside the same runs in turn.

    python -m benchmarks.seeds [--rounds N]
    XLA_FLAGS=--xla_force_host_platform_device_count=2 python -m benchmarks.seeds

A loss study trains the seeds of a candidate this way (`program.make_runs_dispatch`): batched by
vmap or unrolled, and spread over the devices. Median time of an update of all runs.
"""

from collections.abc import Callable
from statistics import median

import jax
import jax.numpy as jnp

from benchmarks import timing
from isr_jax import config as base
from isr_jax.data import loading, pool, sources
from isr_jax.training.program import (
    Inputs,
    make_dispatch,
    make_program,
    make_runs_dispatch,
    on_all,
    run_keys,
)

SIZES = {
    "configs/l1.py": (176, 4, 32),
    "crops of 96 px": (96, 4, 32),
    "crops of 48 px": (48, 4, 16),
}


def main() -> None:
    """Print a Markdown table."""
    rounds = timing.parser(__doc__, rounds=11).parse_args().rounds
    devices = jax.devices()
    runs = len(devices) if len(devices) > 1 else 3
    timing.print_machine()
    print(f"| ms for an update of {runs} runs | in turn | unroll | ratio | vmap | ratio |")
    print("|---|---|---|---|---|---|")
    for name, (crop, batch, width) in SIZES.items():
        steps = make_steps(crop, batch, width, runs)
        # Two warm-up calls: see benchmarks.dispatch.
        times = timing.interleaved(steps, rounds=rounds, warm_up=2)
        turn, unroll, vmap = (1e3 * median(seconds) for seconds in times.values())
        cells = f"{turn:.1f} | {unroll:.1f} | {unroll / turn:.2f} | {vmap:.1f} | {vmap / turn:.2f}"
        print(f"| {name} | {cells} |", flush=True)


def make_steps(crop: int, batch: int, width: int, runs: int) -> dict[str, Callable[[], None]]:
    """Return functions that update all runs once: in turn on one device, or at once over all."""
    config = base.small()
    config.loss.content.l1, config.loss.adversarial_weight = 1.0, 1e-4
    config.data.crop, config.data.batch, config.generator.width = crop, batch, width
    config.discriminator.crop = min(64, crop)
    devices, program = jax.devices(), make_program(config)
    used = devices[: max(d for d in range(1, len(devices) + 1) if runs % d == 0)]
    source = sources.open_source("samples", "train", scale=4)
    photos = loading.load_all(source, min_size=crop, warn=print)
    data = Inputs(frozen=(), images=pool.make_pool(photos))
    keys = jax.vmap(run_keys)(jnp.arange(runs))
    rates = jnp.full(runs, 1e-3)

    single = make_dispatch(config, program.update, devices[:1])
    one = jax.device_put(data, on_all(devices[:1]))
    alone = [jax.jit(program.init)(keys[r, 0]) for r in range(runs)]

    def in_turn() -> None:
        for r in range(runs):
            alone[r], series = single(alone[r], one, keys[r, 1], n=1, adversarial=True)
            series["loss"].block_until_ready()

    split = on_all(used, axis="devices")
    shared = jax.device_put(data, on_all(used))
    train_keys, g_rates = jax.device_put((keys[:, 1], rates), split)

    def at_once(together: str) -> Callable[[], None]:
        states = [jax.jit(jax.vmap(program.init), out_shardings=split)(keys[:, 0])]
        dispatch = make_runs_dispatch(config, used, together=together)

        def step() -> None:
            states[0], series = dispatch(
                states[0], shared, train_keys, g_rates, n=1, adversarial=True
            )
            series["loss"].block_until_ready()

        return step

    return {"in turn": in_turn, "unroll": at_once("unroll"), "vmap": at_once("vmap")}


if __name__ == "__main__":
    main()
