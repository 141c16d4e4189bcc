"""A generator over images of any size: one compiled shape, bounded memory, no seams.

An image is cut into square tiles. Each is computed from a window, the tile and what the generator
sees around it (`models.windows`), and its SR pixels are those of the whole image, but for the order
in which floating-point sums are taken. Windows are cut from the integers of the image, and tiles
are rounded before they leave the device, so that there is no float copy of an image.
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
from scipy import ndimage

from isr_jax import images
from isr_jax.errors import UserError
from isr_jax.resize import resize_uint8, resize_uint16
from isr_jax.tiling.windows import Windowed

Photograph = UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]
Photographs = UInt8[np.ndarray, "n h w c"] | UInt16[np.ndarray, "n h w c"]
Enlarged = UInt8[np.ndarray, "n sh sw c"] | UInt16[np.ndarray, "n sh sw c"]
OnTile = Callable[[int, int], None]

# The overlap is the radius of the receptive field where that is no more than EXACT LR pixels.
# Beyond, exactness would cost far more than the tile itself, and the overlap is CAPPED: what that
# changes is measured in benchmarks/README.md.
EXACT, CAPPED = 48, 32


class Limits(NamedTuple):
    """What a window may be by default: its side in LR pixels, the bytes of its largest layer."""

    side: int
    bytes: int


# Larger windows gain a CPU little and would need more than 1 GB beside a large photograph; an
# accelerator has the memory, and the larger a tile, the less of its window is overlap.
CPU, ACCELERATOR = Limits(256, 3 * 2**26), Limits(512, 2**31)
SMALLEST = 64  # side of a default tile, LR pixels


class Plan(NamedTuple):
    """How images are cut, in LR pixels.

    Attributes:
        tile: side of a tile.
        overlap: what a window shows around its tile, on each side.
        window: side of a window.
    """

    tile: int
    overlap: int
    window: int


class Tile(NamedTuple):
    """The image that a tile is of, and its first row and column."""

    image: int
    row: int
    column: int


class Window(NamedTuple):
    """What a generator is given of a tile.

    Attributes:
        pixels: in [0, 1], the nearest pixel of the image where they lie outside.
        inside: first and last + 1 row in the image, and column.
        corner: first row and column of the tile.
    """

    pixels: Float32[np.ndarray, "*d t t 3"]
    inside: Int32[np.ndarray, "*d 4"]
    corner: Int32[np.ndarray, "*d 2"]


def plan(network: Windowed, *, tile: int | None = None, overlap: int | None = None) -> Plan:
    """How images are cut for a generator.

    Args:
        network: the generator.
        tile: side of a tile, LR pixels; None for what the device has memory for.
        overlap: None for the radius of the receptive field, or CAPPED where that is beyond EXACT.

    Raises:
        UserError: for a tile below 1 or an overlap below 0.
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
    # A tile may begin anywhere, and its window at a multiple only.
    return Plan(tile, overlap, -(-(tile + 2 * overlap + fold - 1) // fold) * fold)


def make_tiled(
    network: Windowed, params: Any, stats: Any, plan: Plan, *, ensemble: bool = False
) -> Callable[[Photographs, OnTile | None], Enlarged]:
    """(photographs, progress) -> enlarged photographs, of the same type and channels.

    The channels are gray, gray and alpha, RGB, or RGB and alpha. A generator sees gray as three
    equal channels, and its answer becomes gray by BT.601's weights. Alpha is enlarged by bicubic
    interpolation: a network trained on photographs has not seen masks.

    Args:
        network: the generator.
        params, stats: its arrays.
        plan: how to cut.
        ensemble: average the results over the 8 symmetries of the square, before rounding.
    """
    scale = network.scale
    symmetries = range(8) if ensemble else range(1)
    mesh = Mesh(np.array(jax.local_devices()), ("tiles",))
    each, same = NamedSharding(mesh, PartitionSpec("tiles")), NamedSharding(mesh, PartitionSpec())
    params, stats = jax.device_put((params, stats), same)

    # One tile on each device: a window is large enough to keep it busy.
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
    def finish(views: Sequence[Array], *, dtype: np.dtype, gray: bool) -> Array:
        upright = [
            images.dihedral_inverse(view, jnp.full(len(view), k))
            for k, view in zip(symmetries, views, strict=True)
        ]
        rgb = images.to_unsigned(jnp.stack(upright).mean(axis=0), dtype)
        return images.rgb_to_gray(rgb) if gray else rgb

    def launch(photographs: Photographs, tiles: Sequence[Tile], after: Array | None) -> Array:
        views: list[Array] = []
        for k in symmetries:
            cut = [_cut(photographs[t.image], t, k, plan, network.multiple) for t in tiles]
            cut += [_blank(plan.window)] * (mesh.size - len(tiles))
            windows = jax.device_put(Window(*map(np.stack, zip(*cut, strict=True))), each)
            # One program at a time, or their memory would add up.
            jax.block_until_ready(views[-1] if views else after)
            views.append(compute(params, stats, windows))
        return finish(views, dtype=photographs.dtype, gray=photographs.shape[3] < 3)

    def enlarge(photographs: Photographs, progress: OnTile | None = None) -> Enlarged:
        n, h, w, channels = photographs.shape
        result = np.empty((n, h * scale, w * scale, channels), photographs.dtype)
        if channels in (2, 4):
            enlarge_alpha(photographs, result, scale, plan.tile)
        tiles = [
            Tile(i, row, column)
            for i in range(n)
            for row in range(0, h, plan.tile)
            for column in range(0, w, plan.tile)
        ]
        current: Sequence[Tile] = ()
        computed: Any = None
        # One group more than there are: while the device computes one, the last is written.
        for start in range(0, len(tiles) + mesh.size, mesh.size):
            group = tiles[start : start + mesh.size]
            following = launch(photographs, group, computed) if group else None
            if current:
                for tile, sr in zip(current, np.asarray(computed), strict=False):
                    _write(result[tile.image], tile, sr, scale)
            current, computed = group, following
            if progress and start:
                progress(min(start, len(tiles)), len(tiles))
        return result

    return enlarge


def _cut(
    image: Photograph,
    tile: Tile,
    symmetry: int,
    plan: Plan,
    multiple: int,
) -> Window:
    """The window of a tile in the image under a symmetry, as `images.dihedral` numbers them."""
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
        # A hidden pixel that the tile sees takes its colour from one that is as near to it.
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
    """A window's pixels along one axis, the first and last + 1 in the image, and the tile's first.

    As `rrdbnet` does, the image goes on reflected to a multiple; beyond that, by its last pixel.
    """
    first = (start - plan.overlap) // multiple * multiple
    padded = -(-length // multiple) * multiple
    at = np.clip(np.arange(first, first + plan.window), 0, padded - 1)
    period = max(1, 2 * (length - 1))
    at = np.minimum(at % period, -at % period) if length > 1 else at * 0
    inside = np.clip((-first, padded - first), 0, plan.window)
    return at, int(inside[0]), int(inside[1]), start - first


def _write(
    image: Photograph,
    tile: Tile,
    sr: UInt8[np.ndarray, "t t _"] | UInt16[np.ndarray, "t t _"],
    scale: int,
) -> None:
    """Put a tile into its place, less what lies outside the image."""
    place = image[tile.row * scale :, tile.column * scale :, : sr.shape[2]]
    place = place[: len(sr), : len(sr)]
    place[:] = sr[: place.shape[0], : place.shape[1]]


def _blank(side: int) -> Window:
    """A window of no image, for a device that has no tile left."""
    pixels = np.zeros((side, side, 3), np.float32)
    return Window(pixels, np.zeros(4, np.int32), np.zeros(2, np.int32))


def fill_hidden(
    colours: UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"],
    alpha: UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]:
    """Colours in which the wholly transparent pixels have that of the nearest visible one.

    What an editor left under transparent pixels, mostly black or white, would otherwise bleed into
    the edge of what is visible when pixels are mixed. Colours multiplied by alpha would not bleed
    either, but would show a network an image with black surroundings, and a division afterwards
    would amplify its errors where alpha is small.
    """
    hidden: Bool[np.ndarray, "h w"] = alpha == 0
    if not hidden.any() or hidden.all():
        return colours
    nearest = ndimage.distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return colours[tuple(nearest)]


def enlarge_alpha(photographs: Photographs, result: Enlarged, scale: int, rows: int) -> None:
    """Write the last channel of the result, bicubic, the SR rows of `rows` LR ones at a time."""
    resize = resize_uint8 if photographs.dtype == np.uint8 else resize_uint16
    for image, enlarged in zip(photographs[..., -1], result[..., -1], strict=True):
        for start in range(0, len(enlarged), rows * scale):
            stop = min(start + rows * scale, len(enlarged))
            enlarged[start:stop] = resize(image, scale=scale, rows=(start, stop))
