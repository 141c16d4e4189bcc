"""Published weight files: where they are searched, downloaded from, and how they are read.

A file is searched under its own name, and as the same stem with `.safetensors`, in the given
folder, in the cache folder, and where its publisher's own software keeps it; a missing file is
downloaded into the cache folder. That folder is `$ISR_WEIGHTS`, or `isr_jax` in the user's cache.
"""

import contextlib
import hashlib
import http.client
import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import platformdirs

from isr_jax import tensor_files
from isr_jax.errors import UserError, one_line
from isr_jax.files import expanded
from isr_jax.progress import download_bar

TORCHVISION = "https://download.pytorch.org/models"
KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
GITHUB = "https://raw.githubusercontent.com"
LPIPS = f"{GITHUB}/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1"
DISTS = f"{GITHUB}/dingkeyan93/DISTS/master/DISTS_pytorch/weights.pt"
CHUNK = 1 << 20  # bytes


def cache_folder() -> Path:
    """Return the folder of downloads: `$ISR_WEIGHTS`, or `isr_jax` in the user's cache."""
    given = os.environ.get("ISR_WEIGHTS")
    return expanded(given) if given else platformdirs.user_cache_path("isr_jax")


def _torch_hub() -> Path | None:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("TORCH_HOME") or caches / "torch")
    return _below_home(home, "hub/checkpoints")


def _keras_models() -> Path | None:
    return _below_home(os.environ.get("KERAS_HOME") or "~/.keras", "models")


def _below_home(folder: str | Path, inner: str) -> Path | None:
    """Return a folder in a cache; None where the user has no home folder, as in a container."""
    try:
        return expanded(folder) / inner
    except UserError:
        return None


def _pyiqa() -> Path | None:
    hub = _torch_hub()
    return hub.parent / "pyiqa" if hub else None


def _package(name: str, *folders: str) -> Callable[[], Path | None]:
    """Return a search for a folder of a Python package, which is not imported."""

    def folder() -> Path | None:
        spec = find_spec(name)
        return Path(spec.origin).parent.joinpath(*folders) if spec and spec.origin else None

    return folder


class WeightFile(NamedTuple):
    """A published file.

    Attributes:
        name: the file's name.
        url: where it is published.
        checksum: "sha256:" or "md5:" and the hexadecimal digest; Keras publishes MD5 alone.
        elsewhere: the folder in which its publisher's own software keeps it, if there is one.
    """

    name: str
    url: str
    checksum: str
    elsewhere: Callable[[], Path | None]


def _torchvision(network: str, sha256: str) -> WeightFile:
    """Return a file of torchvision, whose name ends in the first digits of its SHA-256."""
    name = f"{network}-{sha256[:8]}.pth"
    return WeightFile(name, f"{TORCHVISION}/{name}", f"sha256:{sha256}", _torch_hub)


def _lpips(name: str, sha256: str) -> WeightFile:
    return WeightFile(
        name, f"{LPIPS}/{name}", f"sha256:{sha256}", _package("lpips", "weights", "v0.1")
    )


_DISTS = "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218"
FILES: dict[str, WeightFile] = {
    "alexnet": _torchvision(
        "alexnet-owt", "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"
    ),
    "vgg16": _torchvision(
        "vgg16", "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
    ),
    "vgg19": _torchvision(
        "vgg19", "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44"
    ),
    "squeezenet": _torchvision(
        "squeezenet1_1", "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b"
    ),
    "vgg19_keras": WeightFile(
        "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        f"{KERAS}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "md5:253f8cb515780f3b799900260a226db6",
        _keras_models,
    ),
    "lpips_alex": _lpips(
        "alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
    ),
    "lpips_vgg": _lpips(
        "vgg.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"
    ),
    "lpips_squeeze": _lpips(
        "squeeze.pth", "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76"
    ),
    # One file, under pyiqa's name and under that in the authors' package.
    "dists": WeightFile("DISTS_weights-f5e65c96.pth", DISTS, f"sha256:{_DISTS}", _pyiqa),
    "dists_package": WeightFile("weights.pt", DISTS, f"sha256:{_DISTS}", _package("DISTS_pytorch")),
    # The same numbers: the authors' release, whose name here is pyiqa's, and BasicSR's copy.
    "niqe": WeightFile(
        "niqe_modelparameters.mat",
        f"{GITHUB}/utlive/niqe/main/modelparameters.mat",
        "sha256:fa2aa4d12dd9595c3fb6bf8b4e1a15c79d5d1469238d0901c88dead195be578d",
        _pyiqa,
    ),
    "niqe_basicsr": WeightFile(
        "niqe_pris_params.npz",
        f"{GITHUB}/XPixelGroup/BasicSR/master/basicsr/metrics/niqe_pris_params.npz",
        "sha256:2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296",
        _package("basicsr", "metrics"),
    ),
}


def load(
    name: str,
    *,
    same: Sequence[str] = (),
    path: str | Path | None = None,
    prefix: str = "",
) -> dict[str, np.ndarray]:
    """Return the arrays of one of `FILES`: `find`, then `read`.

    Args:
        name: a key of `FILES`.
        same: keys of files with the same content; one that is on this machine saves a download.
        path: as for `find`.
        prefix: as for `read`.
    """
    chosen = next((key for key in (name, *same) if at_hand(key, path=path)), name)
    return read(find(FILES[chosen], path=path), prefix=prefix)


def find(file: WeightFile, *, path: str | Path | None = None) -> Path:
    """Return the path of a weight file; download it if it is missing.

    Args:
        file: what to find.
        path: the file itself under any name, or a folder to look in first.

    Raises:
        UserError: `path` does not exist; or the file is missing and cannot be downloaded, could
            not be read, or is another one than was published.
    """
    given = [] if path is None else [expanded(path)]
    if given and given[0].is_file():
        return given[0]
    if given and not given[0].is_dir():
        raise UserError(
            f"{path}: no such file or folder; give {file.name}, or the folder that holds it"
        )
    found = _on_disk(file, given)
    if found:
        if found.parent == cache_folder():
            _verify_once(file, found)
        return found
    target = cache_folder() / file.name
    _require_reader(target)
    try:
        _download(file, target)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        folders = ", ".join(map(str, _folders(file, given)))
        raise UserError(
            f"{file.name} is not in {folders} and cannot be downloaded from "
            f"{file.url} ({one_line(error, limit=120)}); put it into {target.parent}"
        ) from error
    return target


def _verify_once(file: WeightFile, path: Path) -> None:
    """Check the digest of a file in the cache folder the first time that it is found.

    Raises:
        UserError: it is another file.
    """
    if path.name != file.name:
        return  # the same tensors as safetensors, for which no digest is published
    state = path.stat()
    seen = f"{path} {state.st_size} {state.st_mtime_ns}"
    marker = cache_folder() / f".{file.name}.verified"
    if marker.is_file() and marker.read_text() == seen:
        return
    algorithm, _, expected = file.checksum.partition(":")
    with open(path, "rb") as opened:
        digest = hashlib.file_digest(opened, lambda: hashlib.new(algorithm, usedforsecurity=False))
    if digest.hexdigest() != expected:
        raise UserError(
            f"{path} is not {file.name}: its {algorithm} is {digest.hexdigest()}, not {expected}; "
            "remove it, and it is downloaded again"
        )
    with contextlib.suppress(OSError):
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text(seen)


def at_hand(name: str, *, path: str | Path | None = None) -> bool:
    """Return whether one of `FILES` is on this machine, where `find` looks for it."""
    given = [] if path is None else [expanded(path)]
    return _on_disk(FILES[name], given) is not None


def _folders(file: WeightFile, given: Sequence[Path]) -> list[Path]:
    return [*given, cache_folder(), *filter(None, [file.elsewhere()])]


def _on_disk(file: WeightFile, given: Sequence[Path]) -> Path | None:
    for folder in _folders(file, given):
        # Safetensors first: they need no PyTorch.
        for candidate in ((folder / file.name).with_suffix(".safetensors"), folder / file.name):
            if candidate.is_file():
                return candidate
    return None


def read(path: Path, *, prefix: str = "") -> dict[str, np.ndarray]:
    """Return the arrays of a file whose names begin with `prefix`.

    Args:
        path: a PyTorch state dict (`.pth`, `.pt`), a `.safetensors` file, or Keras weights
            (`.h5`), whose arrays are called LAYER/kernel and LAYER/bias, all as float32; or
            small matrices of MATLAB (`.mat`) or NumPy (`.npz`), as float64.
        prefix: of the requested names.

    Raises:
        UserError: another kind of file, a damaged one, or a missing library.
    """
    if path.suffix not in READERS:
        raise UserError(f"{path} is not a weight file; it must end in one of {', '.join(READERS)}")
    _require_reader(path)
    try:
        arrays = READERS[path.suffix].arrays(path, prefix)
        tensor_files.check_weights(arrays)
        return arrays
    # A damaged file can make these libraries raise anything.
    except Exception as error:
        raise UserError(
            f"{path} is damaged or holds no weights ({one_line(error, limit=120)}); "
            "replace it by a fresh copy"
        ) from error


def _require_reader(path: Path) -> None:
    """Stop where the library that reads such a file is missing."""
    reader = READERS[path.suffix]
    try:
        import_module(reader.library)
    except ImportError as error:
        raise UserError(
            f"{path.name} needs {reader.library} to be read: pip install {reader.install}, or "
            f"give {reader.instead.format(stem=path.stem)}"
        ) from error


def _read_torch(path: Path, prefix: str) -> dict[str, np.ndarray]:
    state = tensor_files.read_pth(path)
    if not all(isinstance(x, np.ndarray) for x in state.values()):
        raise ValueError("not a state dict of tensors alone")
    return {name: x.astype(np.float32) for name, x in state.items() if name.startswith(prefix)}


def _read_safetensors(path: Path, prefix: str) -> dict[str, np.ndarray]:
    return tensor_files.read_safetensors(path, prefix=prefix)


def _read_keras(path: Path, prefix: str) -> dict[str, np.ndarray]:
    h5py = import_module("h5py")
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        for layer, group in file.items():
            # Keras lists a layer's weights in the order in which it made them.
            names = zip(("kernel", "bias"), group.attrs["weight_names"], strict=False)
            arrays |= {f"{layer}/{kind}": group[name][()] for kind, name in names}
    return {k: v.astype(np.float32) for k, v in arrays.items() if k.startswith(prefix)}


def _read_mat(path: Path, prefix: str) -> dict[str, np.ndarray]:
    return tensor_files.read_mat(path, prefix=prefix)


def _read_npz(path: Path, prefix: str) -> dict[str, np.ndarray]:
    return tensor_files.read_npz(path, prefix=prefix)


class Reader(NamedTuple):
    """How a kind of file is read: the library, what pip calls it, what else would do."""

    library: str
    install: str
    instead: str
    arrays: Callable[[Path, str], dict[str, np.ndarray]]


_TORCH = Reader("torch", "'isr-jax[torch]'", "the same tensors as {stem}.safetensors", _read_torch)
READERS: dict[str, Reader] = {
    ".pth": _TORCH,
    ".pt": _TORCH,
    ".safetensors": Reader("safetensors", "safetensors", "the file as .pth", _read_safetensors),
    ".h5": Reader("h5py", "h5py", "torchvision's weights", _read_keras),
    ".mat": Reader("scipy", "scipy", "the same matrices as .npz", _read_mat),
    ".npz": Reader("numpy", "numpy", "the same matrices as .mat", _read_npz),
}


def _download(file: WeightFile, target: Path) -> None:
    """Fetch a file; `target` appears whole and checked, or not at all.

    Raises:
        UserError: for a file with another checksum.
        OSError, http.client.HTTPException: for a connection or a folder that does not serve.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    algorithm, _, expected = file.checksum.partition(":")
    digest: Any = hashlib.new(algorithm, usedforsecurity=False)
    request = urllib.request.Request(file.url, headers={"User-Agent": "isr_jax"})
    # Several hosts may share the folder: each writes a file of its own.
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        with (
            urllib.request.urlopen(request, timeout=30) as response,
            part.open("wb") as output,
            download_bar() as bar,
        ):
            length = int(response.headers["Content-Length"] or 0)
            task = bar.add_task(f"downloading {file.name}", total=length or None)
            while chunk := response.read(CHUNK):
                output.write(chunk)
                digest.update(chunk)
                bar.advance(task, len(chunk))
        size = part.stat().st_size
        # A connection that closes early reads like the end of the file.
        if length and size != length:
            raise ConnectionError(f"the connection broke after {size} of {length} bytes")
        if digest.hexdigest() != expected:
            raise UserError(
                f"what {file.url} gave is not {file.name}: its {algorithm} is "
                f"{digest.hexdigest()}, not {expected}; it was removed, try again later"
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
