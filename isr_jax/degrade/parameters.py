"""Random parameters of the second-order degradation: their settings, and how they are drawn.

Source: Wang et al. 2021, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure
Synthetic Data", sections 3 and 4.1.
"""

from dataclasses import dataclass
from functools import partial
from math import pi
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from isr_jax.degrade import kernels
from isr_jax.degrade.filters import METHODS
from isr_jax.errors import UserError

Range = tuple[float | int, float | int]

KERNELS = (
    "gaussian",
    "anisotropic gaussian",
    "generalised gaussian",
    "anisotropic generalised gaussian",
    "plateau",
    "anisotropic plateau",
)


def _check_chances(settings: object, names: tuple[str, ...]) -> None:
    for name in names:
        if not 0 <= getattr(settings, name) <= 1:
            raise UserError(f"{name}={getattr(settings, name)} must be a probability")


def _check_sides(sizes: tuple[int, ...]) -> None:
    if not sizes or not all(size % 2 and 0 < size <= kernels.SIDE for size in sizes):
        raise UserError(f"sizes={sizes} must be odd and at most {kernels.SIDE}")


@dataclass(frozen=True)
class PassSettings:
    """Distributions of one pass of blur, resize, noise and JPEG; ranges are uniform.

    The defaults are those of the first pass in Real-ESRGAN's published options for x4plus.

    Attributes:
        blur: probability of a blur.
        sinc: probability that the blur kernel is a sinc filter.
        kernels: probabilities of KERNELS otherwise.
        sizes: sides of a kernel in pixels, odd, equally likely.
        sigma: of a kernel along each axis, in pixels.
        generalised_beta, plateau_beta: shape parameters; below 1 and above 1 are equally likely.
        resize: probabilities of upscaling, downscaling and keeping the size.
        factor: the smallest and the largest scale factor, at most 1 and at least 1.
        noise: probability of noise.
        gaussian: probability that the noise is Gaussian; otherwise it is Poisson.
        sigma_noise: of Gaussian noise, in levels of 255.
        poisson_scale: scale factor of Poisson noise.
        gray: probability that the noise is the same in the three channels.
        jpeg: probability of compression.
        quality: JPEG quality, whole numbers, inclusive.
    """

    blur: float = 1.0
    sinc: float = 0.1
    kernels: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sizes: tuple[int, ...] = (7, 9, 11, 13, 15, 17, 19, 21)
    sigma: Range = (0.2, 3.0)
    generalised_beta: Range = (0.5, 4.0)
    plateau_beta: Range = (1.0, 2.0)
    resize: tuple[float, float, float] = (0.2, 0.7, 0.1)
    factor: Range = (0.15, 1.5)
    noise: float = 1.0
    gaussian: float = 0.5
    sigma_noise: Range = (1.0, 30.0)
    poisson_scale: Range = (0.05, 3.0)
    gray: float = 0.4
    jpeg: float = 1.0
    quality: Range = (30, 95)

    def __post_init__(self) -> None:
        """Raise UserError for values from which nothing can be drawn."""
        _check_chances(self, ("blur", "sinc", "noise", "gaussian", "gray", "jpeg"))
        for name, n in (("kernels", len(KERNELS)), ("resize", 3)):
            chances = getattr(self, name)
            if len(chances) != n or min(chances) < 0 or abs(sum(chances) - 1.0) > 1e-6:
                raise UserError(f"{name}={chances} must be {n} probabilities that sum to 1")
        if not 0 < self.factor[0] <= 1 <= self.factor[1]:
            raise UserError(f"factor={self.factor} must be a range above 0 that contains 1")
        if not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise UserError(f"quality={self.quality} must be a range within [1, 100]")
        if not min(*self.sigma, *self.generalised_beta, *self.plateau_beta) > 0:
            raise UserError("sigma, generalised_beta and plateau_beta must be above 0")
        _check_sides(self.sizes)


@dataclass(frozen=True)
class Settings:
    """Distributions of the second-order degradation; the defaults are Real-ESRGAN's x4plus.

    Attributes:
        first: the first pass; factors are relative to HR.
        second: the second pass; factors are relative to LR.
        sinc: probability of the final sinc filter.
        sizes: sides of its kernel, as in PassSettings.
        cutoff: its cutoff frequency, in radians per pixel.
        jpeg_last: probability that the last JPEG comes after the final filter, at the LR size.

    Source: options/train_realesrgan_x4plus.yml in xinntao/Real-ESRGAN.
    """

    first: PassSettings = PassSettings()
    second: PassSettings = PassSettings(
        blur=0.8,
        sigma=(0.2, 1.5),
        resize=(0.3, 0.4, 0.3),
        factor=(0.3, 1.2),
        sigma_noise=(1.0, 25.0),
        poisson_scale=(0.05, 2.5),
    )
    sinc: float = 0.8
    sizes: tuple[int, ...] = (7, 9, 11, 13, 15, 17, 19, 21)
    cutoff: Range = (pi / 3, pi)
    jpeg_last: float = 0.5

    def __post_init__(self) -> None:
        """Raise UserError for values from which nothing can be drawn."""
        _check_chances(self, ("sinc", "jpeg_last"))
        _check_sides(self.sizes)


REAL_ESRGAN = Settings()

# Half as much of everything, and often nothing of it: what phones and web pages do to a photo,
# rather than the worst of it. If every LR image were blurred and compressed, the generator would
# take a clean one for blurred, and noise without blocks for texture: hence the probabilities, the
# gates of Zhang et al. 2022, "A Closer Look at Blind Super-Resolution: Degradation Models".
PHOTO = Settings(
    first=PassSettings(
        blur=0.7,
        resize=(0.1, 0.4, 0.5),
        factor=(0.4, 1.2),
        noise=0.5,
        sigma_noise=(0.5, 12.0),
        poisson_scale=(0.02, 1.2),
        jpeg=0.5,
        quality=(50, 95),
    ),
    second=PassSettings(
        blur=0.3,
        sigma=(0.2, 1.0),
        resize=(0.1, 0.2, 0.7),
        factor=(0.6, 1.2),
        noise=0.5,
        sigma_noise=(0.5, 8.0),
        poisson_scale=(0.02, 0.8),
        jpeg=0.8,
    ),
    sinc=0.3,
    cutoff=(pi / 2, pi),
)


class Pass(NamedTuple):
    """Parameters of one pass for each example.

    Attributes:
        kernel: of the blur; the identity if there is none.
        factor: scale factor of the resize.
        method: index into filters.METHODS.
        poisson: whether the noise is Poisson rather than Gaussian.
        strength: sigma of Gaussian noise in levels of 255; scale factor of Poisson noise; 0 if
            there is none.
        gray: whether the noise is the same in the three channels.
        quality: JPEG quality, a whole number; 0 if there is no compression.
    """

    kernel: Float[Array, "*n 21 21"]
    factor: Float[Array, "*n"]
    method: Int[Array, "*n"]
    poisson: Bool[Array, "*n"]
    strength: Float[Array, "*n"]
    gray: Bool[Array, "*n"]
    quality: Float[Array, "*n"]


class Parameters(NamedTuple):
    """Parameters of the second-order degradation for each example.

    Attributes:
        first, second: the passes.
        method: index into filters.METHODS of the resize to the LR size.
        sinc: kernel of the final sinc filter; the identity if there is none.
        jpeg_last: whether the last JPEG comes after the final filter.
    """

    first: Pass
    second: Pass
    method: Int[Array, "*n"]
    sinc: Float[Array, "*n 21 21"]
    jpeg_last: Bool[Array, "*n"]


def draw(
    key: Key[Array, ""],
    *,
    batch: int,
    settings: Settings = REAL_ESRGAN,
    first: int | Int[Array, ""] = 0,
) -> Parameters:
    """Draw the parameters of `batch` examples.

    Those of example i depend on key and first + i alone.

    Args:
        key: randomness.
        batch: number of examples.
        settings: the distributions.
        first: number of the first example within the whole batch; may be traced.
    """
    return jax.vmap(partial(_draw_one, settings=settings))(example_keys(key, batch, first))


def example_keys(key: Key[Array, ""], n: int, first: int | Int[Array, ""]) -> Key[Array, " n"]:
    """Return the keys of examples first, first + 1, ..., independent of how many there are."""
    return jax.vmap(partial(jax.random.fold_in, key))(first + jnp.arange(n))


def _draw_one(key: Key[Array, ""], *, settings: Settings) -> Parameters:
    keys = jax.random.split(key, 3)
    method, whether, cutoff, size, jpeg_last = jax.random.uniform(keys[2], (5,))
    filtered = kernels.sinc(_between(cutoff, settings.cutoff), size=_choose(size, settings.sizes))
    return Parameters(
        first=_draw_pass(keys[0], settings.first),
        second=_draw_pass(keys[1], settings.second),
        method=jnp.floor(method * len(METHODS)).astype(jnp.int32),
        sinc=jnp.where(whether < settings.sinc, filtered, kernels.pulse()),
        jpeg_last=jpeg_last < settings.jpeg_last,
    )


def _draw_pass(key: Key[Array, ""], settings: PassSettings) -> Pass:
    kernel_key, key = jax.random.split(key)
    u = jax.random.uniform(key, (9,))
    direction, factor, method, kind, strength, gray, quality, noise, jpeg = u
    low, high = settings.factor
    factors = [_between(factor, (1.0, high)), _between(factor, (low, 1.0)), jnp.ones(())]
    poisson = kind >= settings.gaussian
    level = jnp.where(
        poisson,
        _between(strength, settings.poisson_scale),
        _between(strength, settings.sigma_noise),
    )
    least, most = settings.quality
    return Pass(
        kernel=draw_kernel(kernel_key, settings),
        factor=jnp.stack(factors)[_weighted(direction, settings.resize)],
        method=jnp.floor(method * len(METHODS)).astype(jnp.int32),
        poisson=poisson,
        strength=jnp.where(noise < settings.noise, level, 0.0),
        gray=gray < settings.gray,
        quality=jnp.where(jpeg < settings.jpeg, jnp.floor(_between(quality, (least, most + 1))), 0),
    )


def draw_kernel(key: Key[Array, ""], settings: PassSettings) -> Float[Array, "21 21"]:
    """Draw the blur kernel of one example."""
    u = iter(jax.random.uniform(key, (12,)))
    size = _choose(next(u), settings.sizes)
    kind = _weighted(next(u), settings.kernels)
    sigma_x, sigma_y = (_between(next(u), settings.sigma) for _ in range(2))
    sigma_y = jnp.where(kind % 2 == 0, sigma_x, sigma_y)
    angle = _between(next(u), (-pi, pi))
    beta = _around_one(next(u), next(u), settings.generalised_beta)
    beta = jnp.where(kind < 2, 1.0, beta)
    humped = kernels.generalised_gaussian(sigma_x, sigma_y, angle, beta, size=size)
    beta = _around_one(next(u), next(u), settings.plateau_beta)
    flat = kernels.plateau(sigma_x, sigma_y, angle, beta, size=size)
    # A small kernel would truncate a filter with a lower cutoff to a box.
    least = jnp.where(size < 13, pi / 3, pi / 5)
    ringing = kernels.sinc(least + (pi - least) * next(u), size=size)
    kernel = jnp.where(kind < 4, humped, flat)
    kernel = jnp.where(next(u) < settings.sinc, ringing, kernel)
    return jnp.where(next(u) < settings.blur, kernel, kernels.pulse())


# Each takes a deviate u, uniform in [0, 1): one call draws all of an example's, and compiles fast.


def _between(u: Float[Array, ""], limits: Range) -> Float[Array, ""]:
    return limits[0] + u * (limits[1] - limits[0])


def _choose(u: Float[Array, ""], values: tuple[int, ...]) -> Int[Array, ""]:
    return jnp.array(values)[jnp.floor(u * len(values)).astype(jnp.int32)]


def _weighted(u: Float[Array, ""], probabilities: tuple[float, ...]) -> Int[Array, ""]:
    """Return 0, 1, ... with these probabilities."""
    return jnp.sum(u >= jnp.cumsum(jnp.array(probabilities[:-1])))


def _around_one(side: Float[Array, ""], u: Float[Array, ""], limits: Range) -> Float[Array, ""]:
    """Draw from below 1 and above 1 equally often, uniformly within each."""
    return jnp.where(side < 0.5, _between(u, (limits[0], 1.0)), _between(u, (1.0, limits[1])))
