"""Read files of PyTorch, safetensors, MATLAB and NumPy as if an enemy had made them.

Nothing in them is executed, and what they declare is checked before memory is taken for it.
"""

import json
import math
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from isr_jax.errors import UserError, one_line

MAX_TENSORS = 20_000
_MAX_HEADER = 16 * 2**20  # bytes; the largest published networks need less than one
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_MAX_DEPTH = 20  # of dictionaries in each other
_MAX_MATRICES = 2**18  # bytes of a file of matrices; deflated, it holds at most 1000 times that
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1}
_BYTES |= {"U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}


class Header(NamedTuple):
    """What a safetensors file says before its data.

    Attributes:
        metadata: texts by name.
        shapes: of each tensor, by its name.
        dtypes: of each tensor, as safetensors spells them, such as "F32".
    """

    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file.

    Raises:
        ValueError: it is another kind of file, or declares what it cannot hold.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if not 2 <= length <= min(size - 8, _MAX_HEADER):
            raise ValueError("it is not a safetensors file")
        try:
            content = json.loads(file.read(length))
        except RecursionError as error:
            raise ValueError("its header is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("its header is not a dictionary")
    metadata = content.pop("__metadata__", {})
    if len(content) > MAX_TENSORS:
        raise ValueError(f"it declares {len(content)} tensors; at most {MAX_TENSORS} are read")
    shapes, dtypes = {}, {}
    for name, tensor in content.items():
        try:
            shape, dtype = tuple(tensor["shape"]), tensor["dtype"]
            start, end = tensor["data_offsets"]
            whole = all(type(n) is int and n >= 0 for n in (*shape, start, end))
        except (TypeError, LookupError, ValueError) as error:
            raise ValueError(f"its entry {name!r} is damaged") from error
        if not whole or not isinstance(dtype, str) or dtype not in _BYTES:
            raise ValueError(f"its tensor {name} has shape {list(shape)} and dtype {dtype!r}")
        if not start <= end <= size - 8 - length or end - start != math.prod(shape) * _BYTES[dtype]:
            raise ValueError(f"its tensor {name} has other data than its shape needs")
        shapes[name], dtypes[name] = shape, dtype
    texts = metadata if isinstance(metadata, dict) else {}
    return Header({k: v for k, v in texts.items() if isinstance(v, str)}, shapes, dtypes)


def read_safetensors(path: Path, *, prefix: str = "") -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file whose names begin with `prefix`; floats as float32.

    Raises:
        ValueError: it is another kind of file, or damaged.
    """
    names = [name for name in read_header(path).shapes if name.startswith(prefix)]
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: _as_float32(file.get_tensor(name)) for name in names}
    except SafetensorError as error:
        raise ValueError(one_line(error)) from error


def _as_float32(array: np.ndarray) -> np.ndarray:
    # NumPy does not count bfloat16 among its floats.
    return array.astype(np.float32) if array.dtype.name in _FLOATS else array


def read_pth(path: Path) -> dict[str, Any]:
    """Return the tensors of a file of `torch.save`, floats as float32, in nested dictionaries.

    Anything else that the file holds is left out; no pickled code is run.

    Raises:
        ImportError: PyTorch is not installed.
        ValueError: the file is damaged, compressed, or holds a tensor that is not dense.
    """
    torch = import_module("torch")
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which the next lines refuse
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged or foreign file can raise anything. PyTorch's message is left out, because it
    # suggests running the code that the file holds.
    except Exception as error:
        raise ValueError("it is damaged or holds more than tensors") from error
    tensors: dict[str, Any] = {}
    if (entries := _entries(loaded)) is not None:
        _collect(entries, tensors, seen={id(loaded)}, depth=0)
    return tensors


def _check_archive(path: Path) -> None:
    """Raise a ValueError for a zip file whose entries are larger than the file."""
    if not zipfile.is_zipfile(path):
        return  # PyTorch's format before 1.6, in which storages are as long as they are
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError("it is damaged") from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its entries are compressed, which torch.save never does")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("its entries are larger than the file")


def _entries(value: Any) -> Mapping[Any, Any] | None:
    """Return what a dictionary or a sequence holds, by key or index; None of anything else."""
    if isinstance(value, Mapping):
        return value
    return dict(enumerate(value)) if isinstance(value, list | tuple) else None


def _collect(tree: Mapping[Any, Any], into: dict[str, Any], *, seen: set[int], depth: int) -> None:
    """Put the tensors of nested dictionaries and sequences into dictionaries, each once.

    Raises:
        ValueError: a tensor is not dense, or larger than its storage.
    """
    if depth > _MAX_DEPTH or len(tree) > MAX_TENSORS:
        raise ValueError(
            f"it holds dictionaries deeper than {_MAX_DEPTH} or longer than {MAX_TENSORS}"
        )
    for key, value in tree.items():
        inner = _entries(value)
        if inner is not None and id(value) not in seen:
            seen.add(id(value))
            into[str(key)] = {}
            _collect(inner, into[str(key)], seen=seen, depth=depth + 1)
        elif hasattr(value, "is_floating_point"):
            into[str(key)] = _dense(value.detach(), str(key))


def _dense(tensor: Any, name: str) -> np.ndarray:
    """Return a tensor of PyTorch as an array."""
    strided = str(tensor.layout) == "torch.strided" and tensor.device.type == "cpu"
    if not strided or tensor.is_quantized or tensor.is_nested:
        kind = "quantized" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
        raise ValueError(f"its tensor {name} is {kind} on {tensor.device.type}; save it as dense")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"its tensor {name} of shape {list(tensor.shape)} is larger than its data")
    tensor = tensor.resolve_conj().resolve_neg()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def read_mat(path: Path, *, prefix: str = "") -> dict[str, np.ndarray]:
    """Return the float matrices of a small file of MATLAB whose names begin with `prefix`.

    Raises:
        ValueError: it is another kind of file, such as version 7.3, large, or damaged.
    """
    scipy_io = import_module("scipy.io")
    _check_small(path)
    try:
        names = [
            name
            for name, shape, kind in scipy_io.whosmat(path)
            if name.startswith(prefix)
            and kind in ("double", "single")
            and 8 * math.prod(shape) <= _MAX_MATRICES
        ]
        loaded = scipy_io.loadmat(path, variable_names=names)
    except Exception as error:  # SciPy's reader raises anything
        raise ValueError("it is damaged or of another version than MATLAB 5 to 7.2") from error
    return {name: np.asarray(loaded[name]).astype(np.float64) for name in names}


def read_npz(path: Path, *, prefix: str = "") -> dict[str, np.ndarray]:
    """Return the arrays of a small file of NumPy whose names begin with `prefix`, as float64.

    Raises:
        ValueError: it is another kind of file, large, damaged, or holds objects.
    """
    _check_small(path)
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not an archive of NumPy")
    try:
        with zipfile.ZipFile(path) as archive:
            whole = sum(entry.file_size for entry in archive.infolist())
        if whole > _MAX_MATRICES:
            raise ValueError(f"its arrays take {whole} bytes; at most {_MAX_MATRICES} are read")
        with np.load(path, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if name.startswith(prefix)]
            return {name: arrays[name].astype(np.float64) for name in names}
    except (OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError("it is damaged") from error


def _check_small(path: Path) -> None:
    """Raise a ValueError for a file that is too large to be one of a few matrices."""
    size = path.stat().st_size
    if size > _MAX_MATRICES:
        raise ValueError(f"it has {size} bytes; at most {_MAX_MATRICES} are read")


def check_weights(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise a UserError for the first array that cannot be the weights of a network.

    Args:
        arrays: by name.
    """
    for name, array in arrays.items():
        if array.dtype.name not in _FLOATS:
            raise UserError(f"its weights {name} are {array.dtype}: weights are floats")
        if not np.isfinite(array.astype(np.float32, copy=False)).all():
            raise UserError(f"its weights {name} are not finite: their training diverged")
