"""Upscale images to any size: by the networks that reach it, and an exact resize to it.

A network's output is resized in float64 before it is rounded and clipped, as MATLAB's `imresize` of
a float image. It comes in parts, so that it is never held as a whole: of a photo of 48 megapixels
it would take 9 GB. Where two networks work in turn, the image between them has 16 bits, and is made
in strips.
"""

import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16

from isr_jax.checkpoints.restore import INTERPOLATIONS, PRETRAINED
from isr_jax.errors import UserError
from isr_jax.photo.pixels import to_16_bits
from isr_jax.resize import Scale, resize_uint8, resize_uint16
from isr_jax.tiling.cutting import Image, Sides
from isr_jax.tiling.placing import upscale_alpha
from isr_jax.tiling.resizing import Resizing
from isr_jax.tiling.tiles import OnTile
from isr_jax.upscaling.sizes import Target, choose_scales, make_target, size_of
from isr_jax.upscaling.upscaler import Upscaler, load, on_batches, one_by_one, visible

SHIPPED = {int(name[-1]): name for name in PRETRAINED if name.startswith("compact-x")}

_STRIP_BYTES = 192 * 2**20  # of the image between two networks


@dataclasses.dataclass(frozen=True)
class AnySizeUpscaler:
    """Models, called on images with the size that they should get; `load_any_size` makes one.

    Attributes:
        name: of the model; None for those shipped with the package.
        scales: the scale factors to choose from; none for an interpolation.
        network: scale factor -> its model, loaded at the first call.
        turns: the most networks that work in turn.
        method: of resizing where no network is needed.
    """

    name: str | None
    scales: tuple[int, ...]
    network: Callable[[int], Upscaler]
    turns: int
    method: str = "bicubic"

    def __call__(
        self,
        image: Shaped[np.ndarray, "*shape"],
        *,
        scale: Scale | None = None,
        width: int | None = None,
        height: int | None = None,
        fit: tuple[int, int] | None = None,
        megapixels: Scale | None = None,
        progress: OnTile | None = None,
    ) -> UInt8[np.ndarray, "..."] | UInt16[np.ndarray, "..."]:
        """Upscale an image, or a batch of images of one size.

        The aspect ratio is kept; the other side is rounded half up. An image that has the size or
        exceeds it is resized without a network.

        Args:
            image: as of `Upscaler.__call__`.
            scale: the scale factor, which may be fractional.
            width: of the result, pixels.
            height: of the result, pixels.
            fit: width and height that the result fits into, as large as possible.
            megapixels: of the result, 10^6 pixels each.
            progress: as of `Upscaler.__call__`.

        Raises:
            UserError: not exactly one size is given, or it is not positive; or another dtype or
                shape of the image.
        """
        target = make_target(
            scale=scale, width=width, height=height, fit=fit, megapixels=megapixels
        )
        if target is None:
            raise UserError("give one of scale, width, height, fit and megapixels")
        return self.at(target)(image, progress=progress)

    def at(self, target: Target) -> "Upscaler | SizedUpscaler":
        """Return these models for one target: a plain model where each image gets its output."""
        value = target.value
        if target.kind == "scale" and isinstance(value, Fraction) and value.denominator == 1:
            scale = value.numerator
            if scale in self.scales or not self.scales:
                return self.network(scale)
        return SizedUpscaler(self, target)


@dataclasses.dataclass(frozen=True)
class SizedUpscaler:
    """Models and the target of every image."""

    models: AnySizeUpscaler
    target: Target

    @property
    def label(self) -> str:
        """What names of outputs end with."""
        return self.target.label

    @property
    def title(self) -> str:
        """What to call it."""
        return self.models.name or "compact"

    def result_size(self, size: Sides) -> Sides:
        """Return the height and width that an image of a size gets."""
        return size_of(self.target, size)

    def sideways(self) -> "SizedUpscaler":
        """Return the upscaler of images that are stored on their side."""
        return dataclasses.replace(self, target=self.target.sideways())

    def networks(self, size: Sides) -> list[Upscaler]:
        """Return the networks that upscale an image of a size, in turn."""
        scales, turns = self.models.scales, self.models.turns
        if not scales:
            return []
        chosen = choose_scales(size, self.result_size(size), scales, turns=turns)
        return [self.models.network(scale) for scale in chosen]

    def remarks(self, size: Sides) -> tuple[str, ...]:
        """Return a line for each thing that a user should know about an image of a size."""
        lines, between = list(self.size_remarks(size)), size
        for network in self.networks(size):
            lines += network.remarks(between)
            between = network.result_size(between)
        return tuple(lines)

    def size_remarks(self, size: Sides) -> tuple[str, ...]:
        """Return a line where the size is reached by more or less than a network."""
        networks = self.networks(size)
        if not networks:
            line = (
                "no network was needed: the image already has this size or a larger one, and was "
                "resized by bicubic interpolation"
            )
            return (line,) if self.models.scales else ()
        scale, wanted = math.prod(network.scale for network in networks), self.result_size(size)
        if size[0] * scale >= wanted[0] and size[1] * scale >= wanted[1]:
            return ()
        names = " and ".join(network.name for network in networks)
        return (f"{names} upscaled by {scale}, and bicubic interpolation to the size",)

    def __call__(
        self, image: Shaped[np.ndarray, "*shape"], *, progress: OnTile | None = None
    ) -> UInt8[np.ndarray, "..."] | UInt16[np.ndarray, "..."]:
        """Upscale an image, or a batch of images of one size; see `AnySizeUpscaler.__call__`."""
        return on_batches(lambda batch: one_by_one(self._one, batch, progress), image)

    def _one(self, image: Image, progress: OnTile | None) -> np.ndarray:
        size = image.shape[0], image.shape[1]
        wanted, networks = self.result_size(size), self.networks(size)
        if not networks:
            resize = resize_uint8 if image.dtype == np.uint8 else resize_uint16
            result = resize(visible(image), size=wanted, method=self.models.method)
            if progress:
                progress(1, 1)
            return result
        if len(networks) == 1 and networks[0].result_size(size) == wanted:
            return networks[0](image, progress=progress)
        result = np.empty((*wanted, image.shape[2]), image.dtype)
        if image.shape[2] in (2, 4):
            # A network that sees alpha writes over it.
            upscale_alpha(image[None], result[None], rows=256)
        if len(networks) == 1:
            (network,) = networks
            assert network.stream
            network.stream(image, Resizing(network.result_size(size), result).put, progress)
        else:
            _in_turn(networks[0], networks[1], image, result, progress)
        return result


def load_any_size(
    *,
    model: str | Path | None = None,
    weights: Literal["ema", "raw"] = "ema",
    checkpoint: Literal["best", "latest"] | int = "best",
    tile: int | None = None,
    overlap: int | None = None,
    ensemble: bool = False,
    dtype: Literal["float32", "bfloat16"] | None = None,
    strength: float = 1.0,
) -> AnySizeUpscaler:
    """Load models that upscale to any size.

    Without a model, the smallest model shipped with the package that reaches the size is taken, or
    the two that reach it in turn; each is loaded when it is first needed. A size between theirs is
    reached by resizing the network's output down, and one beyond them by resizing it up.

    Args:
        model: as of `load`; its output is resized.
        weights, checkpoint, tile, overlap, ensemble, dtype, strength: as of `load`.

    Raises:
        UserError: there is no such model or checkpoint.
    """
    options: dict[str, Any] = {"tile": tile, "overlap": overlap, "ensemble": ensemble}
    options |= {"weights": weights, "checkpoint": checkpoint, "dtype": dtype}
    options |= {"strength": strength}
    if model is None:
        shipped = cache(lambda scale: load(SHIPPED[scale], **options))
        return AnySizeUpscaler(None, tuple(sorted(SHIPPED)), shipped, turns=2)
    if str(model) in INTERPOLATIONS:
        name = str(model)
        return AnySizeUpscaler(name, (), partial(_interpolation, name), turns=0, method=name)
    given = load(model, **options)
    return AnySizeUpscaler(given.name, (given.scale,), lambda scale: given, turns=1)


def _interpolation(name: str, scale: int) -> Upscaler:
    return load(name, scale=scale)


def _in_turn(
    first: Upscaler, second: Upscaler, image: Image, result: np.ndarray, progress: OnTile | None
) -> None:
    """Upscale by two networks, and resize their output; strip by strip of what is between them.

    A strip of the image is padded with what the strip of the result depends on.
    """
    assert second.stream
    (height, width, channels), scale = image.shape, first.scale * second.scale
    near, beyond = (_reach(network, channels) for network in (first, second))
    beyond = -(-beyond // first.scale)
    padding = near + beyond
    row_bytes = width * first.scale**2 * channels * 2
    count = -(-height // max(_STRIP_BYTES // row_bytes - 2 * padding, padding))
    resizing = Resizing((height * scale, width * scale), result)
    tiles = 0  # of the first strip; others are reported as if they had as many

    def tell(strip: int, done: int, total: int) -> None:
        nonlocal tiles
        tiles = tiles or total
        if progress:
            progress(strip * tiles + done * tiles // total, count * tiles)

    for i in range(count):
        start, stop = i * height // count, (i + 1) * height // count
        above, below = max(0, start - padding), min(height, stop + padding)
        between = first(to_16_bits(image[above:below]))
        # Without what is too near to a cut.
        top = above + near if above else 0
        bottom = below - near if below < height else height
        between = between[(top - above) * first.scale : (bottom - above) * first.scale]
        put = partial(_put_rows, resizing, top * scale, (start * scale, stop * scale))
        second.stream(between, put, partial(tell, i))


def _reach(network: Upscaler, channels: int) -> int:
    """Return how far away a pixel of the image can be that a pixel of the output depends on."""
    assert network.radius is not None
    # What is hidden takes the colour of a pixel as far away again; 5 is the bicubic alpha's.
    return network.radius * (2 if channels in (2, 4) else 1) + 5


def _put_rows(
    resizing: Resizing, offset: int, rows: Sides, row: int, column: int, pixels: np.ndarray
) -> None:
    """Put those of a part's rows, which begin at an offset, that lie between two rows."""
    row += offset
    first, last = max(row, rows[0]), min(row + len(pixels), rows[1])
    if first < last:
        resizing.put(first, column, pixels[first - row : last - row])
