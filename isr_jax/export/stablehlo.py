"""Generators as StableHLO, which JAX runs without isr_jax."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from isr_jax.models import Generator

PLATFORMS = ("cpu", "cuda", "tpu")


def any_images(channels: int) -> jax.ShapeDtypeStruct:
    """Return the abstract value of images of any number, height and width."""
    return jax.ShapeDtypeStruct((*export.symbolic_shape("n, h, w"), channels), jnp.float32)


def to_stablehlo(network: Generator, params: Any, stats: Any) -> bytes:
    """Return a generator with its parameters as the bytes of a `jax.export` artifact.

    Later versions of JAX read it for at least half a year.
    """
    upscale = jax.jit(lambda lr: network.apply(params, stats, lr, train=False)[0])
    return bytes(
        export.export(upscale, platforms=PLATFORMS)(any_images(network.channels)).serialize()
    )
