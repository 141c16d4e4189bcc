"""PyTorch's files: .pth by `torch.load` and `torch.save`, .safetensors without PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from isr_jax import tensor_files
from isr_jax.errors import UserError, one_line

_NO_TORCH = "a .pth file needs PyTorch: pip install isr-jax[torch]; .safetensors does not"

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
    try:
        state: Any = (
            tensor_files.read_safetensors(path)
            if path.suffix == ".safetensors"
            else tensor_files.read_pth(path)
        )
    except ImportError as error:
        raise UserError(_NO_TORCH) from error
    # ValueError, and what else a damaged file makes the libraries raise.
    except Exception as error:
        raise UserError(
            f"{path} is damaged or holds no weights ({one_line(error)}); save the network's "
            "state_dict() alone"
        ) from error
    while wrapper := next((w for w in WRAPPERS if isinstance(state.get(w), Mapping)), None):
        state = state[wrapper]
    while prefix := next((p for p in PREFIXES if any(key.startswith(p) for key in state)), None):
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    arrays = {key: np.asarray(value) for key, value in state.items() if hasattr(value, "shape")}
    if not arrays:
        raise UserError(f"{path} holds no tensors; save the network's state_dict()")
    return arrays


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
        import torch

        tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
        torch.save({wrapper: tensors} if wrapper else tensors, path)
    except ImportError as error:
        raise UserError(_NO_TORCH) from error
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{path} cannot be written: {one_line(error)}") from error
