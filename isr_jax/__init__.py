"""isr_jax: image super-resolution GANs in JAX and Flax.

`load(run_folder)` gives a trained generator as a callable on uint8 images; `train(config, workdir)`
trains one. The modules are pure functions and can be used one by one: `images`, `resize`,
`losses`, `metrics`, `models`, `data`, `update`.
"""

from isr_jax.errors import UserError
from isr_jax.train import train
from isr_jax.upscale import Upscaler, load

__all__ = ["Upscaler", "UserError", "load", "train"]
