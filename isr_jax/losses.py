"""Losses: content (sr, hr), adversarial (real, fake) logits, features, LDL, lattice -> scalar.

Images are float [n h w c] in [0, 1]. Every content loss is a mean over the images of the batch, is
lower when better, and is finite with finite gradients everywhere, also at sr == hr and on constant
images. Logits are float of any shape, one per image, patch or pixel, and their losses are means
over all of them; `real` are of photos, `fake` of the generator's images.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from isr_jax import errors, metrics

Images = Float[Array, "n h w c"]
Scalar = Float[Array, ""]
Logits = Float[Array, "*n"]
Feature = Float[Array, "n _ _ _"]

# LR pixels: large enough that texture averages out, and four windows to a crop of configs/gan.py.
_LATTICE_WINDOW = 12


def mse(sr: Images, hr: Images) -> Scalar:
    """Return the mean squared error, in squared units of [0, 1]."""
    return jnp.mean(jnp.square(sr - hr))


def l1(sr: Images, hr: Images) -> Scalar:
    """Return the mean absolute error. Source: Zhao et al. 2017, section III-A."""
    return jnp.mean(jnp.abs(sr - hr))


def charbonnier(sr: Images, hr: Images) -> Scalar:
    """Return the mean of sqrt(d^2 + 1e-6). Source: Lai et al. 2017 (LapSRN), section 3.3."""
    return jnp.mean(jnp.sqrt(jnp.square(sr - hr) + 1e-6))


def psnr(sr: Images, hr: Images) -> Scalar:
    """Return the negative PSNR in dB, mean over images; from 100 dB up, -100 with zero gradient.

    PSNR = -10 log10(MSE) grows without bound at sr == hr. An image that is within 100 dB of its
    target is replaced by one that is exactly 100 dB away and does not depend on sr.
    """
    near = jnp.mean(jnp.square(sr - hr), axis=(1, 2, 3), keepdims=True) < 1e-10
    return -jnp.mean(metrics.psnr(jnp.where(near, 1e-5, sr), jnp.where(near, 0.0, hr)))


def ssim(sr: Images, hr: Images) -> Scalar:
    """Return 1 - SSIM. Source: Wang et al. 2004, section III-B."""
    return 1.0 - jnp.mean(metrics.ssim(sr, hr))


def ms_ssim(sr: Images, hr: Images) -> Scalar:
    """Return 1 - MS-SSIM. Source: Wang et al. 2003, equation 7."""
    return 1.0 - jnp.mean(metrics.ms_ssim(sr, hr))


# Linear sRGB to the responses of the three kinds of cones, and their cube roots to L, a, b.
LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# The linear value of the darkest gray of 8 bits. Below it the cube root is a line through 0.
DARK = 1.0 / 255.0 / 12.92


def linear_rgb(srgb: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """Return linear light, in [0, 1] for sRGB in [0, 1]. Source: IEC 61966-2-1.

    Values below 0 and above 1, as a generator gives them, follow the same two curves.
    """
    bright = srgb > 0.04045
    curve = ((jnp.where(bright, srgb, 1.0) + 0.055) / 1.055) ** 2.4
    return jnp.where(bright, curve, srgb / 12.92)


def oklab(linear: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """Return Oklab's L, a and b of linear sRGB: L is 1 for white, a = b = 0 for grays.

    The cube root has no slope at 0, so below DARK it is replaced by a line, whose largest slope is
    DARK ** (-2 / 3) = 221. Grays of 8 bits are exact, and so are all but very dark colours.

    Source: Ottosson 2020, "A perceptual color space for image processing", its code from linear
    sRGB.
    """

    def times(x: Array, matrix: np.ndarray) -> Array:
        # Products of matrices lose precision on accelerators by default.
        return jnp.matmul(x, jnp.asarray(matrix.T, x.dtype), precision=lax.Precision.HIGHEST)

    cones = times(linear, LMS)
    large = jnp.abs(cones) > DARK
    roots = jnp.where(large, jnp.cbrt(jnp.where(large, cones, 1.0)), cones * DARK ** (-2 / 3))
    return times(roots, LAB)


def chroma(sr: Float[Array, "n h w 3"], hr: Float[Array, "n h w 3"]) -> Scalar:
    """Return the mean absolute difference of the chroma, Oklab's a and b.

    It leaves out the lightness L: it counters shifts of colour, does not see gray detail, and is
    used beside another content loss.

    Source: `consistency_loss` of neosr with criterion l1, its chroma. There, values below 1/255
    and above 1 are clamped, which leaves them without a gradient; here they are not.
    """
    return l1(oklab(linear_rgb(sr))[..., 1:], oklab(linear_rgb(hr))[..., 1:])


CONTENT: dict[str, Callable[[Images, Images], Scalar]] = {
    "mse": mse,
    "psnr": psnr,
    "ssim": ssim,
    "ms_ssim": ms_ssim,
    "l1": l1,
    "charbonnier": charbonnier,
    "chroma": chroma,
}


def content_terms(sr: Images, hr: Images, *, weights: Mapping[str, float]) -> dict[str, Scalar]:
    """Return each content loss whose weight is not 0, unweighted, by name.

    Raises:
        UserError: for an unknown content loss.
    """
    for name in weights:
        if name not in CONTENT:
            raise errors.unknown("content loss", name, CONTENT)
    return {name: CONTENT[name](sr, hr) for name, weight in weights.items() if weight}


class Adversarial(NamedTuple):
    """What the discriminator and the generator minimise, as functions of (real, fake) logits."""

    d_loss: Callable[[Logits, Logits], Scalar]
    g_loss: Callable[[Logits, Logits], Scalar]


def _mean_real(logits: Logits) -> Scalar:
    """Return the mean of -log sigmoid(logit)."""
    return jnp.mean(jax.nn.softplus(-logits))


def _mean_fake(logits: Logits) -> Scalar:
    """Return the mean of -log(1 - sigmoid(logit))."""
    return jnp.mean(jax.nn.softplus(logits))


# As the papers write them. Other code differs by constants, which the generator's weight can
# absorb: BasicSR halves both relativistic losses, so its 5e-3 is 2.5e-3 here, and does not halve
# least squares, so its 1.0 is 2.0 here. pix2pix halves the discriminator's, to which Adam is
# invariant.
ADVERSARIAL: dict[str, Adversarial] = {
    # Goodfellow et al. 2014, section 3: the non-saturating generator loss.
    "vanilla": Adversarial(
        d_loss=lambda real, fake: _mean_real(real) + _mean_fake(fake),
        g_loss=lambda real, fake: _mean_real(fake),
    ),
    # Mao et al. 2017 (LSGAN), equation 9: labels 0 and 1.
    "least_squares": Adversarial(
        d_loss=lambda real, fake: 0.5 * (jnp.mean((real - 1.0) ** 2) + jnp.mean(fake**2)),
        g_loss=lambda real, fake: 0.5 * jnp.mean((fake - 1.0) ** 2),
    ),
    # Lim & Ye 2017, "Geometric GAN", section 3.
    "hinge": Adversarial(
        d_loss=lambda real, fake: (
            jnp.mean(jax.nn.relu(1.0 - real)) + jnp.mean(jax.nn.relu(1.0 + fake))
        ),
        g_loss=lambda real, fake: -jnp.mean(fake),
    ),
    # Jolicoeur-Martineau 2019 (RaGAN), section 4.1; Wang et al. 2018 (ESRGAN), section 3.2. The
    # gradient goes through both means, too; BasicSR's discriminator takes them as constants.
    "relativistic": Adversarial(
        d_loss=lambda real, fake: (
            _mean_real(real - jnp.mean(fake)) + _mean_fake(fake - jnp.mean(real))
        ),
        g_loss=lambda real, fake: (
            _mean_fake(real - jnp.mean(fake)) + _mean_real(fake - jnp.mean(real))
        ),
    ),
}


def has_adversarial(loss: ConfigDict) -> bool:
    """Return whether `config.loss` has an adversarial part: a discriminator is trained and used."""
    return bool(loss.adversarial_weight or loss.feature_matching)


def r1(logits: Callable[[Images], Logits], hr: Images) -> Scalar:
    """Return the mean over images of the squared norm of the gradient of their logits.

    The discriminator's loss has gamma / 2 of it (`config.loss.r1` is gamma): then D is flat at
    photos, and D and G stay where they match. The logits of an image are summed, as published code
    does it, and by images in [0, 1]: the gamma of code whose images are in [-1, 1] is 4 times ours
    for the same strength.

    Args:
        logits: images -> logits, one or a map for each image.
        hr: photos.

    Source: Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?",
    equation 9, with gamma = 10 for one logit per image; LaMa (Suvorov et al. 2022) has
    gamma / 2 = 0.001 for a map.
    """
    gradient = jax.grad(lambda images: jnp.sum(logits(images)))(hr)
    return jnp.mean(jnp.sum(jnp.square(gradient), axis=(1, 2, 3)))


def feature_matching(sr: Sequence[Feature], hr: Sequence[Feature]) -> Scalar:
    """Return the L1 distance of the discriminator's features of sr and hr, summed over layers.

    Each layer counts by the mean over its features, whatever their number.

    Source: Wang et al. 2018 (pix2pixHD), section 3.2, for one discriminator; there its weight is
    10, beside an adversarial loss of weight 1.
    """
    terms = (l1(a.astype(jnp.float32), b.astype(jnp.float32)) for a, b in zip(sr, hr, strict=True))
    return sum(terms, jnp.zeros(()))


def artifact_map(sr: Images, hr: Images, ema: Images) -> Float[Array, "n h w 1"]:
    """Return how likely each pixel of sr is an artifact, 0 or more; LDL weights pixels by it.

    With R = sum over red, green and blue of |hr - sr|, which is 3 |hr - sr| of gray, it is
    Var(R of the image) ** (1 / 5) times Var(R in the 7x7 window about the pixel), and 0 where R is
    below that of the EMA's output. Variances are unbiased, windows are padded by reflection, and
    the gradient goes through both.

    Args:
        sr: the generator's output, of 4 pixels a side or more.
        hr: the truth.
        ema: the output of the generator's EMA for the same input.

    Source: Liang et al. 2022, "Details or Artifacts: A Locally Discriminative Learning Approach to
    Realistic Image Super-Resolution" (LDL), section 3, and the authors' code.
    """
    residual, residual_ema = (
        jnp.sum(jnp.abs(hr - x), axis=-1, keepdims=True) for x in (sr, lax.stop_gradient(ema))
    )
    if sr.shape[-1] == 1:
        residual, residual_ema = 3.0 * residual, 3.0 * residual_ema
    variance = jnp.var(residual, axis=(1, 2, 3), keepdims=True, ddof=1)
    # The power has no finite slope at 0, where all residuals are equal, and the local variance 0.
    varies = variance > 1e-30
    of_image = jnp.where(varies, jnp.where(varies, variance, 1.0) ** 0.2, 0.0)
    weights = of_image * _local_variance(residual)
    return jnp.where(residual < residual_ema, 0.0, weights)


def _local_variance(x: Float[Array, "n h w 1"]) -> Float[Array, "n h w 1"]:
    """Return the unbiased variance of the 7x7 window about each pixel, padded by reflection."""
    size = 7
    # A variance is that of the values less any constant; about the mean less is cancelled.
    x = x - lax.stop_gradient(jnp.mean(x, axis=(1, 2, 3), keepdims=True))
    around = ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0))
    x = jnp.pad(x, around, mode="reflect")

    def sums(x: Array) -> Array:
        for axis in (1, 2):
            length = x.shape[axis] - size + 1
            parts = (lax.slice_in_dim(x, i, i + length, axis=axis) for i in range(size))
            x = sum(parts, jnp.zeros((), x.dtype))
        return x

    count = size * size
    total = sums(x)
    return jnp.maximum(sums(jnp.square(x)) - jnp.square(total) / count, 0.0) / (count - 1)


def ldl(sr: Images, hr: Images, ema: Images) -> Scalar:
    """Return the mean absolute error weighted by `artifact_map`, against a GAN's artifacts.

    Source: as for `artifact_map`; the authors' recipes have a weight of 1 beside an L1 of 0.01, the
    features of VGG19 and an adversarial loss.
    """
    return jnp.mean(artifact_map(sr, hr, ema) * jnp.abs(sr - hr))


def lattice(sr: Images, hr: Images, *, scale: int) -> Scalar:
    """Return the mean absolute error that repeats from LR pixel to LR pixel.

    Depth-to-space gives each of the scale x scale HR pixels of an LR pixel filters of their own, so
    a GAN can paint the same dots into every LR pixel: a lattice, which is in no photo. The error is
    averaged over windows of 12x12 LR pixels, or a little larger ones that fill the image, for each
    place within an LR pixel. What is left of a lattice is all of it, of texture next to nothing.
    The mean of the places, an error of colour, does not count.

    Args:
        sr, hr: whose height and width are divisible by scale.
        scale: scale factor; at 1 the loss is 0.

    Source: this project. The pattern: Odena et al. 2016, "Deconvolution and Checkerboard
    Artifacts".
    """
    error = sr - hr
    n, height, width, c = error.shape
    rows, columns = (max(1, size // scale // _LATTICE_WINDOW) for size in (height, width))
    high, wide = height // scale // rows, width // scale // columns
    error = error[:, : rows * high * scale, : columns * wide * scale]
    error = jnp.mean(error.reshape(n, rows, high, scale, columns, wide, scale, c), axis=(2, 5))
    return jnp.mean(jnp.abs(error - jnp.mean(error, axis=(2, 4), keepdims=True)))
