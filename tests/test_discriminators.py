"""Discriminators: shapes, published sizes, precision, and what each may see."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from isr_jax import config as base
from isr_jax.errors import UserError
from isr_jax.models import count_params, discriminator
from isr_jax.models.discriminators import ARCHITECTURES
from isr_jax.training import checks
from tests.helpers.discriminator_cases import CASES, make

KEY = jax.random.key(0)


@pytest.mark.parametrize("case", CASES)
def test_logits_have_their_shape_and_features_are_of_every_convolution(case):
    network, params, stats, images = make(case)
    apply = jax.jit(network.apply, static_argnames="train")
    logits, features, _ = apply(params, stats, images, train=True)
    assert (logits.shape, logits.dtype) == ((3, *CASES[case][2]), jnp.float32)
    convolutions = sum("Conv" in name for name in params)
    # The last convolution of a network without dense layers gives the logits.
    assert len(features) == convolutions - ("Dense_0" not in params)
    turned, _, _ = apply(params, stats, images[::-1], train=True)
    np.testing.assert_allclose(turned[::-1], logits, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_initial_parameters_keep_logits_moderate(name):
    """Neither blown up nor put out over the depth of the published networks, narrowed."""
    narrow = {"widths": (4, 8, 16, 32), "dense": 16} if name == "classifier" else {"width": 4}
    network = discriminator({"name": name, **narrow}, crop=96)
    params, stats = jax.jit(network.init)(KEY)
    images = jax.random.uniform(jax.random.key(1), (4, 96, 96, 3))
    logits, _, _ = jax.jit(network.apply, static_argnames="train")(
        params, stats, images, train=True
    )
    assert 0.01 < np.std(logits) < 10
    for vectors in stats.values():
        norms = [np.linalg.norm(vectors[name]) for name in ("u", "v")]
        np.testing.assert_allclose(norms, 1.0, rtol=1e-6)


@pytest.mark.parametrize("case", ["classifier", "vgg to 3", "unet", "patch"])
def test_bfloat16_computes_near_float32(case):
    network, params, stats, images = make(case)
    half, *_ = make(case, dtype="bfloat16")
    exact, _, _ = jax.jit(network.apply, static_argnames="train")(params, stats, images, train=True)
    near, features, _ = jax.jit(half.apply, static_argnames="train")(
        params, stats, images, train=True
    )
    assert near.dtype == jnp.float32
    assert {feature.dtype for feature in features} == {jnp.dtype("bfloat16")}
    assert 0 < np.abs(exact - near).max() < 0.1 * np.abs(exact).max()


def test_discriminator_of_srgan_at_96():
    """The layers of figure 4; 512 x 6 x 6 features reach the 1024 hidden units."""
    params, stats = jax.eval_shape(discriminator({}, crop=96).init, KEY)
    widths = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512)]
    shapes = [params[f"Conv_{i}"]["kernel"].shape for i in range(8)]
    assert shapes == [(3, 3, *pair) for pair in [*widths, (512, 512)]]
    assert params["Dense_0"]["kernel"].shape == (512 * 6 * 6, 1024)
    assert "bias" in params["Conv_0"]
    assert "bias" not in params["Conv_1"]
    assert stats == {}


# By hand, from the published layers.
PAIRS = [(3, 64), (64, 128), (128, 256), (256, 512), (512, 512), (512, 512)]


def vgg_count(stages, side):
    convs = sum(9 * a * b + 16 * b * b + 4 * b for a, b in PAIRS[:stages])
    return convs + 64 - 2 * 64 + side * side * 512 * 100 + 100 + 101


UNET = 3 * 64 * 9 + 64 + 16 * 64 * 64 * (2 + 8 + 32) + 9 * 64 * 64 * (32 + 8 + 2 + 2) + 9 * 64 + 1
PATCH = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 2 * (128 + 256 + 512) + 1
COUNTS = {
    ("vgg", 96): vgg_count(5, 3),
    ("vgg", 128): vgg_count(5, 4),
    ("vgg", 192): vgg_count(6, 3),
    ("vgg", 256): vgg_count(6, 4),
    ("unet", 256): UNET,
    ("patch", 256): PATCH,
}


@pytest.mark.parametrize("name, crop", list(COUNTS))
def test_published_sizes_count_as_by_hand(name, crop):
    network = discriminator({"name": name}, crop=crop)
    params, _ = jax.eval_shape(network.init, KEY)
    assert count_params(params) == COUNTS[name, crop]


def test_pix2pix_judges_256_pixels_by_30_times_30_patches():
    network = discriminator({"name": "patch"}, crop=256)
    params, stats = jax.eval_shape(network.init, KEY)
    images = jnp.zeros((1, 256, 256, 3))
    logits = jax.eval_shape(lambda p, s: network.apply(p, s, images, train=True)[0], params, stats)
    assert logits.shape == (1, 30, 30)


WRONG = [
    ({"name": "resnet"}, 96, "'resnet'; choose one of classifier, vgg, unet, patch"),
    ({"name": "unet", "widths": (4,)}, 96, "unet 'widths'; choose one of width, skip"),
    ({"axis_names": "x"}, 96, "choose one of widths, dense, batch_norm, dtype$"),
    ({"name": "vgg"}, 100, "is 100; vgg accepts crops of 96, 128, 192 or 256 px"),
    ({"name": "vgg"}, 3, "is 3; vgg"),
    ({"name": "vgg"}, 160, "is 160; vgg"),
    ({"name": "unet"}, 100, "is 100; unet accepts crops whose side is divisible by 8"),
    ({"name": "patch"}, 23, "is 23; patch"),
]


@pytest.mark.parametrize("options, crop, message", WRONG)
def test_what_cannot_be_is_named(options, crop, message):
    with pytest.raises(UserError, match=message):
        discriminator(options, crop=crop)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_config_names_every_field_at_its_published_value(name):
    config = base.get_config()
    config.discriminator = ConfigDict(base.DISCRIMINATORS[name])
    checks.check(config, devices=1)
    fields = config.discriminator.to_dict()
    architecture = ARCHITECTURES[name]
    assert fields.pop("name") == name
    assert fields.pop("crop") == 0
    assert {k: getattr(architecture, k) for k in fields} == fields
    own = {field.name for field in dataclasses.fields(architecture)}
    assert set(fields) == own - {"name", "parent", "axis_name"}


def test_a_config_with_another_s_fields_or_a_wrong_crop_is_refused():
    config = base.get_config()
    config.discriminator.name = "unet"
    with pytest.raises(UserError, match=r"unknown field of config\.discriminator unet '\w+'"):
        checks.check(config, devices=1)
    config.discriminator = ConfigDict(base.DISCRIMINATORS["vgg"])
    config.discriminator.crop = 40
    with pytest.raises(UserError, match=r"config\.discriminator\.crop, .* is 40; vgg"):
        checks.check(config, devices=1)
    config.discriminator.width = 0
    with pytest.raises(UserError, match=r"config\.discriminator\.width is 0"):
        checks.check(config, devices=1)
