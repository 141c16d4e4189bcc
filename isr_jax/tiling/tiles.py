"""A generator over images of any size: one compiled shape, bounded memory, no seams.

Images are cut into windows, see `tiling.cutting`. The SR pixels of exact tiles equal those of the
whole image, except for the order of floating-point sums. Windows are cut from the image's integers,
and tiles are rounded before they leave the device, so no float copy of an image is made.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, UInt8, UInt16

from isr_jax import errors, images
from isr_jax.errors import UserError
from isr_jax.resize import resize_uint8, resize_uint16
from isr_jax.tiling.cutting import (
    Image,
    Images,
    Plan,
    Tile,
    Way,
    Window,
    choose_way,
    cut,
    reflect,
    tiles_of,
)
from isr_jax.tiling.windows import Windowed

Upscaled = UInt8[np.ndarray, "n sh sw c"] | UInt16[np.ndarray, "n sh sw c"]
OnTile = Callable[[int, int], None]


# The padding is the radius of the receptive field up to EXACT LR pixels. Beyond that, exactness
# would cost far more than the tile itself, and the padding is CAPPED; benchmarks/README.md has the
# measured difference. It is CAPPED too where no radius is known.
EXACT, CAPPED = 48, 32


class Limits(NamedTuple):
    """Limits of a default window: its side in LR pixels, and the bytes of its largest layer."""

    side: int
    bytes: int


# On a CPU larger windows are hardly faster, and with a large photo would need more than 1 GB. An
# accelerator has the memory, and the larger the tile, the smaller the share of its padding.
CPU, ACCELERATOR = Limits(256, 3 * 2**26), Limits(512, 2**31)
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
    fold, declared = network.multiple, network.approximate
    approximate = declared is not None
    if overlap is None:
        radius, capped = network.radius, CAPPED if approximate else CAPPED * fold
        overlap = radius if radius is not None and radius <= EXACT * fold else capped
    if tile is None:
        limits = CPU if jax.local_devices()[0].platform == "cpu" else ACCELERATOR
        most = limits.side if approximate else limits.side * fold
        side = min(most, math.isqrt(limits.bytes // network.bytes_per_pixel))
        least = SMALLEST if approximate else SMALLEST * fold
        tile = max(side - 2 * overlap, least)
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
    return Plan(tile, tile, overlap, window, fold, network.channels, approximate)


def make_tiled(
    network: Windowed, params: Any, stats: Any, plan: Plan, *, ensemble: bool = False
) -> Callable[[Images, OnTile | None], Upscaled]:
    """Return a function (images, progress) -> upscaled images of the same type and channels.

    The channels are gray, gray and alpha, RGB, or RGB and alpha. A generator of RGB sees gray as
    three equal channels, and its output is converted to gray by BT.601's weights; alpha is upscaled
    by bicubic interpolation, because a network trained on photos has not seen masks. A generator of
    gray sees red, green and blue one after the other; one of RGB and alpha sees opaque images with
    an alpha of 1.

    Args:
        network: the generator.
        params, stats: its arrays.
        plan: how images are cut.
        ensemble: self-ensemble (x8): average over flips and rotations, before rounding.
    """
    scale = network.scale
    symmetries = range(8) if ensemble else range(1)
    mesh = Mesh(np.array(jax.local_devices()), ("tiles",))
    each, same = NamedSharding(mesh, PartitionSpec("tiles")), NamedSharding(mesh, PartitionSpec())
    params, stats = jax.device_put((params, stats), same)

    # One tile per device: a window is large enough to keep it busy.
    @partial(jax.jit, static_argnames="way")
    def compute(params: Any, stats: Any, windows: Any, *, way: Way) -> Array:
        @partial(
            jax.shard_map,
            mesh=mesh,
            in_specs=(same.spec, same.spec, each.spec),
            out_specs=each.spec,
        )
        def on_device(params: Any, stats: Any, windows: Any) -> Array:
            (planes,), (inside,) = windows.pixels, windows.inside
            if way == "exact":
                inside = jnp.broadcast_to(inside, (len(planes), 4))
                sr = network.apply(params, stats, planes, inside)
            else:
                sr = network.whole(params, stats, planes)
            if len(planes) > 1:
                sr = jnp.moveaxis(sr, 0, -1)[None, ..., 0, :]
            if way == "whole":
                return sr
            sides = [min(plan.tile, side) * scale for side in planes.shape[1:3]]
            row, column = windows.corner[0] * scale
            return jax.lax.dynamic_slice(sr, (0, row, column, 0), (1, *sides, sr.shape[-1]))

        return on_device(params, stats, windows)

    @partial(jax.jit, static_argnames=("dtype", "gray", "alpha"))
    def finish(
        views: Sequence[Array], *, dtype: np.dtype, gray: bool, alpha: bool
    ) -> tuple[Array, Array]:
        """Return the rounded tiles, and whether each was finite."""
        upright = [_upright(view, k) for k, view in zip(symmetries, views, strict=True)]
        mean = jnp.stack(upright).mean(axis=0)
        finite = jnp.isfinite(mean).all(axis=(1, 2, 3))
        return _as(images.to_unsigned(mean, dtype), gray=gray, alpha=alpha), finite

    def launch(
        batch: Images, tiles: Sequence[Tile], after: tuple[Array, Array] | None, *, way: Way
    ) -> tuple[Array, Array]:
        views: list[Array] = []
        for k in symmetries:
            windows = [cut(batch[t.image], t, k, plan, way=way) for t in tiles]
            # Devices that have no tile left see an empty window.
            windows += [Window(*map(np.zeros_like, windows[0]))] * (mesh.size - len(tiles))
            stacked = jax.device_put(Window(*map(np.stack, zip(*windows, strict=True))), each)
            # One program at a time, so that their memory does not add up.
            jax.block_until_ready(views[-1] if views else after)
            views.append(compute(params, stats, stacked, way=way))
        channels = batch.shape[3]
        alpha = channels in (2, 4) and network.channels == 4
        return finish(views, dtype=batch.dtype, gray=channels < 3, alpha=alpha)

    def upscale(batch: Images, progress: OnTile | None = None) -> Upscaled:
        n, h, w, channels = batch.shape
        result = np.empty((n, h * scale, w * scale, channels), batch.dtype)
        if channels in (2, 4) and network.channels < 4:
            upscale_alpha(batch, result, scale=scale, rows=plan.tile or h)
        way = choose_way(plan, (h, w))
        if way == "approximate":
            batch = reflect(batch, network.multiple)
        tiles = tiles_of(batch, plan, way)
        shared = scale * max(tile.above for tile in tiles)
        strip = np.empty((shared, *result.shape[2:]), result.dtype)
        current: Sequence[Tile] = ()
        computed: Any = None
        # One iteration more than groups: while one is computed, the previous one is written.
        for start in range(0, len(tiles) + mesh.size, mesh.size):
            group = tiles[start : start + mesh.size]
            with _enough_memory(way, (h, w)):
                following = launch(batch, group, computed, way=way) if group else None
                computed = jax.tree.map(np.asarray, computed)
            if current:
                for tile, sr, finite in zip(current, *computed, strict=False):
                    if not finite:
                        raise UserError(
                            "the model's output is not finite: its numbers overflow on this "
                            "image; if it computes in bfloat16, try --dtype float32"
                        )
                    write(result[tile.image], tile, sr, scale, strip)
            current, computed = group, following
            if progress and start:
                progress(min(start, len(tiles)), len(tiles))
        return result

    return upscale


def _upright(views: Float[Array, "n h w c"], symmetry: int) -> Float[Array, "n _ _ c"]:
    """Undo `images.dihedral`; sides may differ."""
    views = views.swapaxes(1, 2) if symmetry & 4 else views
    views = views[:, :, ::-1] if symmetry & 2 else views
    return views[:, ::-1] if symmetry & 1 else views


def _as(
    sr: UInt8[Array, "n h w c"] | UInt16[Array, "n h w c"], *, gray: bool, alpha: bool
) -> UInt8[Array, "n h w _"] | UInt16[Array, "n h w _"]:
    """Return those channels of a generator's output that its input has."""
    if sr.shape[-1] < 3:  # of gray planes
        return sr
    colours = images.rgb_to_gray(sr[..., :3]) if gray else sr[..., :3]
    return jnp.concatenate([colours, sr[..., 3:]], axis=-1) if alpha else colours


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
    row, column, above, left = (scale * pixels for pixels in tile[1:])
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
