"""Find images that are nearly the same: a perceptual hash, and the nearest hash of each image.

The hash is the DCT hash, known as pHash: one bit for each of the lowest frequencies of an image,
which resizing, JPEG compression, brightness and contrast leave mostly as they are. A flip or a
rotation by 90 degrees only changes signs and the order of these frequencies, so that copies turned
in any of the 8 ways of `images.dihedral` are found by the same hash.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int8, UInt8
from scipy.fft import dctn

from isr_jax.resize import resize_float64

SIDE = 16  # frequencies along each axis
BITS = SIDE * SIDE - 1  # all but the mean
# Bits; images whose hashes differ in no more are near-duplicates. Of 510 photos (T91, BSD400, Set5,
# Set14), no two of different scenes differ in fewer than 87, turned in any of the 8 ways, and no
# copy at a quarter to twice the size, or of JPEG quality 10, in more than 28.
MOST = 60
THUMBNAIL = 32  # pixels

# What `images.dihedral` does to an image, by its number.
CHANGES = (
    "",
    "flipped up-down",
    "flipped left-right",
    "rotated by 180°",
    "transposed",
    "rotated by 90° clockwise",
    "rotated by 90° counterclockwise",
    "transposed along the other diagonal",
)
_INVERSE = (0, 1, 2, 3, 4, 6, 5, 7)
_BLOCK = 2**21  # pairs that are compared at once

Hash = Int8[np.ndarray, "side side"]
Hashes = Int8[np.ndarray, "n side side"]


class Match(NamedTuple):
    """An image, and the one that it is most like.

    Attributes:
        image: its number.
        of: the number of the other.
        distance: bits in which their hashes differ, 0 to BITS.
        change: the number in CHANGES of what makes the image of the other.
        others: how many more are near-duplicates of it.
    """

    image: int
    of: int
    distance: int
    change: int
    others: int


def perceptual_hash(pixels: UInt8[np.ndarray, "h w *c"]) -> Hash:
    """Return the signs, 1 or -1, of the lowest frequencies of an image; 0 for its mean.

    The image is taken as a square. Signs stand in for pHash's comparison with the median, which is
    close to 0, because a flip turns signs but not the order of magnitudes.

    Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, of
    the hash of pHash's `ph_dct_imagehash`; with 16x16 frequencies in place of 8x8.
    """
    thumbnail = resize_float64(pixels, size=(THUMBNAIL, THUMBNAIL))
    if thumbnail.ndim == 3:
        thumbnail = thumbnail @ np.array([0.299, 0.587, 0.114])
    frequencies = np.asarray(dctn(thumbnail))[:SIDE, :SIDE]
    signs = np.where(frequencies > 0, 1, -1).astype(np.int8)
    signs[0, 0] = 0
    return signs


def changed(hashes: Hashes, change: int) -> Hashes:
    """Return the hashes of images that `images.dihedral` has changed by its number `change`."""
    odd = np.where(np.arange(hashes.shape[-1]) % 2, -1, 1).astype(np.int8)
    if change & 1:
        hashes = hashes * odd[:, None]
    if change & 2:
        hashes = hashes * odd
    return hashes.transpose(0, 2, 1) if change & 4 else hashes


def nearest(hashes: Sequence[Hash], known: Sequence[Hash] | None) -> list[Match]:
    """Return the images that are near-duplicates, each with the one that it is most like.

    Args:
        hashes: of the images, in order.
        known: of those that they are compared with; None for the images themselves, each of which
            is then compared with those before it.
    """
    if not len(hashes) or (known is not None and not len(known)):
        return []
    rows = np.stack(hashes)
    columns = (rows if known is None else np.stack(known)).reshape(-1, SIDE * SIDE)
    columns = columns.astype(np.float32)
    step = max(1, _BLOCK // len(columns) // len(CHANGES))
    found = []
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        others = columns if known is not None else columns[: start + len(block)]
        # Undone on the image in place of done to the other.
        turned = np.stack([changed(block, undone) for undone in _INVERSE])
        agreement = turned.reshape(-1, SIDE * SIDE).astype(np.float32) @ others.T
        distances = ((BITS - agreement) / 2).reshape(len(CHANGES), len(block), -1)
        if known is None:
            after = np.arange(len(others)) >= start + np.arange(len(block))[:, None]
            distances[:, after] = BITS + 1
        near = distances.min(axis=0)
        for i in np.flatnonzero(near.min(axis=1) <= MOST):
            of = int(near[i].argmin())
            change = int(distances[:, i, of].argmin())
            count = int((near[i] <= MOST).sum())
            found.append(Match(start + int(i), of, int(near[i, of]), change, count - 1))
    return found
