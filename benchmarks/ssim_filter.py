"""Time the SSIM loss with dm_pix's own Gaussian filter, a depthwise convolution, and ours.

    python -m benchmarks.ssim_filter

Median time of the loss with its gradient, and its ratio to dm_pix's own filter in the same run.
"""

import statistics
import time
from collections.abc import Callable

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from isr_jax import losses, metrics


def depthwise(x: jax.Array) -> jax.Array:
    """The 11x11 Gaussian as a depthwise convolution of an NHWC batch, valid region."""
    taps = np.exp(-0.5 * ((np.arange(metrics.WINDOW) - 5) / metrics.SIGMA) ** 2)
    kernel = jnp.array(np.outer(taps, taps) / taps.sum() ** 2, jnp.float32)[..., None, None]
    return lax.conv_general_dilated(
        x,
        jnp.tile(kernel, (1, 1, 1, x.shape[-1])),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def median_ms(function: Callable, *arguments: jax.Array, runs: int = 11) -> float:
    """Median milliseconds of a compiled call."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


VARIANTS = {
    "dm_pix's own filter": lambda sr, hr: 1 - dm_pix.ssim(sr, hr).mean(),
    "depthwise convolution": lambda sr, hr: 1 - dm_pix.ssim(sr, hr, filter_fn=depthwise).mean(),
    "two banded matrix products (isr_jax)": losses.ssim,
}


def main() -> None:
    """Print a Markdown table for each shape."""
    device = jax.devices()[0]
    print(f"JAX {jax.__version__}, {device.device_kind}, {device.platform}\n")
    for shape in ((16, 96, 96, 3), (8, 176, 176, 3)):
        keys = jax.random.split(jax.random.key(0))
        sr, hr = (jax.random.uniform(key, shape) for key in keys)
        print(f"| SSIM loss and gradient, {list(shape)} | ms | ratio |\n|---|---|---|")
        first = None
        for name, loss in VARIANTS.items():
            elapsed = median_ms(jax.jit(jax.value_and_grad(loss)), sr, hr)
            first = first or elapsed
            print(f"| {name} | {elapsed:.1f} | {elapsed / first:.2f} |")
        print()


if __name__ == "__main__":
    main()
