"""Generators: LR image -> SR image, as pure functions of a parameter tree."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt8
from ml_collections import ConfigDict

from isr_jax import images
from isr_jax.errors import UserError
from isr_jax.models import fields
from isr_jax.models.dat import DAT
from isr_jax.models.fields import variants
from isr_jax.models.hat import HAT
from isr_jax.models.layers import Params
from isr_jax.models.omnisr import OmniSR
from isr_jax.models.plksr import PLKSR, RealPLKSR
from isr_jax.models.rcan import RCAN
from isr_jax.models.resnet import MSRResNet, ResNet
from isr_jax.models.rrdbnet import RRDBNet
from isr_jax.models.span import SPAN
from isr_jax.models.srvggnet import SRVGGNetCompact
from isr_jax.models.swinir import SwinIR

# Each documents its own fields.
ARCHITECTURES: dict[str, type[Any]] = {
    "resnet": ResNet,
    "msrresnet": MSRResNet,
    "rrdbnet": RRDBNet,
    "srvggnet": SRVGGNetCompact,
    "span": SPAN,
    "plksr": PLKSR,
    "realplksr": RealPLKSR,
    "swinir": SwinIR,
    "hat": HAT,
    "dat": DAT,
    "omnisr": OmniSR,
    "rcan": RCAN,
}

# The published generators by name, each as a `config.generator`.
GENERATORS: dict[str, dict[str, Any]] = variants(ARCHITECTURES, part="generator")


class Generator(NamedTuple):
    """A generator as pure functions.

    Attributes:
        init: key -> (params, stats); stats are batch norm's running ones, {} without batch norm.
        apply: (params, stats, lr, *, train) -> (sr, stats); lr is float [n h w c] in [0, 1], sr
            float32 [n scale*h scale*w c], nominally in [0, 1] and not clipped.
        scale: the scale factor.
        module: the Flax module, whose layers `tiling` inspects.
    """

    init: Callable[[Key[Array, ""]], tuple[Params, Params]]
    apply: Callable[..., tuple[Float[Array, "n sh sw c"], Params]]
    scale: int
    module: Any

    @property
    def channels(self) -> int:
        """Channels of the images: 3, but 1 of a network for gray ones, and 4 with alpha."""
        return getattr(self.module, "channels", 3)


def complete(options: Mapping[str, Any], *, scale: int) -> dict[str, Any]:
    """Return a generator's name and all its fields: those given, and defaults for the others.

    Args:
        options: "name", a key of ARCHITECTURES (default: "resnet"), and fields of it.
        scale: scale factor.

    Raises:
        UserError: an unknown architecture or field, a value that it cannot have, or a scale that
            it does not support.
    """
    completed = fields.complete(options, ARCHITECTURES, part="generator")
    architecture = ARCHITECTURES[completed["name"]]
    if scale not in architecture.scales:
        scales = ", ".join(map(str, architecture.scales))
        raise UserError(f"scale is {scale}; {completed['name']} supports {scales}")
    if check := getattr(architecture, "check", None):
        check(completed, scale=scale)
    return completed


def generator(options: Mapping[str, Any], *, scale: int, axis_name: str | None = None) -> Generator:
    """Build a generator by the name of its architecture.

    Args:
        options: as for `complete`; the defaults are the published values.
        scale: scale factor.
        axis_name: pmap axis over which batch norm takes its statistics; None for one program.

    Raises:
        UserError: as for `complete`.
    """
    given = complete(options, scale=scale)
    architecture = ARCHITECTURES[given.pop("name")]
    if "axis_name" in {f.name for f in dataclasses.fields(architecture)}:
        given["axis_name"] = axis_name
    module = architecture(scale=scale, **given)

    def init(key: Key[Array, ""]) -> tuple[Params, Params]:
        # Not jitted: XLA takes minutes to compile the draws of a deep network at once.
        lr = jax.ShapeDtypeStruct((1, 8, 8, getattr(module, "channels", 3)), jnp.float32)
        variables = module.lazy_init(key, lr, train=False)
        return variables["params"], variables.get("batch_stats", {})

    def apply(
        params: Params, stats: Params, lr: Float[Array, "n h w c"], *, train: bool
    ) -> tuple[Float[Array, "n sh sw c"], Params]:
        variables = {"params": params, "batch_stats": stats}
        sr, updated = module.apply(
            variables, lr, train=train, mutable=["batch_stats"] if train else []
        )
        return sr, updated.get("batch_stats", stats)

    return Generator(init, apply, scale, module)


def channels_of(config: ConfigDict) -> int:
    """Return the channels of the images that the generator of a config makes; see `Generator`."""
    return complete(config.generator.to_dict(), scale=config.scale).get("channels", 3)


def generator_of(
    config: ConfigDict, *, dtype: str | None = None, axis_name: str | None = None
) -> Generator:
    """Build the generator of a config; `dtype`, where given, replaces the config's own."""
    options = config.generator.to_dict()
    if dtype:
        options["dtype"] = dtype
    return generator(options, scale=config.scale, axis_name=axis_name)


Upscale = Callable[[Any, Any, UInt8[np.ndarray, "h w c"]], UInt8[Array, "sh sw c"]]


def make_upscale(generator: Generator) -> Upscale:
    """Return a jitted (params, stats, uint8 [h w c]) -> uint8 [scale*h scale*w c]."""

    @jax.jit
    def upscale(params: Any, stats: Any, image: Any) -> Array:
        sr, _ = generator.apply(params, stats, images.to_float(image)[None], train=False)
        return images.to_uint8(sr[0])

    return upscale
