"""Images for training and evaluation: decoded, cropped to a multiple of the scale, with LR."""

from io import BufferedIOBase
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from isr_jax.errors import UserError
from isr_jax.photo.reading import decode_rgb


class Decoded(NamedTuple):
    """One image of a source: HR [h, w, 3] and, where the source has its own, LR.

    h and w are multiples of the scale; LR is [h/scale, w/scale, 3]. Of a benchmark set, both can
    have one channel, [h, w].
    """

    name: str
    hr: UInt8[np.ndarray, "h w *c"]
    lr: UInt8[np.ndarray, "lr_h lr_w *c"] | None


class ImagePair(NamedTuple):
    """An image to train on or to score: HR [h, w, 3] with its LR [h/scale, w/scale, 3]."""

    name: str
    hr: UInt8[np.ndarray, "h w 3"]
    lr: UInt8[np.ndarray, "lr_h lr_w 3"]


class UnusableImageError(UserError):
    """One image of a source cannot be used: it is unreadable, or too small. Names the image."""


def modcrop(image: UInt8[np.ndarray, "h w *c"], scale: int) -> UInt8[np.ndarray, "h_ w_ *c"]:
    """Return the top-left part of an image whose height and width are multiples of the scale."""
    h, w = image.shape[:2]
    return image[: h - h % scale, : w - w % scale]


def decode_image(
    file: BufferedIOBase, *, name: str, keep_gray: bool = False
) -> UInt8[np.ndarray, "h w *c"]:
    """Decode an image file as `photo.reading.decode_rgb` does.

    Raises:
        UnusableImageError: the file is not an image, or a truncated or corrupt one.
    """
    try:
        return decode_rgb(file, name=name, keep_gray=keep_gray)
    except UserError as error:
        raise UnusableImageError(str(error)) from error


def fit(
    name: str,
    hr: UInt8[np.ndarray, "h w *c"],
    lr: UInt8[np.ndarray, "lr_h lr_w *c"] | None,
    *,
    scale: int,
) -> Decoded:
    """Crop an HR image at the bottom and right to `scale` times its LR image.

    Raises:
        UserError: the LR image is of another scale.
    """
    (h, w), lr_size = hr.shape[:2], None if lr is None else lr.shape[:2]
    # Of a size that is not a multiple of the scale, MATLAB rounds the LR size up, others down.
    if lr_size not in (None, (h // scale, w // scale), (-(-h // scale), -(-w // scale))):
        lr_h, lr_w = lr_size
        ratio = max(h / lr_h, w / lr_w, key=lambda ratio: abs(ratio - scale))
        raise UserError(
            f"{name}: its LR image is {lr_w}x{lr_h} and its HR image {w}x{h}, a scale of "
            f"{ratio:.3g}, but {scale} is asked for: choose data of scale {scale} or set the scale "
            f"to {ratio:.3g}"
        )
    lr = None if lr is None else lr[: h // scale, : w // scale]
    return Decoded(name, modcrop(hr, scale), lr)
