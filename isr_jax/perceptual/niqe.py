"""NIQE: how far an image's statistics lie from those of pristine photographs, without an HR image.

    measure = load_niqe("matlab")
    measure(sr, crop=4)  # one uint8 image -> float, lower is better

An image's contrast is normalised locally; of each block of 96x96 pixels, and of the same block at
half the size, 18 parameters of the distribution of pixels and of products of neighbours are
fitted; the score is a distance of their Gaussian from one of pristine photographs, whose mean and
covariance were published.

Two forms are in use. "matlab" is the authors' code: MATLAB's rgb2gray and imresize, in double
precision. "pyiqa" is that of the package of this name: Y of YIQ, a window rounded to single
precision, and halved in single precision. NIQE counts the pixels on either side of their local
mean, and where an area is flat, rounding decides the side, which moves the score: by pyiqa's window
all lie on one side; in MATLAB it depends on the value, and here, in "matlab", they lie on neither.

Source: Mittal, Soundararajan & Bovik 2013, "Making a 'Completely Blind' Image Quality Analyzer";
the authors' release, computequality.m; IQA-PyTorch, niqe_arch.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int, UInt8, UInt16
from scipy.ndimage import correlate, correlate1d
from scipy.special import gamma

from isr_jax import errors
from isr_jax.errors import UserError
from isr_jax.perceptual import weight_files as weights
from isr_jax.perceptual.inputs import cropped
from isr_jax.photo.pixels import to_8_bits

BLOCK = 96  # pixels, of which one block has so many a side
FEATURES = 36  # 18 at each of two scales
_WINDOW, _SIGMA = 7, 7 / 6  # of the Gaussian that normalises contrast
_EDGE = _WINDOW // 2

SHAPES = np.arange(9801) / 1000 + 0.2  # the shapes that are tried: 0.2 to 10
_RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))

Image = UInt8[np.ndarray, "h w c"]
Luma = UInt8[np.ndarray, "h w"]


class Pristine(NamedTuple):
    """The Gaussian of pristine photographs' features.

    Attributes:
        mean: of each feature.
        covariance: of the features.
    """

    mean: Float64[np.ndarray, " 36"]
    covariance: Float64[np.ndarray, "36 36"]


class Form(NamedTuple):
    """How a form computes what the others compute otherwise.

    Attributes:
        luma: uint8 RGB -> uint8.
        blur: with the Gaussian, edge pixels repeated.
        halve: bicubic interpolation to half the size.
        floor: what is added under the root of the local variance.
        least: the number of blocks that an image must have.
    """

    luma: Callable[[Image], Luma]
    blur: Callable[[Float64[np.ndarray, "h w"]], Float64[np.ndarray, "h w"]]
    halve: Callable[[Luma], Float64[np.ndarray, "oh ow"]]
    floor: float
    least: int


def _luma_of_matlab(rgb: Image) -> Luma:
    """Return MATLAB's rgb2gray: the first row of the inverse of NTSC's matrix, rounded half up."""
    red, green, blue = (rgb[..., i].astype(np.float64) for i in range(3))
    y = 0.298936021293775 * red + 0.587043074451121 * green + 0.114020904255103 * blue
    return np.floor(y + 0.5).astype(np.uint8)


def _luma_of_pyiqa(rgb: Image) -> Luma:
    """Return Y of YIQ in single precision, rounded half to even."""
    red, green, blue = (rgb[..., i] / np.float32(255) for i in range(3))
    y = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    return np.round(y * np.float32(255)).astype(np.uint8)


def _gaussian() -> Float64[np.ndarray, " 7"]:
    """Return the window along one axis; it sums to 1."""
    window = np.exp(-0.5 * (np.arange(-_EDGE, _EDGE + 1) / _SIGMA) ** 2)
    return window / window.sum()


def _blur_of_matlab(x: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    """Blur in float64; in a flat area a pixel is its own mean, whatever the rounding."""
    rows = correlate1d(x, _gaussian(), axis=1, mode="nearest")
    mean = correlate1d(rows, _gaussian(), axis=0, mode="nearest")
    return np.where(np.abs(x - mean) < 1e-12 * np.abs(x), x, mean)


def _blur_of_pyiqa(x: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    """Blur with a window that was rounded to single precision, and so does not sum to 1."""
    window = np.outer(_gaussian(), _gaussian()).astype(np.float32).astype(np.float64)
    return correlate(x, window, mode="nearest")


# Keys's cubic at 1/4, 3/4, 5/4 and 7/4 of a pixel of the result, over 2; exact in binary.
_HALF = np.array([111, 29, -9, -3]) / 256
_TAPS = np.concatenate([_HALF[::-1], _HALF])


def _halve_in_matlab(luma: Luma) -> Float64[np.ndarray, "oh ow"]:
    """Halve by MATLAB's imresize of today, which mirrors the border; older ones repeat it."""
    return _halve_rows(_halve_rows(luma.astype(np.float64)).T).T


def _halve_in_pyiqa(luma: Luma) -> Float64[np.ndarray, "oh ow"]:
    """Halve in single precision, and add in pyiqa's order: flat areas depend on the last bit."""
    x = (luma / 255.0).astype(np.float32)
    return _halve_rows(_halve_rows(x).T).T.astype(np.float64) * 255.0


def _halve_rows(x: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "oh w"]:
    reach = len(_TAPS) // 2 - 1
    padded = np.pad(x, ((reach, reach), (0, 0)), mode="symmetric")
    total = np.zeros((len(x) // 2, x.shape[1]), x.dtype)
    for first, weight in enumerate(_TAPS.astype(x.dtype)):
        total += weight * padded[first : first + len(x) : 2]
    return total


FORMS: dict[str, Form] = {
    "matlab": Form(_luma_of_matlab, _blur_of_matlab, _halve_in_matlab, 0.0, 2),
    "pyiqa": Form(
        _luma_of_pyiqa, _blur_of_pyiqa, _halve_in_pyiqa, float(np.finfo(np.float64).eps), 1
    ),
}


def niqe(
    image: UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"],
    pristine: Pristine,
    *,
    form: str = "matlab",
    crop: int = 0,
) -> float:
    """Return NIQE of one image; lower is better.

    Computed in float64, a row of blocks at a time: beside the image it needs memory for its luma,
    half of it in single precision or float64, and some tens of megabytes.

    Args:
        image: 0..255, or 0..65535, which is rounded to the 8 bits of the pristine photographs; RGB
            or one channel. What is left of whole blocks of 96x96 pixels, at the right and at the
            bottom, is not looked at.
        pristine: what `load_pristine` gives.
        form: matlab or pyiqa.
        crop: pixels left out along each side.

    Returns:
        0 or more; nan where no block has all its features, as in an image of flat colour.

    Raises:
        UserError: other channels, or too little left after cropping: pyiqa needs one block, matlab
            two, since the authors' code takes the features of a single one for as many blocks.
    """
    if form not in FORMS:
        raise errors.unknown("NIQE form", form, FORMS)
    chosen = FORMS[form]
    image = to_8_bits(cropped(image, crop=crop))
    h, w = (side // BLOCK for side in image.shape[:2])
    if h * w < chosen.least:
        raise UserError(
            f"NIQE as by {form} needs {chosen.least} block(s) of {BLOCK}x{BLOCK} pixels; these are "
            f"{image.shape[0]}x{image.shape[1]}"
        )
    image = image[: h * BLOCK, : w * BLOCK]
    luma = chosen.luma(image) if image.shape[2] == 3 else image[..., 0]
    fine = _features(luma, BLOCK, chosen)
    coarse = _features(chosen.halve(luma), BLOCK // 2, chosen)
    return _distance(np.concatenate([fine, coarse], axis=1), pristine)


def _distance(features: Float64[np.ndarray, "n 36"], pristine: Pristine) -> float:
    """Return the distance of the features' Gaussian from that of pristine photographs.

    Source: Mittal et al. 2013, equation 10; blocks with an undefined feature have none in the
    covariance, and in the mean their defined ones.
    """
    defined = ~np.isnan(features)
    whole = features[defined.all(axis=1)]
    if not len(whole):
        return float("nan")
    mean = np.where(defined, features, 0).sum(axis=0) / defined.sum(axis=0)
    spread = whole - whole.mean(axis=0)
    covariance = spread.T @ spread / max(1, len(whole) - 1)
    precision = np.linalg.pinv(
        (pristine.covariance + covariance) / 2, rcond=FEATURES * np.finfo(np.float64).eps
    )
    difference = pristine.mean - mean
    return float(np.sqrt(difference @ precision @ difference))


def _features(
    plane: Luma | Float64[np.ndarray, "h w"], side: int, form: Form
) -> Float64[np.ndarray, "n 18"]:
    """Return the features of each block of side x side pixels of a plane in 0..255."""
    h, w = plane.shape
    rows = []
    for top in range(0, h, side):
        first = max(top - _EDGE, 0)
        x = plane[first : top + side + _EDGE].astype(np.float64)
        mean = form.blur(x)
        deviation = np.sqrt(np.abs(form.blur(x * x) - mean * mean) + form.floor)
        normalised = ((x - mean) / (deviation + 1.0))[top - first :][:side]
        rows.append(_block_features(normalised.reshape(side, w // side, side).swapaxes(0, 1)))
    return np.concatenate(rows)


def _block_features(blocks: Float64[np.ndarray, "n s s"]) -> Float64[np.ndarray, "n 18"]:
    """Return the features of normalised blocks: of the pixels, and of products of neighbours."""
    shape, left, right = _fit(blocks)
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        # Round the edge of the block, to the other side of it, as the authors' code does.
        shape, left, right = _fit(blocks * np.roll(blocks, shift, axis=(1, 2)))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)
        features += [shape, mean, left, right]
    return np.stack(features, axis=1)


def _fit(
    x: Float64[np.ndarray, "n s s"],
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Fit an asymmetric generalised Gaussian to each block, by moments.

    Returns:
        shape, and scale on the left and on the right, which are nan where that side is empty.

    Source: Lasmar, Stitou & Berthoumieu 2009, "Multiscale skewed heavy tailed model for texture
    analysis", as in the authors' estimateaggdparam.m.
    """
    squares = x * x
    with np.errstate(invalid="ignore", divide="ignore"):
        left, right = (
            np.sqrt(np.sum(squares * side, axis=(1, 2)) / np.sum(side, axis=(1, 2)))
            for side in (x < 0, x > 0)
        )
        skew = left / right
        ratio = np.mean(np.abs(x), axis=(1, 2)) ** 2 / np.mean(squares, axis=(1, 2))
        ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = SHAPES[_nearest(ratio)]
    spread = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * spread, right * spread


def _nearest(ratio: Float64[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Return where in _RATIOS, which increase, the nearest lies; 0 for nan, as in MATLAB."""
    above = np.clip(np.searchsorted(_RATIOS, ratio), 1, len(_RATIOS) - 1)
    nearer = ratio - _RATIOS[above - 1] <= _RATIOS[above] - ratio
    return np.where(np.isnan(ratio), 0, above - nearer)


class Niqe(NamedTuple):
    """NIQE in one form, for tables; see `load_niqe`."""

    pristine: Pristine
    form: str

    def __call__(
        self, image: UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"], *, crop: int = 0
    ) -> float:
        """Return NIQE of one image; see `niqe`."""
        return niqe(image, self.pristine, form=self.form, crop=crop)


def at_hand() -> bool:
    """Return whether the pristine model is on this machine."""
    return weights.at_hand("niqe") or weights.at_hand("niqe_basicsr")


def load_pristine(*, path: str | Path | None = None) -> Pristine:
    """Load the authors' model of pristine photographs.

    Args:
        path: niqe_modelparameters.mat of the authors or of pyiqa, BasicSR's niqe_pris_params.npz,
            or a folder to look in first for one of these names (see `weights.find`).

    Raises:
        UserError: the model cannot be had, or is another one.
    """
    arrays = weights.load("niqe", same=("niqe_basicsr",), path=path)
    found = {name.replace("_", ""): array for name, array in arrays.items()}
    mean, covariance = (found.get(name, np.zeros(0)) for name in ("muprisparam", "covprisparam"))
    if mean.size != FEATURES or covariance.shape != (FEATURES, FEATURES):
        raise UserError(
            f"these are not NIQE's parameters: a mean of {FEATURES} values (mu_prisparam) and a "
            f"covariance of {FEATURES}x{FEATURES} (cov_prisparam) are needed; they have "
            f"{list(mean.shape)} and {list(covariance.shape)}"
        )
    return Pristine(mean.ravel().astype(np.float64), covariance.astype(np.float64))


def load_niqe(form: str, *, folder: str | Path | None = None) -> Niqe:
    """Load NIQE as a callable (image, *, crop=0) -> float on images of 8 or 16 bits.

    Args:
        form: matlab or pyiqa.
        folder: as `path` for `load_pristine`.

    Raises:
        UserError: for another form, or as for `load_pristine`.
    """
    if form not in FORMS:
        raise errors.unknown("NIQE form", form, FORMS)
    return Niqe(load_pristine(path=folder), form)
