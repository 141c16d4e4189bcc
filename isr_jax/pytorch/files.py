"""PyTorch's files: .pth by `torch.load` and `torch.save`, .safetensors without PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from isr_jax.errors import UserError, one_line
from isr_jax.perceptual import weight_files

SUFFIXES = (".pth", ".pt", ".safetensors")

# Where a checkpoint keeps its state dict, best first, and prefixes that its keys may have.
WRAPPERS = ("params_ema", "params", "ema_state_dict", "state_dict", "model")
PREFIXES = ("module.", "netG.", "generator.", "netD.", "discriminator.")


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Read the tensors of a .safetensors file, or of a file of `torch.save`, as float32 arrays.

    Of several state dicts, the EMA is read; nothing but tensors is unpickled.

    Raises:
        UserError: the file cannot be read, or needs PyTorch and it is not installed.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    safe = path.suffix == ".safetensors"
    state: Any = weight_files.read(path) if safe else _read_pth(path)
    while wrapper := next((w for w in WRAPPERS if isinstance(state.get(w), Mapping)), None):
        state = state[wrapper]
    while prefix := next((p for p in PREFIXES if any(key.startswith(p) for key in state)), None):
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    arrays = {key: np.asarray(value) for key, value in state.items() if hasattr(value, "shape")}
    if not arrays:
        raise UserError(f"{path} holds no tensors; save the network's state_dict()")
    return arrays


def _read_pth(path: Path) -> dict[str, Any]:
    torch = _torch()
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged or foreign file can raise anything. PyTorch's message is left out, because it
    # suggests running the code that the file holds.
    except Exception as error:
        raise UserError(
            f"{path} is damaged or holds more than tensors; save the network's state_dict() alone"
        ) from error
    return _as_numpy(loaded) if isinstance(loaded, Mapping) else {}


def _as_numpy(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """Convert nested mappings of tensors to arrays; anything else is left out."""
    arrays: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            arrays[str(key)] = _as_numpy(value)
        elif hasattr(value, "is_floating_point"):
            plain = value.detach()
            arrays[str(key)] = (plain.float() if plain.is_floating_point() else plain).numpy()
    return arrays


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            "a .pth file needs PyTorch: pip install isr-jax[torch]; .safetensors does not"
        ) from error
    return torch


def write_state_dict(
    path: str | Path, state: Mapping[str, np.ndarray], *, wrapper: str = ""
) -> None:
    """Write a state dict as a .safetensors file, or as a file of `torch.save`.

    Args:
        path: the file; overwritten.
        state: PyTorch's key -> array.
        wrapper: the entry of a .pth to put it in; "" for none.

    Raises:
        UserError: the file cannot be written, or needs PyTorch and it is not installed.
    """
    path = Path(path).expanduser()
    try:
        if path.suffix == ".safetensors":
            safetensors.save_file(dict(state), path)
            return
        torch = _torch()
        tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
        torch.save({wrapper: tensors} if wrapper else tensors, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{path} cannot be written: {one_line(error)}") from error
