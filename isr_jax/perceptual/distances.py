"""Distances in networks that others trained, as parts of the generator's loss.

    frozen = load_frozen(config.loss)  # {name: parameters}, of those with a weight
    terms = {name: distance(frozen[name], sr, hr) for name, distance in make(config.loss).items()}

Their parameters are not trained, and an argument of the update, since constants of that size take
long to compile. DISTANCES is the table: a line there, its weight in `config.loss` and a bound for
that in training/checks.py add a distance.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from isr_jax.models.layers import Params
from isr_jax.perceptual import dists, lpips
from isr_jax.perceptual.backbones import backbone
from isr_jax.perceptual.vgg_loss import load_vgg19, make_perceptual_loss

Images = Float[Array, "n h w c"]  # RGB, or gray, which stands for all three
Scalar = Float[Array, ""]


class Distance(NamedTuple):
    """A distance, each part as a function of `config.loss`.

    Attributes:
        weight: loss -> its weight; 0 leaves it out.
        load: loss -> the network's parameters. It raises a UserError where they cannot be had.
        make: loss -> the function (parameters, sr, hr) -> scalar, of RGB images in [0, 1].
        least: loss -> the least side of images in pixels, and the name of what needs it.
    """

    weight: Callable[[ConfigDict], float]
    load: Callable[[ConfigDict], Params]
    make: Callable[[ConfigDict], Callable[[Params, Images, Images], Scalar]]
    least: Callable[[ConfigDict], tuple[int, str]]


def _vgg_layers(loss: ConfigDict) -> dict[str, float]:
    options = loss.perceptual
    return dict(zip(options.layers, options.layer_weights, strict=True))


def _vgg_least(loss: ConfigDict) -> tuple[int, str]:
    layers = tuple(loss.perceptual.layers)
    return backbone("vgg19", layers=layers).least, f"{layers[-1]} of VGG19"


def _make_lpips(loss: ConfigDict) -> Callable[[Params, Images, Images], Scalar]:
    def distance(params: Params, sr: Images, hr: Images) -> Scalar:
        return jnp.mean(lpips.lpips(params, sr, hr, network=loss.lpips_network))

    return distance


def _lpips_least(loss: ConfigDict) -> tuple[int, str]:
    trunk = lpips.NETWORKS[loss.lpips_network]
    return backbone(trunk.backbone, layers=trunk.layers).least, f"LPIPS of {loss.lpips_network}"


DISTANCES: dict[str, Distance] = {
    "perceptual": Distance(
        weight=lambda loss: loss.perceptual.weight,
        load=lambda loss: load_vgg19(_vgg_layers(loss), path=loss.perceptual.path or None),
        make=lambda loss: make_perceptual_loss(
            _vgg_layers(loss), criterion=loss.perceptual.criterion
        ),
        least=_vgg_least,
    ),
    "lpips": Distance(
        weight=lambda loss: loss.lpips,
        load=lambda loss: lpips.load_params(loss.lpips_network),
        make=_make_lpips,
        least=_lpips_least,
    ),
    "dists": Distance(
        weight=lambda loss: loss.dists,
        load=lambda loss: dists.load_params(),
        make=lambda loss: lambda params, sr, hr: jnp.mean(dists.dists(params, sr, hr)),
        least=lambda loss: (1, "DISTS"),
    ),
}


def weights(loss: ConfigDict) -> dict[str, float]:
    """Return the weights of the distances of `config.loss` that are not 0."""
    every = {name: distance.weight(loss) for name, distance in DISTANCES.items()}
    return {name: weight for name, weight in every.items() if weight}


def make(loss: ConfigDict) -> dict[str, Callable[[Params, Images, Images], Scalar]]:
    """Build the distances of `config.loss` that have a weight; see `Distance.make`.

    These take gray images too: the one channel stands for all three.
    """
    return {name: _of_any(DISTANCES[name].make(loss)) for name in weights(loss)}


def _of_any(
    distance: Callable[[Params, Images, Images], Scalar],
) -> Callable[[Params, Images, Images], Scalar]:
    """Return a distance of RGB images as one of gray images too."""

    def of_any(params: Params, sr: Images, hr: Images) -> Scalar:
        if sr.shape[-1] == 1:
            sr, hr = (jnp.repeat(x, 3, axis=-1) for x in (sr, hr))
        return distance(params, sr, hr)

    return of_any


def load_frozen(loss: ConfigDict) -> dict[str, Params]:
    """Load the parameters of the distances of `config.loss` that have a weight.

    Raises:
        UserError: weights that cannot be had, or are not these.
    """
    return {name: DISTANCES[name].load(loss) for name in weights(loss)}
