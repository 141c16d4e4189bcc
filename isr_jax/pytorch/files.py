"""PyTorch's files: by `torch.load` and `torch.save`, safetensors without PyTorch.

What a file is, is told by its content: weights are called .pth, .pt, .ckpt, .bin or nothing at all,
and safetensors too.
"""

import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend.mlir.dialects import stablehlo
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from isr_jax import tensor_files
from isr_jax.errors import UserError, one_line
from isr_jax.files import expanded, replacing

_NO_TORCH = "a file of torch.save needs PyTorch: pip install isr-jax[torch]; .safetensors does not"

SUFFIXES = (".pth", ".pt", ".safetensors")  # that are written

_DOWNLOAD = "download the file itself, not the page that shows it"


def read_tensors(path: str | Path) -> dict[str, Any]:
    """Read the tensors of a safetensors file, or of a file of `torch.save`, as float32 arrays.

    Nothing but tensors is unpickled.

    Returns:
        The arrays, in dictionaries as deep as the file's.

    Raises:
        UserError: the file cannot be read, is of another kind, or needs PyTorch and it is not
            installed.
    """
    path = expanded(path)
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    try:
        if other := _other_kind(path):
            raise UserError(f"{path} is {other}")
        if is_safetensors(path):
            return dict(tensor_files.read_safetensors(path))
        return tensor_files.read_pth(path)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(_NO_TORCH) from error
    # ValueError, and what else a damaged file makes the libraries raise.
    except Exception as error:
        raise UserError(
            f"{path} is damaged or holds no weights ({one_line(error)}); save the network's "
            "state_dict() alone"
        ) from error


def is_safetensors(path: Path) -> bool:
    """Return whether a file begins as safetensors do: a length, and a JSON object."""
    with open(path, "rb") as file:
        length, brace = int.from_bytes(file.read(8), "little"), file.read(1)
    return brace == b"{" and length < path.stat().st_size


def _other_kind(path: Path) -> str | None:
    """Return what a file is that is neither of `torch.save` nor of safetensors, and what to do."""
    with open(path, "rb") as file:
        head = file.read(512)
    text = head.lstrip().lower()
    if not head:
        return "empty; download it again"
    if head.startswith(b"version https://git-lfs"):
        return f"a pointer of Git LFS in place of the file: run git lfs pull, or {_DOWNLOAD}"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return f"a web page: {_DOWNLOAD}"
    if head.startswith(b"\x89HDF\r\n"):
        return "a Keras or HDF5 file; isr_jax reads PyTorch's and safetensors"
    if path.suffix.lower() == ".onnx" or (head[:1] == b"\x08" and b"\x12" in head[2:16]):
        return "an ONNX model, a program; look for the .pth or .safetensors that it was made from"
    if b"ML\xefR" in head:
        return _stablehlo(head)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any("/code/" in name or name.endswith("constants.pkl") for name in names):
            return (
                "TorchScript, a program; save its weights in PyTorch: "
                "torch.save(torch.jit.load(FILE).state_dict(), 'model.pth')"
            )
        if not any(name.endswith("data.pkl") for name in names):
            return "a zip archive; unpack it, and give the model in it"
    elif tarfile.is_tarfile(path):
        return (
            "a tar archive, as PyTorch wrote before version 0.1.10 or as models are packed; unpack "
            "it, or load it in PyTorch and save it again: torch.save(torch.load(FILE), 'model.pth')"
        )
    elif not (is_safetensors(path) or head.startswith(b"\x80")):  # that of a pickle
        return "damaged or holds no weights: it is neither of torch.save nor of safetensors"
    return None


def _stablehlo(head: bytes) -> str:
    """Return what a file of MLIR is: a program for this JAX, or for a newer one."""
    ours = tuple(map(int, stablehlo.get_current_version().split(".")))
    found = re.search(rb"StableHLO_v(\d+)\.(\d+)\.(\d+)", head)
    if found and tuple(map(int, found.groups())) > ours:
        return (
            f"a StableHLO program of a newer JAX, which JAX {jax.__version__} cannot read; export "
            "it again with this version, or install the newer one"
        )
    return (
        "a StableHLO program, which JAX runs without isr_jax; for isr_jax, give the run or file "
        "that it was exported from"
    )


def write_state_dict(
    path: str | Path, state: Mapping[str, np.ndarray], *, wrapper: str = ""
) -> None:
    """Write a state dict as a .safetensors file, or as a file of `torch.save`.

    Args:
        path: the file; replaced when the new one is whole.
        state: PyTorch's key -> array.
        wrapper: the entry of a .pth to put it in; "" for none.

    Raises:
        UserError: the file cannot be written, or needs PyTorch and it is not installed.
    """
    path = expanded(path)
    try:
        if path.suffix.lower() == ".safetensors":
            with replacing(path) as unfinished:
                unfinished.write_bytes(safetensors.save(dict(state)))
            return
        import torch

        tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
        with replacing(path) as unfinished:
            torch.save({wrapper: tensors} if wrapper else tensors, unfinished)
    except ImportError as error:
        raise UserError(_NO_TORCH) from error
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{path} cannot be written: {one_line(error)}") from error
