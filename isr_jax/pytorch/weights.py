"""PyTorch state dicts <-> our parameters, for networks that were published in PyTorch.

    .pth, .safetensors <-> state {"body.0.conv1.weight": array} <-> (params, stats)

`torch_namings` says how each codebase names the layers. What differs besides is the order of axes
and, where channels are or become pixels, the order of channels: PyTorch counts the pixels of each
channel, we count the channels of each pixel.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from isr_jax.errors import UserError, one_line
from isr_jax.models import discriminator, generator
from isr_jax.models.discriminators import ARCHITECTURES as DISCRIMINATORS
from isr_jax.models.generators import complete
from isr_jax.models.resnets import FACTORS
from isr_jax.pytorch.files import read_state_dict, write_state_dict
from isr_jax.pytorch.namings import NAMINGS, Naming

State = Mapping[str, np.ndarray]
Options = Mapping[str, Any]

# Our leaves; batch norm's scale and a PReLU's slope are weights to PyTorch.
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

# Our axes, counted in PyTorch's: a convolution's [h w in out] and a dense layer's [in out].
AXES = {4: (2, 3, 1, 0), 2: (1, 0)}


def _sub_pixels(factors: Sequence[int]) -> dict[str, tuple[int, int]]:
    return {
        f"SubPixel_{i}/Conv_0/{leaf}": (-1, factor**2)
        for i, factor in enumerate(factors)
        for leaf in ("kernel", "bias")
    }


def _last_side(crop: int) -> int:
    return crop if crop <= 4 else _last_side(crop // 2)


# architecture -> (options, scale or crop) -> {leaf: (axis whose channels hold pixels, how many)}
PIXELS: dict[str, Callable[[Options, int], dict[str, tuple[int, int]]]] = {
    "resnet": lambda options, scale: _sub_pixels(FACTORS[scale]),
    "msrresnet": lambda options, scale: _sub_pixels(FACTORS[scale]),
    "srvggnet": lambda options, scale: _sub_pixels([scale]),
    "rrdbnet": lambda options, scale: {
        "Conv_0/kernel": (-2, (2 ** options["doublings"] // scale) ** 2)
    },
    "vgg": lambda options, crop: {"Dense_0/kernel": (-2, _last_side(crop) ** 2)},
    "unet": lambda options, crop: {
        f"SpectralConv_{i}/v": (0, 16 if i < 3 else 9) for i in range(8)
    },
}


class Leaf(NamedTuple):
    """One of our arrays, and how PyTorch has it.

    Attributes:
        key: PyTorch's.
        shape: ours.
        axis: ours, along which channels hold pixels.
        pixels: how many; 1 where channels are only channels.
    """

    key: str
    shape: tuple[int, ...]
    axis: int
    pixels: int

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """PyTorch's."""
        return np.broadcast_to(False, self.shape).transpose(np.argsort(self._axes())).shape

    def ours(self, array: np.ndarray) -> np.ndarray:
        """PyTorch's array as ours."""
        if array.shape != self.torch_shape:  # one slope for all channels
            array = np.broadcast_to(array, self.torch_shape)
        return np.take(array.transpose(self._axes()), self._order(), axis=self.axis)

    def theirs(self, array: np.ndarray) -> np.ndarray:
        """Our array as PyTorch's."""
        array = np.take(array, np.argsort(self._order()), axis=self.axis)
        return np.ascontiguousarray(array.transpose(np.argsort(self._axes())))

    def _axes(self) -> tuple[int, ...]:
        return AXES.get(len(self.shape), tuple(range(len(self.shape))))

    def _order(self) -> np.ndarray:
        return np.arange(self.shape[self.axis]).reshape(-1, self.pixels).T.ravel()


class Detected(NamedTuple):
    """What a state dict is of.

    Attributes:
        naming: one of NAMINGS.
        options: the network's name and all its fields, as config.generator or
            config.discriminator has them (but for its crop).
        size: a generator's scale; the side in pixels of a discriminator's crops, 0 for any.
    """

    naming: str
    options: dict[str, Any]
    size: int


def torch_leaves(naming: Naming, options: Options, size: int) -> dict[str, Leaf]:
    """Each of a network's arrays by its path, "params/Conv_0/kernel"."""
    network = (
        discriminator(options, crop=size or 64)
        if options["name"] in DISCRIMINATORS
        else generator(options, scale=size)
    )
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    names, pixels = naming.names(options, size), PIXELS[options["name"]](options, size)
    leaves = {}
    for path, leaf in flatten_dict({"params": params, "stats": stats}, sep="/").items():
        inner = path.partition("/")[2]
        module, _, kind = inner.rpartition("/")
        key = LEAVES[kind]
        if module.startswith("SpectralConv") and kind == "kernel":
            key = "weight_orig"
        leaves[path] = Leaf(f"{names[module]}.{key}", leaf.shape, *pixels.get(inner, (0, 1)))
    return leaves


def _extras(naming: Naming, options: Options, leaves: Mapping[str, Leaf]) -> dict[str, np.ndarray]:
    """What PyTorch's state has besides the leaves, as new."""
    extras = naming.extras(options)
    for path, leaf in leaves.items():
        if path.endswith("BatchNorm_0/scale"):
            layer = leaf.key.removesuffix("weight")
            extras[layer + "running_mean"] = np.zeros(leaf.shape, np.float32)
            extras[layer + "running_var"] = np.ones(leaf.shape, np.float32)
            extras[layer + "num_batches_tracked"] = np.zeros((), np.int64)
    return extras


def detect(state: State, *, options: Options | None = None) -> Detected:
    """Architecture, fields and scale, from keys and shapes.

    What they do not tell (`Naming.assumed`) is taken for what was published: EDSR's residual scale
    (0.1 where the width is 256), and its mean and range where there is no mean shift.

    Args:
        state: PyTorch's key -> array.
        options: fields to set otherwise.

    Raises:
        UserError: where no architecture is recognised.
    """
    name = next((n for n in NAMINGS if all(key in state for key in NAMINGS[n].marks)), None)
    if name is None:
        raise UserError(
            f"the weights are of no known architecture; not understood: {_some(list(state))}"
        )
    naming = NAMINGS[name]
    try:
        told, size = naming.tells(state)
    # For keys that are missing, and shapes that no such network has.
    except (ArithmeticError, LookupError, StopIteration, ValueError) as error:
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else one_line(error)
        raise UserError(f"the weights look like {name}, but cannot be read: {reason}") from None
    found = _with_defaults({**naming.fixed, **told, **(options or {})}, size)
    return Detected(name, found, size)


def _with_defaults(options: Options, size: int) -> dict[str, Any]:
    if options.get("name") in DISCRIMINATORS:
        return dict(options)
    return complete(options, scale=size)


def to_params(state: State, detected: Detected) -> tuple[Any, Any]:
    """A state dict as (params, stats) of the generator or discriminator that was detected.

    Raises:
        UserError: where keys are unknown, missing or of other shapes, naming them.
    """
    naming = NAMINGS[detected.naming]
    leaves = torch_leaves(naming, detected.options, detected.size)
    known = {leaf.key for leaf in leaves.values()} | _extras(
        naming, detected.options, leaves
    ).keys()
    wrong = [f"{key} (unknown)" for key in state if key not in known]
    for path, leaf in leaves.items():
        # A PReLU may have one slope for all channels.
        shapes = [leaf.torch_shape, (1,)] if path.endswith("slope") else [leaf.torch_shape]
        if leaf.key not in state:
            wrong.append(f"{leaf.key} (missing)")
        elif state[leaf.key].shape not in shapes:
            found, expected = list(state[leaf.key].shape), list(leaf.torch_shape)
            wrong.append(f"{leaf.key} ({found}, not {expected})")
    if wrong:
        raise UserError(f"the weights look like {detected.naming}, but not all: {_some(wrong)}")
    flat = {path: leaf.ours(state[leaf.key]) for path, leaf in leaves.items()}
    tree = unflatten_dict(flat, sep="/")
    return tree["params"], tree.get("stats", {})


def to_state_dict(
    params: Any, stats: Any, *, options: Options, size: int, naming: str | None = None
) -> dict[str, np.ndarray]:
    """The parameters of a network as a state dict; `detect` and `to_params` undo it.

    A PReLU has a slope per channel, as `torch.nn.PReLU(width)`. The fields in `Naming.assumed` are
    for the reader to know.

    Args:
        params, stats: as from `init` of `generator(options, scale=size)`, or of
            `discriminator(options, crop=size)`.
        options: the network's name and fields.
        size: a generator's scale, a discriminator's crop in pixels.
        naming: one of NAMINGS; the first of the architecture by default.

    Raises:
        UserError: where no PyTorch code is known to have such a network.
    """
    options = _with_defaults(options, size)
    chosen = NAMINGS[choose_naming(options, naming=naming)]
    leaves = torch_leaves(chosen, options, size)
    flat = flatten_dict({"params": params, "stats": stats}, sep="/")
    return _extras(chosen, options, leaves) | {
        leaf.key: leaf.theirs(np.asarray(flat[path])) for path, leaf in leaves.items()
    }


def choose_naming(options: Options, *, naming: str | None = None) -> str:
    """The naming asked for, or else the first, that has such a network.

    Args:
        options: a network's name and all its fields.
        naming: one of NAMINGS.

    Raises:
        UserError: where it does not, or none does, naming the fields.
    """
    architecture = options["name"]
    own = [name for name, known in NAMINGS.items() if known.fixed["name"] == architecture]
    if naming is not None and naming not in own:
        raise UserError(f"{naming} is no naming of a {architecture}; of those are {', '.join(own)}")
    reasons = []
    for name in [naming] if naming else own:
        fixed = NAMINGS[name].fixed
        misfits = [f"{field}={value}" for field, value in fixed.items() if options[field] != value]
        if not misfits:
            return name
        reasons.append(f"{name} needs {', '.join(misfits)}")
    because = f": {'; '.join(reasons)}" if reasons else ""
    raise UserError(f"no PyTorch code is known that has this {architecture}{because}")


def _some(items: Sequence[str], *, most: int = 8) -> str:
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest


class Imported(NamedTuple):
    """A network from a PyTorch file.

    Attributes:
        config: {"scale": ..., "generator": {...}}, or {"discriminator": {...}}, as in a run's.
        params, stats: its parameters, and batch norm's or spectral norm's statistics.
        naming: the one of NAMINGS that the file has.
        assumed: fields of the network that the file does not tell, and nobody gave.
    """

    config: dict[str, Any]
    params: Any
    stats: Any
    naming: str
    assumed: tuple[str, ...]


def import_torch(path: str | Path, *, options: Options | None = None) -> Imported:
    """Read a generator or discriminator from a .pth or .safetensors file.

    Args:
        path: the file.
        options: fields that the file does not tell, to set otherwise than `detect` does.

    Raises:
        UserError: where the file cannot be read, or is of no known architecture.
    """
    state = read_state_dict(path)
    try:
        detected = detect(state, options=options)
        params, stats = to_params(state, detected)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    naming, found, size = detected
    config: dict[str, Any] = {"scale": size, "generator": found}
    if found["name"] in DISCRIMINATORS:
        config = {"discriminator": {**found, "crop": size}}
    assumed = tuple(field for field in NAMINGS[naming].assumed if field not in (options or {}))
    return Imported(config, params, stats, naming, assumed)


def export_torch(
    path: str | Path,
    params: Any,
    stats: Any,
    *,
    options: Options,
    size: int,
    naming: str | None = None,
) -> None:
    """Write a network to a .pth or .safetensors file, as its PyTorch code loads it.

    Args:
        path: the file; overwritten.
        params, stats, options, size, naming: as for `to_state_dict`.

    Raises:
        UserError: as `to_state_dict`, and where the file cannot be written.
    """
    state = to_state_dict(params, stats, options=options, size=size, naming=naming)
    name = choose_naming(_with_defaults(options, size), naming=naming)
    write_state_dict(path, state, wrapper=NAMINGS[name].wrapper)
