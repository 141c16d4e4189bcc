"""Discriminators: image -> logits of being real, as pure functions of a parameter tree.

    classifier  SRGAN's: 3x3 convolutions, every second one strided, and two dense layers
    vgg         ESRGAN's, as BasicSR has it: 3x3 and strided 4x4 convolutions, two dense layers
    unet        Real-ESRGAN's: a U-Net with spectral normalisation, a logit for every pixel
    patch       pix2pix's PatchGAN: a logit for every patch of 70 pixels

Batch norm always takes the batch's own statistics, so there are no running ones to keep.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from isr_jax import resize
from isr_jax.errors import UserError
from isr_jax.models.layers import Normaliser, Params, conv

Features = tuple[Float[Array, "n _ _ _"], ...]


class Discriminator(NamedTuple):
    """A discriminator as pure functions.

    Attributes:
        init: key -> (params, stats); stats are spectral norm's vectors, {} without it.
        apply: (params, stats, images, train) -> (logits, features, stats). Images are float
            [n crop crop 3] in [0, 1]; logits float32, [n] or, of an architecture that judges
            places, [n h w]; features the activations of every convolution but the last, for
            feature matching. Under jit those that nobody uses cost nothing. When training,
            spectral norm does one power iteration per call.
    """

    init: Callable[[Key[Array, ""]], tuple[Params, Params]]
    apply: Callable[
        [Params, Params, Float[Array, "n h w 3"], bool],
        tuple[Float[Array, " n *map"], Features, Params],
    ]


def _leaky(x: Array) -> Array:
    return nn.leaky_relu(x, 0.2)


class Classifier(nn.Module):
    """SRGAN's discriminator: strided convolutions and two dense layers, for crops of any side.

    Attributes:
        widths: channels of each pair of 3x3 convolutions, of stride 1 and of stride 2.
        dense: units of the hidden fully connected layer.
        batch_norm: normalise after each convolution but the first.
        dtype: of the computation, "float32" or "bfloat16"; parameters and logits are float32.
        axis_name: pmap axis over which batch norm takes its statistics; None for one program.

    Source: Ledig et al. 2017 (SRGAN), section 2.1.1 and figure 4.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    dense: int = 1024
    batch_norm: bool = True
    dtype: str = "float32"
    axis_name: str | None = None

    crops: ClassVar[str] = "of any side"

    def sees(self, crop: int) -> bool:
        """Whether it can judge images of this side."""
        return crop > 0

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w 3"], train: bool
    ) -> tuple[Float[Array, " n"], Features]:
        """Logits of being real, and features."""
        dtype = jnp.dtype(self.dtype)
        x = (2.0 * images - 1.0).astype(dtype)
        features: list[Array] = []
        for width in self.widths:
            for stride in (1, 2):
                normalised = self.batch_norm and bool(features)
                x = conv(width, stride=stride, bias=not normalised, dtype=dtype)(x)
                x = _leaky(Normaliser(normalised, self.axis_name, dtype)(x, True))
                features.append(x)
        x = x.reshape(x.shape[0], -1)
        x = _leaky(nn.Dense(self.dense, dtype=dtype)(x))
        return nn.Dense(1, dtype=dtype)(x)[:, 0].astype(jnp.float32), tuple(features)


class VGG(nn.Module):
    """ESRGAN's discriminator as BasicSR has it: stages of a 3x3 and a strided 4x4 convolution.

    Each stage halves the side and doubles the channels, up to 8 times, until the side is 3 or 4
    pixels: five stages at 96 and 128 pixels, six at 192 and 256. Two dense layers follow. Batch
    norm follows every convolution but the first.

    Attributes:
        width: channels of the first stage.
        dense: units of the hidden fully connected layer.
        dtype, axis_name: as for `Classifier`.

    Source: Wang et al. 2018 (ESRGAN), section 3.2; BasicSR's VGGStyleDiscriminator.
    """

    width: int = 64
    dense: int = 100
    dtype: str = "float32"
    axis_name: str | None = None

    crops: ClassVar[str] = "of 96, 128, 192 or 256 px, or others that halve to 3 or 4 px"

    def sees(self, crop: int) -> bool:
        """Whether it can judge images of this side."""
        halvings = _stages(crop)
        return halvings > 0 and crop in (3 << halvings, 4 << halvings)

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w 3"], train: bool
    ) -> tuple[Float[Array, " n"], Features]:
        """Logits of being real, and features."""
        dtype = jnp.dtype(self.dtype)
        x = images.astype(dtype)
        features: list[Array] = []
        for stage in range(_stages(images.shape[1])):
            for kernel, stride in ((3, 1), (4, 2)):
                width, normalised = self.width * min(2**stage, 8), bool(features)
                x = conv(width, kernel, stride=stride, bias=not normalised, dtype=dtype)(x)
                x = _leaky(Normaliser(normalised, self.axis_name, dtype)(x, True))
                features.append(x)
        x = x.reshape(x.shape[0], -1)
        x = _leaky(nn.Dense(self.dense, dtype=dtype)(x))
        return nn.Dense(1, dtype=dtype)(x)[:, 0].astype(jnp.float32), tuple(features)


def _stages(crop: int) -> int:
    """How often a side halves before it is 3 or 4."""
    return (crop // 3).bit_length() - 1


class SpectralConv(nn.Module):
    """A convolution whose kernel W, as a matrix, is divided by its largest singular value.

    That is sigma = u^T W v, where u and v follow W's first singular vectors by one power iteration
    per training call, v <- W^T u / |.|, u <- W v / |.|, and are constants to the gradient.

    Source: Miyato et al. 2018, "Spectral Normalization for GANs", section 2.1 and algorithm 1.
    """

    width: int
    kernel: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n oh ow d"]:
        """Convolve, zero-padded by 1."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.width)
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        kernel = self.param("kernel", init, shape)
        matrix = kernel.reshape(-1, self.width)  # W^T
        fixed = lax.stop_gradient(matrix)
        draw = lambda: jax.random.normal(self.make_rng("params"), (self.width,))  # noqa: E731
        u = self.variable("spectral", "u", lambda: _unit(draw()))
        v = self.variable("spectral", "v", lambda: _unit(_product(fixed, u.value)))
        if train:
            v.value = _unit(_product(fixed, u.value))
            u.value = _unit(_product(v.value, fixed))
        sigma = _product(_product(v.value, matrix), u.value)
        return lax.conv_general_dilated(
            x,
            (kernel / sigma).astype(self.dtype),
            (self.stride, self.stride),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _unit(x: Float[Array, " n"]) -> Float[Array, " n"]:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


class UNet(nn.Module):
    """Real-ESRGAN's discriminator: a U-Net with spectral normalisation and a logit per pixel.

    Crops have a side of a multiple of 8 pixels.

    Attributes:
        width: channels of the first convolution; they double at each of three halvings.
        skip: add the features before each halving to those after the doubling that undoes it.
        dtype: as for `Classifier`.

    Source: Wang et al. 2021 (Real-ESRGAN), section 3.4; BasicSR's UNetDiscriminatorSN.
    """

    width: int = 64
    skip: bool = True
    dtype: str = "float32"

    crops: ClassVar[str] = "of a multiple of 8 px"

    def sees(self, crop: int) -> bool:
        """Whether it can judge images of this side."""
        return crop > 0 and crop % 8 == 0

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w 3"], train: bool
    ) -> tuple[Float[Array, "n h w"], Features]:
        """Logits of being real, and features."""
        dtype = jnp.dtype(self.dtype)

        def spectral(x: Array, factor: int, kernel: int = 3, stride: int = 1) -> Array:
            layer = SpectralConv(self.width * factor, kernel, stride, dtype)
            return _leaky(layer(x, train))

        down = [_leaky(conv(self.width, dtype=dtype)(images.astype(dtype)))]
        for factor in (2, 4, 8):
            down.append(spectral(down[-1], factor, kernel=4, stride=2))
        x, features = down[-1], list(down)
        for factor, across in zip((4, 2, 1), down[-2::-1], strict=True):
            x = spectral(resize.resize(x, scale=2, method="bilinear"), factor)
            x = x + across if self.skip else x
            features.append(x)
        for _ in range(2):
            x = spectral(x, 1)
            features.append(x)
        logits = conv(1, gain=1.0, dtype=dtype)(x)
        return logits[..., 0].astype(jnp.float32), tuple(features)


class Patch(nn.Module):
    """The PatchGAN discriminator of pix2pix: 4x4 convolutions and a logit per patch.

    Batch norm follows every convolution but the first and the last. Crops have a side of at least
    3 * 2**layers pixels.

    Attributes:
        width: channels of the first convolution; they double per layer, up to 8 times.
        layers: convolutions of stride 2; two of stride 1 follow. 1, 2, 3, 4 and 5 of them see
            patches of 16, 34, 70, 142 and 286 pixels.
        dtype, axis_name: as for `Classifier`.

    Source: Isola et al. 2017 (pix2pix), sections 3.2.2 and 6.1.2.
    """

    width: int = 64
    layers: int = 3
    dtype: str = "float32"
    axis_name: str | None = None

    crops: ClassVar[str] = "of 3 * 2**layers px or more"

    def sees(self, crop: int) -> bool:
        """Whether it can judge images of this side."""
        return crop >= 3 << self.layers

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w 3"], train: bool
    ) -> tuple[Float[Array, "n ph pw"], Features]:
        """Logits of being real, and features."""
        dtype = jnp.dtype(self.dtype)
        x = (2.0 * images - 1.0).astype(dtype)
        features: list[Array] = []
        for i in range(self.layers + 1):
            width, stride = self.width * min(2**i, 8), 2 if i < self.layers else 1
            x = conv(width, 4, stride=stride, bias=i == 0, dtype=dtype)(x)
            x = _leaky(Normaliser(i > 0, self.axis_name, dtype)(x, True))
            features.append(x)
        logits = conv(1, 4, gain=1.0, dtype=dtype)(x)
        return logits[..., 0].astype(jnp.float32), tuple(features)


# Each documents its own fields; their defaults are the published values.
ARCHITECTURES: dict[str, type[Classifier | VGG | UNet | Patch]] = {
    "classifier": Classifier,
    "vgg": VGG,
    "unet": UNet,
    "patch": Patch,
}


def discriminator(
    options: Mapping[str, Any], *, crop: int, axis_name: str | None = None
) -> Discriminator:
    """A discriminator by the name of its architecture.

    Args:
        options: "name", one of ARCHITECTURES ("classifier" where there is none), and fields of
            that class; the others keep their defaults, the published values.
        crop: side in pixels of the images that it will see.
        axis_name: pmap axis over which batch norm takes its statistics; None for one program.

    Raises:
        UserError: for an unknown architecture or field, and for a crop that it cannot see.
    """
    given = {"name": "classifier", **options}
    name = given.pop("name")
    if name not in ARCHITECTURES:
        raise UserError(f"discriminator.name is {name!r}; it can be {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[name]
    known = [f.name for f in fields(architecture) if f.name not in ("name", "parent")]
    for field in given:
        if field not in known:
            own = ", ".join(f for f in known if f != "axis_name")
            raise UserError(f"discriminator.{field}: {name} has no such field; it has {own}")
    if "axis_name" in known:
        given["axis_name"] = axis_name
    module = architecture(**given)
    if not module.sees(crop):
        raise UserError(
            f"discriminator.crop, or else data.crop, is {crop}; a {name} sees crops {module.crops}"
        )

    def init(key: Key[Array, ""]) -> tuple[Params, Params]:
        images = jnp.zeros((1, crop, crop, 3))
        variables = jax.jit(module.init, static_argnums=2)(key, images, False)
        return variables["params"], variables.get("spectral", {})

    def apply(
        params: Params, stats: Params, images: Float[Array, "n h w 3"], train: bool
    ) -> tuple[Float[Array, " n *map"], Features, Params]:
        variables = {"params": params, "spectral": stats}
        # Batch norm writes running statistics that nobody reads.
        (logits, features), updated = module.apply(
            variables, images, train, mutable=["batch_stats", "spectral"]
        )
        return logits, features, updated.get("spectral", stats)

    return Discriminator(init, apply)


def make_discriminator(config: ConfigDict, *, axis_name: str | None = None) -> Discriminator:
    """The discriminator of a config; see `models.discriminator`."""
    options = config.discriminator.to_dict()
    crop = options.pop("crop") or config.data.crop
    return discriminator(options, crop=crop, axis_name=axis_name)
