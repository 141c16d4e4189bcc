"""The published recipes and studies: their figures, their variants, and that their parts train."""

import importlib
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import isr_jax
from isr_jax import config as base
from isr_jax.checkpoints.restore import architecture, begin_from, restore_generator
from isr_jax.checkpoints.runs import write_generator
from isr_jax.config import flatten
from isr_jax.errors import UserError
from isr_jax.loss_study import loop
from isr_jax.models import generator
from isr_jax.training import checks
from isr_jax.training.program import make_prepare, make_program
from isr_jax.training.record import read_records

ROOT = Path(__file__).parent.parent
RECIPES = ["srresnet", "edsr", "srgan", "esrgan", "realesrnet", "realesrgan"]
NETWORKS = ["span", "plksr", "swinir", "hat", "dat", "omnisr", "rcan"]  # by L1 alone


def recipe(name, variant=""):
    return importlib.import_module(f"configs.{name}").get_config(variant)


@pytest.mark.parametrize("name", RECIPES + NETWORKS)
@pytest.mark.parametrize("variant", ["", "smoke"])
def test_every_recipe_is_a_valid_config(name, variant):
    config = recipe(name, variant)
    # On a CPU a large steps_per_dispatch is advised against; nothing else is said.
    assert len(checks.check(config, devices=1)) == (variant == "")
    assert config.is_locked
    assert set(flatten(config.to_dict())) >= {"train.init_from", "loss.content.mse"}


def test_the_gan_for_a_cpu_begins_as_the_model_that_it_names():
    config = importlib.import_module("configs.gan").get_config()
    assert checks.check(config, devices=1) == []
    begun = restore_generator(config.train.init_from).config
    assert architecture(begun) == architecture(config)
    assert (begun.scale, config.train.keep_best) == (config.scale, "latest")


# (recipe, variant) -> what its paper's table or section says
PUBLISHED = {
    ("srresnet", ""): (96, 16, 1_000_000, 1e-4, {"mse": 1.0}, 0.0, "resnet", ""),
    ("edsr", ""): (192, 16, 300_000, 1e-4, {"l1": 1.0}, 0.0, "resnet", ""),
    ("edsr", "baseline"): (192, 16, 300_000, 1e-4, {"l1": 1.0}, 0.0, "resnet", ""),
    ("srgan", ""): (96, 16, 200_000, 1e-4, {}, 1e-3, "resnet", "runs/srresnet"),
    ("esrgan", "psnr"): (128, 16, 1_000_000, 2e-4, {"l1": 1.0}, 0.0, "rrdbnet", ""),
    ("esrgan", ""): (128, 16, 400_000, 1e-4, {"l1": 0.01}, 5e-3, "rrdbnet", "runs/esrgan-psnr"),
    ("span", ""): (256, 64, 1_000_000, 5e-4, {"l1": 1.0}, 0.0, "span", ""),
    ("plksr", ""): (384, 64, 450_000, 2e-4, {"l1": 1.0}, 0.0, "plksr", ""),
    ("plksr", "dysample"): (384, 64, 450_000, 2e-4, {"l1": 1.0}, 0.0, "realplksr", ""),
    ("swinir", ""): (192, 32, 500_000, 2e-4, {"l1": 1.0}, 0.0, "swinir", ""),
    ("swinir", "light"): (256, 32, 500_000, 2e-4, {"l1": 1.0}, 0.0, "swinir", ""),
    ("hat", "large"): (256, 32, 500_000, 2e-4, {"l1": 1.0}, 0.0, "hat", ""),
    ("dat", "light"): (256, 32, 500_000, 2e-4, {"l1": 1.0}, 0.0, "dat", ""),
    ("omnisr", ""): (256, 64, 800_000, 5e-4, {"l1": 1.0}, 0.0, "omnisr", ""),
    ("rcan", ""): (192, 16, 1_000_000, 1e-4, {"l1": 1.0}, 0.0, "rcan", ""),
    ("realesrnet", ""): (256, 48, 1_000_000, 2e-4, {"l1": 1.0}, 0.0, "rrdbnet", "runs/esrgan-psnr"),
    ("realesrgan", ""): (256, 48, 400_000, 1e-4, {"l1": 1.0}, 0.1, "rrdbnet", "runs/realesrnet"),
}


@pytest.mark.parametrize(("name", "variant"), PUBLISHED)
def test_published_values(name, variant):
    config = recipe(name, variant)
    assert PUBLISHED[name, variant] == (
        config.data.crop,
        config.data.batch,
        config.train.steps,
        config.g_optimizer.learning_rate,
        {k: v for k, v in config.loss.content.items() if v},
        config.loss.adversarial_weight,
        config.generator.name,
        config.train.init_from,
    )


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match="variant 'small'; choose one of psnr, smoke"):
        recipe("esrgan", "small")


def test_an_unknown_variant_is_one_line_of_the_command():
    command = [sys.executable, "run.py", "--config", "configs/esrgan.py:small"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "unknown variant small; choose one of psnr, smoke" in line
    assert "Traceback" not in line


def tiny(name, photos):
    """A smoke variant with one block, fewer updates, smaller crops and small validation photos."""
    config = recipe(name, "smoke")
    config.data.validation = f"folder:{photos}"
    config.generator.blocks = 1
    config.data.crop, config.data.margin = 48, min(config.data.margin, 8)
    config.train.steps = config.train.validate_every = config.train.checkpoint_every = 20
    return config


@pytest.mark.slow
@pytest.mark.parametrize("name", ["esrgan", "realesrgan"])
def test_a_recipe_trains(name, photos, tmp_path):
    """Its content loss falls, and it writes pictures and a model for upscale."""
    isr_jax.train(tiny(name, photos), tmp_path / "run")
    content = [
        record["l1"] for record in read_records(tmp_path / "run") if record["kind"] == "train"
    ]
    assert content[-1] < 0.8 * content[0]
    assert len(list((tmp_path / "run" / "images").glob("*.png"))) == 1
    sr = isr_jax.load(tmp_path / "run")(np.full((10, 12, 3), 128, np.uint8))
    assert sr.shape == (40, 48, 3)


def test_a_run_begins_with_the_generator_of_another(photos, tmp_path, undrawn):
    """Of a run or of a file, if it has the same fields."""
    config = tiny("edsr", photos)
    config.train.steps = config.train.validate_every = config.train.checkpoint_every = 2
    isr_jax.train(config, tmp_path / "run")
    image = np.arange(360, dtype=np.uint8).reshape(10, 12, 3)
    sr = isr_jax.load(tmp_path / "run")(image)
    config.train.init_from = str(tmp_path / "run")
    config.g_optimizer.learning_rate = 0.0
    config.train.steps = 1
    isr_jax.train(config, tmp_path / "next")
    np.testing.assert_array_equal(isr_jax.load(tmp_path / "next", weights="raw")(image), sr)
    config.generator.width = 12
    with pytest.raises(UserError, match=r"init_from: .*run has a generator with generator.width"):
        isr_jax.train(config, tmp_path / "other")


def test_a_generator_of_another_scale_lends_all_that_fits(photos, tmp_path):
    """Of 4x to 2x, all but the convolution of the folded input."""
    config = tiny("esrgan", photos)
    wider = config.copy_and_resolve_references()
    wider.scale, wider.data.crop = 2, config.data.crop // 2
    was, _ = generator(config.generator.to_dict(), scale=4).init(jax.random.key(1))
    options = {"scale": 4, "generator": config.generator.to_dict()}
    write_generator(tmp_path / "run", was, {}, options)
    state = make_program(wider).init(jax.random.key(0))
    now = begin_from(str(tmp_path / "run"), state, wider).ema
    was, now = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (was, now))
    other = [path for path in was if was[path].shape != now[path].shape]
    assert len(other) == 1
    for path in set(was) - set(other):
        np.testing.assert_array_equal(now[path], was[path])


def test_a_generator_of_another_tail_lends_its_trunk(photos, tmp_path):
    config = tiny("edsr", photos)
    plain = config.copy_and_resolve_references()
    plain.generator.tail = "direct"
    was, _ = generator(config.generator.to_dict(), scale=4).init(jax.random.key(1))
    options = {"scale": 4, "generator": config.generator.to_dict()}
    write_generator(tmp_path / "run", was, {}, options)
    state = make_program(plain).init(jax.random.key(0))
    now = begin_from(str(tmp_path / "run"), state, plain).ema
    assert set(now) < set(was)
    for name in now:
        begun = was[name] if "SubPixel" not in name else state.ema[name]
        jax.tree.map(np.testing.assert_array_equal, now[name], begun)


def test_degraded_batches_lose_their_margin_and_gain_a_target():
    config = recipe("realesrgan", "smoke")
    config.data.crop, config.data.margin, config.data.batch = 32, 8, 3
    hr = jax.random.uniform(jax.random.key(1), (3, 48, 48, 3))
    lr = jax.random.uniform(jax.random.key(2), (3, 12, 12, 3))
    prepare = jax.jit(make_prepare(config))
    key = jax.random.key(0)
    batch = prepare(key, {"lr": lr, "hr": hr}, 0)
    assert {name: x.shape[1:3] for name, x in batch.items()} == {
        "lr": (8, 8),
        "hr": (32, 32),
        "target": (32, 32),
    }
    np.testing.assert_array_equal(batch["hr"], hr[:, 8:-8, 8:-8])
    assert np.abs(batch["target"] - batch["hr"]).max() > 0.01
    # The LR image belongs to the HR image: theirs is the nearest mean.
    means = np.asarray(batch["lr"].mean((1, 2)))
    assert np.abs(means - np.asarray(batch["hr"].mean((1, 2)))).max() < 0.15
    # Device 1 of 3 makes the second example alone, bit for bit up to rounding.
    alone = prepare(key, {"lr": lr[1:2], "hr": hr[1:2]}, 1)
    for name in batch:
        np.testing.assert_allclose(alone[name][0], batch[name][1], atol=1.01 / 255)


def test_bicubic_batches_stay_as_they_were_cut():
    config = base.small()
    batch = {
        name: jax.random.uniform(jax.random.key(0), (2, s, s, 3))
        for name, s in (("lr", 4), ("hr", 16))
    }
    prepared = make_prepare(config)(jax.random.key(1), batch, 0)
    assert prepared.keys() == batch.keys()
    for name in batch:
        np.testing.assert_array_equal(prepared[name], batch[name])


def test_the_shipped_studies_are_valid():
    from configs import study

    for variant, least_seeds in (("", 3), ("quick", 2)):
        config = study.get_config(variant)
        candidates = loop.candidates_of(config)
        assert len(candidates) >= 4 and len(config.study.seeds) >= least_seeds
        for candidate in candidates:
            loss = candidate.config.loss
            expected = config.study.candidates[candidate.name]
            assert loss.content.to_dict() == expected.loss.content.to_dict()
            assert loss.adversarial_weight == expected.loss.adversarial_weight
