"""Distances in pretrained networks as losses: what is loaded, and what an update makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isr_jax import config as base
from isr_jax import losses, recipes
from isr_jax.errors import UserError
from isr_jax.perceptual import distances
from isr_jax.perceptual.lpips import load_params, lpips
from isr_jax.training import checks
from isr_jax.training.program import make_program
from tests.helpers import toy_gan
from tests.test_update import KEY, assert_close

torch = pytest.importorskip("torch", reason="makes the weights")

from safetensors.numpy import save_file

from tests.helpers import trunks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """SqueezeNet and LPIPS's weights for it, random, under the published names."""
    path = tmp_path_factory.mktemp("weights")
    trunk = trunks.random_trunk("squeezenet")
    save_file(trunks.arrays(trunk), path / "squeezenet1_1-b8a52dc0.safetensors")
    channels = [x.shape[-1] for x in trunks.outputs(trunk, torch.zeros(1, 3, 64, 64))]
    rng = np.random.default_rng(0)
    linear = {
        f"lin{i}.model.1.weight": rng.uniform(size=(1, channels[at], 1, 1)).astype(np.float32)
        for i, at in enumerate((1, 4, 7, 9, 10, 11, 12))
    }
    save_file(linear, path / "squeeze.safetensors")
    return path


def a_loss(**fields):
    loss = base.get_config().loss
    loss.update(fields)
    return loss


def test_what_has_no_weight_is_neither_made_nor_loaded():
    assert distances.make(a_loss()) == distances.load_frozen(a_loss()) == {}


def test_a_run_s_frozen_parameters_are_loaded_and_give_the_mean_distance(folder, monkeypatch):
    monkeypatch.setenv("ISR_WEIGHTS", str(folder))
    config = base.small()
    config.loss.update(lpips=0.4, lpips_network="squeeze")
    frozen, params = make_program(config).frozen(), load_params("squeeze", folder=folder)
    assert jax.tree.all(jax.tree.map(np.array_equal, frozen, {"lpips": params}))
    hr = toy_gan.a_batch()["hr"][:2]
    sr = jnp.square(hr)
    distance = jax.jit(distances.make(config.loss)["lpips"])(frozen["lpips"], sr, hr)
    each = jax.jit(lambda *images: lpips(params, *images, network="squeeze"))(sr, hr)
    assert distance > 0.01
    np.testing.assert_allclose(distance, np.mean(each), rtol=1e-5)


def test_an_update_adds_the_weighted_distance_to_the_target(monkeypatch):
    """By a stand-in with frozen parameters, which compiles in no time."""

    def stand_in(params, sr, hr, *, network):
        assert network == "squeeze"
        return jnp.sum(jnp.square((sr - hr) @ params["colours"]), axis=(1, 2, 3))

    monkeypatch.setattr(distances.lpips, "lpips", stand_in)
    frozen = {"lpips": {"colours": jnp.array([[0.1, 0.05], [-0.2, 0.025], [0.05, 0.3]])}}
    fields = {"lpips": 0.4, "lpips_network": "squeeze"}
    update, state, networks = toy_gan.make(adversarial_weight=0.0, **fields)
    batch = toy_gan.a_batch()
    batch["target"] = 0.9 * batch["hr"]

    def loss(g_params):
        sr, _ = networks["generator"].apply(g_params, state.g_stats, batch["lr"], train=True)
        distance = jnp.mean(stand_in(frozen["lpips"], sr, batch["target"], network="squeeze"))
        return losses.mse(sr, batch["target"]) + 0.4 * distance, distance

    (total, distance), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(state.g_params)
    new, metrics = jax.jit(update)(state, batch, KEY, frozen)
    assert 0.4 * distance > 0.05 * total
    np.testing.assert_allclose([metrics["loss"], metrics["lpips"]], [total, distance], rtol=1e-5)
    assert_close(new.g_opt, gradient, 1e-5)


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"lpips": -1.0}, r"config\.loss\.lpips is -1\.0; it must be 0 or more"),
        ({"lpips_network": "vgg19"}, r"unknown config\.loss\.lpips_network 'vgg19'; choose one of"),
        (
            {"lpips": 1.0, "lpips_network": "alex"},
            r"config\.data\.crop=24 is too small for LPIPS of alex; it must be 31 px or more",
        ),
    ],
)
def test_what_cannot_be_is_named(changed, said):
    config = base.small()
    config.data.crop, config.discriminator.crop = 24, 16
    config.loss.update(changed)
    with pytest.raises(UserError, match=said):
        checks.check(config, devices=1)


def test_a_smoke_variant_needs_no_file():
    config = base.get_config()
    config.loss.lpips = 1.0
    assert distances.weights(recipes.variant_of(config, "smoke").loss) == {}
