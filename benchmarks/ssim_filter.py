"""Time the SSIM loss with dm_pix's own Gaussian filter, a depthwise convolution, and isr_jax's.

    python -m benchmarks.ssim_filter [--rounds N]

Median time of the loss and its gradient, and its ratio to dm_pix's own filter in the same run.
"""

from functools import partial
from importlib.metadata import version
from statistics import median

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import timing
from isr_jax import losses, metrics


def depthwise(x: jax.Array) -> jax.Array:
    """Apply the 11x11 Gaussian as a depthwise convolution of an NHWC batch, valid region."""
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


VARIANTS = {
    "dm_pix's own filter": lambda sr, hr: 1 - dm_pix.ssim(sr, hr).mean(),
    "depthwise convolution": lambda sr, hr: 1 - dm_pix.ssim(sr, hr, filter_fn=depthwise).mean(),
    "two banded matrix products (isr_jax)": losses.ssim,
}


def main() -> None:
    """Print a Markdown table for each shape."""
    rounds = timing.parser(__doc__, rounds=11).parse_args().rounds
    timing.print_machine(f"dm_pix {version('dm-pix')}")
    for shape in ((16, 96, 96, 3), (8, 176, 176, 3)):
        keys = jax.random.split(jax.random.key(0))
        sr, hr = (jax.random.uniform(key, shape) for key in keys)
        print(f"| SSIM loss and gradient, {list(shape)} | ms | ratio |\n|---|---|---|")
        ways = {
            name: partial(jax.jit(jax.value_and_grad(loss)), sr, hr)
            for name, loss in VARIANTS.items()
        }
        first = None
        for name, seconds in timing.interleaved(ways, rounds=rounds).items():
            ms = 1e3 * median(seconds)
            first = first or ms
            print(f"| {name} | {ms:.1f} | {ms / first:.2f} |")
        print()


if __name__ == "__main__":
    main()
