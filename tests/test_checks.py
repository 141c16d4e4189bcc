"""The checks of a config, and the schedules and optimizers that it names."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import l1, mse, msssim, psnr, ssim
from isr_jax import config as base
from isr_jax.errors import UserError
from isr_jax.models import GENERATORS
from isr_jax.models.generators import ARCHITECTURES
from isr_jax.training import checks, optimizers
from isr_jax.training.runtime import cpu_devices


def rates(name, *, warmup, steps=100):
    options = base.get_config().g_optimizer
    options.update(schedule=name, learning_rate=0.5, warmup_steps=warmup)
    options.update(milestones=(20, 60), decay=0.25)
    schedule = optimizers.make_schedule(options, steps=steps)
    return np.array([schedule(jnp.array(step)) for step in range(steps)])


EXPECTED = {
    "constant": np.full(100, 0.5),
    "cosine": 0.25 * (1 + np.cos(np.pi * np.arange(100) / 100)),
    "halfway": np.where(np.arange(100) < 50, 0.5, 0.05),
    "milestones": np.select([np.arange(100) < 20, np.arange(100) < 60], [0.5, 0.125], 0.03125),
}
BOUNDARIES = {"halfway": [50], "milestones": [20, 60]}


@pytest.mark.parametrize("name", optimizers.SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 10])
def test_schedules_follow_their_formulas(name, warmup):
    rise = np.minimum(1, np.arange(1, 101) / warmup) if warmup else 1
    # SRGAN's rate falls with the update after the half; Optax counts the boundary to the first.
    got, expected = rates(name, warmup=warmup), EXPECTED[name] * rise
    keep = ~np.isin(np.arange(100), BOUNDARIES.get(name, []))
    np.testing.assert_allclose(got[keep], expected[keep], rtol=1e-5, atol=1e-7)


def test_optimizer_is_adam_with_clipping():
    """Two updates against Kingma & Ba 2015, algorithm 1, by hand, on a clipped gradient."""
    options = base.get_config().g_optimizer
    options.update(learning_rate=0.1, b1=0.8, b2=0.9, eps=1e-3, grad_clip=5.0, schedule="constant")
    optimizer = optimizers.make_optimizer(options, steps=10)
    params = jnp.zeros(2)
    state = optimizer.init(params)
    m = v = np.zeros(2)
    for t, raw in enumerate([np.array([6.0, 8.0]), np.array([0.3, -0.4])], start=1):
        updates, state = optimizer.update(jnp.array(raw), state, params)
        gradient = raw * min(1.0, 5.0 / np.linalg.norm(raw))
        m, v = 0.8 * m + 0.2 * gradient, 0.9 * v + 0.1 * gradient**2
        step = -0.1 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3)
        np.testing.assert_allclose(updates, step, rtol=1e-5)
        params = optax.apply_updates(params, updates)


@pytest.mark.parametrize("module", [msssim, mse, psnr, ssim, l1])
def test_every_cpu_config_differs_by_its_loss_alone(module):
    config, small = module.get_config(), base.small()
    name = {"msssim": "ms_ssim"}.get(module.__name__.split(".")[1], module.__name__.split(".")[1])
    assert {k for k, v in config.loss.content.items() if v} == {name}
    assert config.loss.adversarial_weight > 0
    config.loss = small.loss
    assert config == small
    assert checks.check(module.get_config(), devices=1) == []


@pytest.mark.parametrize("published", GENERATORS)
def test_every_published_generator_is_a_config(published):
    config = base.small()
    config.generator = ConfigDict(GENERATORS[published])
    checks.check(config, devices=1)
    # The defaults of an architecture are those of the variant with its name.
    own = {name: f.default for name, f in fields_of(config.generator.name).items()}
    if published == config.generator.name:
        assert GENERATORS[published] == {"name": config.generator.name, **own}
    assert set(config.generator) == {"name", *own}


def fields_of(name):
    known = dataclasses.fields(ARCHITECTURES[name])
    return {f.name: f for f in known if f.name not in ("scale", "axis_name", "name", "parent")}


@pytest.mark.parametrize(
    "published, changed, said",
    [
        ("rrdbnet", {"growth": 0}, "config.generator.growth is 0; it must be in .1, 4096"),
        ("rrdbnet", {"kernel": 3}, "unknown field of config.generator rrdbnet 'kernel'"),
        (
            "srvggnet",
            {"dtype": "float16"},
            "unknown config.generator.dtype 'float16'; choose one of",
        ),
        (
            "span",
            {"channels": 4},
            "config.generator.channels is 4; training images are RGB or gray",
        ),
        ("dat", {"split": (8, 3)}, r"config.generator.split is \(8, 3\); it is a height and a"),
        ("swinir", {"heads": (7,) * 6}, "config.generator.width=180 is not divisible by"),
        ("edsr", {"img_range": 0.0}, "config.generator.img_range is 0.0; it must be above 0"),
        ("edsr", {"rgb_mean": (0.5, 0.5)}, "config.generator.rgb_mean is .*; it has 3 values"),
        (
            "msrresnet",
            {"name": "msresnet"},
            "unknown config.generator.name 'msresnet'; choose one of",
        ),
    ],
)
def test_wrong_fields_of_every_architecture_are_named(published, changed, said):
    config = base.small()
    config.generator = ConfigDict({**GENERATORS[published], **changed})
    with pytest.raises(UserError, match=said):
        checks.check(config, devices=1)


def test_a_scale_that_the_generator_does_not_have_is_refused():
    config = base.small()
    config.scale = 5
    with pytest.raises(UserError, match=r"config\.scale is 5; resnet supports 1, 2, 3, 4, 8"):
        checks.check(config, devices=1)


def test_fewer_scales_and_loops_on_a_cpu_are_said():
    config = msssim.get_config()
    config.data.crop = 88
    config.train.steps_per_dispatch = 10
    scales, loops = checks.check(config, devices=1)
    assert "4 of its 5 scales" in scales
    assert "steps_per_dispatch=1 is much faster" in loops


def test_parts_of_a_batch_that_are_not_the_whole_are_refused_or_said():
    config = base.get_config()
    config.train.accumulate = 3
    with pytest.raises(UserError, match=r"batch=16 must be divisible by config.train.accumulate=3"):
        checks.check(config, devices=1)
    config.train.accumulate = 4
    assert any("each of the 4 parts" in line for line in checks.check(config, devices=1))
    config.loss.adversarial = "relativistic"
    with pytest.raises(UserError, match="a relativistic loss compares"):
        checks.check(config, devices=1)


def test_no_loss_at_all_is_refused():
    config = base.small()
    config.loss.adversarial_weight = 0.0
    with pytest.raises(UserError, match=r"every weight in config.loss is 0"):
        checks.check(config, devices=1)


WRONG = {
    "generator.skip": ("times", "choose one of add, concat"),
    "generator.convs": (3, "choose one of 1, 2"),
    "generator.activation": ("gelu", "relu, leaky_relu, prelu"),
    "g_optimizer.milestones": (("a",), "give whole numbers, 0 or more"),
    "d_optimizer.milestones": ((-3,), "give whole numbers, 0 or more"),
    "train.validation_metrics": ((5,), "give names"),
    "train.trackers": (("tensorboard", "tensorboard"), "give each once"),
    "loss.perceptual.layers": (("conv1_2", "conv1_2"), "give each once"),
    "loss.perceptual.layer_weights": ((float("nan"),), "give numbers, 0 or more"),
    "generator.dtype": ("float16", "float32, bfloat16"),
    "generator.kernel": (4, "must be odd"),
    "train.steps": (0, "must be 1 or more"),
    "train.accumulate": (0, "must be 1 or more"),
    "train.ema_decay": (1.0, r"must be in \[0, 1\)"),
    "train.ema_from": (-1, "must be 0 or more"),
    "data.augment.rgb": (1.5, r"must be in \[0, 1\]"),
    "data.augment.mixup": (-0.5, r"must be in \[0, 1\]"),
    "g_optimizer.learning_rate": (-1.0, "must be 0 or more"),
    "loss.adversarial_weight": (float("nan"), "must be 0 or more"),
}


def test_fields_that_are_missing_unknown_or_none_are_named():
    for change, said in (
        (lambda config: config.__delattr__("loss"), "config.loss.adversarial is missing"),
        (lambda config: config.train.update(trian=5), r"unknown field 'config\.train\.trian'"),
        (lambda config: config.data.update(batch=None), "config.data.batch is None; give a value"),
        (lambda config: config.train.update(keep_every=3), "keep_every=3 must be divisible by"),
    ):
        config = base.get_config().unlock()
        change(config)
        with pytest.raises(UserError, match=said):
            checks.check(config.lock(), devices=1)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_named_with_what_it_can_be(name):
    value, remedy = WRONG[name]
    config = base.get_config()
    config.update_from_flattened_dict({name: value})
    with pytest.raises(UserError, match=remedy) as caught:
        checks.check(config, devices=1)
    said = str(caught.value)
    assert f"config.{name} is {value!r}" in said or f"unknown config.{name} {str(value)!r}" in said


def test_a_misspelt_choice_names_the_nearest():
    config = base.get_config()
    config.loss.adversarial = "relativist"
    with pytest.raises(UserError, match=r"unknown config.loss.adversarial .*did you mean relativi"):
        checks.check(config, devices=1)


def test_a_cpu_has_as_many_devices_as_divide_the_examples():
    counts = [cpu_devices(n, cores=4) for n in (16, 6, 7, 2, 1, 0, -3)]
    assert counts == [4, 3, 1, 2, 1, 1, 1]
    assert cpu_devices(64, cores=64) == 8
