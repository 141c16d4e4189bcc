"""A generator on windows of an image: what it sees of it, and how a window stands for the whole.

Every convolution but those of differences pads its input with zeros. In a window the zeros belong
at the image's border, and nowhere else: `apply` sets what lies outside the image to zero before
each convolution, so that a window of any place and an image of any size, one pixel even, get what
the whole image would have given, from one compiled shape. What a window lacks of the image, the
pixels beyond its own edges, reaches no further into it than `radius`.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from isr_jax.models import Generator
from isr_jax.models.layers import Params

_SIDE = 64  # of the abstract image on which the layers are recorded; any that folds divide


class Layer(NamedTuple):
    """A convolution: its padding, its resolution (1 at the LR image's), and the channels it has."""

    pad: int
    resolution: Fraction
    channels: int


class Windowed(NamedTuple):
    """A generator on windows.

    Attributes:
        apply: (params, stats, windows, inside) -> sr. windows are float [n t t 3] in [0, 1], with
            the image's nearest pixel where they lie outside; inside is int32 [n 4], the first and
            the last + 1 row of the window that is in the image, and column; sr float32
            [n scale*t scale*t 3], of which what is further than `radius` LR pixels from an edge
            that is not the image's is what the whole image gives.
        scale: factor of enlargement.
        radius: an SR pixel depends on the LR pixels as far as this from its own, and no others.
        multiple: a window starts and ends at multiples of so many LR pixels; the image is reflected
            below and to the right up to one.
        bytes_per_pixel: float32 input and output of the largest convolution, per LR pixel.
    """

    apply: Callable[
        [Params, Params, Float[Array, "n t t 3"], Int32[Array, "n 4"]], Float[Array, "n st st 3"]
    ]
    scale: int
    radius: int
    multiple: int
    bytes_per_pixel: int


def windowed(network: Generator) -> Windowed:
    """Return a generator that is applied to windows of images."""
    module, scale = network.module, network.scale
    layers = _layers(module)
    multiple = max(1, int(1 / layers[0].resolution))

    def apply(
        params: Params, stats: Params, windows: Float[Array, "n t t 3"], inside: Int32[Array, "n 4"]
    ) -> Float[Array, "n st st 3"]:
        side = windows.shape[1]

        def masked(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            if not _pads(context) or context.module.conv_general_dilated:
                return call(*args, **kwargs)  # differences go on as the window does
            (x,) = args
            return call(jnp.where(_inside(inside, side, x.shape[1]), x, 0), **kwargs)

        # TensorFloat32 would lose what a 16-bit image has, and make seams of it.
        with nn.intercept_methods(masked), jax.default_matmul_precision("highest"):
            sr: Any = module.apply({"params": params, "batch_stats": stats}, windows, train=False)
        return sr

    radius = _radius(layers, scale=scale, multiple=multiple)
    largest = max(layer.channels * layer.resolution**2 for layer in layers)
    # A global skip interpolates over two pixels, whatever the convolutions see.
    return Windowed(apply, scale, max(2, radius), multiple, 4 * int(largest))


def _pads(context: nn.module.InterceptorContext) -> bool:
    """Whether a call is that of a convolution that sees more than one pixel."""
    module = context.module
    return isinstance(module, nn.Conv) and context.method_name == "__call__" and _pad(module) > 0


def _pad(conv: Any) -> int:
    """The zeros on each side of what an `nn.Conv` of `layers.conv` sees."""
    return (conv.kernel_size[0] - 1) // 2


def _inside(inside: Int32[Array, "n 4"], window: int, side: int) -> Bool[Array, "n side side 1"]:
    """Which features are in the image, for `side` rows of features of a window's rows."""
    at = jnp.arange(side) * window
    top, bottom, left, right = (inside[:, i, None] * side for i in range(4))
    rows, columns = (top <= at) & (at < bottom), (left <= at) & (at < right)
    return rows[:, :, None, None] & columns[:, None, :, None]


def _layers(module: nn.Module) -> list[Layer]:
    """The convolutions in the order in which they run. Each sees what the one before made."""
    image = jnp.zeros((1, _SIDE, _SIDE, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), image, train=False))
    layers = []

    def record(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        y = call(*args, **kwargs)
        if _pads(context):
            (x,) = args
            channels = x.shape[-1] + y.shape[-1]
            layers.append(Layer(_pad(context.module), Fraction(x.shape[1], _SIDE), channels))
        return y

    with nn.intercept_methods(record):
        jax.eval_shape(lambda variables: module.apply(variables, image, train=False), variables)
    return layers


def _radius(layers: list[Layer], *, scale: int, multiple: int) -> int:
    """How far the layers see, from the output back to the input, along one axis.

    `multiple` LR pixels are folded into one at the first layer, and it is not the same which of
    them an SR pixel lies in.
    """
    radius = 0
    for pixel in range(multiple):
        first, last, resolution = pixel * scale, pixel * scale + scale - 1, Fraction(scale)
        for layer in reversed(layers):
            shrunk = int(resolution / layer.resolution)
            first, last = first // shrunk - layer.pad, last // shrunk + layer.pad
            resolution = layer.resolution
        first, last = first * multiple, last * multiple + multiple - 1
        radius = max(radius, pixel - first, last - pixel)
    return radius
