"""Photographs whose pixels say where they are, to find out where a crop was cut."""

from fractions import Fraction

import numpy as np

from isr_jax.data.examples import ImagePair
from isr_jax.resize import resize_uint8

# The symmetries of the square as quarter turns, then perhaps a mirror: unlike the code's own.
SYMMETRIES = tuple((turns, mirror) for turns in range(4) for mirror in (False, True))


def turn(images, symmetry):
    """The images [n, s, s, 3], each turned."""
    turns, mirror = symmetry
    images = np.rot90(images, turns, axes=(1, 2))
    return images[:, :, ::-1] if mirror else images


def located_photos(sizes, *, scale):
    """Photos whose HR pixel (y, x) of image n is (y, x, n); at most 256 pixels a side."""
    photos = []
    for n, (h, w) in enumerate(sizes):
        y, x = np.mgrid[:h, :w].astype(np.uint8)
        hr = np.stack([y, x, np.full_like(y, n)], axis=-1)
        photos.append(ImagePair(f"{n}.png", hr, resize_uint8(hr, scale=Fraction(1, scale))))
    return photos


def locate(crops):
    """For crops [n, s, s, 3] of located photos, the (image, y, x, symmetry) each was cut from."""
    corners = crops.min(axis=(1, 2)).astype(int)
    y, x = np.mgrid[: crops.shape[1], : crops.shape[1]]
    plain = corners[:, None, None] + np.stack([y, x, np.zeros_like(y)], axis=-1)
    matches = np.stack([(turn(plain, s) == crops).all(axis=(1, 2, 3)) for s in SYMMETRIES])
    assert (matches.sum(axis=0) == 1).all()
    return [
        (n, y, x, SYMMETRIES[k])
        for (y, x, n), k in zip(corners.tolist(), matches.argmax(axis=0), strict=True)
    ]


def check_crops(lr, hr, photos, *, scale):
    """Asserts that uint8 crops are what they ought to be; returns the place of each."""
    lr, hr = np.asarray(lr), np.asarray(hr)
    places, size = locate(hr), lr.shape[1]
    for crop, (n, y, x, symmetry) in zip(lr, places, strict=True):
        assert y % scale == x % scale == 0
        y, x = y // scale, x // scale
        window = photos[n].lr[None, y : y + size, x : x + size]
        np.testing.assert_array_equal(crop, turn(window, symmetry)[0])
    return places
