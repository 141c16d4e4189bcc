"""Images for training and evaluation: decoded, cropped to a multiple of the scale, with LR."""

import math
from collections.abc import Sequence
from fractions import Fraction
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt16

from isr_jax.errors import UserError
from isr_jax.photo.pixels import to_8_bits, to_16_bits
from isr_jax.photo.reading import OpenPhoto, decode_rgb, open_photo
from isr_jax.resize import resize_uint8, resize_uint16

Pixels = UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"]
Span = tuple[int, int]


class Decoded(NamedTuple):
    """One image of a source: HR [h, w, c] and, where the source has its own, LR.

    c is 3, or 1 of a source in gray. h and w are multiples of the scale; LR is [h/scale, w/scale,
    c]. Either is uint16 where its file has 16 bits per channel. Of a benchmark set, gray images are
    [h, w].
    """

    name: str
    hr: UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"]
    lr: UInt8[np.ndarray, "lr_h lr_w *c"] | UInt16[np.ndarray, "lr_h lr_w *c"] | None


class ImagePair(NamedTuple):
    """An image to train on or to score: HR [h, w, c] with its LR [h/scale, w/scale, c].

    c is 3, or 1 of gray images.

    Attributes:
        name: of its file.
        hr, lr: the images.
        own: whether LR is the source's own; else it was made of HR.
    """

    name: str
    hr: UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]
    lr: UInt8[np.ndarray, "lr_h lr_w c"] | UInt16[np.ndarray, "lr_h lr_w c"]
    own: bool = False


class UnusableImageError(UserError):
    """One image of a source cannot be used: it is unreadable, or too small. Names the image."""


def modcrop(image: Pixels, scale: int) -> np.ndarray:
    """Return the top-left part of an image whose height and width are multiples of the scale."""
    h, w = image.shape[:2]
    return image[: h - h % scale, : w - w % scale]


def shrink(
    hr: Pixels, *, scale: int, rows: Span | None = None, cols: Span | None = None
) -> np.ndarray:
    """Return the exact bicubic LR image of an HR image, or rows and columns [start, stop) of it."""
    resize = resize_uint8 if hr.dtype == np.uint8 else resize_uint16
    return resize(hr, scale=Fraction(1, scale), rows=rows, cols=cols)


def without_own(photo: ImagePair, *, scale: int) -> ImagePair:
    """Return an image with the exact bicubic LR image, in place of one of its source's own."""
    return photo._replace(lr=shrink(photo.hr, scale=scale), own=False) if photo.own else photo


def in_8_bits(photo: ImagePair, *, scale: int) -> ImagePair:
    """Return an image with uint8 pixels; an LR image that was made of HR is made again."""
    if photo.hr.dtype == photo.lr.dtype == np.uint8:
        return photo
    hr = to_8_bits(photo.hr)
    return photo._replace(hr=hr, lr=to_8_bits(photo.lr) if photo.own else shrink(hr, scale=scale))


def stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays; where some are images of 16 bits, all get 16."""
    if len({array.dtype for array in arrays}) > 1:
        arrays = [to_16_bits(array) for array in arrays]
    return np.stack(arrays)


def decode_image(file: BufferedIOBase, *, name: str, keep_bits: bool = False) -> Pixels:
    """Decode an image file as `photo.reading.decode_rgb` does.

    Raises:
        UnusableImageError: the file is not an image, or a truncated or corrupt one.
    """
    try:
        return decode_rgb(file, name=name, keep_bits=keep_bits)
    except UserError as error:
        raise UnusableImageError(str(error)) from error


def area_of(file: Path | BufferedIOBase) -> int:
    """Return the number of pixels that an image's header declares; 0 if it cannot be read."""
    try:
        photo = open_photo(file) if isinstance(file, Path) else OpenPhoto(file, "image")
    except UserError:
        return 0
    photo.close()
    return math.prod(photo.head.sizes[0])


def fit(
    name: str,
    hr: Pixels,
    lr: UInt8[np.ndarray, "lr_h lr_w *d"] | UInt16[np.ndarray, "lr_h lr_w *d"] | None,
    *,
    scale: int,
) -> Decoded:
    """Crop an HR image at the bottom and right to `scale` times its LR image.

    Raises:
        UserError: the LR image is of another size.
    """
    (h, w), lr_size = hr.shape[:2], None if lr is None else lr.shape[:2]
    # Of a size that is not a multiple of the scale, MATLAB rounds the LR size up, others down.
    if lr_size not in (None, (h // scale, w // scale), (-(-h // scale), -(-w // scale))):
        lr_h, lr_w = lr_size
        ratio = round(h / lr_h)
        if lr_h > h or lr_w > w:
            remedy = "LR is larger than HR: are the two folders swapped?"
        elif ratio != scale and (lr_h * ratio, lr_w * ratio) == (h, w):
            remedy = f"choose data of scale {scale}, or set the scale to {ratio}"
        else:
            remedy = "cut or resize one of them, or remove both"
        raise UserError(
            f"{name}: its LR image is {lr_w}x{lr_h} and its HR image {w}x{h}, where a scale of "
            f"{scale} has LR of {w // scale}x{h // scale}: {remedy}"
        )
    lr = None if lr is None else lr[: h // scale, : w // scale]
    return Decoded(name, modcrop(hr, scale), lr)
