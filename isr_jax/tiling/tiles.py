"""A generator over images of any size: few compiled shapes, bounded memory, no seams.

Images are cut into windows, see `tiling.cutting`. The SR pixels of exact tiles equal those of the
whole image, except for the order of floating-point sums. Windows are cut from the image's integers,
and tiles are rounded before they leave the device, so no float copy of an image is made.

What an exact tile costs is the area of its window, whatever its shape. The usual window is a
square; for a photo large enough, one is compiled that covers it with the least area.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from isr_jax import errors
from isr_jax.errors import UserError, whole_number
from isr_jax.tiling.cutting import (
    Image,
    Images,
    Plan,
    Sides,
    Tile,
    Way,
    Window,
    choose_way,
    cut,
    fitted,
    pieces_of,
    reflect,
    spans_of,
    tiles_of,
    work,
)
from isr_jax.tiling.placing import Part, Upscaled, rows_of, upscale_alpha, write
from isr_jax.tiling.programs import View, make_programs
from isr_jax.tiling.windows import Windowed

OnTile = Callable[[int, int], None]


# (images, progress) -> upscaled images of the same type and channels
Upscale = Callable[..., Upscaled]

# (row, column, pixels) of a part of an SR image
Put = Callable[[int, int, np.ndarray], None]
# (image, put, progress)
Stream = Callable[..., None]


# The padding is the radius of the receptive field up to EXACT LR pixels. Beyond that, exactness
# would cost far more than the tile itself, and the padding is CAPPED; benchmarks/README.md has the
# measured difference. It is CAPPED too where no radius is known.
EXACT, CAPPED = 48, 32
LARGEST = 2**14  # LR pixels; side of a tile


class Limits(NamedTuple):
    """Limits of windows: the usual side in LR pixels, and bytes of the largest layer and output."""

    side: int
    bytes: int


# A large window has a small share of padding, but needs memory, and is too much for a small image.
CPU, ACCELERATOR = Limits(256, 270 * 2**20), Limits(512, 2**31)
SMALLEST = 64  # LR pixels; side of the smallest default tile


def plan(network: Windowed, *, tile: int | None = None, overlap: int | None = None) -> Plan:
    """Return how images are cut for a generator.

    Args:
        network: the generator.
        tile: side of a tile, LR pixels; 0 for whole images, None for one that fits the device's
            memory. That of an approximate generator is rounded up to its multiple.
        overlap: tile padding, LR pixels, 0 or more; None for the radius of the receptive field, or
            CAPPED where that exceeds EXACT or is unknown.

    Raises:
        UserError: a size out of range.
    """
    if tile is not None:
        tile = whole_number(tile, name="tile", least=0, unit="number of pixels")
        if tile > LARGEST:
            raise UserError(f"tile is {tile}; give {LARGEST} or less, or 0 for images as a whole")
    if overlap is not None:
        overlap = whole_number(overlap, name="overlap", least=0, unit="number of pixels")
    fold, declared, pixels = network.multiple, network.approximate, 0
    approximate = declared is not None
    if overlap is None:
        radius, capped = network.radius, CAPPED if approximate else CAPPED * fold
        overlap = radius if radius is not None and radius <= EXACT * fold else capped
    if tile is None:
        pixels = _most_pixels(network, value_bytes=0 if approximate else 1)
        most = _limits().side if approximate else _limits().side * fold
        least = SMALLEST if approximate else SMALLEST * fold
        tile = max(min(most, math.isqrt(pixels)) - 2 * overlap, least)
    if not tile:
        return Plan(0, 0, 0, 0, fold, network.channels, approximate)
    if declared:
        stride, overlap = (-(-side // fold) * fold for side in (tile, overlap))
        # The inner half of the padding blends: the outer is worse than what it would replace.
        blended = -(-(overlap // 2) // fold) * fold if declared.blend else 0
        tile, overlap = stride + 2 * blended, overlap - blended
        window = tile + 2 * overlap
        return Plan(tile, stride, overlap, window, fold, network.channels, approximate)
    # A tile may start anywhere, but its window only at a multiple of `fold`.
    window = -(-(tile + 2 * overlap + fold - 1) // fold) * fold
    return Plan(tile, tile, overlap, window, fold, network.channels, approximate, pixels)


def _most_pixels(network: Windowed, *, value_bytes: int) -> int:
    """Return how many LR pixels a window can have, by the bytes of each value of its output."""
    head_bytes = network.split.head_bytes if network.split else network.bytes_per_pixel
    # The output of a window is in memory beside the next one's.
    output = 2 * value_bytes * network.channels * network.scale**2
    return _limits().bytes // (head_bytes + output)


def _limits() -> Limits:
    return CPU if jax.local_devices()[0].platform == "cpu" else ACCELERATOR


def make_tiled(
    network: Windowed,
    plan: Plan,
    *,
    ensemble: bool = False,
    sizes: Sequence[Sides] = (),
    devices: Sequence[Any] | None = None,
) -> Callable[[Any, Any], Upscale]:
    """Return a function (params, stats) -> (images, progress) -> upscaled images.

    The images are of the same type and channels, and programs are compiled once, whatever the
    arrays.

    The channels are gray, gray and alpha, RGB, or RGB and alpha. A generator of RGB sees gray as
    three equal channels, and its output is converted to gray by BT.601's weights; alpha is upscaled
    by bicubic interpolation, because a network trained on photos has not seen masks. A generator of
    gray sees red, green and blue one after the other; one of RGB and alpha sees opaque images with
    an alpha of 1.

    Args:
        network: the generator.
        plan: how images are cut.
        ensemble: self-ensemble (x8): average over flips and rotations, before rounding.
        sizes: of all images that will come, where they are known: the usual window is then as large
            as the largest, if that fits in memory.
        devices: of this process, each of which takes a window; by default all.
    """
    scale = network.scale
    place, divide, compute = _make_computing(
        network, plan, ensemble=ensemble, sizes=sizes, devices=devices
    )

    def upscale(arrays: tuple[Any, Any], batch: Images, progress: OnTile | None = None) -> Upscaled:
        n, h, w, channels = batch.shape
        result = np.empty((n, h * scale, w * scale, channels), batch.dtype)
        if channels in (2, 4) and network.channels < 4:
            upscale_alpha(batch, result, rows=plan.tile or h)
        cut_up = divide(batch)
        shared = scale * max(tile.above for tile in cut_up.tiles)
        strip = np.empty((shared, *result.shape[2:]), result.dtype)
        for tile, sr in compute(arrays, cut_up, batch.dtype, progress):
            write(result[tile.image], tile, sr, scale, strip)
        return result

    return lambda params, stats: partial(upscale, place(params, stats))


def make_stream(
    network: Windowed, plan: Plan, *, ensemble: bool = False
) -> Callable[[Any, Any], Stream]:
    """Return a function (params, stats) -> (image, put, progress) -> None.

    It puts the SR image before rounding and clipping, float32, in parts: put(row, column, pixels)
    is called for parts that cover it, those of equal rows from the left to the right. Alpha is
    among the channels only where the generator sees it.

    Arguments are those of `make_tiled`.
    """
    scale = network.scale
    # Four bytes take the place of one, who takes a part may copy it, and a resize needs room too.
    most = min(plan.most, _most_pixels(network, value_bytes=16)) if plan.most else 0
    place, divide, compute = _make_computing(network, plan._replace(most=most), ensemble=ensemble)

    def stream(
        arrays: tuple[Any, Any], image: Image, put: Put, progress: OnTile | None = None
    ) -> None:
        cut_up = divide(image[None])
        parts = compute(arrays, cut_up, np.dtype(np.float32), progress)
        if cut_up.way == "approximate":
            for part in rows_of(parts, (image.shape[0] * scale, image.shape[1] * scale), scale):
                put(*part)
            return
        for tile, sr in parts:
            put(tile.row * scale, tile.column * scale, sr)

    return lambda params, stats: partial(stream, place(params, stats))


class _CutUp(NamedTuple):
    """A batch, reflected where tiles are approximate, and how it is cut."""

    batch: Images
    way: Way
    window: Sides
    tiles: Sequence[Tile]


def _make_computing(
    network: Windowed,
    plan: Plan,
    *,
    ensemble: bool,
    sizes: Sequence[Sides] = (),
    devices: Sequence[Any] | None = None,
) -> tuple[
    Callable[[Any, Any], tuple[Any, Any]],
    Callable[[Images], _CutUp],
    Callable[..., Iterator[tuple[Tile, Part]]],
]:
    """Return the functions place, as of `Programs`, divide and compute; see `make_tiled`.

    divide(images) cuts them up, and compute(arrays, cut_up, dtype, progress) yields each tile's SR
    pixels, of that dtype.
    """
    scale = network.scale
    symmetries = range(8) if ensemble else range(1)
    chosen = jax.local_devices() if devices is None else devices
    programs = make_programs(network, chosen, symmetries)
    count = programs.devices
    usual = usual_window(plan, sizes)
    # Of each compiled window, the pieces of its tiles.
    tile = (plan.tile, plan.tile) if usual == (plan.window, plan.window) else usual
    compiled = {usual: _pieces(network, tile)}

    def window_for(size: Sides) -> Sides:
        """Return a compiled window; compile one where that pays, for two sizes at most."""

        def area(window: Sides) -> int:
            return work(plan, size, window, devices=count)

        best = min(compiled, key=area)
        if plan.most and len(compiled) < 3:
            new = fitted(plan, size, devices=count)
            if area(best) - area(new) >= 2 * plan.window**2:
                spans = [spans_of(*along, plan) for along in zip(size, new, strict=True)]
                most = [max(stop - start for start, stop in along) for along in spans]
                compiled[new] = _pieces(network, (most[0], most[1]))
                return new
        return best

    def divide(batch: Images) -> _CutUp:
        size = batch.shape[1:3]
        way = choose_way(plan, size)
        window = window_for(size) if way == "exact" else usual
        if way == "approximate":
            batch = reflect(batch, network.multiple)
        return _CutUp(batch, way, window, tiles_of(batch, plan, way, window))

    def launch(
        arrays: tuple[Any, Any],
        cut_up: _CutUp,
        tiles: Sequence[Tile],
        after: Any,
        dtype: np.dtype,
    ) -> tuple[View, Sequence[Sides]]:
        """Return the upscaled windows, whether they are finite, and the corners of the tiles."""
        batch, way, window, _ = cut_up
        views: list[View] = []
        corners = []
        for k in symmetries:
            windows = [cut(batch[t.image], t, k, plan, way=way, window=window) for t in tiles]
            # Devices that have no tile left see an empty window.
            windows += [Window(*map(np.zeros_like, windows[0]))] * (count - len(tiles))
            # One program at a time, so that their memory does not add up.
            jax.block_until_ready(views[-1] if views else after)
            piece = compiled[window][:: -1 if k & 4 else 1]
            view = programs.upscale(*arrays, windows, way=way, piece=piece, dtype=dtype)
            views.append(view)
            corners.append(np.stack([window.upright_corner(k) for window in windows]))
        channels = batch.shape[3]
        alpha = channels in (2, 4) and network.channels == 4
        done = programs.finish(views, corners, dtype=dtype, gray=channels < 3, alpha=alpha)
        return done, [(int(y), int(x)) for y, x in corners[0]]

    def compute(
        arrays: tuple[Any, Any], cut_up: _CutUp, dtype: np.dtype, progress: OnTile | None
    ) -> Iterator[tuple[Tile, Part]]:
        tiles, size = cut_up.tiles, cut_up.batch.shape[1:3]
        current: Sequence[Tile] = ()
        computed: Any = None
        places: Sequence[Sides] = ()
        # One iteration more than groups: while one is computed, the previous one is written.
        for start in range(0, len(tiles) + count, count):
            group = tiles[start : start + count]
            following, next_places = None, ()
            with _enough_memory(cut_up.way, size):
                if group:
                    following, next_places = launch(arrays, cut_up, group, computed, dtype)
                computed = jax.tree.map(np.asarray, computed)
            if current:
                for tile, (y, x), sr, finite in zip(current, places, *computed, strict=False):
                    if not finite:
                        raise UserError(
                            "the model's output is not finite: its numbers overflow on this "
                            "image; if it computes in bfloat16, try --dtype float32"
                        )
                    inner = sr[y * scale :, x * scale :]
                    yield tile, inner[: tile.height * scale, : tile.width * scale]
            current, computed, places = group, following, next_places
            if progress and start:
                progress(min(start, len(tiles)), len(tiles))

    return programs.place, divide, compute


def usual_window(plan: Plan, sizes: Sequence[Sides]) -> Sides:
    """Return the sides of the window that every image can have.

    Args:
        plan: how images are cut.
        sizes: of the images, as of `make_tiled`.
    """
    if plan.most and sizes:
        largest = [max(sides) for sides in zip(*sizes, strict=True)]
        height, width = (-(-side // plan.multiple) * plan.multiple for side in largest)
        if height * width <= plan.most:
            return height, width
    return plan.window, plan.window


def _pieces(network: Windowed, tile: Sides) -> Sides:
    """Return the sides of the pieces in which the tail of a generator computes a tile."""
    split = network.split
    if not split or not all(tile):
        return tile
    return pieces_of(tile, radius=split.radius, most=_limits().bytes // split.tail_bytes)


@contextmanager
def _enough_memory(way: Way, size: tuple[int, int]) -> Iterator[None]:
    """Turn missing memory for a whole image into a line that says what to do."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if way != "whole" or not errors.is_out_of_memory(error):
            raise
        raise UserError(
            f"the memory is too small for an image of {size[1]}x{size[0]} pixels as a whole; give "
            "a --tile, such as 256"
        ) from error
