"""One update: against a plain formulation, against PyTorch's Adam, and on 1, 2 and 4 devices."""

import itertools
from functools import cache, partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from isr_jax import config as base
from isr_jax import losses
from isr_jax.models import discriminator, generator, span
from isr_jax.perceptual import distances
from isr_jax.training.update import init_state, make_update

CROP, BATCH = 24, 8
CONTENT = {"mse": 1.0, "ms_ssim": 0.5, "psnr": 0.01}


def keep_gradient():
    """An optimizer that moves nothing and whose state is the gradient."""
    zeros = lambda tree: jax.tree.map(jnp.zeros_like, tree)  # noqa: E731
    return optax.GradientTransformation(zeros, lambda grad, state, params: (zeros(grad), grad))


def a_discriminator(*, crop, batch_norm, spectral, axis_name):
    plain = {"widths": (4, 6), "dense": 8, "batch_norm": batch_norm}
    options = {"name": "unet", "width": 4} if spectral else plain
    return discriminator(options, crop=crop, axis_name=axis_name)


def make(
    adversarial,
    *,
    batch_norm=True,
    spectral=False,
    axis_name=None,
    optimizer=None,
    discriminator_crop=0,
    ema_decay=0.999,
    ema_from=0,
    accumulate=1,
    **loss,
):
    parts = {
        "generator": generator(
            {"width": 6, "blocks": 1, "batch_norm": batch_norm}, scale=2, axis_name=axis_name
        ),
        "discriminator": a_discriminator(
            crop=discriminator_crop or CROP,
            batch_norm=batch_norm,
            spectral=spectral,
            axis_name=axis_name,
        ),
        "g_optimizer": optimizer or keep_gradient(),
        "d_optimizer": optimizer or keep_gradient(),
    }
    fields = base.get_config().loss
    fields.content.update({**dict.fromkeys(fields.content, 0.0), **CONTENT})
    fields.update({"adversarial": adversarial, "adversarial_weight": 0.1, **loss})
    colours = distances.DISTANCES["perceptual"]._replace(make=lambda loss: weighted_colours)
    with mock.patch.dict(distances.DISTANCES, perceptual=colours):
        update = make_update(
            fields,
            discriminator_crop=discriminator_crop,
            ema_decay=ema_decay,
            ema_from=ema_from,
            accumulate=accumulate,
            axis_name=axis_name,
            **parts,
        )
    return update, jax.jit(lambda: init_state(jax.random.key(1), **parts)), parts


def a_batch():
    hr = jax.random.uniform(jax.random.key(2), (BATCH, CROP, CROP, 3))
    lr = hr.reshape(BATCH, CROP // 2, 2, CROP // 2, 2, 3).mean((2, 4))
    return {"lr": lr, "hr": hr}


KEY = jax.random.key(3)


def assert_close(tree, expected, tolerance=1e-5):
    """Each tensor's difference is below `tolerance` of its norm.

    A gradient that cancels exactly, as a relativistic discriminator's last bias, is rounding error
    of float32 in either: such a one stays below 1e-6.
    """
    flat = jax.tree_util.tree_leaves_with_path(expected)
    assert flat
    for (path, want), got in zip(flat, jax.tree.leaves(tree), strict=True):
        want, got = np.asarray(want, np.float64), np.asarray(got, np.float64)
        norm = np.linalg.norm(want)
        limit = tolerance * norm if norm > 1e-6 else 1e-6
        assert np.linalg.norm(got - want) <= limit, path


def weighted_colours(frozen, sr, hr):
    """Stands for a perceptual loss: a distance after a linear map that is not trained."""
    return jnp.mean(jnp.square((sr - hr) @ frozen["colours"]))


COLOURS = {"colours": jnp.array([[1.0, 0.5], [-2.0, 0.25], [0.5, 3.0]])}
FROZEN = {"perceptual": COLOURS}
PERCEPTUAL = {"perceptual": {"weight": 0.3}}
EVERYTHING = {"spectral": True, "feature_matching": 0.2, **PERCEPTUAL}


@pytest.mark.parametrize("adversarial", ["vanilla", "least_squares", "hinge"])
@pytest.mark.parametrize("devices", [1, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(adversarial, devices):
    """On one device and on several, of losses of every kind, with spectral norm's vectors."""
    options = EVERYTHING if adversarial == "vanilla" else {}
    options = {"batch_norm": False, "discriminator_crop": 16, **options}
    whole, init, _ = make(adversarial, **options)
    state = init()
    expected, metrics = jax.jit(whole)(state, a_batch(), KEY, FROZEN)
    update, _, _ = make(adversarial, accumulate=2, **options)
    everywhere = Mesh(np.array(jax.devices()[:devices]), ("devices",))
    batch = jax.device_put(a_batch(), NamedSharding(everywhere, PartitionSpec("devices")))
    new, accumulated = jax.jit(update)(state, batch, KEY, FROZEN)
    assert_close(new.g_opt, expected.g_opt)
    assert_close(new.d_opt, expected.d_opt)
    assert_close(new.d_stats or 0.0, expected.d_stats or 0.0)
    assert accumulated.keys() == metrics.keys()
    for name, value in metrics.items():
        np.testing.assert_allclose(accumulated[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "adversarial, options",
    [
        *((name, {}) for name in losses.ADVERSARIAL),
        ("vanilla", EVERYTHING),
        ("relativistic", {"adversarial_weight": 0.0, "feature_matching": 0.2}),
    ],
)
def test_gradients_equal_a_plain_formulation(adversarial, options):
    """Two separate losses, each with its own forward passes, differentiated as a whole."""
    update, init, parts = make(adversarial, **options)
    state = init()
    batch = a_batch()
    lr, hr = batch["lr"], batch["hr"]
    g, d = parts["generator"], parts["discriminator"]
    adversary = losses.ADVERSARIAL[adversarial]
    weight, matching = options.get("adversarial_weight", 0.1), options.get("feature_matching", 0)

    def judge(d_params, sr):
        fake, sr_features, stats = d.apply(d_params, state.d_stats, sr, train=True)
        real, hr_features, stats = d.apply(d_params, stats, hr, train=True)
        distances = [jnp.abs(a - b).mean() for a, b in zip(sr_features, hr_features, strict=True)]
        return real, fake, sum(distances), stats

    def g_loss(g_params):
        sr, _ = g.apply(g_params, state.g_stats, lr, train=True)
        loss = sum(w * losses.CONTENT[name](sr, hr) for name, w in CONTENT.items())
        real, fake, distance, _ = judge(state.d_params, sr)
        if "perceptual" in options:
            loss += 0.3 * weighted_colours(COLOURS, sr, hr)
        return loss + weight * adversary.g_loss(real, fake) + matching * distance

    def d_loss(d_params):
        sr, _ = g.apply(state.g_params, state.g_stats, lr, train=True)
        real, fake, _, stats = judge(d_params, sr)
        return adversary.d_loss(real, fake), stats

    new, metrics = jax.jit(update)(state, batch, KEY, FROZEN)
    loss, gradient = jax.jit(jax.value_and_grad(g_loss))(state.g_params)
    assert_close(new.g_opt, gradient, 1e-4)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["g_grad_norm"], optax.tree.norm(gradient), rtol=1e-5)
    (loss, stats), gradient = jax.jit(jax.value_and_grad(d_loss, has_aux=True))(state.d_params)
    assert_close(new.d_opt, gradient, 1e-4)
    np.testing.assert_allclose(metrics["d_loss"], loss, rtol=1e-5)
    if options.get("spectral"):
        assert_close(new.d_stats, stats)
        assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, new.d_stats, state.d_stats)))
    else:
        assert new.d_stats == {}
    names = {name for name in ("perceptual", "feature_matching") if name in options}
    adversarial_names = {"g_adversarial", "d_loss", "d_real", "d_fake", "d_grad_norm"}
    assert set(metrics) == {"loss", "g_grad_norm", *CONTENT, *adversarial_names, *names}


def test_frozen_parameters_are_no_constants_of_the_program():
    """Another tree of the same shapes changes the update without compiling it again."""
    update, init, _ = make("vanilla", **PERCEPTUAL)
    state = init()
    compiled = jax.jit(update).lower(state, a_batch(), KEY, FROZEN).compile()
    _, some = compiled(state, a_batch(), KEY, FROZEN)
    _, none = compiled(state, a_batch(), KEY, jax.tree.map(jnp.zeros_like, FROZEN))
    assert some["perceptual"] > 0
    assert none["perceptual"] == 0
    np.testing.assert_allclose(some["loss"] - none["loss"], 0.3 * some["perceptual"], rtol=1e-3)


def on_devices(update, state, batch, count, parallel):
    devices = jax.devices()[:count]
    if parallel == "jit":
        mesh = Mesh(np.array(devices), ("devices",))
        everywhere = NamedSharding(mesh, PartitionSpec())
        split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("devices")))
        run = jax.jit(update, out_shardings=everywhere)
        state, key, frozen = jax.device_put((state, KEY, FROZEN), everywhere)
        return run(state, split, key, frozen)
    shares = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
    # Every device's result, to see that they agree.
    axes = {"in_axes": (None, 0, None, None), "out_axes": 0}
    every = jax.pmap(update, "devices", devices=devices, **axes)(state, shares, KEY, FROZEN)
    # To the host at once: hundreds of small programs over all devices can block each other.
    every = jax.device_get(every)
    for i in range(1, count):
        for leaf in jax.tree.leaves(every):
            np.testing.assert_array_equal(leaf[i], leaf[0])
    return jax.tree.map(lambda x: x[0], every)


CASES = {
    **{name: {"adversarial": name} for name in losses.ADVERSARIAL},
    "everything": {"adversarial": "relativistic", **EVERYTHING},
}


@cache
def one_device(case):
    """The state and what an update on one device makes of it."""
    update, init, _ = make(**CASES[case], discriminator_crop=16)
    state = init()
    return state, jax.jit(update)(state, a_batch(), KEY, FROZEN)


@pytest.mark.parametrize("case, parallel", list(itertools.product(CASES, ["jit", "pmap"])))
def test_every_number_of_devices_gives_the_same(case, parallel):
    """The same global batch: gradients of both networks, statistics and metrics to 1e-5."""
    state, expected = one_device(case)
    axis_name = "devices" if parallel == "pmap" else None
    update, _, _ = make(**CASES[case], discriminator_crop=16, axis_name=axis_name)
    # What a loss does of its own, such as means over the global batch, shows on any number.
    counts = {"jit": (2, 4), "pmap": (1, 4)}[parallel] if case == "vanilla" else (4,)
    for count in counts:
        assert_close(on_devices(update, state, a_batch(), count, parallel), expected)


def test_without_the_adversarial_part_the_discriminator_rests():
    update, init, _ = make("vanilla", adversarial_weight=0.0, optimizer=optax.adam(1e-3))
    state = init()
    new, metrics = jax.jit(update)(state, a_batch(), KEY, ())
    assert_close(new.d_params, state.d_params, 0.0)
    assert int(new.d_opt[0].count) == 0
    assert set(metrics) == {"loss", "g_grad_norm", *CONTENT}
    weighted = sum(weight * metrics[name] for name, weight in CONTENT.items())
    np.testing.assert_allclose(metrics["loss"], weighted, rtol=1e-6)


def test_discriminator_sees_the_crop_that_the_key_chooses():
    """All places are reachable, and real and fake, made the same here, are cut at the same one."""
    update, init, parts = make("hinge", discriminator_crop=CROP - 1, batch_norm=False)
    state = init()
    lr = a_batch()["lr"]
    hr, _ = parts["generator"].apply(state.g_params, state.g_stats, lr, train=True)
    update = jax.jit(update)
    seen = set()
    for i in range(24):
        _, metrics = update(state, {"lr": lr, "hr": hr}, jax.random.key(i), ())
        np.testing.assert_allclose(metrics["d_fake"], metrics["d_real"], rtol=1e-6)
        seen.add(round(float(metrics["d_real"]), 6))
    assert len(seen) == 4


def test_moving_average_follows_its_formula():
    update, init, _ = make("vanilla", optimizer=optax.sgd(0.1), ema_decay=0.15)
    state = init()
    ema = state.ema
    for step in range(3):
        state, _ = jax.jit(update)(state, a_batch(), KEY, ())
        decay = min(0.15, (1 + step) / (10 + step))
        ema = jax.tree.map(lambda e, p, d=decay: d * e + (1 - d) * p, ema, state.g_params)
    assert int(state.step) == 3
    assert_close(state.ema, ema)


def test_the_moving_average_is_the_parameters_until_it_begins():
    """And its formula counts updates from there."""
    options = {"adversarial_weight": 0.0, "optimizer": optax.sgd(0.1)}
    update, init, _ = make("vanilla", **options, ema_decay=0.15, ema_from=2)
    state = init()
    for step in range(4):
        ema = state.ema
        state, _ = jax.jit(update)(state, a_batch(), KEY, ())
        decay = 0.0 if step < 2 else min(0.15, (step - 1) / (step + 8))
        ema = jax.tree.map(lambda e, p, d=decay: d * e + (1 - d) * p, ema, state.g_params)
        assert_close(state.ema, ema, 1e-6)
        same = jax.tree.map(np.array_equal, state.ema, state.g_params)
        assert all(jax.tree.leaves(same)) == (step < 2)


def test_vmapped_seeds_equal_single_runs():
    """A study trains seeds at once: vmap over states gives each its own run."""
    update, _, parts = make("relativistic", optimizer=optax.adam(1e-3), batch_norm=False)
    keys = jax.random.split(jax.random.key(9), 2)
    states = [jax.jit(partial(init_state, **parts))(key) for key in keys]
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *states)
    together, metrics = jax.jit(jax.vmap(update, in_axes=(0, None, None, None)))(
        stacked, a_batch(), KEY, ()
    )
    for i, state in enumerate(states):
        alone, own = jax.jit(update)(state, a_batch(), KEY, ())
        assert_close(jax.tree.map(lambda x, i=i: x[i], together.g_params), alone.g_params, 1e-4)
        np.testing.assert_allclose(metrics["loss"][i], own["loss"], rtol=1e-4)


def test_a_gan_of_one_image_learns_it():
    """Thirty updates on one batch bring the content loss well down."""
    update, init, _ = make("vanilla", optimizer=optax.adam(3e-3), adversarial_weight=1e-3)
    state = init()
    update = jax.jit(update)
    first = None
    for _ in range(30):
        state, metrics = update(state, a_batch(), KEY, ())
        first = first or float(metrics["mse"])
    assert float(metrics["mse"]) < 0.5 * first


GROUPS = {"depths": (2,), "heads": (2,), "mlp_ratio": 1.0}
NETWORKS = {
    "span": {"width": 6},
    "plksr": {"width": 8, "blocks": 1, "kernel": 5, "partial": 4},
    "realplksr": {
        "width": 8,
        "blocks": 1,
        "kernel": 5,
        "partial": 4,
        "norm_groups": 2,
        "upsampler": "dysample",
    },
    "swinir": {**GROUPS, "width": 8, "window": 4, "features": 8},
    "hat": {
        **GROUPS,
        "depths": (1,),
        "width": 8,
        "window": 4,
        "overlapping": 6,
        "compressed": 4,
        "squeezed": 2,
        "features": 8,
    },
    "dat": {**GROUPS, "width": 32, "split": (2, 4), "features": 8},
    "omnisr": {"width": 8, "groups": 1, "window": 4},
    "rcan": {"width": 8, "groups": 1, "blocks": 1, "squeezed": 2},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_learns_alike_on_every_number_of_devices(name, monkeypatch):
    """By the update of all networks, with L1 alone; of batch norm the statistics are global."""
    monkeypatch.setattr(span, "BLOCKS", 1)
    fields = base.get_config().loss
    fields.content.update({**dict.fromkeys(fields.content, 0.0), "l1": 1.0})
    fields.adversarial_weight = 0.0
    parts = {
        "generator": generator({"name": name, **NETWORKS[name]}, scale=2),
        "discriminator": a_discriminator(crop=16, batch_norm=False, spectral=False, axis_name=None),
        "g_optimizer": optax.adam(5e-3),
        "d_optimizer": keep_gradient(),
    }
    update = make_update(fields, discriminator_crop=16, ema_decay=0.9, axis_name=None, **parts)
    state, batch = init_state(jax.random.key(1), **parts), a_batch()
    alone = jax.jit(update)
    expected = alone(state, batch, KEY, FROZEN)
    # Adam divides a gradient by its own size, rounding errors included: the first step is a sign.
    assert_close(on_devices(update, state, batch, 4, "jit")[1], expected[1])
    losses_seen = []
    for _ in range(12):
        state, metrics = alone(state, batch, KEY, FROZEN)
        losses_seen.append(float(metrics["l1"]))
    assert losses_seen[-1] < 0.9 * losses_seen[0]
