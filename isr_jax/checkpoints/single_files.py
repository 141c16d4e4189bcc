"""A generator with its architecture as one file, like the models shipped with the package.

    isr export runs/msssim x4.safetensors
    isr upscale photo.jpg --model x4.safetensors

The format is safetensors: reading it never runs code.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors

from isr_jax.errors import UserError, one_line

_ENTRY = "isr_jax"  # in the metadata: distinguishes these files from PyTorch's

# The models of configs/compact.py, trained on T91 and BSD400, by the name of a MODEL.
PRETRAINED = {
    name: Path(__file__).parent.parent / "pretrained" / f"{name}.safetensors"
    for name in ("compact-x2", "compact-x3", "compact-x4")
}


class Saved(NamedTuple):
    """A generator's arrays, and "scale" and "generator" of its configuration."""

    params: Any
    stats: Any
    config: dict[str, Any]


def to_bytes(params: Any, stats: Any, config: Mapping[str, Any]) -> bytes:
    """Return the content of a file.

    Args:
        params, stats: float32 arrays.
        config: "scale", and "generator", its name and fields.
    """
    arrays = flatten_dict({"params": params, "stats": stats}, sep="/")
    plain = {name: np.asarray(x) for name, x in arrays.items()}
    return safetensors.save(plain, metadata={_ENTRY: json.dumps(dict(config))})


def read(file: Path) -> Saved | None:
    """Read a file; return None if it is not one of ours.

    Raises:
        UserError: it is one of ours, and damaged.
    """
    try:
        with safe_open(file, framework="numpy") as opened:
            config = (opened.metadata() or {}).get(_ENTRY)
            if config is None:
                return None
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    try:
        tree, parsed = unflatten_dict(arrays, sep="/"), json.loads(config)
        saved = {"scale": int(parsed["scale"]), "generator": dict(parsed["generator"])}
        return Saved(tree["params"], tree.get("stats", {}), saved)
    # What is missing, or of another type.
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged: {one_line(error)}") from error
