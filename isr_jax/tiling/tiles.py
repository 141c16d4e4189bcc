"""A generator over images of any size: one compiled shape, bounded memory, no seams.

An image is cut into square tiles. Each is computed from a window: the tile and its padding, the
pixels around it that the generator sees (see `tiling.windows`). Its SR pixels equal those of the
whole image, except for the order of floating-point sums. Windows are cut from the image's integers,
and tiles are rounded before they leave the device, so no float copy of an image is made.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float32, Int32, Int64, UInt8, UInt16

from isr_jax import images
from isr_jax.errors import UserError
from isr_jax.resize import resize_uint8, resize_uint16
from isr_jax.tiling.windows import Windowed

Image = UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]
Images = UInt8[np.ndarray, "n h w c"] | UInt16[np.ndarray, "n h w c"]
Upscaled = UInt8[np.ndarray, "n sh sw c"] | UInt16[np.ndarray, "n sh sw c"]
OnTile = Callable[[int, int], None]

# The padding is the radius of the receptive field up to EXACT LR pixels. Beyond that, exactness
# would cost far more than the tile itself, and the padding is CAPPED; benchmarks/README.md has the
# measured difference.
EXACT, CAPPED = 48, 32


class Limits(NamedTuple):
    """Limits of a default window: its side in LR pixels, and the bytes of its largest layer."""

    side: int
    bytes: int


# On a CPU larger windows are hardly faster, and with a large photo would need more than 1 GB. An
# accelerator has the memory, and the larger the tile, the smaller the share of its padding.
CPU, ACCELERATOR = Limits(256, 3 * 2**26), Limits(512, 2**31)
SMALLEST = 64  # LR pixels; side of the smallest default tile


class Plan(NamedTuple):
    """How images are cut, in LR pixels.

    Attributes:
        tile: side of a tile.
        overlap: tile padding, on each side.
        window: side of a window.
    """

    tile: int
    overlap: int
    window: int


class Tile(NamedTuple):
    """A tile: the index of its image, and its first row and column in LR pixels."""

    image: int
    row: int
    column: int


class Window(NamedTuple):
    """The generator's input for a tile.

    Attributes:
        pixels: in [0, 1]; outside the image, its nearest pixel.
        inside: the window's rows [first, last) and columns [first, last) inside the image.
        corner: the tile's first row and column in the window.
    """

    pixels: Float32[np.ndarray, "*d t t 3"]
    inside: Int32[np.ndarray, "*d 4"]
    corner: Int32[np.ndarray, "*d 2"]


def plan(network: Windowed, *, tile: int | None = None, overlap: int | None = None) -> Plan:
    """Return how images are cut for a generator.

    Args:
        network: the generator.
        tile: side of a tile, LR pixels, 1 or more; None for one that fits the device's memory.
        overlap: tile padding, LR pixels, 0 or more; None for the radius of the receptive field, or
            CAPPED where that exceeds EXACT.

    Raises:
        UserError: a size out of range.
    """
    fold = network.multiple
    if overlap is None:
        overlap = network.radius if network.radius <= EXACT * fold else CAPPED * fold
    if tile is None:
        limits = CPU if jax.local_devices()[0].platform == "cpu" else ACCELERATOR
        side = min(limits.side * fold, math.isqrt(limits.bytes // network.bytes_per_pixel))
        tile = max(side - 2 * overlap, SMALLEST * fold)
    for name, value, least in (("tile", tile, 1), ("overlap", overlap, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{name} is {value!r}; give a number of pixels, {least} or more")
    # A tile may start anywhere, but its window only at a multiple of `fold`.
    return Plan(tile, overlap, -(-(tile + 2 * overlap + fold - 1) // fold) * fold)


def make_tiled(
    network: Windowed, params: Any, stats: Any, plan: Plan, *, ensemble: bool = False
) -> Callable[[Images, OnTile | None], Upscaled]:
    """Return a function (images, progress) -> upscaled images of the same type and channels.

    The channels are gray, gray and alpha, RGB, or RGB and alpha. The generator sees gray as three
    equal channels, and its output is converted to gray by BT.601's weights. Alpha is upscaled by
    bicubic interpolation, because a network trained on photos has not seen masks.

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
    @jax.jit
    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(same.spec, same.spec, each.spec),
        out_specs=each.spec,
    )
    def compute(params: Any, stats: Any, windows: Any) -> Array:
        sr = network.apply(params, stats, windows.pixels, windows.inside)
        row, column = windows.corner[0] * scale
        return jax.lax.dynamic_slice(sr, (0, row, column, 0), (1, *[plan.tile * scale] * 2, 3))

    @partial(jax.jit, static_argnames=("dtype", "gray"))
    def finish(views: Sequence[Array], *, dtype: np.dtype, gray: bool) -> tuple[Array, Array]:
        """Return the rounded tiles, and whether each was finite."""
        upright = [
            images.dihedral_inverse(view, jnp.full(len(view), k))
            for k, view in zip(symmetries, views, strict=True)
        ]
        mean = jnp.stack(upright).mean(axis=0)
        rgb = images.to_unsigned(mean, dtype)
        return images.rgb_to_gray(rgb) if gray else rgb, jnp.isfinite(mean).all(axis=(1, 2, 3))

    def launch(
        batch: Images, tiles: Sequence[Tile], after: tuple[Array, Array] | None
    ) -> tuple[Array, Array]:
        views: list[Array] = []
        for k in symmetries:
            cut = [_cut(batch[t.image], t, k, plan, network.multiple) for t in tiles]
            cut += [_blank(plan.window)] * (mesh.size - len(tiles))
            windows = jax.device_put(Window(*map(np.stack, zip(*cut, strict=True))), each)
            # One program at a time, so that their memory does not add up.
            jax.block_until_ready(views[-1] if views else after)
            views.append(compute(params, stats, windows))
        return finish(views, dtype=batch.dtype, gray=batch.shape[3] < 3)

    def upscale(batch: Images, progress: OnTile | None = None) -> Upscaled:
        n, h, w, channels = batch.shape
        result = np.empty((n, h * scale, w * scale, channels), batch.dtype)
        if channels in (2, 4):
            upscale_alpha(batch, result, scale=scale, rows=plan.tile)
        tiles = [
            Tile(i, row, column)
            for i in range(n)
            for row in range(0, h, plan.tile)
            for column in range(0, w, plan.tile)
        ]
        current: Sequence[Tile] = ()
        computed: Any = None
        # One iteration more than groups: while one is computed, the previous one is written.
        for start in range(0, len(tiles) + mesh.size, mesh.size):
            group = tiles[start : start + mesh.size]
            following = launch(batch, group, computed) if group else None
            if current:
                for tile, sr, finite in zip(current, *map(np.asarray, computed), strict=False):
                    if not finite:
                        raise UserError(
                            "the model's output is not finite: its numbers overflow on this "
                            "image; if it computes in bfloat16, try --dtype float32"
                        )
                    _write(result[tile.image], tile, sr, scale)
            current, computed = group, following
            if progress and start:
                progress(min(start, len(tiles)), len(tiles))
        return result

    return upscale


def _cut(
    image: Image,
    tile: Tile,
    symmetry: int,
    plan: Plan,
    multiple: int,
) -> Window:
    """Return the window of a tile in the image under a symmetry, numbered as `images.dihedral`."""
    row, column = tile.row, tile.column
    if symmetry & 1:
        image, row = image[::-1], len(image) - row - plan.tile
    if symmetry & 2:
        image, column = image[:, ::-1], image.shape[1] - column - plan.tile
    if symmetry & 4:
        image, row, column = image.swapaxes(0, 1), column, row
    (rows, *vertical, y), (columns, *horizontal, x) = (
        _along(length, start, plan, multiple)
        for length, start in zip(image.shape, (row, column), strict=False)
    )
    if image.shape[2] in (2, 4):
        # A visible pixel of the tile sees hidden ones as far away as the padding, and these have a
        # visible one no further off: itself, or within the 4 pixels of the bicubic alpha.
        first, last = (
            [max(0, at.min() - plan.overlap - 4), at.max() + plan.overlap + 5]
            for at in (rows, columns)
        )
        image = image[slice(*first), slice(*last)]
        rows, columns = rows - first[0], columns - last[0]
        image = fill_hidden(image[..., :-1], image[..., -1])
    pixels = images.to_float(image[rows[:, None], columns])
    return Window(
        np.broadcast_to(pixels, (*pixels.shape[:2], 3)),
        np.array([*vertical, *horizontal], np.int32),
        np.array([y, x], np.int32),
    )


def _along(
    length: int, start: int, plan: Plan, multiple: int
) -> tuple[Int64[np.ndarray, " t"], int, int, int]:
    """Return a window's pixels along one axis, its range in the image, and the tile's start.

    As in `rrdbnet`, the image is reflected up to a multiple; beyond that, its last pixel repeats.
    """
    first = (start - plan.overlap) // multiple * multiple
    padded = -(-length // multiple) * multiple
    at = np.clip(np.arange(first, first + plan.window), 0, padded - 1)
    period = max(1, 2 * (length - 1))
    at = np.minimum(at % period, -at % period) if length > 1 else at * 0
    inside = np.clip((-first, padded - first), 0, plan.window)
    return at, int(inside[0]), int(inside[1]), start - first


def _write(
    image: Image,
    tile: Tile,
    sr: UInt8[np.ndarray, "t t _"] | UInt16[np.ndarray, "t t _"],
    scale: int,
) -> None:
    """Copy a tile to its place, without what lies outside the image."""
    place = image[tile.row * scale :, tile.column * scale :, : sr.shape[2]]
    place = place[: len(sr), : len(sr)]
    place[:] = sr[: place.shape[0], : place.shape[1]]


def _blank(side: int) -> Window:
    """Return an empty window, for a device that has no tile left."""
    pixels = np.zeros((side, side, 3), np.float32)
    return Window(pixels, np.zeros(4, np.int32), np.zeros(2, np.int32))


def fill_hidden(
    colours: UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"],
    alpha: UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]:
    """Return colours whose fully transparent pixels have the colour of the nearest visible one.

    Otherwise the colour that an editor left under transparent pixels, mostly black or white, would
    bleed into visible edges. Multiplying colours by alpha would avoid that too, but the network
    would see black surroundings, and dividing afterwards would amplify its errors where alpha is
    small.
    """
    hidden: Bool[np.ndarray, "h w"] = alpha == 0
    if not hidden.any() or hidden.all():
        return colours
    from scipy import ndimage  # takes long to load, and most photos are opaque

    nearest: Any = ndimage.distance_transform_edt(
        hidden, return_distances=False, return_indices=True
    )
    return colours[tuple(nearest)]


def upscale_alpha(batch: Images, result: Upscaled, *, scale: int, rows: int) -> None:
    """Write the last channel of the result, bicubic-upscaled, `rows` LR rows at a time."""
    resize = resize_uint8 if batch.dtype == np.uint8 else resize_uint16
    for image, upscaled in zip(batch[..., -1], result[..., -1], strict=True):
        for start in range(0, len(upscaled), rows * scale):
            stop = min(start + rows * scale, len(upscaled))
            upscaled[start:stop] = resize(image, scale=scale, rows=(start, stop))
