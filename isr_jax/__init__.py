"""isr_jax: image super-resolution GANs in JAX and Flax.

`load(model)` returns a trained generator or an interpolation as a callable on uint8 images,
`load_any_size()` one that upscales to any width, height or scale,
`evaluate(model, data)` scores one on benchmark sets, `train(config, workdir)` trains one, and
`study(config, workdir)` compares losses by how well each trains a generator.
The modules are pure functions and can be used one by one: `images`, `resize`, `losses`,
`metrics`, `models`, `data`, `training.update`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isr_jax.errors import UserError
    from isr_jax.evaluation.evaluator import evaluate
    from isr_jax.loss_study import study
    from isr_jax.training.loop import train
    from isr_jax.upscaling.any_size import AnySizeUpscaler, load_any_size
    from isr_jax.upscaling.upscaler import Upscaler, load

__all__ = [
    "AnySizeUpscaler",
    "Upscaler",
    "UserError",
    "__version__",
    "evaluate",
    "load",
    "load_any_size",
    "study",
    "train",
]

# pyproject.toml reads it from here.
__version__ = "0.1.0"

# Imported at first use (PEP 562): upscaling should not wait for what only training needs.
_HOMES = {
    "AnySizeUpscaler": "isr_jax.upscaling.any_size",
    "Upscaler": "isr_jax.upscaling.upscaler",
    "UserError": "isr_jax.errors",
    "evaluate": "isr_jax.evaluation.evaluator",
    "load": "isr_jax.upscaling.upscaler",
    "load_any_size": "isr_jax.upscaling.any_size",
    "study": "isr_jax.loss_study",
    "train": "isr_jax.training.loop",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, also those not yet imported."""
    return sorted({*globals(), *__all__})
