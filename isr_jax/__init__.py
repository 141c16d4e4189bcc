"""isr_jax: image super-resolution GANs in JAX and Flax.

`load(model)` gives a trained generator or an interpolation as a callable on uint8 images,
`evaluate(model, data)` scores one over benchmark sets, `train(config, workdir)` trains one, and
`study(config, workdir)` finds out by which loss one learns most.
The modules are pure functions and can be used one by one: `images`, `resize`, `losses`,
`metrics`, `models`, `data`, `update`.
"""

from isr_jax.errors import UserError
from isr_jax.evaluation.evaluator import evaluate
from isr_jax.loss_study import study
from isr_jax.training.loop import train
from isr_jax.upscaling.upscaler import Upscaler, load

__all__ = ["Upscaler", "UserError", "evaluate", "load", "study", "train"]
