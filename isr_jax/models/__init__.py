"""Networks as pure functions; Flax Linen stays inside this package.

`generator(...)` and `discriminator(...)` take plain values and return functions of parameter trees,
so that the rest of isr_jax sees `apply(params, ...)` and nothing of Flax.
"""

from isr_jax.models.discriminators import DISCRIMINATORS, Discriminator, discriminator
from isr_jax.models.generators import GENERATORS, Generator, generator
from isr_jax.models.layers import count_params

__all__ = [
    "DISCRIMINATORS",
    "GENERATORS",
    "Discriminator",
    "Generator",
    "count_params",
    "discriminator",
    "generator",
]
