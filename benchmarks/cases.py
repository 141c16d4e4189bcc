"""What `python -m benchmarks` times in JAX: upscaling, updates, convolutions; see torch_cases."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import skimage.data
from ml_collections import ConfigDict

from benchmarks.upscale import Network, drawn, loaded
from configs import esrgan, msssim, realesrgan
from isr_jax import config as base
from isr_jax.models import GENERATORS
from isr_jax.models.generators import make_upscale
from isr_jax.training.loaders import open_loader
from isr_jax.training.program import make_dispatch, make_program, run_keys

Case = Callable[[], Any]

# Generators at 4x with random weights, and the one that ships.
UPSCALED: dict[str, Mapping[str, Any]] = {
    "SRVGG-16": {**GENERATORS["srvggnet"], "layers": 16},
    "compact-x4": {},
    "MSRResNet": GENERATORS["msrresnet"],
    "RRDBNet-6": {**GENERATORS["rrdbnet"], "blocks": 6},
}
SHAPE = (16, 24, 24, 64)  # of the convolved features
SIDE = 2048  # of the multiplied matrices


def photo() -> np.ndarray:
    """Return a photograph of 768x576 pixels."""
    return np.ascontiguousarray(skimage.data.hubble_deep_field()[:576, :768])


def network(name: str) -> Network:
    """Return a generator of UPSCALED."""
    return drawn(name, UPSCALED[name]) if UPSCALED[name] else loaded(name)


def tiles(name: str) -> Case:
    """Upscale the photograph as `isr upscale` does."""
    return partial(network(name).tiled(), photo())


def whole(name: str) -> Case:
    """Upscale the photograph in one program."""
    chosen = network(name)
    upscale = make_upscale(chosen.whole)
    return lambda: np.asarray(upscale(chosen.params, chosen.stats, photo()))


def published(name: str) -> ConfigDict:
    """Return the config of an update: MSRResNet's with L1, or of a GAN without perceptual loss."""
    config = base.get_config()
    if name == "msssim":
        return msssim.get_config()
    if name == "MSRResNet":
        config.generator = ConfigDict(GENERATORS["msrresnet"])
        config.loss.content.update({"mse": 0.0, "l1": 1.0})
        config.loss.adversarial_weight = 0.0
    if name in ("ESRGAN-23", "Real-ESRGAN"):
        config = (esrgan if name == "ESRGAN-23" else realesrgan).get_config()
        config.data.train = config.data.validation = "samples"
        config.data.degradation, config.data.margin, config.data.sharpen = "bicubic", 0, False
        config.loss.perceptual.weight = 0.0  # VGG19's weights are not at hand everywhere
        config.loss.content.l1 = 1.0
        config.train.init_from = ""
    config.train.steps_per_dispatch = 1
    return config


def update(name: str, *, changed: Mapping[str, Any] | None = None, n: int = 1) -> Case:
    """Do n updates, with the sampling of their batches; the state is kept between calls.

    Args:
        name: as for `published`.
        changed: fields that replace the config's.
        n: updates of a call, in one program.
    """
    config = published(name)
    config.update_from_flattened_dict(dict(changed or {}))
    return updating(config, n=n)


def updating(config: ConfigDict, *, n: int = 1) -> Case:
    """Do n updates of a config in each call."""
    devices = jax.devices()
    program = make_program(config)
    dispatch = make_dispatch(config, program.update, devices)
    loader = open_loader(config, devices, frozen=program.frozen(), warn=print)
    init_key, key = run_keys(0)
    states = [program.init(init_key)]

    def step() -> Any:
        states[0], values = dispatch(states[0], loader.take(n), key, n=n, adversarial=True)
        return jax.block_until_ready(values)

    return step


def convolution(part: str) -> Case:
    """Convolve features by 3x3 kernels: the output, or a gradient by the input or the kernel."""
    keys = jax.random.split(jax.random.key(0), 3)
    x, dy = (jax.random.normal(key, SHAPE) for key in keys[:2])
    kernel = jax.random.normal(keys[2], (3, 3, SHAPE[-1], SHAPE[-1]))

    def convolve(x: Any, kernel: Any) -> Any:
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)

    def run(x: Any, kernel: Any, dy: Any) -> Any:
        if part == "forward":
            return convolve(x, kernel)
        if part == "input gradient":
            return jax.vjp(lambda x: convolve(x, kernel), x)[1](dy)
        return jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](dy)

    compiled = jax.jit(run)
    return lambda: [jax.block_until_ready(compiled(x, kernel, dy)) for _ in range(10)]


def product(name: str) -> Case:
    """Multiply two square matrices."""
    a = jnp.ones((SIDE, SIDE), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(multiply(a, a))


CASES: dict[str, Callable[[str], Case]] = {
    "tiles": tiles,
    "whole": whole,
    "update": update,
    "convolution": convolution,
    "product": product,
}
