"""Discriminators: image -> logits of being real, as pure functions of a parameter tree.

    classifier  SRGAN's: 3x3 convolutions, every second one strided, and two dense layers
    vgg         ESRGAN's, as BasicSR has it: 3x3 and strided 4x4 convolutions, two dense layers
    unet        Real-ESRGAN's: a U-Net with spectral normalisation, a logit for every pixel
    patch       pix2pix's PatchGAN: a logit for every patch of 70 pixels

Batch norm always takes the batch's own statistics, so there are no running ones to keep.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from isr_jax.errors import UserError
from isr_jax.models.classifier import Classifier
from isr_jax.models.fields import complete, variants
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
# pixels of what it sees of each image; 0 for data.crop.
DISCRIMINATORS: dict[str, dict[str, Any]] = {
    name: {"name": known.pop("name"), "crop": 0, **known}
    for name, known in variants(ARCHITECTURES, part="discriminator").items()
}


class Discriminator(NamedTuple):
    """A discriminator as pure functions.

    Attributes:
        init: key -> (params, stats); stats are spectral norm's vectors, {} without it.
        apply: (params, stats, images, *, train) -> (logits, features, stats). Images are float
            [n crop crop 3] in [0, 1]; logits float32, [n] or, of an architecture that classifies
            places, [n h w]; features the activations of every convolution but the last, for
            feature matching. Under jit, unused ones cost nothing. When training, spectral norm
            does one power iteration per call.
    """

    init: Callable[[Key[Array, ""]], tuple[Params, Params]]
    apply: Callable[..., tuple[Float[Array, " n *map"], Features, Params]]


def discriminator(
    options: Mapping[str, Any], *, crop: int, axis_name: str | None = None
) -> Discriminator:
    """Build a discriminator by the name of its architecture.

    Args:
        options: "name", a key of ARCHITECTURES (default: "classifier"), and fields of that class;
            the others keep their defaults, the published values.
        crop: side in pixels of the images that it will see.
        axis_name: pmap axis over which batch norm takes its statistics; None for one program.

    Raises:
        UserError: an unknown architecture or field, a value out of bounds, or a crop that the
            architecture does not accept.
    """
    given = complete(options, ARCHITECTURES, part="discriminator")
    architecture = ARCHITECTURES[given["name"]]
    if hasattr(architecture, "check"):
        architecture.check(given)
    name = given.pop("name")
    if "axis_name" in {f.name for f in fields(architecture)}:
        given["axis_name"] = axis_name
    module = architecture(**given)
    if not module.accepts(crop):
        raise UserError(
            f"discriminator.crop, or else data.crop, is {crop}; {name} accepts crops {module.crops}"
        )

    def init(key: Key[Array, ""]) -> tuple[Params, Params]:
        images = jnp.zeros((1, crop, crop, 3))
        variables = jax.jit(partial(module.init, train=False))(key, images)
        return variables["params"], variables.get("spectral", {})

    def apply(
        params: Params, stats: Params, images: Float[Array, "n h w 3"], *, train: bool
    ) -> tuple[Float[Array, " n *map"], Features, Params]:
        variables = {"params": params, "spectral": stats}
        # Batch norm writes running statistics that nobody reads.
        (logits, features), updated = module.apply(
            variables, images, train=train, mutable=["batch_stats", "spectral"]
        )
        return logits, features, updated.get("spectral", stats)

    return Discriminator(init, apply)


def make_discriminator(config: ConfigDict, *, axis_name: str | None = None) -> Discriminator:
    """Build the discriminator of a config; see `models.discriminator`."""
    options = config.discriminator.to_dict()
    crop = options.pop("crop") or config.data.crop
    return discriminator(options, crop=crop, axis_name=axis_name)
