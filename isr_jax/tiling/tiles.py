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
from jaxtyping import Array, UInt8, UInt16

from isr_jax import errors
from isr_jax.errors import UserError
from isr_jax.resize import resize_uint8, resize_uint16
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
from isr_jax.tiling.programs import View, make_programs
from isr_jax.tiling.windows import Windowed

Upscaled = UInt8[np.ndarray, "n sh sw c"] | UInt16[np.ndarray, "n sh sw c"]
OnTile = Callable[[int, int], None]


# (images, progress) -> upscaled images of the same type and channels
Upscale = Callable[..., Upscaled]


# The padding is the radius of the receptive field up to EXACT LR pixels. Beyond that, exactness
# would cost far more than the tile itself, and the padding is CAPPED; benchmarks/README.md has the
# measured difference. It is CAPPED too where no radius is known.
EXACT, CAPPED = 48, 32


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
    fold, declared, pixels = network.multiple, network.approximate, 0
    approximate = declared is not None
    head_bytes = network.split.head_bytes if network.split else network.bytes_per_pixel
    if overlap is None:
        radius, capped = network.radius, CAPPED if approximate else CAPPED * fold
        overlap = radius if radius is not None and radius <= EXACT * fold else capped
    if tile is None:
        # The output of a window, of 8 bits, is in memory beside the next one's.
        output = 0 if approximate else 2 * network.channels * network.scale**2
        pixels = _limits().bytes // (head_bytes + output)
        most = _limits().side if approximate else _limits().side * fold
        least = SMALLEST if approximate else SMALLEST * fold
        tile = max(min(most, math.isqrt(pixels)) - 2 * overlap, least)
    for name, value in (("tile", tile), ("overlap", overlap)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UserError(f"{name} is {value!r}; give a number of pixels, 0 or more")
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

    def launch(
        arrays: tuple[Any, Any],
        batch: Images,
        tiles: Sequence[Tile],
        after: Any,
        way: Way,
        window: Sides,
    ) -> tuple[tuple[Array, Array], Sequence[Sides]]:
        """Return the upscaled windows, whether they are finite, and the corners of the tiles."""
        views: list[View] = []
        corners = []
        for k in symmetries:
            windows = [cut(batch[t.image], t, k, plan, way=way, window=window) for t in tiles]
            # Devices that have no tile left see an empty window.
            windows += [Window(*map(np.zeros_like, windows[0]))] * (count - len(tiles))
            # One program at a time, so that their memory does not add up.
            jax.block_until_ready(views[-1] if views else after)
            piece = compiled[window][:: -1 if k & 4 else 1]
            view = programs.upscale(*arrays, windows, way=way, piece=piece, dtype=batch.dtype)
            views.append(view)
            corners.append(np.stack([window.upright_corner(k) for window in windows]))
        channels = batch.shape[3]
        alpha = channels in (2, 4) and network.channels == 4
        done = programs.finish(views, corners, dtype=batch.dtype, gray=channels < 3, alpha=alpha)
        return done, [(int(y), int(x)) for y, x in corners[0]]

    def upscale(arrays: tuple[Any, Any], batch: Images, progress: OnTile | None = None) -> Upscaled:
        n, h, w, channels = batch.shape
        result = np.empty((n, h * scale, w * scale, channels), batch.dtype)
        if channels in (2, 4) and network.channels < 4:
            upscale_alpha(batch, result, scale=scale, rows=plan.tile or h)
        way = choose_way(plan, (h, w))
        window = window_for((h, w)) if way == "exact" else usual
        if way == "approximate":
            batch = reflect(batch, network.multiple)
        tiles = tiles_of(batch, plan, way, window)
        shared = scale * max(tile.above for tile in tiles)
        strip = np.empty((shared, *result.shape[2:]), result.dtype)
        current: Sequence[Tile] = ()
        computed: Any = None
        places: Sequence[Sides] = ()
        # One iteration more than groups: while one is computed, the previous one is written.
        for start in range(0, len(tiles) + count, count):
            group = tiles[start : start + count]
            following, next_places = None, ()
            with _enough_memory(way, (h, w)):
                if group:
                    following, next_places = launch(arrays, batch, group, computed, way, window)
                computed = jax.tree.map(np.asarray, computed)
            if current:
                for tile, (y, x), sr, finite in zip(current, places, *computed, strict=False):
                    if not finite:
                        raise UserError(
                            "the model's output is not finite: its numbers overflow on this "
                            "image; if it computes in bfloat16, try --dtype float32"
                        )
                    inner = sr[y * scale :, x * scale :][
                        : tile.height * scale, : tile.width * scale
                    ]
                    write(result[tile.image], tile, inner, scale, strip)
            current, computed, places = group, following, next_places
            if progress and start:
                progress(min(start, len(tiles)), len(tiles))
        return result

    return lambda params, stats: partial(upscale, programs.place(params, stats))


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


def write(
    image: Image,
    tile: Tile,
    sr: UInt8[np.ndarray, "t u _"] | UInt16[np.ndarray, "t u _"],
    scale: int,
    strip: UInt8[np.ndarray, "s w c"] | UInt16[np.ndarray, "s w c"],
) -> None:
    """Copy a tile to its place, without what lies outside the image, and blend what it shares.

    What a row of tiles shares with the row above is collected in a strip, and blended with it when
    the row is complete.
    """
    row, column, above, left = (
        scale * pixels for pixels in (tile.row, tile.column, tile.above, tile.left)
    )
    rows, columns = min(image.shape[0] - row, len(sr)), min(image.shape[1] - column, sr.shape[1])
    across = slice(column, column + columns)
    sr, channels = sr[:rows, :columns], slice(0, sr.shape[2])
    _blend(strip[:above, across, channels], sr[:above], left, axis=1)
    _blend(image[row + above : row + rows, across, channels], sr[above:], left, axis=1)
    if above and column + columns == image.shape[1]:
        _blend(image[row : row + above], strip[:above], above, axis=0)


def _blend(
    old: UInt8[np.ndarray, "a b c"] | UInt16[np.ndarray, "a b c"],
    new: UInt8[np.ndarray, "a b c"] | UInt16[np.ndarray, "a b c"],
    shared: int,
    *,
    axis: int,
) -> None:
    """Replace pixels along an axis; the first `shared` fade linearly from old to new."""
    old, new = np.moveaxis(old, axis, 0), np.moveaxis(new, axis, 0)
    weight = ((np.arange(shared, dtype=np.float32) + 0.5) / max(shared, 1))[:, None, None]
    first = old[:shared].astype(np.float32)
    old[:shared] = np.rint(first + weight * (new[:shared].astype(np.float32) - first))
    old[shared:] = new[shared:]


def upscale_alpha(batch: Images, result: Upscaled, *, scale: int, rows: int) -> None:
    """Write the last channel of the result, bicubic-upscaled, `rows` LR rows at a time."""
    resize = resize_uint8 if batch.dtype == np.uint8 else resize_uint16
    for image, upscaled in zip(batch[..., -1], result[..., -1], strict=True):
        for start in range(0, len(upscaled), rows * scale):
            stop = min(start + rows * scale, len(upscaled))
            upscaled[start:stop] = resize(image, scale=scale, rows=(start, stop))
