"""PyTorch state dicts <-> our parameters, for networks that were published in PyTorch.

    .pth, .safetensors <-> state {"body.0.conv1.weight": array} <-> (params, stats)

A key map (KEY_MAPS) says how one codebase names the layers. The order of axes differs too and,
where channels are or become pixels, the order of channels: PyTorch counts the pixels of each
channel, we count the channels of each pixel.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from isr_jax import errors
from isr_jax.errors import UserError, one_line
from isr_jax.files import expanded
from isr_jax.models import discriminators, generators
from isr_jax.pytorch import ncnn, search
from isr_jax.pytorch.files import read_tensors, write_state_dict
from isr_jax.pytorch.key_map import Options, StateDict
from isr_jax.pytorch.key_maps import KEY_MAPS
from isr_jax.pytorch.leaves import Leaf, torch_leaves
from isr_jax.tensor_files import check_weights

# Entries of which no network needs anything: counters of batch norm and of profilers.
PASSED_OVER = (r".*num_batches_tracked", r"(.*\.)?total_(ops|params)")


class Detected(NamedTuple):
    """What a state dict belongs to.

    Attributes:
        key_map: a key of KEY_MAPS.
        options: the network's name and all its fields, as in config.generator or
            config.discriminator (without its crop).
        size: a generator's scale; the side in pixels of a discriminator's crops, 0 for any.
    """

    key_map: str
    options: dict[str, Any]
    size: int


def _batch_norms(leaves: Mapping[str, Leaf]) -> dict[str, np.ndarray]:
    """Return what batch norm layers have besides our leaves, as initialised."""
    extras = {}
    for path, leaf in leaves.items():
        if path.endswith("BatchNorm_0/scale"):  # a discriminator's keeps no running statistics
            layer = leaf.key.removesuffix("weight")
            extras[layer + "running_mean"] = np.zeros(leaf.shape, np.float32)
            extras[layer + "running_var"] = np.ones(leaf.shape, np.float32)
            extras[layer + "num_batches_tracked"] = np.zeros((), np.int64)
        if path.endswith("/mean"):
            layer = leaf.key.removesuffix("running_mean")
            extras[layer + "num_batches_tracked"] = np.zeros((), np.int64)
    return extras


def detect(state: StateDict, *, options: Options | None = None) -> Detected:
    """Detect the architecture, its fields and its size from keys and shapes.

    Undetectable fields (`KeyMap.undetectable`) get the published values: EDSR's residual scale (0.1
    at width 256), and its mean and range without a mean shift.

    Args:
        state: PyTorch's key -> array.
        options: fields that override the detected ones.

    Raises:
        UserError: no architecture is recognised, or a field has a value that it cannot have.
    """
    name = next((n for n in KEY_MAPS if all(key in state for key in KEY_MAPS[n].required)), None)
    if name is None:
        raise UserError(_nearest(state))
    key_map = KEY_MAPS[name]
    if "name" in (options or {}):
        raise UserError(f"the weights determine the name of the network, {name}; leave it out")
    try:
        fields, size = key_map.detect(state)
    # For keys that are missing, and shapes that no such network has.
    except (ArithmeticError, LookupError, StopIteration, ValueError) as error:
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else one_line(error)
        raise UserError(f"the weights look like {name}, but cannot be read: {reason}") from None
    found = _with_defaults({**key_map.fixed, **fields, **(options or {})}, size)
    return Detected(name, found, size)


def _with_defaults(options: Options, size: int) -> dict[str, Any]:
    """Return a network's name and all its fields; raise a UserError for impossible values."""
    if options.get("name") in discriminators.ARCHITECTURES:
        return discriminators.complete(options)
    return generators.complete(options, scale=size)


def to_params(state: StateDict, detected: Detected) -> tuple[Any, Any]:
    """Convert a state dict to (params, stats) of the detected generator or discriminator.

    Raises:
        UserError: keys are unknown or missing, have other shapes, or are no finite floats; the
            message names them.
    """
    key_map = KEY_MAPS[detected.key_map]
    leaves = torch_leaves(key_map, detected.options, detected.size)
    known = {leaf.key for leaf in leaves.values()} | _batch_norms(leaves).keys()
    ignored = re.compile("|".join((*PASSED_OVER, *key_map.passed_over)))
    foreign = [key for key in state if not (key in known or ignored.fullmatch(key))]
    # A single number is a counter or a note of some training code.
    wrong = [f"{key} (unknown)" for key in foreign if state[key].size > 1]
    for path, leaf in leaves.items():
        # A PReLU can have one slope for all channels.
        shapes = [leaf.torch_shape, (1,)] if path.endswith("slope") else [leaf.torch_shape]
        if leaf.key not in state:
            wrong.append(f"{leaf.key} (missing)")
        elif state[leaf.key].shape not in shapes:
            found, expected = list(state[leaf.key].shape), list(leaf.torch_shape)
            wrong.append(f"{leaf.key} ({found}, not {expected})")
    if wrong:
        raise UserError(f"the weights look like {detected.key_map}, except for: {_some(wrong)}")
    check_weights({leaf.key: state[leaf.key] for leaf in leaves.values()})
    flat = {path: leaf.ours(state[leaf.key]) for path, leaf in leaves.items()}
    tree = unflatten_dict(flat, sep="/")
    return tree["params"], tree.get("stats", {})


def to_state_dict(
    params: Any, stats: Any, *, options: Options, size: int, key_map: str | None = None
) -> dict[str, np.ndarray]:
    """Convert a network's parameters to a state dict; `detect` and `to_params` undo it.

    A PReLU has a slope per channel, as in `torch.nn.PReLU(width)`. A state dict does not hold the
    undetectable fields (`KeyMap.undetectable`).

    Args:
        params, stats: as from `init` of `generator(options, scale=size)`, or of
            `discriminator(options, crop=size)`.
        options: the network's name and fields.
        size: a generator's scale, a discriminator's crop in pixels.
        key_map: a key of KEY_MAPS; by default the first of the architecture.

    Raises:
        UserError: no key map fits the network, or not the one given.
    """
    options = _with_defaults(options, size)
    chosen = KEY_MAPS[choose_key_map(options, key_map=key_map)]
    leaves = torch_leaves(chosen, options, size)
    flat = flatten_dict({"params": params, "stats": stats}, sep="/")
    own = {leaf.key: leaf.theirs(np.asarray(flat[path])) for path, leaf in leaves.items()}
    return _batch_norms(leaves) | chosen.extras(options, own) | own


def choose_key_map(options: Options, *, key_map: str | None = None) -> str:
    """Return the given key map, or else the first that fits a network.

    Args:
        options: a network's name and all its fields.
        key_map: a key of KEY_MAPS; None for the first that fits.

    Raises:
        UserError: it does not fit, or none does; the message names the fields.
    """
    architecture = options["name"]
    own = [name for name, known in KEY_MAPS.items() if known.fixed["name"] == architecture]
    if key_map is not None and key_map not in own:
        raise errors.unknown(f"key map of {architecture}", key_map, own)
    reasons = []
    for name in [key_map] if key_map else own:
        fixed = KEY_MAPS[name].fixed
        misfits = [f"{field}={value}" for field, value in fixed.items() if options[field] != value]
        if not misfits:
            return name
        reasons.append(f"{name} needs {', '.join(misfits)}")
    because = f": {'; '.join(reasons)}" if reasons else ""
    raise UserError(f"no key map fits this {architecture}{because}")


def _nearest(state: StateDict) -> str:
    """Return a message about an unknown state dict that names the known one most like it."""
    forms = _forms(state)
    likeness = {}
    for name in KEY_MAPS:
        known = _forms(_example(name))
        likeness[name] = len(forms & known) / len(forms | known)
    name = max(likeness, key=likeness.__getitem__)
    first = f"first keys: {_some(list(state))}"
    if likeness[name] < 0.2:
        return f"the weights match no known architecture; {first}"
    missing = [key for key in KEY_MAPS[name].required if key not in state]
    own = _forms(_example(name))
    foreign = [key for key in state if _form(key) not in own]
    differ = [f"{key} (missing)" for key in missing] + [f"{key} (unknown)" for key in foreign]
    return (
        f"the weights match no known architecture; nearest is {name}, except for: {_some(differ)}"
    )


def _form(key: str) -> str:
    return re.sub(r"\d+", "#", key)


def _forms(keys: Iterable[str]) -> set[str]:
    return {_form(key) for key in keys}


_SHALLOW = {"blocks": 2, "layers": 2, "groups": 1, "depths": (2,), "heads": (2,)}


@cache
def _example(name: str) -> tuple[str, ...]:
    """Return the keys of a shallow network of a key map; deep ones repeat them."""
    key_map = KEY_MAPS[name]
    if key_map.part == "discriminator":
        size = 128
        options = discriminators.complete(key_map.fixed)
    else:
        # The last scale of 1 to 4 that it has; a network for one scale alone has that.
        scales = generators.ARCHITECTURES[key_map.fixed["name"]].scales
        size = max(scale for scale in scales if scale <= 4)
        options = generators.complete(key_map.fixed, scale=size)
        options |= {field: depth for field, depth in _SHALLOW.items() if field in options}
    leaves = torch_leaves(key_map, options, size)
    return tuple(leaf.key for leaf in leaves.values())


def _some(items: Sequence[str], *, most: int = 8) -> str:
    """Return the first of some items, and how many there are besides."""
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest


class Imported(NamedTuple):
    """A network from a PyTorch file.

    Attributes:
        config: {"scale": ..., "generator": {...}}, or {"discriminator": {...}}, as in a run's.
        params, stats: its parameters, and batch norm's or spectral norm's statistics.
        key_map: the detected key of KEY_MAPS.
        undetected: undetectable fields that were not given; they have the published values.
        left_out: what else the file holds, such as "netD. (24 tensors)".
    """

    config: dict[str, Any]
    params: Any
    stats: Any
    key_map: str
    undetected: tuple[str, ...]
    left_out: tuple[str, ...]


def import_torch(path: str | Path, *, options: Options | None = None) -> Imported:
    """Read a generator or discriminator from a file of `torch.save`, safetensors or ncnn.

    Of several networks in a file the generator is read, and of several states the EMA.

    Args:
        path: the file.
        options: fields that override the detected ones.

    Raises:
        UserError: the file cannot be read, or matches no known architecture.
    """
    converted = ncnn.read(expanded(path))
    tensors, fields = converted or (read_tensors(path), {})
    options = {**fields, **(options or {})}
    try:
        place = search.find(tensors, KEY_MAPS)
        if place is None:
            states = [state for _, state in search.dictionaries(tensors)]
            if not states:
                raise UserError("it holds no tensors; save the network's state_dict()")
            raise UserError(_nearest(max(states, key=len)))
        detected = detect(place.state, options=options)
        params, stats = to_params(place.state, detected)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    key_map, found, size = detected
    config: dict[str, Any] = {"scale": size, "generator": found}
    if found["name"] in discriminators.ARCHITECTURES:
        config = {"discriminator": {**found, "crop": size}}
    undetected = tuple(field for field in KEY_MAPS[key_map].undetectable if field not in options)
    return Imported(config, params, stats, key_map, undetected, place.left_out)


def export_torch(
    path: str | Path,
    params: Any,
    stats: Any,
    *,
    options: Options,
    size: int,
    key_map: str | None = None,
) -> None:
    """Write a network to a .pth or .safetensors file, as its PyTorch code loads it.

    Args:
        path: the file; overwritten.
        params, stats, options, size, key_map: as for `to_state_dict`.

    Raises:
        UserError: as for `to_state_dict`, or the file cannot be written.
    """
    state = to_state_dict(params, stats, options=options, size=size, key_map=key_map)
    name = choose_key_map(_with_defaults(options, size), key_map=key_map)
    write_state_dict(path, state, wrapper=KEY_MAPS[name].wrapper)
