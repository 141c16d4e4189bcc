"""Generators: LR image -> SR image, as pure functions of a parameter tree."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt8

from isr_jax import images
from isr_jax.errors import UserError
from isr_jax.models.layers import Params
from isr_jax.models.resnets import MSRResNet, ResNet
from isr_jax.models.rrdbnet import RRDBNet
from isr_jax.models.srvggnet import SRVGGNetCompact

# Each documents its own fields.
ARCHITECTURES: dict[str, type[ResNet | MSRResNet | RRDBNet | SRVGGNetCompact]] = {
    "resnet": ResNet,
    "msrresnet": MSRResNet,
    "rrdbnet": RRDBNet,
    "srvggnet": SRVGGNetCompact,
}

# What is no field of a configuration: set by the caller, or by Flax.
_OTHER_FIELDS = ("scale", "axis_name", "name", "parent")


class Generator(NamedTuple):
    """A generator as pure functions.

    Attributes:
        init: key -> (params, stats); stats are batch norm's running ones, {} without batch norm.
        apply: (params, stats, lr, train) -> (sr, stats); lr float [n h w 3] in [0, 1],
            sr float32 [n scale*h scale*w 3], nominally in [0, 1] and not clipped.
        scale: the factor of enlargement.
    """

    init: Callable[[Key[Array, ""]], tuple[Params, Params]]
    apply: Callable[
        [Params, Params, Float[Array, "n h w 3"], bool], tuple[Float[Array, "n sh sw 3"], Params]
    ]
    scale: int


def complete(options: Mapping[str, Any], *, scale: int) -> dict[str, Any]:
    """A generator's name and all its fields: those given, and the defaults of the others.

    Args:
        options: "name", one of ARCHITECTURES ("resnet" where there is none), and fields of it.
        scale: factor of enlargement.

    Raises:
        UserError: for an unknown architecture or field, a scale that it does not have, or fields
            that exclude each other.
    """
    name = options.get("name", "resnet")
    if name not in ARCHITECTURES:
        raise UserError(f"generator.name is {name!r}; it can be {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[name]
    known = {f.name: f.default for f in fields(architecture) if f.name not in _OTHER_FIELDS}
    for field in options:
        if field != "name" and field not in known:
            nearest = get_close_matches(field, known, n=1, cutoff=0.0)[0]
            raise UserError(
                f"generator.{field}: {name} has no such field; did you mean {nearest}? "
                f"It has {', '.join(known)}"
            )
    if scale not in architecture.scales:
        raise UserError(
            f"scale is {scale}; that of {name} can be {', '.join(map(str, architecture.scales))}"
        )
    completed = {"name": name, **known, **options}
    if completed.get("equivariant") and (
        completed["global_skip"] == "none" or completed["batch_norm"] or any(completed["rgb_mean"])
    ):
        raise UserError(
            "generator.equivariant takes a global_skip, such as bicubic, and neither batch_norm "
            "nor rgb_mean; set these, or equivariant=False"
        )
    return completed


def module_of(
    options: Mapping[str, Any], *, scale: int, axis_name: str | None = None
) -> ResNet | MSRResNet | RRDBNet | SRVGGNetCompact:
    """The Flax module of `generator`, whose arguments and errors it has."""
    given = complete(options, scale=scale)
    architecture = ARCHITECTURES[given.pop("name")]
    if "axis_name" in {f.name for f in fields(architecture)}:
        given["axis_name"] = axis_name
    return architecture(scale=scale, **given)


def generator(options: Mapping[str, Any], *, scale: int, axis_name: str | None = None) -> Generator:
    """A generator by the name of its architecture.

    Args:
        options: "name", one of ARCHITECTURES ("resnet" where there is none), and fields of that
            class; the others keep their defaults, the published values.
        scale: factor of enlargement.
        axis_name: pmap axis over which batch norm takes its statistics; None for one program.

    Raises:
        UserError: for an unknown architecture or field, and for a scale that it does not have.
    """
    module = module_of(options, scale=scale, axis_name=axis_name)

    def init(key: Key[Array, ""]) -> tuple[Params, Params]:
        variables = jax.jit(module.init, static_argnums=2)(key, jnp.zeros((1, 8, 8, 3)), False)
        return variables["params"], variables.get("batch_stats", {})

    def apply(
        params: Params, stats: Params, lr: Float[Array, "n h w 3"], train: bool
    ) -> tuple[Float[Array, "n sh sw 3"], Params]:
        variables = {"params": params, "batch_stats": stats}
        sr, updated = module.apply(variables, lr, train, mutable=["batch_stats"] if train else [])
        return sr, updated.get("batch_stats", stats)

    return Generator(init, apply, scale)


Enlarge = Callable[[Any, Any, UInt8[np.ndarray, "h w 3"]], UInt8[Array, "sh sw 3"]]


def make_enlarge(generator: Generator) -> Enlarge:
    """A jitted (params, stats, uint8 [h w 3]) -> uint8 [scale*h scale*w 3], rounded half up."""

    @jax.jit
    def enlarge(params: Any, stats: Any, image: Any) -> Array:
        sr, _ = generator.apply(params, stats, images.to_float(image)[None], False)
        return images.to_uint8(sr[0])

    return enlarge
