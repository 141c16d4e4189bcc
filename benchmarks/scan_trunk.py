"""Compile and time ESRGAN's trunk with its blocks one after the other, shared, and scanned.

    python -m benchmarks.scan_trunk

The loss and gradient of RRDBNet's 23 blocks (width 64, growth 32) on a crop of 16 x 16 features:
as `isr_jax.models.rrdbnet` has them, as 23 calls of one jitted function, and by `lax.scan` over
stacked parameters.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from isr_jax.models.rrdbnet import RRDB

BLOCKS, WIDTH, GROWTH, SIDE = 23, 64, 32, 16
BLOCK = RRDB(GROWTH, jnp.float32)


def one_after_the_other(blocks: list[Any], x: Array) -> Array:
    """The blocks unrolled."""
    for params in blocks:
        x = BLOCK.apply({"params": params}, x)
    return x


def shared(blocks: list[Any], x: Array) -> Array:
    """The blocks as calls of one function."""
    apply = jax.jit(lambda params, x: BLOCK.apply({"params": params}, x))
    for params in blocks:
        x = apply(params, x)
    return x


def scanned(blocks: Any, x: Array) -> Array:
    """The blocks in a loop."""
    return lax.scan(lambda x, params: (BLOCK.apply({"params": params}, x), None), x, blocks)[0]


def measure(trunk: Callable[[Any, Array], Array], blocks: Any, x: Array) -> tuple[float, float]:
    """Seconds to trace and compile, and the least of five runs."""
    step = jax.jit(jax.value_and_grad(lambda blocks: jnp.mean(jnp.abs(trunk(blocks, x)))))
    began = time.perf_counter()
    compiled = step.lower(blocks).compile()
    compiling = time.perf_counter() - began
    jax.block_until_ready(compiled(blocks))
    times = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(compiled(blocks))
        times.append(time.perf_counter() - began)
    return compiling, min(times)


def main() -> None:
    """Print a Markdown table."""
    device = jax.devices()[0]
    print(f"JAX {jax.__version__}, {device.device_kind}, {device.platform}\n")
    x = jax.random.normal(jax.random.key(0), (1, SIDE, SIDE, WIDTH))
    keys = jax.random.split(jax.random.key(1), BLOCKS)
    stacked = jax.jit(jax.vmap(lambda key: BLOCK.init(key, x)["params"]))(keys)
    listed = [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(BLOCKS)]
    variants = {
        "one after the other (isr_jax)": (one_after_the_other, listed),
        "calls of one jitted function": (shared, listed),
        "lax.scan": (scanned, stacked),
    }
    print("| 23 blocks | compile, s | ratio | step, ms | ratio |\n|---|---|---|---|---|")
    first = None
    for name, (trunk, blocks) in variants.items():
        compiling, step = measure(trunk, blocks, x)
        first = first or (compiling, step)
        print(
            f"| {name} | {compiling:.1f} | {compiling / first[0]:.2f} "
            f"| {1e3 * step:.0f} | {step / first[1]:.1f} |"
        )


if __name__ == "__main__":
    main()
