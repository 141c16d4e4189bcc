"""Images of 8 or 16 bits as the perceptual metrics take them: cropped, and as a float batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, UInt8, UInt16

from isr_jax.errors import UserError
from isr_jax.images import to_float

Pixels = UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"]


def cropped(
    image: Pixels, *, crop: int
) -> UInt8[np.ndarray, "ch cw d"] | UInt16[np.ndarray, "ch cw d"]:
    """Return an image without `crop` pixels along each side, its channels last.

    Raises:
        UserError: neither RGB nor one channel, or nothing is left after cropping.
    """
    image = image.reshape(*image.shape[:2], -1)
    h, w, channels = image.shape
    if channels not in (1, 3):
        raise UserError(f"cannot score {channels} channels; give RGB or one channel")
    if crop < 0 or min(h, w) <= 2 * crop:
        raise UserError(f"cropping {crop} pixels from each side of {h}x{w} leaves no image")
    return image[crop : h - crop, crop : w - crop]


class ImageDistance(NamedTuple):
    """A distance of images of 8 or 16 bits, for tables.

    Attributes:
        params: of its network.
        compiled: (params, sr, hr) -> the distance of each pair of images in [0, 1].
    """

    params: Any
    compiled: Callable[..., Float[Array, " n"]]

    def __call__(
        self,
        sr: UInt8[np.ndarray, "sh sw *sc"] | UInt16[np.ndarray, "sh sw *sc"],
        hr: UInt8[np.ndarray, "hh hw *hc"] | UInt16[np.ndarray, "hh hw *hc"],
        *,
        crop: int = 0,
    ) -> float:
        """Return the distance of one pair of images; lower is better.

        Each new size of image is compiled anew, in about half a second.

        Args:
            sr: the image to score, 0..255 or 0..65535, RGB or one channel, which stands for all
                three.
            hr: the truth, of the same size.
            crop: pixels left out along each side.

        Raises:
            UserError: other channels, sizes that differ, or too little left after cropping.
        """
        return float(self.compiled(self.params, *_rgb_pair(sr, hr, crop=crop))[0])


def _rgb_pair(
    sr: UInt8[np.ndarray, "sh sw *sc"] | UInt16[np.ndarray, "sh sw *sc"],
    hr: UInt8[np.ndarray, "hh hw *hc"] | UInt16[np.ndarray, "hh hw *hc"],
    *,
    crop: int,
) -> tuple[Float[np.ndarray, "1 h w 3"], Float[np.ndarray, "1 h w 3"]]:
    """Return two images as batches of one in [0, 1]; one channel stands for all three.

    Raises:
        UserError: sizes that differ, or as for `cropped`.
    """
    if sr.shape != hr.shape:
        raise UserError(f"cannot compare images of {list(sr.shape)} and {list(hr.shape)}")
    first, second = (cropped(image, crop=crop) for image in (sr, hr))
    return _rgb(first), _rgb(second)


def _rgb(image: Pixels) -> Float[np.ndarray, "1 h w 3"]:
    return to_float(np.repeat(image, 3 // image.shape[2], axis=2)[None])
