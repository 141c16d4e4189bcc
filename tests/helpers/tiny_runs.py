"""GANs of a few hundred parameters: every part of the loop, none of the time."""

import io
import os
import re
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import PIL.Image
from ml_collections import ConfigDict
from rich.console import Console

from isr_jax import config as base
from isr_jax import resize
from isr_jax.checkpoints.runs import open_manager
from isr_jax.models import DISCRIMINATORS, GENERATORS
from isr_jax.training.record import read_records


def write_photos(folder: Path) -> Path:
    """Five smooth colour images of 48 x 56 px and up, as PNG."""
    rng = np.random.default_rng(0)
    for i in range(5):
        coarse = rng.integers(0, 256, (6, 7 + i, 3)).astype(np.uint8)
        PIL.Image.fromarray(resize.resize_uint8(coarse, scale=8)).save(folder / f"{i}.png")
    return folder


def overrides(photos: Path, **extra) -> dict:
    return {
        "scale": 2,
        "data.train": f"folder:{photos}",
        "data.validation": f"folder:{photos}",
        "data.validation_images": 2,
        "data.crop": 24,
        "data.batch": 4,
        "generator.width": 4,
        "generator.blocks": 1,
        "generator.kernel": 3,
        "discriminator.crop": 16,
        "discriminator.widths": (4, 4),
        "discriminator.dense": 4,
        "train.steps": 8,
        "train.steps_per_dispatch": 1,
        "train.log_every": 2,
        "train.validate_every": 4,
        "train.checkpoint_every": 4,
        **extra,
    }


def tiny(photos: Path, **extra):
    config = base.get_config()
    config.update_from_flattened_dict(overrides(photos, **extra))
    return config


def environment(devices: int = 1, *, optimized: bool = False) -> dict[str, str]:
    """The environment of a command: that of the tests, with so many devices, without PyTorch.

    Programs are optimized for what computes for longer than it compiles.
    """
    flags = re.sub(r"device_count=\d+", f"device_count={devices}", os.environ["XLA_FLAGS"])
    if optimized:
        flags = flags.replace("--xla_backend_optimization_level=0", "")
    paths = [str(Path(__file__).parent / "without"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def silent() -> Console:
    return Console(quiet=True)


def tiny_unet(photos: Path, **extra):
    """Real-ESRGAN's: with spectral norm, whose vectors are state, and feature matching."""
    config = tiny(photos, **extra)
    small = {"width": 4, "growth": 2, "blocks": 1}
    config.generator = ConfigDict({**GENERATORS["rrdbnet"], **small})
    config.discriminator = ConfigDict({**DISCRIMINATORS["unet"], "crop": 16, "width": 4})
    config.loss.feature_matching = 0.1
    return config


def arguments(photos: Path, **extra) -> list[str]:
    return [f"--config.{name}={value}" for name, value in overrides(photos, **extra).items()]


def heard() -> Console:
    return Console(record=True, width=400, file=io.StringIO())


def final_arrays(run: Path) -> dict[str, np.ndarray]:
    """Every array of the latest checkpoint, by its path."""
    with open_manager(run) as manager:
        args = {name: ocp.args.StandardRestore() for name in ("generator", "training")}
        step = manager.latest_step()
        saved = manager.restore(step, args=ocp.args.Composite(**args))
    leaves = jax.tree_util.tree_leaves_with_path(dict(saved.items()))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_bit_identical(run: Path, other: Path) -> None:
    first, second = final_arrays(run), final_arrays(other)
    assert first.keys() == second.keys()
    assert any("ema" in name for name in first)
    assert any("d_opt" in name for name in first)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


def losses_of(run: Path) -> np.ndarray:
    return np.array([r["loss"] for r in read_records(run) if r["kind"] == "train"])


def biggest_file(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
