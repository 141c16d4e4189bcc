"""A generator with its architecture as one file, like the models shipped with the package.

    isr export runs/msssim x4.safetensors
    isr upscale photo.jpg --model x4.safetensors

The format is safetensors: reading it never runs code.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import numpy as safetensors

from isr_jax import tensor_files
from isr_jax.config import tuples
from isr_jax.errors import UserError, one_line
from isr_jax.models.generators import complete, generator
from isr_jax.pretrained import CARD_ENTRY, Card

_CONFIG_ENTRY = "isr_jax"  # in the metadata: distinguishes these files from PyTorch's


class Saved(NamedTuple):
    """A generator's arrays, and "scale" and "generator" of its configuration."""

    params: Any
    stats: Any
    config: dict[str, Any]


def to_bytes(
    params: Any, stats: Any, config: Mapping[str, Any], *, card: Card | None = None
) -> bytes:
    """Return the content of a file.

    Args:
        params, stats: arrays, float32 or float16.
        config: "scale", and "generator", its name and fields.
        card: what the model is; see `isr_jax.pretrained`.
    """
    arrays = flatten_dict({"params": params, "stats": stats}, sep="/")
    plain = {name: np.asarray(x) for name, x in arrays.items()}
    metadata = {_CONFIG_ENTRY: json.dumps(dict(config))}
    if card:
        metadata[CARD_ENTRY] = json.dumps(card)
    return safetensors.save(plain, metadata=metadata)


def read(file: Path) -> Saved | None:
    """Read a file; return None if it is not one of ours.

    What the header says is compared with what its network has, before arrays are read.

    Raises:
        UserError: it is one of ours, and damaged.
    """
    try:
        header = tensor_files.read_header(file)
    except (OSError, ValueError):
        return None
    if _CONFIG_ENTRY not in header.metadata:
        return None
    try:
        parsed = json.loads(header.metadata[_CONFIG_ENTRY])
        saved = {"scale": parsed["scale"], "generator": tuples(dict(parsed["generator"]))}
        _check_header(header, saved)
        arrays = tensor_files.read_safetensors(file)
        tensor_files.check_weights(arrays)
        tree = unflatten_dict(arrays, sep="/")
        return Saved(tree["params"], tree.get("stats", {}), saved)
    # What is missing, or of another type; UserError is a ValueError.
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged: {one_line(error)}") from error


def _check_header(header: tensor_files.Header, config: Mapping[str, Any]) -> None:
    """Raise a ValueError where a header's arrays are not those of a configuration's generator."""
    options = complete(config["generator"], scale=config["scale"])
    # Building a network takes time, and each of its blocks has arrays.
    groups = max(options.get("groups", 1), 1)
    parts = max(options.get("blocks", 0) * groups, options.get("layers", 0))
    if max(parts, sum(options.get("depths", ()))) > len(header.shapes):
        raise ValueError(f"{len(header.shapes)} arrays are too few for its generator")
    network = generator(options, scale=config["scale"])
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    flat: dict[str, Any] = flatten_dict({"params": params, "stats": stats}, sep="/")
    expected = {name: x.shape for name, x in flat.items() if hasattr(x, "shape")}
    if expected != header.shapes or {*header.dtypes.values()} - {"F32", "F16"}:
        raise ValueError("its arrays are not those of its generator")
