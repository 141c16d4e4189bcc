"""Put computed tiles into an image, blend what they share, and resize its alpha."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

from isr_jax.resize import resize_uint8, resize_uint16
from isr_jax.tiling.cutting import Image, Images, Sides, Tile

Upscaled = UInt8[np.ndarray, "n sh sw c"] | UInt16[np.ndarray, "n sh sw c"]
Part = UInt8[np.ndarray, "t u _"] | UInt16[np.ndarray, "t u _"] | Float32[np.ndarray, "t u _"]


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


def rows_of(
    parts: Iterator[tuple[Tile, Part]], size: Sides, scale: int
) -> Iterator[tuple[int, int, Part]]:
    """Yield rows of an SR image of a size, of tiles that blend, with their place."""
    first, band = 0, np.empty((0, 0, 0), np.float32)
    kept = band  # the rows that those of the next tiles are blended with
    for tile, sr in parts:
        row, column, left = (scale * pixels for pixels in (tile.row, tile.column, tile.left))
        sr = sr[: size[0] - row, : size[1] - column]
        if not column:
            if row > first:
                yield first, 0, band[: row - first]
            first, kept = row, band[row - first :].copy()
            band = np.empty((len(sr), size[1], sr.shape[2]), np.float32)
        _blend(band[:, column : column + sr.shape[1]], sr, left, axis=1)
        if column + sr.shape[1] == size[1] and len(kept):
            _blend(kept, band[: len(kept)], len(kept), axis=0)
            band[: len(kept)] = kept
    yield first, 0, band


def _blend(old: Part, new: Part, shared: int, *, axis: int) -> None:
    """Replace pixels along an axis; the first `shared` fade linearly from old to new."""
    old, new = np.moveaxis(old, axis, 0), np.moveaxis(new, axis, 0)
    weight = ((np.arange(shared, dtype=np.float32) + 0.5) / max(shared, 1))[:, None, None]
    first = old[:shared].astype(np.float32)
    faded = first + weight * (new[:shared].astype(np.float32) - first)
    old[:shared] = faded if old.dtype == np.float32 else np.rint(faded)
    old[shared:] = new[shared:]


def upscale_alpha(batch: Images, result: Upscaled, *, rows: int) -> None:
    """Write the last channel of the result, bicubic-resized, `rows` LR rows at a time."""
    resize = resize_uint8 if batch.dtype == np.uint8 else resize_uint16
    size = result.shape[1:3]
    step = max(1, rows * size[0] // batch.shape[1])
    for image, upscaled in zip(batch[..., -1], result[..., -1], strict=True):
        for start in range(0, size[0], step):
            stop = min(start + step, size[0])
            upscaled[start:stop] = resize(image, size=size, rows=(start, stop))
