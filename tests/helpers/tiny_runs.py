"""GANs of a few hundred parameters: every part of the loop, none of the time."""

import os
from pathlib import Path

import numpy as np
import PIL.Image
from rich.console import Console

from isr_jax import config as base
from isr_jax import resize


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
        "train.checkpoint_every": 2,
        **extra,
    }


def tiny(photos: Path, **extra):
    config = base.get_config()
    config.update_from_flattened_dict(overrides(photos, **extra))
    return config


def environment(devices: int = 1) -> dict[str, str]:
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def silent() -> Console:
    return Console(quiet=True)
