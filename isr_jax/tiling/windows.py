"""A generator on windows of an image: its receptive field, and the image's border in a window.

Every convolution but those of differences pads its input with zeros. In a window, zeros belong
outside the image and nowhere else, so `apply` sets everything outside the image to zero before each
convolution. A window at any place of an image of any size, even of one pixel, then gives what the
whole image gives, from one compiled shape. What the window cuts off affects its pixels no further
than `radius` from its edges.

Most generators compute long at the LR image's resolution, where features take little memory and the
receptive field grows, and then briefly at higher ones, where features take much memory and the
receptive field hardly grows. Such a generator is split in two: the head works on large windows, of
which little is padding, and the tail on pieces of its features.
"""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Var, jaxprs_in_params
from jaxtyping import Array, Bool, Float, Int32

from isr_jax.models.generators import Generator
from isr_jax.models.layers import Approximate, Params, convolve_differences

_SIDE = 64  # of the abstract image on which layers are recorded; divisible by every fold


class Layer(NamedTuple):
    """A convolution: padding, and resolution (1 at the LR image's)."""

    pad: int
    resolution: Fraction


class Split(NamedTuple):
    """A generator in two parts.

    Attributes:
        head: (params, stats, windows, inside) -> features, float [n at au c], where a is
            `resolution`; arguments as of `Windowed.apply`.
        tail: (params, stats, windows, features, inside) -> sr.
        resolution: of the features, 1 at the LR image's.
        radius: of the tail's receptive field, LR pixels.
        head_bytes, tail_bytes: as `Windowed.bytes_per_pixel`, of each part.
    """

    head: Callable[
        [Params, Params, Float[Array, "n t u c"], Int32[Array, "n 4"]], Float[Array, "n _ _ d"]
    ]
    tail: Callable[
        [Params, Params, Float[Array, "n t u c"], Float[Array, "n _ _ d"], Int32[Array, "n 4"]],
        Float[Array, "n st su c"],
    ]
    resolution: Fraction
    radius: int
    head_bytes: int
    tail_bytes: int


class Windowed(NamedTuple):
    """A generator on windows, and on whole images.

    Attributes:
        apply: (params, stats, windows, inside) -> sr. windows are float [n t u c] in [0, 1], with
            the image's nearest pixel outside it; inside is int32 [n 4], the window's rows
            [first, last) and columns [first, last) inside the image; sr is float32
            [n scale*t scale*u c] and equals that of the whole image wherever it is further than
            `radius` LR pixels from an edge of the window that is not the image's.
        whole: (params, stats, images) -> sr, of images or windows that end where they end.
        scale: the scale factor.
        channels: of the images: 1, 3 or 4.
        radius: of the receptive field: an SR pixel depends on LR pixels up to this far from its
            own, and on no others. None where no radius is known.
        multiple: windows start and end at multiples of so many LR pixels; the image is reflected
            at the bottom and right up to one.
        bytes_per_pixel: of what is in memory at once, per LR pixel; where no radius is known, of
            the largest result of any operation.
        approximate: why tiles differ from the whole image; None where they do not.
        split: the same in two parts; None where that would save no memory.
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
    split: Split | None = None


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
    layers, traced = _layers(network)
    multiple = max(1, int(1 / layers[0].resolution))

    def apply(
        params: Params,
        stats: Params,
        windows: Float[Array, "n t u c"],
        inside: Int32[Array, "n 4"],
    ) -> Float[Array, "n st su c"]:
        masks = _masks(inside, windows.shape[1:3])
        with nn.intercept_methods(_on_convolutions(lambda index, x: masks(x))):
            return whole(params, stats, windows)

    cut = _where_to_split(layers, traced)
    return Windowed(
        apply,
        whole,
        scale,
        channels,
        # A global skip interpolates over two pixels, whatever the convolutions see.
        max(2, _radius(layers, scale=Fraction(scale), multiple=multiple)),
        multiple,
        _most_bytes(traced),
        None,
        None if cut is None else _split(whole, layers, traced, cut, scale=scale, multiple=multiple),
    )


def _split(
    whole: Any, layers: list[Layer], traced: Any, cut: int, *, scale: int, multiple: int
) -> Split:
    """Return a generator in two parts, of which the second begins with the convolution `cut`."""

    def head(
        params: Params,
        stats: Params,
        windows: Float[Array, "n t u c"],
        inside: Int32[Array, "n 4"],
    ) -> Float[Array, "n _ _ d"]:
        masks, features = _masks(inside, windows.shape[1:3]), []

        def change(index: int, x: Array) -> Array:
            if index == cut:
                features.append(x)
            return masks(x)

        # What follows the features is traced too, and XLA leaves out what nothing needs.
        with nn.intercept_methods(_on_convolutions(change)):
            whole(params, stats, windows)
        return features[0]

    def tail(
        params: Params,
        stats: Params,
        windows: Float[Array, "n t u c"],
        features: Float[Array, "n _ _ d"],
        inside: Int32[Array, "n 4"],
    ) -> Float[Array, "n st su c"]:
        masks = _masks(inside, windows.shape[1:3])
        # As above, of what comes before the features.
        with nn.intercept_methods(
            _on_convolutions(lambda index, x: masks(features if index == cut else x))
        ):
            return whole(params, stats, windows)

    return Split(
        head,
        tail,
        layers[cut].resolution,
        max(2, _radius(layers[cut:], scale=Fraction(scale), multiple=multiple)),
        _most_bytes(traced, stop=cut),
        _most_bytes(traced, start=cut),
    )


def _where_to_split(layers: list[Layer], traced: Any) -> int | None:
    """Return the convolution with which a tail best begins; None where no tail saves memory.

    Args:
        layers: the convolutions.
        traced: the jaxpr of the network, in which the input of each has its number as its name.
    """
    possible = [cut for cut in range(1, len(layers)) if _is_bottleneck(traced, cut)]
    best = min(possible, key=lambda cut: (_most_bytes(traced, stop=cut), -cut), default=None)
    if best is None or 2 * _most_bytes(traced, stop=best) > _most_bytes(traced):
        return None
    return best


def _most_bytes(traced: Any, *, start: int | None = None, stop: int | None = None) -> int:
    """Return the most bytes per LR pixel that are in memory at once, without parameters.

    Args:
        traced: the jaxpr of the network, in which the input of each convolution has its number as
            its name.
        start: the convolution whose input is given.
        stop: the convolution whose input is computed.
    """

    def is_named(eqn: Any, index: int | None) -> bool:
        return eqn.primitive.name == "name" and int(eqn.params["name"]) == index

    ends = [x for eqn in traced.eqns if is_named(eqn, stop) for x in eqn.outvars] or traced.outvars
    # Each result is in memory until the last operation that needs it.
    last: dict[Any, int] = dict.fromkeys(ends, len(traced.eqns))
    for i, eqn in reversed(list(enumerate(traced.eqns))):
        if any(x in last for x in eqn.outvars) and not is_named(eqn, start):
            for x in eqn.invars:
                if isinstance(x, Var):
                    last.setdefault(x, i)
    sizes: dict[Any, int] = {}
    most = 0
    for i, eqn in enumerate(traced.eqns):
        results = {x: x.aval.size * x.aval.dtype.itemsize for x in eqn.outvars if x in last}
        # XLA computes element by element in place, and fuses constants.
        over = [x for x in eqn.invars if isinstance(x, Var) and last.get(x) == i and x in sizes]
        in_memory = sum(sizes.values())
        if eqn.primitive.name == "broadcast_in_dim":
            results = dict.fromkeys(results, 0)
        for x in over:
            del sizes[x]
        sizes.update(results)
        is_convolution = eqn.primitive.name in ("conv_general_dilated", "dot_general")
        now = in_memory + sum(results.values()) if is_convolution else sum(sizes.values())
        most = max(most, now)
    return most // _SIDE**2


def _is_bottleneck(traced: Any, cut: int) -> bool:
    """Return whether all that the output needs of earlier convolutions passes the input of one."""
    needed = {x for x in traced.outvars if isinstance(x, Var)}
    for eqn in reversed(traced.eqns):
        if needed.isdisjoint(eqn.outvars):
            continue
        if eqn.primitive.name == "name":
            if int(eqn.params["name"]) == cut:
                continue
            if int(eqn.params["name"]) < cut:
                return False
        needed.update(x for x in eqn.invars if isinstance(x, Var))
    return True


def _on_convolutions(change: Callable[[int, Array], Array]) -> Any:
    """Return an interceptor that changes the input of every convolution that pads with zeros.

    It is made for one trace, in which it numbers them from 0.
    """
    index = -1

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal index
        if not _pads(context):
            return call(*args, **kwargs)
        index += 1
        if context.module.conv_general_dilated is convolve_differences:
            return call(*args, **kwargs)  # differences continue the window's edge
        (x,) = args
        return call(change(index, x), **kwargs)

    return intercept


def _pads(context: nn.module.InterceptorContext) -> bool:
    """Return whether a call is of a convolution larger than 1x1, which zeros surround."""
    module: Any = context.module
    called = hasattr(module, "kernel_size") and context.method_name == "__call__"
    return called and _pad(module) > 0


def _pad(conv: Any) -> int:
    """Return the zero padding on each side of a convolution made as by `layers.conv`."""
    return (conv.kernel_size[0] - 1) // 2


def _masks(inside: Int32[Array, "n 4"], sides: tuple[int, ...]) -> Callable[[Array], Array]:
    """Return a function that sets what lies outside the image to zero, of windows of two sides."""

    def masked(x: Float[Array, "n a b c"]) -> Float[Array, "n a b c"]:
        def along(axis: int) -> Bool[Array, "n _"]:
            """Compare in units in which both LR and feature pixels are whole numbers."""
            at = jnp.arange(x.shape[1 + axis]) * sides[axis]
            first, last = (inside[:, 2 * axis + i, None] * x.shape[1 + axis] for i in range(2))
            return (first <= at) & (at < last)

        return jnp.where(along(0)[:, :, None, None] & along(1)[:, None, :, None], x, 0)

    return masked


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


def _layers(network: Generator) -> tuple[list[Layer], Any]:
    """Return the convolutions in execution order; each is taken to see the one before.

    And the network's jaxpr, in which the input of each has its number as its name.
    """
    module = network.module
    variables, image = _abstract(network)
    layers: list[Layer] = []

    def record(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if not _pads(context):
            return call(*args, **kwargs)
        (x,) = args
        y = call(checkpoint_name(x, str(len(layers))), **kwargs)
        resolution = Fraction(x.shape[1], _SIDE)
        layers.append(Layer(_pad(context.module), resolution))
        return y

    with nn.intercept_methods(record):
        traced = jax.make_jaxpr(partial(module.apply, train=False))(variables, image)
    return layers, traced.jaxpr


def _radius(layers: list[Layer], *, scale: Fraction, multiple: int) -> int:
    """Return the radius of the receptive field in LR pixels, traced from the output to the input.

    A generator's first layer may fold `multiple` LR pixels into one; the radius is the largest over
    them.
    """
    radius = 0
    for pixel in range(multiple):
        first, last, resolution = pixel * scale, pixel * scale + scale - 1, scale
        for layer in reversed(layers):
            shrunk = int(resolution / layer.resolution)
            first, last = first // shrunk - layer.pad, last // shrunk + layer.pad
            resolution = layer.resolution
        first, last = math.floor(first / resolution), math.ceil((last + 1) / resolution) - 1
        radius = max(radius, pixel - first, last - pixel)
    return radius
