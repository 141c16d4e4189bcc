"""Upscaler: uint8 photograph in, uint8 photograph out."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, UInt8
from ml_collections import ConfigDict
from PIL import Image

from isr_jax import checkpoint as checkpoints
from isr_jax import images
from isr_jax.errors import UserError
from isr_jax.models import Generator
from isr_jax.resize import METHODS, resize_uint8

Enlarge = Callable[[Any, Any, UInt8[np.ndarray, "h w 3"]], UInt8[Array, "sh sw 3"]]


def make_enlarge(generator: Generator) -> Enlarge:
    """A jitted (params, stats, uint8 [h w 3]) -> uint8 [scale*h scale*w 3], rounded half up."""

    @jax.jit
    def enlarge(params: Any, stats: Any, image: Any) -> Array:
        sr, _ = generator.apply(params, stats, images.to_float(image)[None], False)
        return images.to_uint8(sr[0])

    return enlarge


@dataclasses.dataclass(frozen=True)
class Upscaler:
    """A model, called on uint8 images; `load` makes one.

    Attributes:
        name: what it was loaded as.
        scale: the factor of enlargement.
        enlarge: uint8 image -> uint8 image: RGB, and one channel too where it is a method's.
        method: the interpolation that it is; None for a trained generator.
        config: the configuration that trained the generator.
        step: the update after which its parameters were saved.
    """

    name: str
    scale: int
    enlarge: Callable[[np.ndarray], np.ndarray]
    method: str | None = None
    config: ConfigDict | None = None
    step: int | None = None

    def __call__(
        self, image: np.ndarray, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        """Enlarge one image.

        A generator sees one channel of gray as three equal ones, and its answer becomes gray by
        BT.601's weights.

        Args:
            image: uint8 [H, W, 3], RGB, or [H, W] or [H, W, 1], gray; 0..255.

        Raises:
            UserError: for another type or shape.
        """
        image = np.asarray(image)
        gray = image.ndim == 2 or image.shape[2:] == (1,)
        if self.method == "nearest":
            return image.repeat(self.scale, axis=0).repeat(self.scale, axis=1)
        if image.dtype != np.uint8 or not (gray or image.shape[2:] == (3,)) or not image.size:
            raise UserError(
                "an image is uint8 [H, W, 3] or [H, W]; "
                f"this one is {image.dtype} {list(image.shape)}"
            )
        if not gray or self.method:
            return self.enlarge(image)
        rgb = self.enlarge(np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2))
        result = np.array(Image.fromarray(rgb).convert("L"))
        return result.reshape(*result.shape, *image.shape[2:])


def load(
    model: str | Path,
    *,
    scale: int | None = None,
    weights: Literal["ema", "raw"] = "ema",
    checkpoint: Literal["best", "latest"] | int = "best",
) -> Upscaler:
    """Load a model: a trained generator, or an interpolation.

    Args:
        model: a run folder, `runs/msssim`, or one of its `checkpoints/STEP`; a PyTorch file, .pth
            or .safetensors, of a network that `torch_weights` knows; or nearest, bilinear, bicubic
            or lanczos, which resize as MATLAB's `imresize`.
        scale: the factor; an interpolation needs it, a generator has its own.
        weights: a generator's exponential moving average (default) or its raw parameters.
        checkpoint: the one of the best validation PSNR-Y (default), the latest, or a step.

    Raises:
        UserError: where there is no such model or checkpoint, or it has another scale.
    """
    name = str(model)
    if name in METHODS:
        if scale is None:
            raise UserError(f"{name} has no scale of its own: give one")
        return Upscaler(
            name, scale, lambda image: resize_uint8(image, scale=scale, method=name), method=name
        )
    if not Path(model).expanduser().exists():
        raise UserError(
            f"there is no model {name}: give a run folder, a .pth or .safetensors file, or one of "
            + ", ".join(METHODS)
        )
    restored = checkpoints.restore_generator(model, weights=weights, checkpoint=checkpoint)
    own = restored.generator.scale
    if scale not in (None, own):
        raise UserError(f"{name} enlarges by {own}, not by {scale}")
    enlarge = make_enlarge(restored.generator)

    def run(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "sh sw 3"]:
        return np.array(enlarge(restored.params, restored.stats, image))

    return Upscaler(name, own, run, config=restored.config, step=restored.step)
