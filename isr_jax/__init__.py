"""isr_jax: image super-resolution GANs in JAX and Flax.

`load(model)` gives a trained generator or an interpolation as a callable on uint8 images,
`evaluate(model, data)` scores one over benchmark sets, `train(config, workdir)` trains one, and
`study(config, workdir)` finds out by which loss one learns most.
The modules are pure functions and can be used one by one: `images`, `resize`, `losses`,
`metrics`, `models`, `data`, `update`.
"""

from isr_jax.errors import UserError
from isr_jax.evaluate import evaluate
from isr_jax.study import study
from isr_jax.train import train
from isr_jax.upscale import Upscaler, load

__all__ = ["Upscaler", "UserError", "evaluate", "load", "study", "train"]
