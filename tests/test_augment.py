"""Augmentation: its closed forms, its chances, LR beside HR, and any number of devices."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from isr_jax import config as base
from isr_jax.data.augment import AUGMENTATIONS, augment
from isr_jax.errors import UserError
from isr_jax.resize import resize
from isr_jax.training import checks
from isr_jax.training.program import make_prepare

KEY = jax.random.key(0)
ORDERS = list(itertools.permutations(range(3)))


def a_batch(n, *, side=16, scale=2):
    """LR is the bicubic of HR, and neither reaches black or white."""
    hr = jax.random.uniform(jax.random.key(1), (n, side, side, 3), minval=0.3, maxval=0.7)
    return {"lr": resize(hr, scale=1 / scale), "hr": hr}


@cache
def compiled(chances):
    chances = {**dict.fromkeys(AUGMENTATIONS, 0.0), **dict(chances)}
    return jax.jit(lambda key, batch, first: augment(key, batch, chances=chances, first=first))


def augmented(batch, *, first=0, key=KEY, **chances):
    return jax.device_get(compiled(tuple(chances.items()))(key, batch, first))


def orders_of(images, sources):
    """Which order of its source's channels each image has."""
    same = np.stack([(images == sources[..., order]).all((1, 2, 3)) for order in ORDERS])
    assert (same.sum(axis=0) == 1).all()
    return np.argmax(same, axis=0)


def share(condition, expected):
    """Within five standard errors."""
    error = np.sqrt(expected * (1 - expected) / condition.size)
    assert abs(condition.mean() - expected) <= 5 * error


def test_rgb_gives_hr_and_lr_one_of_six_orders():
    batch = a_batch(600, side=4)
    out = augmented(batch, rgb=1.0)
    orders = {name: orders_of(out[name], np.asarray(x)) for name, x in batch.items()}
    np.testing.assert_array_equal(orders["lr"], orders["hr"])
    for i in range(6):
        share(orders["hr"] == i, 1 / 6)
    np.testing.assert_allclose(out["lr"], resize(jnp.asarray(out["hr"]), scale=0.5), atol=1e-6)


def test_mixup_weighs_neighbours_in_hr_lr_and_target_alike():
    batch = a_batch(600, side=4)
    batch["target"] = batch["hr"] ** 2
    out = augmented(batch, mixup=1.0)
    sources = jax.device_get(batch)
    own = np.zeros(600)
    for i in range(600):
        a, b = sources["hr"][i], sources["hr"][i ^ 1]
        own[i] = np.vdot(out["hr"][i] - b, a - b) / np.vdot(a - b, a - b)
        for name, x in sources.items():
            mixed = own[i] * x[i] + (1 - own[i]) * x[i ^ 1]
            np.testing.assert_allclose(out[name][i], mixed, atol=1e-5)
    assert scipy.stats.kstest(own, "beta", args=(1.2, 1.2)).pvalue > 1e-4
    assert abs(np.corrcoef(own[::2], own[1::2])[0, 1]) < 5 / np.sqrt(300)
    np.testing.assert_allclose(out["lr"], resize(jnp.asarray(out["hr"]), scale=0.5), atol=1e-5)


@pytest.mark.parametrize("sharpened", [False, True])
def test_cutblur_puts_hr_into_a_rectangle_of_lr_or_around_it(sharpened):
    n, side = 400, 40
    batch = a_batch(n, side=side, scale=1)
    batch["lr"] = 1.0 - batch["hr"]
    if sharpened:
        batch["target"] = batch["hr"] ** 2
    sharp = np.asarray(batch["target" if sharpened else "hr"])
    out = augmented(batch, cutblur=1.0)
    for name in batch.keys() - {"lr"}:
        np.testing.assert_array_equal(out[name], batch[name])
    replaced = (out["lr"] == sharp).all(axis=-1)
    kept = (out["lr"] == np.asarray(batch["lr"])).all(axis=-1)
    assert (replaced ^ kept).all()
    # A rectangle of 0.7 of the side leaves a border on one side at least.
    corners = replaced[:, [0, 0, -1, -1], [0, -1, 0, -1]].sum(axis=1)
    outside = corners >= 3
    share(outside, 0.5)
    for mask, inverted in zip(replaced, outside, strict=True):
        cut = mask ^ inverted
        rows, columns = np.flatnonzero(cut.any(axis=1)), np.flatnonzero(cut.any(axis=0))
        assert cut[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert len(rows) == len(columns) and 26 <= len(rows) <= 29
    starts = np.argmax((replaced ^ outside[:, None, None]).any(axis=2), axis=1)
    assert set(starts) >= set(range(12))


def test_chances_are_each_example_s_own():
    batch = a_batch(3000, side=4, scale=1)
    batch["lr"] = 1.0 - batch["hr"]
    out = augmented(batch, rgb=0.6, mixup=0.2, cutblur=0.3)

    def differ(x, y):
        return (np.abs(x - y) > 1e-5).any(axis=(1, 2, 3))

    mixed = differ(np.sort(out["hr"]), np.sort(batch["hr"]))
    blurred = differ(out["lr"], 1.0 - out["hr"])
    share(mixed, 0.2)
    share(blurred, 0.3)
    share(mixed & blurred, 0.2 * 0.3)
    share(mixed[::2] & mixed[1::2], 0.2 * 0.2)
    # One of the six orders is the image's own.
    share(differ(out["hr"], np.asarray(batch["hr"]))[~mixed], 0.6 * 5 / 6)


def test_an_example_depends_on_its_number_and_its_pair_alone():
    batch, chances = a_batch(8), {"rgb": 0.5, "mixup": 0.5}
    out = augmented(batch, **chances)
    other = {name: x.at[5].set(0.5) for name, x in batch.items()}
    changed = augmented(other, **chances)
    for name in out:
        np.testing.assert_array_equal(
            np.delete(changed[name], [4, 5], 0), np.delete(out[name], [4, 5], 0)
        )
        later = augmented({part: x[4:] for part, x in batch.items()}, first=4, **chances)
        np.testing.assert_allclose(later[name], out[name][4:], atol=1e-6)
    again = augmented(batch, key=jax.random.key(9), **chances)
    assert (again["hr"] != out["hr"]).any(axis=(1, 2, 3)).sum() >= 3


def a_config(scale, **chances):
    config = base.get_config()
    config.scale = scale
    config.data.augment.update(chances)
    return config


CASES = {"x2": (2, {"rgb": 0.5, "mixup": 0.5}), "x1": (1, {"rgb": 0.5, "cutblur": 0.7})}


@pytest.mark.parametrize("case", CASES)
def test_every_number_of_devices_gives_the_same(case):
    scale, chances = CASES[case]
    prepare, batch = make_prepare(a_config(scale, **chances)), a_batch(8, scale=scale)
    batch["lr"] = 1.0 - batch["lr"]
    expected = jax.jit(prepare)(KEY, batch, 0)
    assert (expected["lr"] != batch["lr"]).any()
    # Each way on two devices or four; in fours, a pair of mixup's neighbours is all that one has.
    of_pmap, of_jit = (4, 2) if case == "x2" else (2, 4)
    shares = jax.tree.map(lambda x: x.reshape(of_pmap, -1, *x.shape[1:]), batch)
    first = jnp.arange(of_pmap, dtype=jnp.int32) * (8 // of_pmap)
    devices = jax.devices()[:of_pmap]
    pmapped = jax.pmap(prepare, "devices", in_axes=(None, 0, 0), devices=devices)
    found = jax.tree.map(lambda x: x.reshape(8, *x.shape[2:]), pmapped(KEY, shares, first))
    mesh = Mesh(np.array(jax.devices()[:of_jit]), ("devices",))
    split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("devices")))
    for out in (found, jax.jit(prepare)(KEY, split, 0)):
        for name in expected:
            np.testing.assert_allclose(out[name], expected[name], atol=1e-6)


def test_without_chances_nothing_is_drawn():
    """The program of make_prepare is that of the slices alone."""
    program = str(jax.make_jaxpr(make_prepare(a_config(2)))(KEY, a_batch(2), 0))
    assert not any(word in program for word in ("random", "threefry", "select", "mul"))
    program = str(jax.make_jaxpr(make_prepare(a_config(2, rgb=0.1)))(KEY, a_batch(2), 0))
    assert "random" in program


def test_what_cannot_be_augmented_is_said():
    config = a_config(4, cutblur=0.5)
    with pytest.raises(
        UserError, match=r"cutblur pastes HR pixels .* config.scale=1, not 4; set it"
    ):
        checks.check(config, devices=1)
    config = a_config(4, mixup=0.5)
    config.data.batch = 12
    checks.check(config, devices=4)  # one program, which sees the whole batch
    config.train.parallel = "pmap"
    with pytest.raises(UserError, match=r"mixup mixes pairs: config.data.batch=12 must .* by 8"):
        checks.check(config, devices=4)
    config.train.parallel, config.data.batch = "jit", 3
    with pytest.raises(UserError, match=r"config.data.batch=3 must be divisible by 2"):
        checks.check(config, devices=1)
