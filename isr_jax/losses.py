"""Losses: content (sr, hr), adversarial (real, fake) logits, feature matching -> scalar.

Images are float [n h w c] in [0, 1]. Every content loss is a mean over the images of the batch, is
lower when better, and is finite with finite gradients everywhere, also at sr == hr and on constant
images. Logits are float of any shape, one per image, patch or pixel, and their losses are means
over all of them; `real` are of photos, `fake` of the generator's images.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from isr_jax import errors, metrics

Images = Float[Array, "n h w c"]
Scalar = Float[Array, ""]
Logits = Float[Array, "*n"]
Feature = Float[Array, "n _ _ _"]


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


CONTENT: dict[str, Callable[[Images, Images], Scalar]] = {
    "mse": mse,
    "psnr": psnr,
    "ssim": ssim,
    "ms_ssim": ms_ssim,
    "l1": l1,
    "charbonnier": charbonnier,
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


def feature_matching(sr: Sequence[Feature], hr: Sequence[Feature]) -> Scalar:
    """Return the L1 distance of the discriminator's features of sr and hr, summed over layers.

    Each layer counts by the mean over its features, whatever their number.

    Source: Wang et al. 2018 (pix2pixHD), section 3.2, for one discriminator; there its weight is
    10, beside an adversarial loss of weight 1.
    """
    terms = (l1(a.astype(jnp.float32), b.astype(jnp.float32)) for a, b in zip(sr, hr, strict=True))
    return sum(terms, jnp.zeros(()))
