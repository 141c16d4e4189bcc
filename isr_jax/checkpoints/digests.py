"""Digests of what a checkpoint holds.

Orbax's array data carries no checksum: a flipped bit would be taken without a word.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


def digests_of(items: Any) -> dict[str, str]:
    """Return the SHA-256 of each array's bytes by its path, such as generator/ema/Conv_0/kernel.

    Args:
        items: a tree of arrays of any shape and dtype.
    """

    def digest(x: Any) -> str:
        flat = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
        return hashlib.sha256(flat.data).hexdigest()

    leaves = jax.tree_util.tree_leaves_with_path(items)
    return {_path(path): digest(x) for path, x in leaves}


def digests_of_json(items: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each value as sorted JSON, by its name."""
    texts = {name: json.dumps(value, sort_keys=True) for name, value in items.items()}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def verify(found: Mapping[str, str], manager: ocp.CheckpointManager, *, step: int) -> None:
    """Compare what was read from a checkpoint with the digests in it; older ones have none.

    Args:
        found: the digests of what was read.
        manager: of the run's checkpoints.
        step: which one.

    Raises:
        ValueError: one is not what was saved; the message names it.
    """
    if not (Path(manager.directory) / str(step) / "digests").exists():
        return  # from before the digests
    saved: Any = manager.restore(step, args=ocp.args.Composite(digests=ocp.args.JsonRestore()))
    for name, digest in found.items():
        if saved.digests.get(name) != digest:
            raise ValueError(f"{name} is not what was saved")
