"""How images are cut into windows for a generator, on the host.

An image is cut into tiles. Each is computed from a window: the tile and its padding, the pixels
around it that the generator sees. There are three ways:

    exact        all windows of an image have one size, and lie within it; where the image is
                 smaller than a window, its nearest pixel repeats
    approximate  where the generator declares that it sees more: tiles overlap, and blend there;
                 windows lie within the image, whose sides are multiples of the generator's, and
                 start at multiples
    whole        the image is one window, without padding
"""

import itertools
import math
import sys
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt8, UInt16

from isr_jax import images

Image = UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]
Images = UInt8[np.ndarray, "n h w c"] | UInt16[np.ndarray, "n h w c"]

Padded = UInt8[np.ndarray, "n ph pw c"] | UInt16[np.ndarray, "n ph pw c"]

Way = Literal["exact", "approximate", "whole"]
Sides = tuple[int, int]  # height and width


class Plan(NamedTuple):
    """How images are cut, in LR pixels.

    Attributes:
        tile: side of a tile, but at the edges of an image, where it needs less padding; 0 for whole
            images.
        stride: from the start of a tile to that of the next; less than a tile where tiles blend.
        overlap: tile padding, on each side.
        window: side of a window.
        multiple: windows start and end at multiples of so many.
        channels: that the generator sees: 1, 3 or 4.
        approximate: whether tiles differ from the whole image.
        most: the most pixels of a window that is fitted to an image; 0 for windows of one size.
    """

    tile: int
    stride: int
    overlap: int
    window: int
    multiple: int
    channels: int
    approximate: bool
    most: int = 0


class Tile(NamedTuple):
    """A tile, in LR pixels.

    Attributes:
        image: the index of its image.
        row, column: its first ones.
        height, width: its sides.
        above, left: how many rows it shares with the tiles above it, and columns with the one on
            its left.
    """

    image: int
    row: int
    column: int
    height: int
    width: int
    above: int = 0
    left: int = 0


class Window(NamedTuple):
    """The generator's input for a tile.

    Attributes:
        pixels: in [0, 1]; outside the image, its nearest pixel. A generator of one channel sees
            each channel of the image as a plane; for others there is one plane.
        inside: the window's rows [first, last) and columns [first, last) inside the image.
        corner: the tile's first row and column in the window.
        sides: of the tile.
    """

    pixels: Float32[np.ndarray, "*d planes t u c"]
    inside: Int32[np.ndarray, "*d 4"]
    corner: Int32[np.ndarray, "*d 2"]
    sides: Int32[np.ndarray, "*d 2"]

    def upright_corner(self, symmetry: int) -> Int32[np.ndarray, "*d 2"]:
        """Return the tile's corner in the window once the symmetry is undone."""
        ends = np.array(self.pixels.shape[-3:-1]) - self.corner - self.sides
        flipped = (symmetry & 1, symmetry & 2)
        order = (1, 0) if symmetry & 4 else (0, 1)
        pairs = zip(flipped, order, strict=True)
        upright = [(ends if flip else self.corner)[..., i] for flip, i in pairs]
        return np.stack(upright, axis=-1).astype(np.int32)


def choose_way(plan: Plan, size: Sides) -> Way:
    """Return how an image of a size in pixels is cut."""
    if not plan.tile or (plan.approximate and max(size) <= plan.window):
        return "whole"
    return "approximate" if plan.approximate else "exact"


def fitted(plan: Plan, size: Sides, *, devices: int) -> Sides:
    """Return the sides of the windows that cover an image with the least computation.

    Args:
        plan: the sizes.
        size: of the image, in pixels.
        devices: number of windows that are computed at once.
    """

    def sides(length: int) -> Iterator[int]:
        """Yield the side of a window of which n cover a length, for n = 1, 2, and so on."""
        yield length
        for n in range(2, 2 + length // plan.window):
            tile = -(-(length - 2 * plan.overlap) // n)
            yield tile + 2 * plan.overlap + plan.multiple - 1

    # At multiples, so that photos of nearly one size share a program.
    unit = math.lcm(8, plan.multiple)
    rounded = [sorted({-(-side // unit) * unit for side in sides(length)}) for length in size]
    possible = [(h, w) for h, w in itertools.product(*rounded) if h * w <= plan.most]
    usual = (plan.window, plan.window)
    return min(possible, key=lambda pair: work(plan, size, pair, devices=devices), default=usual)


def work(plan: Plan, size: Sides, window: Sides, *, devices: int) -> int:
    """Return the pixels of all windows of an image, divided by the number of devices."""
    if any(
        b < a and b < 2 * plan.overlap + plan.multiple for a, b in zip(size, window, strict=True)
    ):
        return sys.maxsize  # nothing is left between the padding
    n = math.prod(len(spans_of(*along, plan)) for along in zip(size, window, strict=True))
    return -(-n // devices) * math.prod(window)


def tiles_of(batch: Images, plan: Plan, way: Way, window: Sides) -> list[Tile]:
    """Return the tiles of a batch, image by image and row by row.

    Args:
        batch: the images.
        plan: the sizes.
        way: how.
        window: the sides of exact windows.
    """
    n, h, w, _ = batch.shape
    if way == "whole":
        return [Tile(i, 0, 0, h, w) for i in range(n)]
    if way == "exact":
        rows, columns = (
            [(start, stop - start, 0) for start, stop in spans_of(length, side, plan)]
            for length, side in zip((h, w), window, strict=True)
        )
    else:
        rows, columns = (_starts(length, plan) for length in (h, w))
    return [
        Tile(i, row, column, height, width, above, left)
        for i in range(n)
        for row, height, above in rows
        for column, width, left in columns
    ]


def spans_of(length: int, window: int, plan: Plan) -> list[Sides]:
    """Return where exact tiles start and stop along an axis.

    The first and the last need no padding at the edge of the image, so that they are larger.
    """
    if -(-length // plan.multiple) * plan.multiple <= window:
        return [(0, length)]
    inner, most = length - 2 * plan.overlap, window - 2 * plan.overlap - plan.multiple + 1
    n = -(-inner // most)
    inside = [plan.overlap + i * inner // n for i in range(1, n)]
    return list(itertools.pairwise([0, *inside, length]))


def pieces_of(tile: Sides, *, radius: int, most: int) -> Sides:
    """Return the sides of equal pieces of a tile that need the least computation.

    Args:
        tile: the sides of the tile.
        radius: padding of a piece, on each side.
        most: the most pixels of a padded piece.
    """
    counts = [range(1, 2 + side // 16) for side in tile]
    grids = [(-(-tile[0] // i), -(-tile[1] // j)) for i, j in itertools.product(*counts)]

    def padded(piece: Sides) -> int:
        return (piece[0] + 2 * radius) * (piece[1] + 2 * radius)

    def total(piece: Sides) -> int:
        return -(-tile[0] // piece[0]) * -(-tile[1] // piece[1]) * padded(piece)

    return min([grid for grid in grids if padded(grid) <= most] or grids[-1:], key=total)


def _starts(length: int, plan: Plan) -> list[tuple[int, int, int]]:
    """Return where approximate tiles start along an axis, their sides, and what each shares.

    That is how many pixels it has in common with the one before. Tiles end with the axis, and are
    spread evenly.
    """
    rest = max(0, length - plan.tile)
    last, fold = -(-rest // plan.stride), plan.multiple
    starts = [i * (rest // fold) // max(last, 1) * fold for i in range(last + 1)]
    side = min(plan.tile, length)
    shared = [0, *(a + plan.tile - b for a, b in itertools.pairwise(starts))]
    return [(start, side, common) for start, common in zip(starts, shared, strict=True)]


def reflect(batch: Images, multiple: int) -> Padded:
    """Reflect images at the bottom and the right, up to sides that are multiples."""
    for axis in (1, 2):
        length = batch.shape[axis]
        if length % multiple:
            at = _reflected(np.arange(-(-length // multiple) * multiple), length)
            batch = np.take(batch, at, axis=axis)
    return batch


def cut(image: Image, tile: Tile, symmetry: int, plan: Plan, *, way: Way, window: Sides) -> Window:
    """Return the window of a tile in the image under a symmetry, numbered as `images.dihedral`.

    Args:
        image: gray, gray and alpha, RGB, or RGB and alpha. One for an approximate way has sides
            that are multiples of the generator's.
        tile: where.
        symmetry: from 0 to 7.
        plan: the sizes.
        way: how.
        window: the sides of an exact window of the image as it is.
    """
    row, column = tile.row, tile.column
    if symmetry & 1:
        image, row = image[::-1], len(image) - row - tile.height
    if symmetry & 2:
        image, column = image[:, ::-1], image.shape[1] - column - tile.width
    if symmetry & 4:
        image, row, column = image.swapaxes(0, 1), column, row
        window = (window[1], window[0])
    along = {"exact": _exact, "approximate": _within, "whole": _whole}[way]
    (rows, *vertical, y), (columns, *horizontal, x) = (
        along(length, start, side, plan)
        for length, start, side in zip(image.shape, (row, column), window, strict=False)
    )
    if image.shape[2] in (2, 4) and plan.channels < 4:
        # A visible pixel of the tile sees hidden ones as far away as the padding, and these have a
        # visible one no further off: itself, or within the 4 pixels of the bicubic alpha.
        first, last = (
            [max(0, at.min() - plan.overlap - 4), at.max() + plan.overlap + 5]
            for at in (rows, columns)
        )
        image = image[slice(*first), slice(*last)]
        rows, columns = rows - first[0], columns - last[0]
        image = fill_hidden(image[..., :-1], image[..., -1])
    return Window(
        _planes(images.to_float(image[rows[:, None], columns]), plan.channels),
        np.array([*vertical, *horizontal], np.int32),
        np.array([y, x], np.int32),
        np.array((tile.width, tile.height) if symmetry & 4 else tile[3:5], np.int32),
    )


def _planes(
    pixels: Float32[np.ndarray, "t u c"], channels: int
) -> Float32[np.ndarray, "planes t u d"]:
    """Return pixels as a generator of so many channels sees them."""
    if channels == 1:
        return np.moveaxis(pixels, -1, 0)[..., None]
    colours = pixels[..., :3] if pixels.shape[-1] > 2 else pixels[..., :1]
    colours = np.broadcast_to(colours, (*pixels.shape[:2], 3))
    if channels == 3:
        return colours[None]
    alpha = pixels[..., -1:] if pixels.shape[-1] in (2, 4) else np.ones_like(colours[..., :1])
    return np.concatenate([colours, alpha], axis=-1)[None]


# Each of these returns, along one axis, a window's pixels, its range [first, last) inside the
# image, and where the tile starts in it.
_Along = tuple[Int64[np.ndarray, " t"], int, int, int]


def _exact(length: int, start: int, window: int, plan: Plan) -> _Along:
    """Cut a window within the image, or beyond its end where it is smaller than the window.

    The image is reflected up to a multiple, as generators that fold pixels do; beyond that, its
    last pixel repeats.
    """
    padded = -(-length // plan.multiple) * plan.multiple
    first = (start - plan.overlap) // plan.multiple * plan.multiple
    first = min(max(first, 0), max(padded - window, 0))
    at = np.minimum(np.arange(first, first + window), padded - 1)
    return _reflected(at, length), 0, min(padded - first, window), start - first


def _within(length: int, start: int, window: int, plan: Plan) -> _Along:
    """Cut a window within the image, which may be smaller than the window's usual size."""
    side = min(plan.window, length)
    first = int(np.clip(start - plan.overlap, 0, length - side))
    return np.arange(first, first + side), 0, side, start - first


def _whole(length: int, start: int, window: int, plan: Plan) -> _Along:
    """Take all."""
    return np.arange(length), 0, length, 0


def _reflected(at: Int64[np.ndarray, " t"], length: int) -> Int64[np.ndarray, " t"]:
    """Return places of pixels, from 0, beyond a length as often as it takes to be inside."""
    period = max(1, 2 * (length - 1))
    return np.minimum(at % period, -at % period) if length > 1 else at * 0


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
