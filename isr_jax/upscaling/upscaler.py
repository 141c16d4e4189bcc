"""Upscaler: an 8- or 16-bit image in, the same out, larger."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jaxtyping import Shaped, UInt8, UInt16
from ml_collections import ConfigDict

from isr_jax import images
from isr_jax.checkpoints.restore import INTERPOLATIONS, restore_generator
from isr_jax.errors import UserError
from isr_jax.resize import resize_uint8, resize_uint16
from isr_jax.tiling.cutting import Image, Images, choose_way, fill_hidden
from isr_jax.tiling.tiles import OnTile, Upscaled, make_tiled, plan, upscale_alpha
from isr_jax.tiling.windows import windowed

# What one image can cause: the next one may succeed. Anything else is a bug.
EXCUSABLE = (UserError, MemoryError, OSError, jax.errors.JaxRuntimeError)


@dataclasses.dataclass(frozen=True)
class Upscaler:
    """A model, called on images; `load` makes one.

    Attributes:
        name: what it was loaded as.
        scale: the scale factor.
        function: RGB image -> RGB image of the same dtype; of any number of channels where `method`
            is set. None where `tiled` is set.
        method: the interpolation method; None for a network or a function of your own.
        config: the configuration that trained the generator.
        step: the update after which its parameters were saved.
        tiled: (images, progress) -> SR images, of any size and number: how a generator works.
        approximate: height and width of an image -> why its tiles are approximate; None where the
            result is that of the whole image.
    """

    name: str
    scale: int
    function: Callable[[np.ndarray], np.ndarray] | None
    method: str | None = None
    config: ConfigDict | None = None
    step: int | None = None
    tiled: Callable[[Images, OnTile | None], Upscaled] | None = None
    approximate: Callable[[tuple[int, int]], str | None] = lambda size: None

    def __call__(
        self,
        image: Shaped[np.ndarray, "*shape"],
        *,
        progress: OnTile | None = None,
    ) -> UInt8[np.ndarray, "..."] | UInt16[np.ndarray, "..."]:
        """Upscale an image, or a batch of images of one size.

        Args:
            image: uint8, 0..255, or uint16, 0..65535: gray [H, W] or [H, W, 1], gray with alpha
                [H, W, 2], RGB [H, W, 3], RGB with alpha [H, W, 4], or a batch of them
                [N, H, W, C]. Alpha is straight, not multiplied into the colours.
            progress: called with the number of tiles that are done and of all tiles; for an
                interpolation, of images.

        Returns:
            The same dtype and channels, `scale` times as high and wide. Fully transparent pixels
            take the colour of the nearest visible pixel. A generator of gray images upscales the
            luma of RGB, to which bicubic chroma is added.

        Raises:
            UserError: another dtype or shape.
        """
        image = np.asarray(image)
        good = image.ndim == 2 or (image.ndim in (3, 4) and 1 <= image.shape[-1] <= 4)
        if image.dtype not in (np.uint8, np.uint16) or not good or not image.size:
            raise UserError(
                "an image is uint8 or uint16, [H, W], [H, W, C] or [N, H, W, C] with 1 to 4 "
                f"channels; got {image.dtype} {list(image.shape)}"
            )
        plain = image.ndim == 2
        batch = image[None, ..., None] if plain else image if image.ndim == 4 else image[None]
        result = self.tiled(batch, progress) if self.tiled else self._one_by_one(batch, progress)
        return result[0, ..., 0] if plain else result if image.ndim == 4 else result[0]

    def _one_by_one(self, batch: Images, progress: OnTile | None) -> Upscaled:
        """Upscale by a function of a whole image."""
        results = []
        for i, image in enumerate(batch):
            results.append(self._whole(image))
            if progress:
                progress(i + 1, len(batch))
        return np.stack(results) if len(results) > 1 else results[0][None]  # no second copy

    def _whole(self, image: Image) -> np.ndarray:
        assert self.function
        channels = image.shape[2]
        colours = image[..., : 1 if channels < 3 else 3]
        if channels in (2, 4):
            colours = fill_hidden(colours, image[..., -1])
        if self.method:
            return self.function(np.concatenate([colours, image[..., colours.shape[2] :]], axis=2))
        rgb = self.function(np.broadcast_to(colours, (*colours.shape[:2], 3)))
        result = np.empty((*rgb.shape[:2], channels), image.dtype)
        result[..., : colours.shape[2]] = rgb if channels > 2 else images.rgb_to_gray(rgb)
        if channels in (2, 4):
            upscale_alpha(image[None], result[None], scale=self.scale, rows=len(image))
        return result


def load(
    model: str | Path,
    *,
    scale: int | None = None,
    weights: Literal["ema", "raw"] = "ema",
    checkpoint: Literal["best", "latest"] | int = "best",
    tile: int | None = None,
    overlap: int | None = None,
    exact: bool = False,
    ensemble: bool = False,
    dtype: Literal["float32", "bfloat16"] | None = None,
) -> Upscaler:
    """Load a model: a trained generator, or an interpolation.

    A generator works on tiles, over all local devices. Tiles leave no seams, because their padding
    covers the receptive field, up to a radius of `tiles.EXACT` pixels. Those of generators that
    see more, by attention or normalisation over the image, are approximate. An interpolation
    ignores the last five arguments.

    Args:
        model: compact-x2, compact-x3 or compact-x4, shipped with the package; a run folder, such as
            `runs/msssim`, or one of its `checkpoints/STEP`; a .safetensors file of `isr export`; a
            PyTorch file, .pth or .safetensors, of a network that `pytorch.state_dicts` knows; or
            nearest, bilinear, bicubic or lanczos, which resize as MATLAB's `imresize`.
        scale: the scale factor; required by an interpolation, a generator has its own.
        weights: a generator's EMA (default) or its raw parameters.
        checkpoint: the best of the validations (default), the latest, or a step.
        tile: tile size, LR pixels; None for one that fits the device, 0 for whole images. Memory
            grows with its square, and the share of padding falls with its side.
        overlap: tile padding, LR pixels on each side; None for the receptive field, or
            `tiles.CAPPED` where that is unknown or beyond `tiles.EXACT`.
        exact: without a tile size, take whole images where tiles would be approximate.
        ensemble: self-ensemble (x8): average over flips and rotations; 8 times as slow.
        dtype: of the computation; None for that of training.

    Raises:
        UserError: there is no such model or checkpoint, or it has another scale.
    """
    name = str(model)
    if name in INTERPOLATIONS:
        if scale is None:
            raise UserError(f"{name} has no scale of its own: give one")

        def interpolate(image: Image) -> np.ndarray:
            resize = resize_uint8 if image.dtype == np.uint8 else resize_uint16
            return resize(image, scale=scale, method=name)

        return Upscaler(name, scale, interpolate, method=name)
    restored = restore_generator(model, weights=weights, checkpoint=checkpoint, dtype=dtype)
    own = restored.generator.scale
    if scale not in (None, own):
        raise UserError(f"{name} upscales by {own}, not by {scale}")
    network = windowed(restored.generator)
    if exact and network.approximate and tile is None:
        tile = 0
    sizes = plan(network, tile=tile, overlap=overlap)
    tiled = make_tiled(network, sizes, ensemble=ensemble)(restored.params, restored.stats)

    def approximate(size: tuple[int, int]) -> str | None:
        way = choose_way(sizes, size)
        return network.approximate.why if network.approximate and way != "whole" else None

    return Upscaler(
        name,
        own,
        None,
        config=restored.config,
        step=restored.step,
        tiled=tiled,
        approximate=approximate,
    )
