"""PSNR, SSIM and MS-SSIM in float64, by the protocols of published tables.

These are of 8 bits. Images of 16 bits are compared likewise, in 0..255 with fractions of 1/257:
what the protocols round to 8 bits is rounded to 16.
"""

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8, UInt16
from scipy.ndimage import correlate1d

from isr_jax import errors
from isr_jax.errors import UserError
from isr_jax.images import rgb_to_y, to_unsigned
from isr_jax.metrics import GAUSSIAN, WINDOW, halve, ms_ssim_weights
from isr_jax.resize import Scale, as_fraction, resize_float64, resize_uint8, resize_uint16


class Protocol(NamedTuple):
    """What a protocol compares.

    Attributes:
        luma: whether the luma of RGB is compared, or else each of its channels.
        rounded: whether luma is rounded to integers.
        gray_as_rgb: whether one channel is taken as RGB with three equal ones.
        crop: pixels cropped from each side; None for the scale factor.
    """

    luma: bool
    rounded: bool = False
    gray_as_rgb: bool = False
    crop: int | None = None


# BasicSR itself reads gray files as colour, so in tables made by it the luma of Set14's gray image
# counts, whose errors are 1.3 dB smaller than those of its one channel. The challenges are of x4.
PROTOCOLS = {
    "vdsr": Protocol(luma=True, rounded=True),
    "basicsr": Protocol(luma=True),
    "basicsr-color": Protocol(luma=True, gray_as_rgb=True),
    "rgb": Protocol(luma=False),
    "ntire-sr": Protocol(luma=True, gray_as_rgb=True, crop=4),
    "ntire-esr": Protocol(luma=False, gray_as_rgb=True, crop=4),
}

Pixels = UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"]

_STRIP_PIXELS = 2**18  # of a plane in float64 at a time: a dozen arrays of 2 MB


class Scores(NamedTuple):
    """The scores of one image: psnr in dB (inf when identical), ssim, ms_ssim in [-1, 1].

    ssim and ms_ssim are nan where the cropped image is smaller than the 11x11 window.
    """

    psnr: float
    ssim: float
    ms_ssim: float


def measure(
    sr: UInt8[np.ndarray, "sh sw *sc"] | UInt16[np.ndarray, "sh sw *sc"],
    hr: UInt8[np.ndarray, "hh hw *hc"] | UInt16[np.ndarray, "hh hw *hc"],
    *,
    crop: int,
    protocol: str = "vdsr",
) -> Scores:
    """Score one image as the literature does, with peak 255.

    Args:
        sr: the image to score, 0..255 or 0..65535, RGB or one channel.
        hr: the HR image, of the same shape and type. One channel is scored as it is, except under
            basicsr-color and ntire-sr.
        crop: pixels cropped from each side; by convention, the scale factor.
        protocol: vdsr (luma rounded to integers of the images' type), basicsr (luma not rounded),
            basicsr-color and ntire-sr (the same, of one channel too), rgb and ntire-esr (the mean
            over three channels; one mean squared error over all of them for PSNR).

    Works through the images in strips: beside them it needs memory for a quarter of one in
    float64, twice, and some tens of megabytes.

    Raises:
        UserError: an unknown protocol, other types of pixels, shapes or types that differ, or
            nothing left after cropping.
    """
    for image in (sr, hr):
        if image.dtype not in (np.uint8, np.uint16):
            raise UserError(f"cannot score {image.dtype} pixels; give uint8 or uint16")
    if sr.dtype != hr.dtype:
        raise UserError(
            f"cannot compare {8 * sr.itemsize} bits with {8 * hr.itemsize}; convert one of them"
        )
    (sp, sh, sw), (hp, h, w) = ((len(_planes_of(x, protocol)), *x.shape[:2]) for x in (sr, hr))
    if (sp, sh, sw) != (hp, h, w):
        raise UserError(
            f"cannot compare {sh}x{sw} pixels of {sp} scored channel(s) with {h}x{w} of {hp}; "
            "cut the truth to scale times the low-resolution size and match its channels"
        )
    if crop < 0 or min(h, w) <= 2 * crop:
        raise UserError(f"cropping {crop} pixels from each side of {h}x{w} leaves no image")
    sr, hr = (x[crop : h - crop, crop : w - crop] for x in (sr, hr))
    pairs = list(zip(_planes_of(sr, protocol), _planes_of(hr, protocol), strict=True))
    error = float(np.mean([_squared_error(a, b) for a, b in pairs]))
    decibels = float(10.0 * np.log10(255.0**2 / error)) if error else float("inf")
    if min(sr.shape[:2]) < WINDOW:
        return Scores(decibels, float("nan"), float("nan"))
    return Scores(decibels, *np.mean([_ssim_and_ms_ssim(a, b) for a, b in pairs], axis=0).tolist())


def measure_interpolation(
    lr: UInt8[np.ndarray, "lh lw *lc"] | UInt16[np.ndarray, "lh lw *lc"],
    hr: UInt8[np.ndarray, "hh hw *hc"] | UInt16[np.ndarray, "hh hw *hc"],
    *,
    scale: Scale,
    method: str = "bicubic",
    protocol: str = "vdsr",
) -> Scores:
    """Score an interpolation of lr, cropped as by `crop_of`, as published tables do.

    Under vdsr the luma (or the one channel), rounded to integers, is upscaled in float and rounded.
    Where lr is the exact bicubic of hr, as in every benchmark set, published rows never saw lr:
    there it is hr's luma, shrunk without rounding, that is upscaled, and so it is here. Under
    the others lr itself is upscaled, as by MATLAB's `imresize`, and measured.

    Args:
        lr: the image to upscale, 0..255 or 0..65535, RGB or one channel.
        hr: the truth, of the same type, already cut to scale times the size of lr.
        scale: the factor.
        method: nearest, bilinear, bicubic or lanczos.
        protocol: as for `measure`.

    Raises:
        UserError: as for `measure` and `resize.resize_uint8`.
    """
    factor = as_fraction(scale)
    resize = resize_uint8 if lr.dtype == np.uint8 else resize_uint16
    crop = crop_of(protocol, scale=factor)
    if not PROTOCOLS[protocol].rounded:
        sr = resize(lr, scale=factor, method=method)
        return measure(sr, hr, crop=crop, protocol=protocol)
    luma: np.ndarray = _luma(lr)
    truth = _luma(hr)
    if lr.dtype == hr.dtype and np.array_equal(lr, resize(hr, scale=1 / factor)):
        luma = resize_float64(truth, scale=1 / factor)
    upscaled = resize(luma, scale=factor, method=method, round_between=False)
    return measure(upscaled, truth, crop=crop, protocol=protocol)


def crop_of(protocol: str, *, scale: Scale) -> int:
    """Return the pixels that a protocol crops from each side: of most, the scale, rounded up.

    Raises:
        UserError: the protocol is unknown.
    """
    crop = _find(protocol).crop
    return ceil(as_fraction(scale)) if crop is None else crop


def least_side(scale: int) -> int:
    """Return the shortest side of an image that SSIM's window fits once its border is cropped."""
    return 11 + 2 * scale


def _find(protocol: str) -> Protocol:
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        raise errors.unknown("protocol", protocol, PROTOCOLS)
    return PROTOCOLS[protocol]


def luma_uint8(image: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "h w"]:
    """BT.601 luma of RGB, rounded half up to 16..235, as vdsr compares it; one channel as it is.

    Raises:
        UserError: neither RGB nor one channel.
    """
    return _luma(image)


def _luma(image: Pixels) -> UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]:
    """Return the luma, or the one channel, that vdsr compares, as integers of the image's type."""
    (plane,) = _planes_of(image, "vdsr")
    luma = np.empty(plane.shape, image.dtype)
    levels = _levels(image)
    for strip in _strips(*plane.shape):
        luma[strip] = np.rint(levels * plane.rows(strip))
    return luma


def _levels(image: Pixels) -> int:
    """Return how many levels of its type an image has to one of 0..255: 1, or 257 of 16 bits."""
    return np.iinfo(image.dtype).max // 255


class Plane(NamedTuple):
    """One channel that is compared: its shape, and how to get some of its rows in 0..255.

    A whole photograph in float64 would need gigabytes; a strip of it at a time does not.
    """

    shape: tuple[int, int]
    rows: Callable[[slice], Float64[np.ndarray, "r w"]]


def _planes_of(image: Pixels, protocol: str) -> list[Plane]:
    """Return the channels that a protocol compares."""
    peak, levels, how = float(np.iinfo(image.dtype).max), _levels(image), _find(protocol)
    h, w = image.shape[:2]
    image = image.reshape(h, w, -1)
    if image.shape[2] not in (1, 3):
        raise UserError(f"cannot score {image.shape[2]} channels; give RGB or one channel")
    if how.gray_as_rgb:
        image = np.broadcast_to(image, (h, w, 3))

    def channel(i: int) -> Plane:
        return Plane((h, w), lambda strip: image[strip, :, i].astype(np.float64) / levels)

    def luma(strip: slice) -> Float64[np.ndarray, "r w"]:
        y = rgb_to_y(image[strip] / peak)[..., 0]
        if how.rounded:
            return to_unsigned(y, image.dtype).astype(np.float64) / levels
        return y * 255.0

    if image.shape[2] == 3 and how.luma:
        return [Plane((h, w), luma)]
    return [channel(i) for i in range(image.shape[2])]


def _strips(h: int, w: int, *, overlap: int = 0) -> list[slice]:
    """Rows 0..h in strips of an even number, each reaching `overlap` rows into the next."""
    step = max(2, _STRIP_PIXELS // w // 2 * 2)
    return [slice(i, min(i + step + overlap, h)) for i in range(0, h - overlap, step)]


def _squared_error(a: Plane, b: Plane) -> float:
    """Mean squared error of one channel."""
    h, w = a.shape
    sums = [np.sum((a.rows(strip) - b.rows(strip)) ** 2) for strip in _strips(h, w)]
    return float(np.sum(sums) / (h * w))


def _ssim_and_ms_ssim(a: Plane, b: Plane) -> tuple[float, float]:
    """Both similarities of one channel; they share the finest scale."""
    weights = ms_ssim_weights(*a.shape)
    similarity, contrast = _ssim_terms(a, b)
    first, product = similarity, 1.0
    for weight in weights[:-1]:
        product *= max(contrast, 0.0) ** weight
        a, b = _halved(a), _halved(b)
        similarity, contrast = _ssim_terms(a, b)
    return first, product * max(similarity, 0.0) ** weights[-1]


def _halved(plane: Plane) -> Plane:
    """Return the plane at half the size, held in memory."""
    h, w = plane.shape
    half = np.empty((h // 2, w // 2))
    for strip in _strips(h // 2 * 2, w):  # of even heights, so that no 2x2 block is cut
        half[strip.start // 2 : strip.stop // 2] = halve(plane.rows(strip))
    return Plane(half.shape, half.__getitem__)


def _ssim_terms(a: Plane, b: Plane) -> tuple[float, float]:
    """Means of SSIM and of its contrast-structure factor."""
    h, w = a.shape
    border = WINDOW - 1
    strips = _strips(h, w, overlap=border)
    sums = np.sum([_ssim_sums(a.rows(strip), b.rows(strip)) for strip in strips], axis=0)
    similarity, contrast = sums / ((h - border) * (w - border))
    return float(similarity), float(contrast)


def _ssim_sums(a: Float64[np.ndarray, "h w"], b: Float64[np.ndarray, "h w"]) -> tuple[float, float]:
    """Return the sums of SSIM and of its contrast-structure factor over the valid region."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _valid_blur(a), _valid_blur(b)
    variances = _valid_blur(a * a + b * b) - mean_a**2 - mean_b**2
    covariance = _valid_blur(a * b) - mean_a * mean_b
    contrast = (2 * covariance + c2) / (variances + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float(np.sum(luminance * contrast)), float(np.sum(contrast))


def _valid_blur(x: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "oh ow"]:
    """Apply the Gaussian window to an image, valid region."""
    edge = WINDOW // 2
    x = correlate1d(x, GAUSSIAN, axis=0)[edge:-edge]
    return correlate1d(x, GAUSSIAN, axis=1)[:, edge:-edge]
