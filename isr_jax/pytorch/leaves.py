"""Our arrays, and how PyTorch stores each: its key, its axes and the order of its channels."""

from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Shaped

from isr_jax.models import discriminators, generators
from isr_jax.pytorch.key_map import KeyMap, Options

# Our leaves; PyTorch calls batch norm's scale and a PReLU's slope weights.
LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "slope": "weight",
    "mean": "running_mean",
    "var": "running_var",
    "u": "weight_u",
    "v": "weight_v",
}

# A kernel's axes, numbered as PyTorch's: a convolution's [h w in out], a dense layer's [in out].
AXES = {4: (2, 3, 1, 0), 2: (1, 0)}


class Leaf(NamedTuple):
    """One of our arrays, and how PyTorch stores it.

    Attributes:
        key: PyTorch's.
        shape: ours.
        kernel: whether it is a convolution's or a dense layer's, whose axes are in another order.
        axis: ours, along which channels hold pixels.
        pixels: how many per channel; 1 where channels hold no pixels.
    """

    key: str
    shape: tuple[int, ...]
    kernel: bool
    axis: int
    pixels: int

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """The shape of PyTorch's array."""
        return np.broadcast_to(False, self.shape).transpose(np.argsort(self._axes())).shape

    def ours(self, array: Shaped[np.ndarray, "*theirs"]) -> Shaped[np.ndarray, "*ours"]:
        """Convert PyTorch's array to ours."""
        if array.shape != self.torch_shape:  # one slope for all channels
            array = np.broadcast_to(array, self.torch_shape)
        return np.take(array.transpose(self._axes()), self._order(), axis=self.axis)

    def theirs(self, array: Shaped[np.ndarray, "*ours"]) -> Shaped[np.ndarray, "*theirs"]:
        """Convert our array to PyTorch's."""
        array = np.take(array, np.argsort(self._order()), axis=self.axis)
        return np.ascontiguousarray(array.transpose(np.argsort(self._axes())))

    def _axes(self) -> tuple[int, ...]:
        own = tuple(range(len(self.shape)))
        return AXES.get(len(own), own) if self.kernel else own

    def _order(self) -> np.ndarray:
        return np.arange(self.shape[self.axis]).reshape(-1, self.pixels).T.ravel()


def torch_leaves(key_map: KeyMap, options: Options, size: int) -> dict[str, Leaf]:
    """Return each of a network's arrays by its path, such as "params/Conv_0/kernel"."""
    network = (
        discriminators.discriminator(options, crop=size or 64)
        if options["name"] in discriminators.ARCHITECTURES
        else generators.generator(options, scale=size)
    )
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    names, pixels = key_map.keys(options, size), key_map.pixels(options, size)
    leaves = {}
    flat: dict[str, Any] = flatten_dict({"params": params, "stats": stats}, sep="/")
    for path, leaf in flat.items():
        inner = path.partition("/")[2]
        module, _, kind = inner.rpartition("/")
        key = LEAVES.get(kind, kind)
        if module.startswith("SpectralConv") and kind == "kernel":
            key = "weight_orig"
        prefix = names.get(module, module.replace("/", "."))
        key = f"{prefix}.{key}" if prefix else key
        leaves[path] = Leaf(key, leaf.shape, kind == "kernel", *pixels.get(inner, (0, 1)))
    return leaves
