"""Upscaler: uint8 photograph in, uint8 photograph out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, UInt8

from isr_jax import checkpoint as checkpoints
from isr_jax import images
from isr_jax.errors import UserError
from isr_jax.models import Generator

Enlarge = Callable[[Any, Any, UInt8[np.ndarray, "h w 3"]], UInt8[Array, "sh sw 3"]]


def make_enlarge(generator: Generator) -> Enlarge:
    """A jitted (params, stats, uint8 [h w 3]) -> uint8 [scale*h scale*w 3], rounded half up."""

    @jax.jit
    def enlarge(params: Any, stats: Any, image: Any) -> Array:
        sr, _ = generator.apply(params, stats, images.to_float(image)[None], False)
        return images.to_uint8(sr[0])

    return enlarge


class Upscaler:
    """A generator with its parameters, called on uint8 images.

    Attributes:
        scale: the factor of enlargement.
        config: the configuration that trained the generator.
        step: the update after which its parameters were saved.
    """

    def __init__(self, restored: checkpoints.Restored):
        self.scale = restored.generator.scale
        self.config = restored.config
        self.step = restored.step
        self._enlarge = make_enlarge(restored.generator)
        self._weights = (restored.params, restored.stats)

    def __call__(self, image: np.ndarray) -> UInt8[np.ndarray, "sh sw 3"]:
        """Enlarge one image.

        Args:
            image: uint8 [H, W, 3], RGB.

        Raises:
            UserError: for another type or shape.
        """
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
            raise UserError(
                f"an image is uint8 [H, W, 3]; this one is {image.dtype} {list(image.shape)}"
            )
        return np.array(self._enlarge(*self._weights, image))


def load(
    model: str | Path,
    *,
    weights: Literal["ema", "raw"] = "ema",
    checkpoint: Literal["best", "latest"] | int = "best",
) -> Upscaler:
    """Restore a trained generator from a run folder.

    Args:
        model: a run folder, `runs/msssim`, or one of its `checkpoints/STEP`.
        weights: the exponential moving average (default) or the raw parameters.
        checkpoint: the one of the best validation PSNR-Y (default), the latest, or a step.

    Raises:
        UserError: where there is no such folder or checkpoint.
    """
    return Upscaler(checkpoints.restore_generator(model, weights=weights, checkpoint=checkpoint))
