"""A generator on windows of an image: its receptive field, and the image's border in a window.

Every convolution but those of differences pads its input with zeros. In a window, zeros belong
outside the image and nowhere else, so `apply` sets everything outside the image to zero before each
convolution. A window at any place of an image of any size, even of one pixel, then gives what the
whole image gives, from one compiled shape. What the window cuts off affects its pixels no further
than `radius` from its edges.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params
from jaxtyping import Array, Bool, Float, Int32

from isr_jax.models import Generator
from isr_jax.models.layers import Approximate, Params

_SIDE = 64  # of the abstract image on which layers are recorded; divisible by every fold


class Layer(NamedTuple):
    """A convolution: padding, resolution (1 at the LR image's), input plus output channels."""

    pad: int
    resolution: Fraction
    channels: int


class Windowed(NamedTuple):
    """A generator on windows, and on whole images.

    Attributes:
        apply: (params, stats, windows, inside) -> sr. windows are float [n t t c] in [0, 1], with
            the image's nearest pixel outside it; inside is int32 [n 4], the window's rows
            [first, last) and columns [first, last) inside the image; sr is float32
            [n scale*t scale*t c] and equals that of the whole image wherever it is further than
            `radius` LR pixels from an edge of the window that is not the image's.
        whole: (params, stats, images) -> sr, of images or windows that end where they end.
        scale: the scale factor.
        channels: of the images: 1, 3 or 4.
        radius: of the receptive field: an SR pixel depends on LR pixels up to this far from its
            own, and on no others. None where no radius is known.
        multiple: windows start and end at multiples of so many LR pixels; the image is reflected
            at the bottom and right up to one.
        bytes_per_pixel: of the float32 input and output of the largest convolution, per LR pixel;
            where no radius is known, of the largest result of any operation.
        approximate: why tiles differ from the whole image; None where they do not.
    """

    apply: Callable[
        [Params, Params, Float[Array, "n t u c"], Int32[Array, "n 4"]], Float[Array, "n st su c"]
    ]
    whole: Callable[[Params, Params, Float[Array, "n h w c"]], Float[Array, "n sh sw c"]]
    scale: int
    channels: int
    radius: int | None
    multiple: int
    bytes_per_pixel: int
    approximate: Approximate | None


def windowed(network: Generator) -> Windowed:
    """Return a generator as a function of windows of images."""
    module, scale, channels = network.module, network.scale, network.channels

    def whole(
        params: Params, stats: Params, images: Float[Array, "n h w c"]
    ) -> Float[Array, "n sh sw c"]:
        # TensorFloat32 would lose the precision of 16-bit images, and leave seams.
        with jax.default_matmul_precision("highest"):
            sr: Any = module.apply({"params": params, "batch_stats": stats}, images, train=False)
        return sr

    approximate: Approximate | None = getattr(module, "approximate", None)
    if approximate:
        return Windowed(
            lambda params, stats, windows, inside: whole(params, stats, windows),
            whole,
            scale,
            channels,
            None,
            approximate.multiple,
            _largest_result(network) // _SIDE**2,
            approximate,
        )
    layers = _layers(network)
    multiple = max(1, int(1 / layers[0].resolution))

    def apply(
        params: Params, stats: Params, windows: Float[Array, "n t u c"], inside: Int32[Array, "n 4"]
    ) -> Float[Array, "n st su c"]:
        side = windows.shape[1]

        def masked(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            if not _pads(context) or context.module.conv_general_dilated:
                return call(*args, **kwargs)  # differences continue the window's edge
            (x,) = args
            return call(jnp.where(_inside(inside, side, x.shape[1]), x, 0), **kwargs)

        with nn.intercept_methods(masked):
            return whole(params, stats, windows)

    radius = _radius(layers, scale=scale, multiple=multiple)
    largest = max(layer.channels * layer.resolution**2 for layer in layers)
    # A global skip interpolates over two pixels, whatever the convolutions see.
    return Windowed(apply, whole, scale, channels, max(2, radius), multiple, 4 * int(largest), None)


def _pads(context: nn.module.InterceptorContext) -> bool:
    """Return whether a call is of a convolution larger than 1x1, which zeros surround."""
    module: Any = context.module
    called = hasattr(module, "kernel_size") and context.method_name == "__call__"
    return called and _pad(module) > 0


def _pad(conv: Any) -> int:
    """Return the zero padding on each side of a convolution made as by `layers.conv`."""
    return (conv.kernel_size[0] - 1) // 2


def _inside(inside: Int32[Array, "n 4"], window: int, side: int) -> Bool[Array, "n side side 1"]:
    """Return which of side x side features of a window are inside the image."""
    at = jnp.arange(side) * window
    top, bottom, left, right = (inside[:, i, None] * side for i in range(4))
    rows, columns = (top <= at) & (at < bottom), (left <= at) & (at < right)
    return rows[:, :, None, None] & columns[:, None, :, None]


def _abstract(network: Generator) -> tuple[Any, Array]:
    """Return the shapes of a generator's variables, and an image."""
    image = jnp.zeros((1, _SIDE, _SIDE, network.channels), jnp.float32)
    init = partial(network.module.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), image), image


def _largest_result(network: Generator) -> int:
    """Return the bytes of the largest result of any operation on the abstract image."""
    variables, image = _abstract(network)
    apply = partial(network.module.apply, train=False)
    traced = jax.make_jaxpr(apply)(variables, image)

    def results(jaxpr: Any) -> Iterator[int]:
        for eqn in jaxpr.eqns:
            yield from (x.aval.size * x.aval.dtype.itemsize for x in eqn.outvars)
            for inner in jaxprs_in_params(eqn.params):
                yield from results(inner)

    return max(results(traced.jaxpr))


def _layers(network: Generator) -> list[Layer]:
    """Return the convolutions in execution order; each is taken to see the one before."""
    module = network.module
    variables, image = _abstract(network)
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
    """Return the radius of the receptive field in LR pixels, traced from the output to the input.

    The first layer folds `multiple` LR pixels into one; the radius is the largest over them.
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
