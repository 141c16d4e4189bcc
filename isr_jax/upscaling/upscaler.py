"""Upscaler: an 8- or 16-bit image in, the same out, larger."""

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16
from ml_collections import ConfigDict

from isr_jax import images
from isr_jax.checkpoints.restore import INTERPOLATIONS, restore_generator
from isr_jax.errors import UserError, whole_number
from isr_jax.resize import resize_uint8, resize_uint16
from isr_jax.tiling.cutting import Image, Images, Sides, choose_way, fill_hidden
from isr_jax.tiling.placing import Upscaled, upscale_alpha
from isr_jax.tiling.tiles import OnTile, Stream, make_stream, make_tiled, plan
from isr_jax.tiling.windows import windowed


@dataclasses.dataclass(frozen=True)
class Upscaler:
    """A model, called on images; `load` makes one.

    Attributes:
        name: what it was loaded as.
        scale: the scale factor.
        function: RGB image -> RGB image of the same dtype, `scale` times as high and wide; of any
            number of channels where `method` is set. None where `tiled` is set.
        method: the interpolation method; None for a network or a function of your own.
        config: the configuration that trained the generator.
        step: the update after which its parameters were saved.
        tiled: (images, progress) -> SR images, of any size and number: how a generator works.
        approximate: height and width of an image -> why its tiles are approximate; None where the
            result is that of the whole image.
        stream: (image, put, progress) -> None, which puts the SR image before rounding in parts;
            see `tiles.make_stream`.
        radius: an SR pixel depends on LR pixels up to this far from its own; None where it is
            unknown.
    """

    name: str
    scale: int
    function: Callable[[np.ndarray], np.ndarray] | None
    method: str | None = None
    config: ConfigDict | None = None
    step: int | None = None
    tiled: Callable[[Images, OnTile | None], Upscaled] | None = None
    approximate: Callable[[tuple[int, int]], str | None] = lambda size: None
    stream: Stream | None = None
    radius: int | None = None

    @property
    def label(self) -> str:
        """What names of outputs end with."""
        return f"x{self.scale}"

    @property
    def title(self) -> str:
        """What to call it."""
        return self.name

    def result_size(self, size: Sides) -> Sides:
        """Return the height and width that an image of a size gets."""
        return size[0] * self.scale, size[1] * self.scale

    def remarks(self, size: Sides) -> tuple[str, ...]:
        """Return a line for each thing that a user should know about an image of a size."""
        if why := self.approximate(size):
            how = "--tile 0 takes the image as a whole"
            return (f"tiles are approximate for {self.name} ({why}); {how}",)
        return ()

    def size_remarks(self, size: Sides) -> tuple[str, ...]:
        """Return no lines: the size is the model's own; see `SizedUpscaler`."""
        return ()

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
        if tiled := self.tiled:
            return on_batches(lambda batch: tiled(batch, progress), image)
        return on_batches(lambda batch: one_by_one(self._whole, batch, progress), image)

    def _whole(self, image: Image, progress: OnTile | None) -> np.ndarray:
        assert self.function
        result = self.function(visible(image)) if self.method else self._by_channels(image)
        if progress:
            progress(1, 1)
        return result

    def _by_channels(self, image: Image) -> np.ndarray:
        """Upscale by a function of an RGB image."""
        channels, colours = image.shape[2], visible(image)[..., : 1 if image.shape[2] < 3 else 3]
        rgb = self._checked(np.array(np.broadcast_to(colours, (*colours.shape[:2], 3))))
        result = np.empty((*rgb.shape[:2], channels), image.dtype)
        result[..., : colours.shape[2]] = rgb if channels > 2 else images.rgb_to_gray(rgb)
        if channels in (2, 4):
            upscale_alpha(image[None], result[None], rows=len(image))
        return result

    def _checked(self, rgb: Image) -> np.ndarray:
        """Return what the function makes of an RGB image, which must be what was promised.

        Raises:
            UserError: it is of another shape or dtype.
        """
        assert self.function
        expected = (*self.result_size(rgb.shape[:2]), 3)
        result = np.asarray(self.function(rgb))
        if result.dtype != rgb.dtype or result.shape != expected:
            raise UserError(
                f"the function of {self.name} returned {result.dtype} {list(result.shape)} for "
                f"{rgb.dtype} {list(rgb.shape)}; it must return {rgb.dtype} {list(expected)}"
            )
        return result


def on_batches(
    upscale: Callable[[Images], Upscaled], image: Shaped[np.ndarray, "*shape"]
) -> UInt8[np.ndarray, "..."] | UInt16[np.ndarray, "..."]:
    """Apply a function of images [N, H, W, C] to what users have; see `Upscaler.__call__`.

    Raises:
        UserError: it is not an image.
    """
    image = np.asarray(image)
    good = image.ndim == 2 or (image.ndim in (3, 4) and 1 <= image.shape[-1] <= 4)
    if image.dtype not in (np.uint8, np.uint16) or not good or not image.size:
        raise UserError(
            "an image is uint8 or uint16, [H, W], [H, W, C] or [N, H, W, C] with 1 to 4 "
            f"channels; got {image.dtype} {list(image.shape)}"
        )
    plain = image.ndim == 2
    result = upscale(image[None, ..., None] if plain else image if image.ndim == 4 else image[None])
    return result[0, ..., 0] if plain else result if image.ndim == 4 else result[0]


def one_by_one(
    upscale: Callable[[Image, OnTile | None], np.ndarray], batch: Images, progress: OnTile | None
) -> Upscaled:
    """Apply a function of an image, which reports the progress of a single one itself."""
    if len(batch) == 1:
        return upscale(batch[0], progress)[None]  # no second copy
    results = []
    for i, image in enumerate(batch):
        results.append(upscale(image, None))
        if progress:
            progress(i + 1, len(batch))
    return np.stack(results)


def visible(image: Image) -> Image:
    """Return an image whose fully transparent pixels have the colour of the nearest visible one."""
    if image.shape[2] not in (2, 4):
        return image
    colours = fill_hidden(image[..., :-1], image[..., -1])
    return np.concatenate([colours, image[..., -1:]], axis=2)


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
    strength: float = 1.0,
) -> Upscaler:
    """Load a model: a trained generator, or an interpolation.

    A generator works on tiles, over all local devices. Tiles leave no seams, because their padding
    covers the receptive field, up to a radius of `tiles.EXACT` pixels. Those of generators that
    see more, by attention or normalisation over the image, are approximate. An interpolation
    ignores all arguments but `scale`.

    Args:
        model: a pretrained one, such as compact-x4 or gan-x4 (`isr models`); a run folder, such as
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
        strength: in [0, 1]; how much of a GAN to use: below 1 its parameters are mixed with those
            of the model that it was initialised from, and 0 is that model.

    Raises:
        UserError: there is no such model or checkpoint, or it has another scale; or a strength
            below 1 for a model that was not initialised from another.
    """
    name = str(model)
    if name in INTERPOLATIONS:
        if scale is None:
            raise UserError(f"{name} has no scale of its own: give one")
        scale = whole_number(scale, name="scale")

        def interpolate(image: Image) -> np.ndarray:
            resize = resize_uint8 if image.dtype == np.uint8 else resize_uint16
            return resize(image, scale=scale, method=name)

        return Upscaler(name, scale, interpolate, method=name)
    restored = restore_generator(
        model, weights=weights, checkpoint=checkpoint, dtype=dtype, strength=strength
    )
    own = restored.generator.scale
    if scale is not None and whole_number(scale, name="scale") != own:
        raise UserError(f"{name} upscales by {own}, not by {scale}")
    network = windowed(restored.generator)
    if exact and network.approximate and tile is None:
        tile = 0
    sizes = plan(network, tile=tile, overlap=overlap)
    tiled = make_tiled(network, sizes, ensemble=ensemble)(restored.params, restored.stats)

    @cache
    def made() -> Stream:
        return make_stream(network, sizes, ensemble=ensemble)(restored.params, restored.stats)

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
        stream=lambda image, put, progress: made()(image, put, progress),
        radius=network.radius,
    )
