"""Time the blur of each image by a kernel of its own, by convolution and by FFT (ours).

    python -m benchmarks.blur

Median time of 12 images of 256x256 pixels with kernels of 21x21, and its ratio.
"""

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.ssim_filter import median_ms
from isr_jax.degrade.filters import blur


def grouped(images: jax.Array, kernels: jax.Array) -> jax.Array:
    """One convolution of n * 3 groups."""
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


def main() -> None:
    """Print a Markdown table."""
    device = jax.devices()[0]
    print(f"JAX {jax.__version__}, {device.device_kind}, {device.platform}\n")
    image_key, kernel_key = jax.random.split(jax.random.key(0))
    images = jax.random.uniform(image_key, (12, 256, 256, 3))
    kernels = jax.random.uniform(kernel_key, (12, 21, 21)) / 21**2
    print("| 12 blurs of 256x256 by 21x21 | ms | ratio |\n|---|---|---|")
    first = None
    variants = {"grouped convolution": grouped, "FFT (isr_jax)": blur}
    for name, function in variants.items():
        elapsed = median_ms(jax.jit(function), images, kernels, runs=5)
        first = first or elapsed
        print(f"| {name} | {elapsed:.1f} | {elapsed / first:.3f} |")


if __name__ == "__main__":
    main()
