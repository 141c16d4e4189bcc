"""How images are cut into windows for a generator, on the host.

An image is cut into square tiles. Each is computed from a window: the tile and its padding, the
pixels around it that the generator sees. There are three ways:

    exact        a tile may start anywhere; the window reaches beyond the image, where it repeats
                 the nearest pixel
    approximate  where the generator declares that it sees more: tiles overlap, and blend there;
                 windows lie within the image, whose sides are multiples of the generator's, and
                 start at multiples
    whole        the image is one window, without padding
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt8, UInt16

from isr_jax import images

Image = UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]
Images = UInt8[np.ndarray, "n h w c"] | UInt16[np.ndarray, "n h w c"]

Padded = UInt8[np.ndarray, "n ph pw c"] | UInt16[np.ndarray, "n ph pw c"]

Way = Literal["exact", "approximate", "whole"]


class Plan(NamedTuple):
    """How images are cut, in LR pixels.

    Attributes:
        tile: side of a tile; 0 for whole images.
        stride: from the start of a tile to that of the next; less than a tile where tiles blend.
        overlap: tile padding, on each side.
        window: side of a window.
        multiple: windows start and end at multiples of so many.
        channels: that the generator sees: 1, 3 or 4.
        approximate: whether tiles differ from the whole image.
    """

    tile: int
    stride: int
    overlap: int
    window: int
    multiple: int
    channels: int
    approximate: bool


class Tile(NamedTuple):
    """A tile, in LR pixels.

    Attributes:
        image: the index of its image.
        row, column: its first ones.
        above, left: how many rows it shares with the tiles above it, and columns with the one on
            its left.
    """

    image: int
    row: int
    column: int
    above: int = 0
    left: int = 0


class Window(NamedTuple):
    """The generator's input for a tile.

    Attributes:
        pixels: in [0, 1]; outside the image, its nearest pixel. A generator of one channel sees
            each channel of the image as a plane; for others there is one plane.
        inside: the window's rows [first, last) and columns [first, last) inside the image.
        corner: the tile's first row and column in the window.
    """

    pixels: Float32[np.ndarray, "*d planes t u c"]
    inside: Int32[np.ndarray, "*d 4"]
    corner: Int32[np.ndarray, "*d 2"]


def choose_way(plan: Plan, size: tuple[int, int]) -> Way:
    """Return how an image of a size, height and width in pixels, is cut."""
    if not plan.tile or (plan.approximate and max(size) <= plan.window):
        return "whole"
    return "approximate" if plan.approximate else "exact"


def tiles_of(batch: Images, plan: Plan, way: Way) -> list[Tile]:
    """Return the tiles of a batch, image by image and row by row."""
    n, h, w, _ = batch.shape
    if way == "whole":
        return [Tile(i, 0, 0) for i in range(n)]
    return [
        Tile(i, row, column, above, left)
        for i in range(n)
        for row, above in _starts(h, plan, way)
        for column, left in _starts(w, plan, way)
    ]


def _starts(length: int, plan: Plan, way: Way) -> list[tuple[int, int]]:
    """Return where tiles start along an axis, and how many pixels each shares with the one before.

    Those of an approximate way end with the axis, and are spread evenly.
    """
    if way == "exact":
        return [(start, 0) for start in range(0, length, plan.stride)]
    rest = max(0, length - plan.tile)
    last, fold = -(-rest // plan.stride), plan.multiple
    starts = [i * (rest // fold) // max(last, 1) * fold for i in range(last + 1)]
    before = [start + plan.tile for start in starts[:-1]]
    return list(zip(starts, [0, *np.subtract(before, starts[1:]).tolist()], strict=True))


def reflect(batch: Images, multiple: int) -> Padded:
    """Reflect images at the bottom and the right, up to sides that are multiples."""
    for axis in (1, 2):
        length = batch.shape[axis]
        if length % multiple:
            at = _reflected(np.arange(-(-length // multiple) * multiple), length)
            batch = np.take(batch, at, axis=axis)
    return batch


def cut(image: Image, tile: Tile, symmetry: int, plan: Plan, *, way: Way) -> Window:
    """Return the window of a tile in the image under a symmetry, numbered as `images.dihedral`.

    Args:
        image: gray, gray and alpha, RGB, or RGB and alpha. One for an approximate way has sides
            that are multiples of the generator's.
        tile: where.
        symmetry: from 0 to 7.
        plan: the sizes.
        way: how.
    """
    height, width = (
        side if way == "whole" else plan.tile if way == "exact" else min(plan.tile, side)
        for side in image.shape[:2]
    )
    row, column = tile.row, tile.column
    if symmetry & 1:
        image, row = image[::-1], len(image) - row - height
    if symmetry & 2:
        image, column = image[:, ::-1], image.shape[1] - column - width
    if symmetry & 4:
        image, row, column = image.swapaxes(0, 1), column, row
    along = {"exact": _beyond, "approximate": _within, "whole": _whole}[way]
    (rows, *vertical, y), (columns, *horizontal, x) = (
        along(length, start, plan)
        for length, start in zip(image.shape, (row, column), strict=False)
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


def _beyond(length: int, start: int, plan: Plan) -> _Along:
    """Cut a window of one size, which may reach beyond the image.

    The image is reflected up to a multiple, as generators that fold pixels do; beyond that, its
    last pixel repeats.
    """
    first = (start - plan.overlap) // plan.multiple * plan.multiple
    padded = -(-length // plan.multiple) * plan.multiple
    at = np.clip(np.arange(first, first + plan.window), 0, padded - 1)
    inside = np.clip((-first, padded - first), 0, plan.window)
    return _reflected(at, length), int(inside[0]), int(inside[1]), start - first


def _within(length: int, start: int, plan: Plan) -> _Along:
    """Cut a window within the image, which may be smaller than the window's usual size."""
    side = min(plan.window, length)
    first = int(np.clip(start - plan.overlap, 0, length - side))
    return np.arange(first, first + side), 0, side, start - first


def _whole(length: int, start: int, plan: Plan) -> _Along:
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
