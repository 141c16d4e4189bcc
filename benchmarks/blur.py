"""Time the blur of each image with its own kernel, by convolution and by FFT (isr_jax).

    python -m benchmarks.blur [--rounds N]

Median time for 12 images of 256x256 pixels with kernels of 21x21, and its ratio to the first.
"""

from functools import partial
from statistics import median

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks import timing
from isr_jax.degrade.filters import plane_blur


def grouped(images: jax.Array, kernels: jax.Array) -> jax.Array:
    """Blur by one convolution of n * 3 groups."""
    n, h, w, c = images.shape
    reach = kernels.shape[1] // 2
    images = jnp.pad(images, [(0, 0), (reach, reach), (reach, reach), (0, 0)], mode="reflect")
    planes = images.transpose(1, 2, 0, 3).reshape(1, h + 2 * reach, w + 2 * reach, n * c)
    taps = jnp.repeat(kernels.transpose(1, 2, 0)[:, :, None], c, axis=-1)
    planes = lax.conv_general_dilated(
        planes,
        taps,
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=n * c,
    )
    return planes.reshape(h, w, n, c).transpose(2, 0, 1, 3)


def by_fft(images: jax.Array, kernels: jax.Array) -> jax.Array:
    """Blur by isr_jax."""
    sizes = jnp.broadcast_to(jnp.array(images.shape[1:3]), (len(images), 2))
    return jax.vmap(plane_blur)(images.transpose(0, 3, 1, 2), sizes, kernels)


def main() -> None:
    """Print a Markdown table."""
    rounds = timing.parser(__doc__, rounds=5).parse_args().rounds
    timing.print_machine()
    image_key, kernel_key = jax.random.split(jax.random.key(0))
    images = jax.random.uniform(image_key, (12, 256, 256, 3))
    kernels = jax.random.uniform(kernel_key, (12, 21, 21)) / 21**2
    variants = {"grouped convolution": grouped, "FFT (isr_jax)": by_fft}
    ways = {name: partial(jax.jit(blur), images, kernels) for name, blur in variants.items()}
    print("| 12 blurs of 256x256 by 21x21 | ms | ratio |\n|---|---|---|")
    first = None
    for name, seconds in timing.interleaved(ways, rounds=rounds).items():
        ms = 1e3 * median(seconds)
        first = first or ms
        print(f"| {name} | {ms:.1f} | {ms / first:.3f} |")


if __name__ == "__main__":
    main()
