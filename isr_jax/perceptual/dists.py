"""DISTS, deep image structure and texture similarity: a distance, 0 for equal images.

    params = load_params()
    distance = dists(params, sr, hr)  # jittable, differentiable
    measure = load_dists()
    measure(sr, hr, crop=4)  # two uint8 images -> float

Of every channel of the images themselves and of five stages of VGG16, whose pools are replaced by
smoother ones, the means of both images (texture) and their covariance (structure) are compared as
in SSIM, over the whole image; the similarities are weighted by weights that were fitted to human
judgement and to patches of the same texture.

The formula is that of the authors' PyTorch code: 1 less the sum of weighted similarities. Each
1 - similarity is computed as a squared difference over a sum of squares, which cannot be negative
and loses no digits where images are nearly equal. The authors' command shrinks images to 256 pixels
at the shorter side first, which pyiqa and this do not.

Source: Ding, Ma, Wang & Simoncelli 2020, "Image Quality Assessment: Unifying Structure and Texture
Similarity", section 3 and equations 4 to 6.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from isr_jax.errors import UserError
from isr_jax.models.layers import Params
from isr_jax.perceptual import weight_files as weights
from isr_jax.perceptual.backbones import backbone, params_from_torch
from isr_jax.perceptual.inputs import ImageDistance

NETWORK = "vgg16_l2"
# The image, and the stages behind it, with their numbers of channels.
CHANNELS: dict[str, int] = {
    "image": 3,
    "relu1_2": 64,
    "relu2_2": 128,
    "relu3_3": 256,
    "relu4_3": 512,
    "relu5_3": 512,
}
STAGES = tuple(CHANNELS)[1:]
EPSILON = 1e-6


def dists(
    params: Params, sr: Float[Array, "n h w 3"], hr: Float[Array, "n h w 3"]
) -> Float[Array, " n"]:
    """Return the distance of each pair of images; lower is better.

    Args:
        params: what `load_params` gives.
        sr, hr: RGB in [0, 1], of any size.

    Returns:
        Values of 0 or more; float32 for float32 images on every kind of device. The gradient is
        finite. At sr == hr both are 0 but for the last bits that a compiler may change.
    """
    features = backbone(NETWORK, layers=STAGES, precision="highest")
    # One pass for both, so that equal images have equal features to the last bit.
    both = jnp.concatenate([sr, hr])
    pairs = {"image": both, **features.apply(params["backbone"], both)}
    distance = jnp.zeros(sr.shape[0], sr.dtype)
    for layer in CHANNELS:
        means = jnp.mean(pairs[layer], axis=(1, 2), keepdims=True)
        texture = _dissimilarity(means)
        structure = _dissimilarity(pairs[layer] - means)
        # A sum of products and no matrix product, which would lose precision on accelerators.
        weighted = params["alpha"][layer] * texture + params["beta"][layer] * structure
        distance += jnp.sum(weighted, axis=-1)
    return distance


def _dissimilarity(pairs: Float[Array, "m h w c"]) -> Float[Array, "n c"]:
    """Return 1 - (2 E[ab] + epsilon) / (E[a^2] + E[b^2] + epsilon), for means E over the pixels.

    Args:
        pairs: every a, followed by every b.
    """
    a, b = jnp.split(pairs, 2)
    of_a, of_b = jnp.split(jnp.mean(jnp.square(pairs), axis=(1, 2)), 2)
    return jnp.mean(jnp.square(a - b), axis=(1, 2)) / (of_a + of_b + EPSILON)


def at_hand() -> bool:
    """Return whether the weights are on this machine."""
    return any(weights.at_hand(name) for name in ("dists", "dists_package")) and weights.at_hand(
        "vgg16"
    )


def load_params(*, folder: str | Path | None = None) -> Params:
    """Load the published parameters: {"backbone", "alpha", "beta"}, the latter two by layer.

    alpha and beta, which weight texture and structure, sum to 1 over all layers.

    Args:
        folder: a folder to look in first for torchvision's VGG16 and for DISTS's weights, under
            the authors' name, weights.pt, or pyiqa's (see `weights.find`).

    Raises:
        UserError: weights cannot be had or are not these.
    """
    published = weights.load("dists", same=("dists_package",), path=folder)
    total = sum(CHANNELS.values())
    for name in ("alpha", "beta"):
        if name not in published or published[name].size != total:
            raise UserError(f"these are not DISTS's weights: {name} of {total} values is missing")
    state = weights.load("vgg16", path=folder, prefix="features.")
    ends = np.cumsum(list(CHANNELS.values()))[:-1]
    whole = published["alpha"].sum() + published["beta"].sum()
    alpha, beta = (
        {
            layer: jnp.asarray(part / whole)
            for layer, part in zip(CHANNELS, np.split(published[name].ravel(), ends), strict=True)
        }
        for name in ("alpha", "beta")
    )
    params = params_from_torch(NETWORK, state, layers=STAGES)
    return {"backbone": params, "alpha": alpha, "beta": beta}


def load_dists(*, folder: str | Path | None = None) -> ImageDistance:
    """Load DISTS for uint8 images; see `load_params`. Memory is that of LPIPS with vgg."""
    return ImageDistance(load_params(folder=folder), _COMPILED)


_COMPILED = jax.jit(dists)
