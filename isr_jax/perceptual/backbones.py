"""Pretrained feature networks: the convolutional parts of AlexNet, VGG and SqueezeNet.

`backbone(network, layers=...)` gives the named feature maps of images in [0, 1] and computes no
deeper than they lie. What the weights expect of their input, a mean and a deviation per channel,
is part of the parameters, so that preprocessing comes and goes with the weights it belongs to.

VGG's layers are conv1_1 .. conv5_4 before the activation, relu1_1 .. relu5_4 after it, and pool1
.. pool5; the other networks' are the keys of `NETWORKS`. vgg16_l2 is VGG16 with other pools, and
takes the same weights.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from isr_jax.errors import UserError
from isr_jax.models.layers import Params

Features = dict[str, Float[Array, "n _ _ _"]]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Keras's VGG weights, converted from Caffe, take 0..255 less this mean, undivided. Here as RGB.
CAFFE_MEAN = (123.68, 116.779, 103.939)


class Conv(NamedTuple):
    """A convolution with a bias, zero-padded by `pad` on each side."""

    width: int
    kernel: int = 3
    stride: int = 1
    pad: int = 1


class Relu(NamedTuple):
    """max(0, x)."""


class Pool(NamedTuple):
    """The maximum over windows of `kernel`, every 2 pixels; `ceil` keeps a last, cut window."""

    kernel: int
    ceil: bool = False


class L2Pool(NamedTuple):
    """The root of squares blurred by a Hanning window of 3x3 pixels, every 2 pixels.

    Source: Ding et al. 2020 (DISTS), section 3.1, after Henaff & Simoncelli 2016.
    """


class Fire(NamedTuple):
    """A 1x1 convolution to `squeeze` channels, then 1x1 and 3x3 ones to `expand` each, with ReLUs.

    Source: Iandola et al. 2016 (SqueezeNet), section 3.2.
    """

    squeeze: int
    expand: int


Layer = Conv | Relu | Pool | L2Pool | Fire


def _vgg(convs: Sequence[int], *, pool: Layer = Pool(2)) -> dict[str, Layer]:  # noqa: B008
    """VGG with so many 3x3 convolutions in each of its five blocks, and a pool behind each."""
    layers: dict[str, Layer] = {}
    for block, (width, depth) in enumerate(zip((64, 128, 256, 512, 512), convs, strict=True), 1):
        for i in range(1, depth + 1):
            layers |= {f"conv{block}_{i}": Conv(width), f"relu{block}_{i}": Relu()}
        layers[f"pool{block}"] = pool
    return layers


# The order is torchvision's: the n-th layer holds the weights `features.n`, counted from 0.
NETWORKS: dict[str, dict[str, Layer]] = {
    # Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks".
    "alexnet": {
        "conv1": Conv(64, kernel=11, stride=4, pad=2),
        "relu1": Relu(),
        "pool1": Pool(3),
        "conv2": Conv(192, kernel=5, pad=2),
        "relu2": Relu(),
        "pool2": Pool(3),
        "conv3": Conv(384),
        "relu3": Relu(),
        "conv4": Conv(256),
        "relu4": Relu(),
        "conv5": Conv(256),
        "relu5": Relu(),
        "pool5": Pool(3),
    },
    # Simonyan & Zisserman 2015, table 1, columns D and E.
    "vgg16": _vgg((2, 2, 3, 3, 3)),
    "vgg16_l2": _vgg((2, 2, 3, 3, 3), pool=L2Pool()),
    "vgg19": _vgg((2, 2, 4, 4, 4)),
    # Iandola et al. 2016, version 1.1, with pools after conv1, fire3 and fire5.
    "squeezenet": {
        "conv1": Conv(64, stride=2, pad=0),
        "relu1": Relu(),
        "pool1": Pool(3, ceil=True),
        "fire2": Fire(16, 64),
        "fire3": Fire(16, 64),
        "pool3": Pool(3, ceil=True),
        "fire4": Fire(32, 128),
        "fire5": Fire(32, 128),
        "pool5": Pool(3, ceil=True),
        "fire6": Fire(48, 192),
        "fire7": Fire(48, 192),
        "fire8": Fire(64, 256),
        "fire9": Fire(64, 256),
    },
}


class Backbone(NamedTuple):
    """A feature network as pure functions; its parameters reach no deeper than its layers.

    Attributes:
        init: key -> params, He-initialised, with ImageNet's mean and deviation.
        apply: (params, images) -> {layer: features}; images [n h w 3] in [0, 1].
        least: side in pixels of the smallest image that reaches the deepest layer.
    """

    init: Callable[[Key[Array, ""]], Params]
    apply: Callable[[Params, Float[Array, "n h w 3"]], Features]
    least: int


class FeatureNet(nn.Module):
    """A prefix of one of `NETWORKS`; gives its `layers` by name."""

    prefix: Mapping[str, Layer]
    layers: tuple[str, ...]
    precision: str

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"]) -> Features:
        """Features of images in [0, 1]."""
        mean = self.param("mean", lambda key: jnp.asarray(IMAGENET_MEAN, jnp.float32))
        std = self.param("std", lambda key: jnp.asarray(IMAGENET_STD, jnp.float32))
        x = (images - mean) / std
        features = {}
        for name, layer in self.prefix.items():
            match layer:
                case Conv():
                    x = _conv(layer, self.precision, name)(x)
                case Relu():
                    x = nn.relu(x)
                case Pool():
                    x = _pool(layer, x)
                case L2Pool():
                    x = _l2_pool(x)
                case Fire():
                    x = FireModule(layer, self.precision, name=name)(x)
            if name in self.layers:
                features[name] = x
        return features


class FireModule(nn.Module):
    """SqueezeNet's module; see `Fire`."""

    fire: Fire
    precision: str

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w d"]:
        """[n h w c] -> [n h w 2*expand]."""
        squeeze, expand = self.fire
        x = nn.relu(_conv(Conv(squeeze, kernel=1, pad=0), self.precision, "squeeze")(x))
        small = _conv(Conv(expand, kernel=1, pad=0), self.precision, "expand1x1")(x)
        large = _conv(Conv(expand), self.precision, "expand3x3")(x)
        return nn.relu(jnp.concatenate([small, large], axis=-1))


def _conv(layer: Conv, precision: str, name: str) -> nn.Conv:
    return nn.Conv(
        layer.width,
        (layer.kernel, layer.kernel),
        strides=layer.stride,
        padding=layer.pad,
        kernel_init=nn.initializers.he_normal(),
        precision=precision,
        name=name,
    )


def _pool(layer: Pool, x: Float[Array, "n h w c"]) -> Float[Array, "n ph pw c"]:
    # A window of 3 every 2 pixels is cut where the side is even.
    cut: Any = [(0, (side - layer.kernel) % 2 if layer.ceil else 0) for side in x.shape[1:3]]
    return nn.max_pool(x, (layer.kernel, layer.kernel), strides=(2, 2), padding=cut)


def _l2_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n ph pw c"]:
    # Sums of slices and no convolution, which would lose precision on accelerators.
    squares = _blur_by_two(_blur_by_two(jnp.square(x)).swapaxes(1, 2)).swapaxes(1, 2)
    return jnp.sqrt(squares + 1e-12)


def _blur_by_two(x: Float[Array, "n h w c"]) -> Float[Array, "n ph w c"]:
    """Blur along the rows by (1/4, 1/2, 1/4), zero-padded, and keep every second one."""
    n = (x.shape[1] + 1) // 2
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
    before, at, after = (padded[:, i : i + 2 * n - 1 : 2] for i in range(3))
    return 0.25 * before + 0.5 * at + 0.25 * after


def _side(side: int, layer: Layer) -> int:
    """Side in pixels of a layer's output; 0 or less where the input is too small."""
    match layer:
        case Conv():
            return (side + 2 * layer.pad - layer.kernel) // layer.stride + 1
        case Pool():
            return (side - layer.kernel + layer.ceil) // 2 + 1
        case L2Pool():
            return (side + 1) // 2
    return side


def _reaches(side: int, layers: Sequence[Layer]) -> bool:
    for layer in layers:
        side = _side(side, layer)
        if side < 1:
            return False
    return True


def backbone(
    network: str,
    *,
    layers: Sequence[str],
    precision: Literal["default", "highest"] = "default",
) -> Backbone:
    """Build a network that returns the features of `layers`.

    Args:
        network: alexnet, vgg16, vgg16_l2, vgg19 or squeezenet (version 1.1).
        layers: names of the layers whose outputs are wanted, in any order.
        precision: of the convolutions: "highest" is float32 everywhere; "default" lets a GPU or a
            TPU multiply in TF32 or bfloat16, which is faster.

    Raises:
        UserError: for a network or a layer that is not there; from `apply`, for images smaller
            than `least`.
    """
    prefix = _prefix(network, layers)
    least = next(side for side in count(1) if _reaches(side, list(prefix.values())))
    module = FeatureNet(prefix, tuple(layers), precision)

    def init(key: Key[Array, ""]) -> Params:
        images = jnp.zeros((1, least, least, 3), jnp.float32)
        return jax.jit(module.init)(key, images)["params"]

    def apply(params: Params, images: Float[Array, "n h w 3"]) -> Features:
        h, w = images.shape[1:3]
        if min(h, w) < least:
            raise UserError(
                f"{network} needs images of {least}x{least} pixels or more up to "
                f"{list(prefix)[-1]}; these have {h}x{w}"
            )
        features: Any = module.apply({"params": params}, images)
        return features

    return Backbone(init, apply, least)


def params_from_torch(
    network: str, state: Mapping[str, np.ndarray], *, layers: Sequence[str]
) -> Params:
    """Convert torchvision's state dict to parameters, down to the deepest of `layers`.

    Args:
        network: as for `backbone`.
        state: `features.0.weight` (OIHW), `features.0.bias`, ...; other entries are ignored.
        layers: as for `backbone`.

    Returns:
        What `backbone(network, layers=layers).apply` takes, with ImageNet's mean and deviation.

    Raises:
        UserError: for an array that is missing or has another shape.
    """
    order = list(NETWORKS[network])

    def name(module: str, leaf: str) -> str:
        layer, _, inner = module.partition(".")
        kind = {"kernel": "weight", "bias": "bias"}[leaf]
        return ".".join(filter(None, ["features", str(order.index(layer)), inner, kind]))

    hwio = {
        key: array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        for key, array in state.items()
    }
    return _params(network, layers, hwio, name)


def vgg19_params_from_keras(state: Mapping[str, np.ndarray], *, layers: Sequence[str]) -> Params:
    """Convert Keras's ImageNet weights to VGG19's parameters, down to the deepest of `layers`.

    Keras's weights take BGR in 0..255 less Caffe's mean, undivided. That mean and a deviation of
    1/255 become part of the parameters, and the first kernel's input channels are reversed, so
    that they too take RGB in [0, 1].

    Args:
        state: `block1_conv1/kernel` (HWIO), `block1_conv1/bias`, ...; others are ignored.
        layers: as for `backbone`.

    Raises:
        UserError: for an array that is missing or has another shape.
    """

    def name(module: str, leaf: str) -> str:
        block, i = module.removeprefix("conv").split("_")
        return f"block{block}_conv{i}/{leaf}"

    params = _params("vgg19", layers, state, name)
    first = params["conv1_1"]
    return {
        **params,
        "conv1_1": {**first, "kernel": first["kernel"][:, :, ::-1]},
        "mean": jnp.asarray(CAFFE_MEAN, jnp.float32) / 255.0,
        "std": jnp.full(3, 1.0 / 255.0, jnp.float32),
    }


def _params(
    network: str,
    layers: Sequence[str],
    state: Mapping[str, np.ndarray],
    name: Callable[[str, str], str],
) -> Params:
    """Return the tree of the arrays named name(module, leaf) in a state dict, kernels HWIO."""
    shapes = jax.eval_shape(backbone(network, layers=layers).init, jax.random.key(0))

    def fill(path: tuple[Any, ...], like: jax.ShapeDtypeStruct) -> Array:
        *modules, leaf = (entry.key for entry in path)
        if not modules:
            return jnp.asarray({"mean": IMAGENET_MEAN, "std": IMAGENET_STD}[leaf], jnp.float32)
        key = name(".".join(modules), leaf)
        if key not in state:
            raise UserError(f"not weights of {network}: {key} is missing")
        if state[key].shape != like.shape:
            raise UserError(
                f"not weights of {network}: {key} has shape {list(state[key].shape)} "
                f"where {list(like.shape)} is needed"
            )
        return jnp.asarray(state[key], jnp.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def _prefix(network: str, layers: Sequence[str]) -> dict[str, Layer]:
    """Return the network's layers down to the deepest of `layers`."""
    if network not in NETWORKS:
        raise UserError(f"no network is called {network!r}; there are {', '.join(NETWORKS)}")
    every = NETWORKS[network]
    unknown = [name for name in layers if name not in every]
    if unknown:
        raise UserError(f"{network} has no layer {unknown[0]!r}; it has {', '.join(every)}")
    if not layers:
        raise UserError(f"name at least one layer of {network}")
    deepest = max(list(every).index(name) for name in layers)
    return dict(list(every.items())[: deepest + 1])
