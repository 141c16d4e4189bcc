"""Discriminators: image -> logits of being real, as pure functions of a parameter tree.

    classifier  SRGAN's: 3x3 convolutions, every second one strided, and two dense layers
    vgg         ESRGAN's, as BasicSR has it: 3x3 and strided 4x4 convolutions, two dense layers
    unet        Real-ESRGAN's: a U-Net with spectral normalisation, a logit per pixel
    patch       pix2pix's PatchGAN: a logit per patch of 70x70 pixels

Batch norm always uses the batch's own statistics, so no running ones are kept.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from isr_jax.errors import UserError
from isr_jax.models import fields
from isr_jax.models.classifier import Classifier
from isr_jax.models.fields import variants
from isr_jax.models.layers import Features, Params
from isr_jax.models.patch import Patch
from isr_jax.models.unet import UNet
from isr_jax.models.vgg import VGG

# Each documents its own fields; their defaults are the published values.
ARCHITECTURES: dict[str, type[Classifier | VGG | UNet | Patch]] = {
    "classifier": Classifier,
    "vgg": VGG,
    "unet": UNet,
    "patch": Patch,
}

# The published discriminators by name, each as a `config.discriminator`. Its crop is the side in
# pixels of the part of each image that it sees; 0 for data.crop.
DISCRIMINATORS: dict[str, dict[str, Any]] = {
    name: {"name": known.pop("name"), "crop": 0, **known}
    for name, known in variants(ARCHITECTURES, part="discriminator").items()
}


class Discriminator(NamedTuple):
    """A discriminator as pure functions.

    Attributes:
        init: key -> (params, stats); stats are spectral norm's vectors, {} without it.
        apply: (params, stats, images, *, train) -> (logits, features, stats). Images are float
            [n crop crop c] in [0, 1]; logits are float32, [n], or [n h w] with a logit per
            patch or pixel; features are the activations of every convolution but the last, for
            feature matching. Under jit, unused ones cost nothing. When training, spectral norm
            does one power iteration per call.
    """

    init: Callable[[Key[Array, ""]], tuple[Params, Params]]
    apply: Callable[..., tuple[Float[Array, " n *map"], Features, Params]]


def complete(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a discriminator's name and all its fields: those given, and defaults for the others.

    Args:
        options: "name", a key of ARCHITECTURES (default: "classifier"), and fields of that class.

    Raises:
        UserError: an unknown architecture or field, or a value that it cannot have.
    """
    completed = fields.complete(options, ARCHITECTURES, part="discriminator")
    if check := getattr(ARCHITECTURES[completed["name"]], "check", None):
        check(completed)
    return completed


def discriminator(
    options: Mapping[str, Any], *, crop: int, channels: int = 3, axis_name: str | None = None
) -> Discriminator:
    """Build a discriminator by the name of its architecture.

    Args:
        options: as for `complete`; the defaults are the published values.
        crop: side in pixels of the images that it will see.
        channels: of these images.
        axis_name: pmap axis over which batch norm takes its statistics; None for one program.

    Raises:
        UserError: an unknown architecture or field, a value out of bounds, or a crop that the
            architecture does not accept.
    """
    given = complete(options)
    name = given.pop("name")
    architecture = ARCHITECTURES[name]
    if "axis_name" in {f.name for f in dataclasses.fields(architecture)}:
        given["axis_name"] = axis_name
    module = architecture(**given)
    if not module.accepts(crop):
        raise UserError(
            f"discriminator.crop, or else data.crop, is {crop}; {name} accepts crops {module.crops}"
        )

    def init(key: Key[Array, ""]) -> tuple[Params, Params]:
        images = jnp.zeros((1, crop, crop, channels), jnp.float32)
        variables = jax.jit(partial(module.init, train=False))(key, images)
        return variables["params"], variables.get("spectral", {})

    def apply(
        params: Params, stats: Params, images: Float[Array, "n h w c"], *, train: bool
    ) -> tuple[Float[Array, " n *map"], Features, Params]:
        variables = {"params": params, "spectral": stats}
        # Batch norm also writes running statistics, which are not used.
        (logits, features), updated = module.apply(
            variables, images, train=train, mutable=["batch_stats", "spectral"]
        )
        return logits, features, updated.get("spectral", stats)

    return Discriminator(init, apply)


def make_discriminator(
    config: ConfigDict, *, channels: int = 3, axis_name: str | None = None
) -> Discriminator:
    """Build the discriminator of a config, for images of the generator's channels."""
    options = config.discriminator.to_dict()
    crop = options.pop("crop") or config.data.crop
    return discriminator(options, crop=crop, channels=channels, axis_name=axis_name)
