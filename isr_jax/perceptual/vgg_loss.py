"""VGG19's perceptual loss: the distance of two images in a pretrained network's features.

    layers = {"conv5_4": 1.0}
    params = load_vgg19(layers)
    loss = make_perceptual_loss(layers)
    jax.jit(jax.value_and_grad(loss, argnums=1))(params, sr, hr)

The parameters (80 MB down to conv5_4) are an argument, not part of the function: closed over, they
would be compiled into the program as constants, which takes long and keeps them twice. Under
`jax.pmap` they have `in_axes=None`. They are not trained and need no gradient.

ESRGAN and BasicSR: {"conv5_4": 1.0} with "l1". Real-ESRGAN: {"conv1_2": 0.1, "conv2_2": 0.1,
"conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0} with "l1". SRGAN's VGG54 scales relu5_4 by 1/12.75
before the squared error: {"relu5_4": 1 / 12.75**2} with "l2"; its VGG22 is relu2_2.

Source: Johnson et al. 2016, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution",
section 3.2; Ledig et al. 2017 (SRGAN), sections 2.2.1 and 3.2; Wang et al. 2018 (ESRGAN), section
3.3, for features before the activation.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from isr_jax.errors import UserError
from isr_jax.models.layers import Params
from isr_jax.perceptual import weight_files as weights
from isr_jax.perceptual.backbones import backbone, params_from_torch, vgg19_params_from_keras

Images = Float[Array, "n h w 3"]
Scalar = Float[Array, ""]

SOURCES: dict[str, str] = {"torchvision": "vgg19", "keras": "vgg19_keras"}
CRITERIA: dict[str, Callable[[Array], Array]] = {"l1": jnp.abs, "l2": jnp.square}


def load_vgg19(
    layers: Iterable[str],
    *,
    path: str | Path | None = None,
    source: str = "torchvision",
) -> Params:
    """Load VGG19's parameters, trained on ImageNet, down to the deepest of `layers`.

    Args:
        layers: conv1_1 .. conv5_4 (before the activation), relu1_1 .. relu5_4 (after it).
        path: the weight file, or a folder to look in first (see `weights.find`). A `.h5` file is
            taken as Keras's.
        source: torchvision, whose weights ESRGAN and BasicSR use, or keras, which has those of
            VGG's authors. Their features differ in scale, and so must the layers' weights.

    Raises:
        UserError: for an unknown layer or source, or weights that cannot be had.
    """
    chosen = tuple(layers)
    backbone("vgg19", layers=chosen)  # an unknown layer must not cost a download
    if source not in SOURCES:
        raise UserError(f"no VGG19 comes from {source!r}; there are {', '.join(SOURCES)}")
    file = weights.find(weights.FILES[SOURCES[source]], path=path)
    if file.suffix == ".h5":
        return vgg19_params_from_keras(weights.read(file), layers=chosen)
    return params_from_torch("vgg19", weights.read(file, prefix="features."), layers=chosen)


def make_perceptual_loss(
    layers: Mapping[str, float], *, criterion: str = "l1"
) -> Callable[[Params, Images, Images], Scalar]:
    """Build the loss (params, sr, hr) -> scalar, a weighted sum over layers of VGG19.

    Each layer's term is the mean over all elements of the absolute ("l1") or squared ("l2")
    difference of its features. The gradient goes into sr alone.

    Args:
        layers: a weight for each layer; those with weight 0 are left out.
        criterion: "l1" or "l2".

    Returns:
        A pure function of what `load_vgg19` gives for these layers and of RGB images in [0, 1]; 0
        where they are equal. It raises a UserError for images too small for the deepest layer.

    Raises:
        UserError: for an unknown layer or criterion, or where no layer has a weight.
    """
    if criterion not in CRITERIA:
        raise UserError(f"no criterion is called {criterion!r}; there are {', '.join(CRITERIA)}")
    weighted = {name: weight for name, weight in layers.items() if weight}
    network = backbone("vgg19", layers=tuple(weighted))

    def loss(params: Params, sr: Images, hr: Images) -> Scalar:
        got = network.apply(params, sr)
        wanted = network.apply(params, lax.stop_gradient(hr))
        terms = (
            weight * jnp.mean(CRITERIA[criterion](got[name] - wanted[name]))
            for name, weight in weighted.items()
        )
        return jax.tree.reduce(jnp.add, list(terms))

    return loss
