"""Compile and time RRDBNet's trunk with its blocks unrolled, shared, and scanned.

    python -m benchmarks.scan_trunk [--rounds N]

The loss and gradient of RRDBNet's 23 blocks (width 64, growth 32) on a crop of 16 x 16 features:
unrolled as in `isr_jax.models.rrdbnet`, as 23 calls of one jitted function, and by `lax.scan` over
stacked parameters. Seconds to trace and compile, and the best time of a step.
"""

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from benchmarks import timing
from isr_jax.models.rrdbnet import RRDB

BLOCKS, WIDTH, GROWTH, SIDE = 23, 64, 32, 16
BLOCK = RRDB(GROWTH, plus=False, dtype=jnp.float32)


def one_after_the_other(blocks: list[Any], x: Array) -> Array:
    """Apply the blocks unrolled."""
    for params in blocks:
        x = BLOCK.apply({"params": params}, x)
    return x


def shared(blocks: list[Any], x: Array) -> Array:
    """Apply the blocks as calls of one jitted function."""
    apply = jax.jit(lambda params, x: BLOCK.apply({"params": params}, x))
    for params in blocks:
        x = apply(params, x)
    return x


def scanned(blocks: Any, x: Array) -> Array:
    """Apply the blocks in a loop."""
    return lax.scan(lambda x, params: (BLOCK.apply({"params": params}, x), None), x, blocks)[0]


def main() -> None:
    """Print a Markdown table."""
    rounds = timing.parser(__doc__, rounds=5).parse_args().rounds
    timing.print_machine()
    x = jax.random.normal(jax.random.key(0), (1, SIDE, SIDE, WIDTH))
    keys = jax.random.split(jax.random.key(1), BLOCKS)
    stacked = jax.jit(jax.vmap(lambda key: BLOCK.init(key, x)["params"]))(keys)
    listed = [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(BLOCKS)]
    variants = {
        "one after the other (isr_jax)": (one_after_the_other, listed),
        "calls of one jitted function": (shared, listed),
        "lax.scan": (scanned, stacked),
    }
    compiling, ways = {}, {}
    for name, (trunk, blocks) in variants.items():
        step = jax.jit(
            jax.value_and_grad(lambda blocks, trunk=trunk: jnp.mean(jnp.abs(trunk(blocks, x))))
        )
        start = time.perf_counter()
        compiled = step.lower(blocks).compile()
        compiling[name] = time.perf_counter() - start
        ways[name] = partial(compiled, blocks)
    best = {name: min(t) for name, t in timing.interleaved(ways, rounds=rounds).items()}
    print("| 23 blocks | compile, s | ratio | step, ms | ratio |\n|---|---|---|---|---|")
    first = next(iter(best))
    for name, step in best.items():
        print(
            f"| {name} | {compiling[name]:.1f} | {compiling[name] / compiling[first]:.2f} "
            f"| {1e3 * step:.0f} | {step / best[first]:.1f} |"
        )


if __name__ == "__main__":
    main()
