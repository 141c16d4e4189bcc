"""LPIPS v0.1, the learned perceptual image patch similarity: a distance, 0 for equal images.

    params = load_params("alex")
    distance = lpips(params, sr, hr, network="alex")  # jittable, differentiable
    measure = load_lpips("alex")
    measure(sr, hr, crop=4)  # two uint8 images -> float

The features of both images are divided, pixel by pixel, by their norm over the channels; the
squared differences are weighted per channel by weights that were fitted to human judgement,
averaged over the pixels, and summed over the layers. Tables of GANs mostly use "alex".

The formula is that of the authors' package `lpips` 0.1.4, and the head of their repository has the
same: 1e-10 is added to the norm. Some other implementations have 1e-8 under the root instead. The
authors' scaling of the input, (2 x - 1 - shift) / scale, is ImageNet's mean and deviation exactly.

Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric", section 3 and equation 1.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from isr_jax import errors
from isr_jax.errors import UserError
from isr_jax.models.layers import Params
from isr_jax.perceptual import weight_files as weights
from isr_jax.perceptual.backbones import backbone, params_from_torch
from isr_jax.perceptual.inputs import ImageDistance

EPSILON = 1e-10


class Trunk(NamedTuple):
    """The backbone that a network is made of, and the layers that are compared."""

    backbone: str
    layers: tuple[str, ...]


NETWORKS: dict[str, Trunk] = {
    "alex": Trunk("alexnet", ("relu1", "relu2", "relu3", "relu4", "relu5")),
    "vgg": Trunk("vgg16", ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")),
    "squeeze": Trunk("squeezenet", ("relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")),
}


def lpips(
    params: Params,
    sr: Float[Array, "n h w 3"],
    hr: Float[Array, "n h w 3"],
    *,
    network: str = "alex",
) -> Float[Array, " n"]:
    """Return the distance of each pair of images; lower is better.

    Args:
        params: what `load_params(network)` gives.
        sr, hr: RGB in [0, 1].
        network: alex, vgg or squeeze.

    Returns:
        Values of 0 or more; float32 for float32 images on every kind of device. The gradient is
        finite, and zero at sr == hr.

    Raises:
        UserError: images are smaller than the network needs: 31 pixels a side for alex, 16 for
            vgg, 17 for squeeze.
    """
    trunk = _trunk(network)
    features = backbone(trunk.backbone, layers=trunk.layers, precision="highest")
    # One pass for both, so that equal images have equal features to the last bit.
    pairs = features.apply(params["backbone"], jnp.concatenate([sr, hr]))
    distance = jnp.zeros(sr.shape[0], sr.dtype)
    for layer in trunk.layers:
        of_sr, of_hr = jnp.split(_normalised(pairs[layer]), 2)
        # A sum of products and no matrix product, which would lose precision on accelerators.
        weighted = jnp.sum(jnp.square(of_sr - of_hr) * params["linear"][layer], axis=-1)
        distance += jnp.mean(weighted, axis=(1, 2))
    return distance


def _normalised(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Each pixel's features over their norm over the channels."""
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    # A pixel without features stays 0 over whatever norm; at 0 the root has no finite slope.
    return x / (jnp.sqrt(jnp.where(squares > 0, squares, 1.0)) + EPSILON)


def at_hand(network: str) -> bool:
    """Return whether the weights of alex, vgg or squeeze are on this machine."""
    return weights.at_hand(f"lpips_{network}") and weights.at_hand(_trunk(network).backbone)


def load_params(network: str, *, folder: str | Path | None = None) -> Params:
    """Load the published parameters: {"backbone": ..., "linear": {layer: weight per channel}}.

    Args:
        network: alex, vgg or squeeze.
        folder: a folder to look in first for torchvision's weights and for LPIPS's alex.pth,
            vgg.pth or squeeze.pth (see `weights.find`).

    Raises:
        UserError: for another network, or weights that cannot be had or are not these.
    """
    trunk = _trunk(network)
    published = weights.load(f"lpips_{network}", path=folder)
    state = weights.load(trunk.backbone, path=folder, prefix="features.")
    features = backbone(trunk.backbone, layers=trunk.layers)
    params = params_from_torch(trunk.backbone, state, layers=trunk.layers)
    images = jnp.zeros((1, features.least, features.least, 3), jnp.float32)
    shapes = jax.eval_shape(features.apply, params, images)
    linear = {}
    for i, layer in enumerate(trunk.layers):
        name, channels = f"lin{i}.model.1.weight", shapes[layer].shape[-1]
        if name not in published or published[name].size != channels:
            raise UserError(
                f"these are not LPIPS weights for {network}: {name} of {channels} values is missing"
            )
        linear[layer] = jnp.asarray(published[name].ravel())
    return {"backbone": params, "linear": linear}


def _trunk(network: str) -> Trunk:
    if network not in NETWORKS:
        raise errors.unknown("LPIPS network", network, NETWORKS)
    return NETWORKS[network]


def load_lpips(network: str, *, folder: str | Path | None = None) -> ImageDistance:
    """Load LPIPS for uint8 images; arguments and errors are those of `load_params`.

    On a CPU a pixel takes about 90 bytes of memory with alex, 300 with squeeze and 2000 with vgg: 6
    GB for an image of DIV2K.
    """
    return ImageDistance(load_params(network, folder=folder), _COMPILED[network])


_COMPILED = {network: jax.jit(partial(lpips, network=network)) for network in NETWORKS}
