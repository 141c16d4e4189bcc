"""Resize an image that arrives in parts, so that it is never held as a whole.

A pixel of the result is computed as soon as all pixels that it depends on have arrived, by the same
sums as from the whole image: the result has the same bits. What later pixels still need is kept:
some rows above the parts to come, and some columns on their left.
"""

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

from isr_jax import images
from isr_jax.resize import Taps, apply_taps, axis_taps
from isr_jax.tiling.cutting import Sides

_BLOCK_BYTES = 4 * 2**20  # of the result in float64, several of which are needed to round it


class Axis:
    """How far a resize has got along one axis.

    Attributes:
        taps: of all pixels of the result.
        done: how many of them are computed.
        start: the first pixel of the image that the others need.
    """

    def __init__(self, length: int, out: int) -> None:
        """Begin at the first pixel.

        Args:
            length: of the image.
            out: of the result.
        """
        self.taps = axis_taps(length, out)
        self._first, self._last = self.taps.inputs.min(axis=1), self.taps.inputs.max(axis=1)
        self.done = self.start = 0

    def until(self, stop: int) -> tuple[int, int]:
        """Return how many pixels the image's first `stop` are enough for, and a new `start`."""
        done = int(np.searchsorted(self._last, stop))
        return done, min(int(self._first[done]), stop) if done < len(self._first) else stop

    def between(self, first: int, stop: int) -> Taps:
        """Return the taps of some pixels of the result, of an image that begins at `start`."""
        part = slice(first, stop)
        return Taps(self.taps.weights[part], self.taps.inputs[part] - np.int32(self.start))


class Resizing:
    """A bicubic resize in float64 of an image in [0, 1], which arrives in parts."""

    def __init__(
        self, size: Sides, result: UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]
    ) -> None:
        """Begin with nothing.

        Args:
            size: height and width of the image.
            result: where the pixels go; channels that the image does not have are left alone.
        """
        self._size, self._result = size, result
        self._rows, self._columns = Axis(size[0], len(result)), Axis(size[1], result.shape[1])
        self._above: np.ndarray | None = None  # rows from `start`, across the image
        self._below: np.ndarray | None = None  # those of the next parts
        self._left: np.ndarray | None = None  # columns from `start`, as high as the parts

    def put(self, row: int, column: int, pixels: Float32[np.ndarray, "t u d"]) -> None:
        """Take a part; those of equal rows follow each other from the left to the right.

        Args:
            row, column: its first ones.
            pixels: need not lie in [0, 1]: the result is clipped, its input is not.
        """
        rows, columns, channels = self._rows, self._columns, pixels.shape[2]
        bottom, right = row + pixels.shape[0], column + pixels.shape[1]
        done_rows, next_row = rows.until(bottom)
        done_columns, next_column = columns.until(right)
        shape = bottom - rows.start, right - columns.start, channels
        part = np.empty(shape, np.float32)
        if self._left is not None:
            part[:, : column - columns.start] = self._left
        new = part[:, column - columns.start :]
        if self._above is not None:
            new[: row - rows.start] = self._above[:, column:right]
        new[row - rows.start :] = pixels
        across = slice(columns.done, done_columns)
        taps = columns.between(columns.done, done_columns)
        step = max(1, _BLOCK_BYTES // (8 * channels * max(1, len(taps.weights))))
        for first in range(rows.done, done_rows if len(taps.weights) else 0, step):
            stop = min(first + step, done_rows)
            values = apply_taps(part, rows.between(first, stop), taps)
            levels = images.to_unsigned(values, self._result.dtype)
            self._result[first:stop, across, :channels] = levels
        if self._below is None:
            self._below = np.empty((bottom - next_row, self._size[1], channels), np.float32)
        self._below[:, column:right] = new[next_row - rows.start :]
        if right < self._size[1]:
            self._left = part[:, next_column - columns.start :].copy()
            columns.done, columns.start = done_columns, next_column
            return
        self._above, self._below, self._left = self._below, None, None
        rows.done, rows.start = done_rows, next_row
        columns.done = columns.start = 0
