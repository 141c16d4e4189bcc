"""What keeps a discriminator in check: R1 by closed forms and PyTorch's autograd, and pauses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from isr_jax import config as base
from isr_jax import losses
from isr_jax.errors import UserError
from isr_jax.models import cpu_gradients, layers
from isr_jax.training import checks
from tests.helpers import toy_gan
from tests.helpers.discriminator_cases import CASES, make
from tests.helpers.toy_gan import a_batch
from tests.test_update import KEY, assert_close, on_devices

RNG = np.random.default_rng(0)
PHOTOS = jnp.asarray(RNG.uniform(size=(3, 5, 6, 3)), jnp.float32)


@pytest.mark.parametrize("jitted", [False, True])
def test_r1_of_linear_and_quadratic_discriminators_is_their_closed_form(jitted):
    """|w|^2 of w x + b; the mean of |A x|^2 of x A x / 2, and of its gradient by A."""
    wrap = jax.jit if jitted else lambda f: f
    w = jnp.asarray(RNG.normal(size=PHOTOS.shape[1:]), jnp.float32)
    linear = wrap(lambda w: losses.r1(lambda x: jnp.sum(w * x, axis=(1, 2, 3)) + 3.0, PHOTOS))
    np.testing.assert_allclose(linear(w), np.sum(np.square(w)), rtol=1e-5)
    # A logit per pixel: those of an image are summed.
    places = wrap(lambda w: losses.r1(lambda x: jnp.sum(w * x, axis=-1), PHOTOS))
    np.testing.assert_allclose(places(w), np.sum(np.square(w)), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.grad(places))(w), 2 * w, rtol=1e-5)

    flat = np.asarray(PHOTOS, np.float64).reshape(3, -1)
    a = RNG.normal(size=(flat.shape[1],) * 2)
    a += a.T

    def quadratic(a):
        def logits(x):
            x = x.reshape(3, -1)
            return 0.5 * jnp.einsum("ni,ij,nj->n", x, a, x, precision="highest")

        return losses.r1(logits, PHOTOS)

    value, gradient = jax.jit(jax.value_and_grad(quadratic))(jnp.asarray(a, jnp.float32))
    np.testing.assert_allclose(value, np.mean(np.sum(np.square(flat @ a), axis=1)), rtol=1e-4)
    outer = np.einsum("ni,nj->ij", flat @ a, flat) / 3  # of |(A + A^T) x / 2|^2 by A
    expected = outer + outer.T
    np.testing.assert_allclose(gradient, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("case", ["classifier", "vgg to 3", "unet", "patch"])
def test_r1_of_every_discriminator_equals_torch(case):
    """The penalty and its gradient by every parameter; PyTorch differentiates twice on its own."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.helpers import torch_networks as twins
    from tests.helpers.trunks import to_torch

    network, params, stats, images = make(case)
    options, crop, _ = CASES[case]
    own = {name: value for name, value in options.items() if name != "name"}
    twin = twins.DISCRIMINATORS[options.get("name", "classifier")](crop, **own)
    twins.load(twin, params, stats)
    photos = to_torch(images).requires_grad_()
    (slope,) = torch.autograd.grad(twin(photos).sum(), photos, create_graph=True)
    expected = slope.square().sum(dim=(1, 2, 3)).mean()
    expected.backward()
    for parameter in twin.parameters():  # a bias that only the last layer adds has no gradient
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    wanted = twins.gradients(twin, params)

    def penalty(params):
        return losses.r1(lambda x: network.apply(params, stats, x, train=True)[0], images)

    value, gradient = jax.jit(jax.value_and_grad(penalty))(params)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-4)
    whole = float(optax.tree.norm(wanted))
    for (path, want), got in zip(
        jax.tree_util.tree_leaves_with_path(wanted), jax.tree.leaves(gradient), strict=True
    ):
        limit = max(1e-3 * np.linalg.norm(want), 1e-5 * whole)
        assert np.linalg.norm(got - want) <= limit, path


def test_r1_goes_through_the_gradient_of_kernels_in_parts(monkeypatch):
    """A custom_vjp, differentiated twice: against XLA's own, and a difference quotient."""
    keys = jax.random.split(jax.random.key(0), 3)
    photos = jax.random.uniform(keys[0], (2, 20, 9, 3))
    stack = [layers.conv(4, dtype=jnp.float32), layers.conv(2, dtype=jnp.float32)]
    params = [stack[0].init(keys[1], photos), stack[1].init(keys[2], jnp.zeros((2, 20, 9, 4)))]

    def made():
        """A function of its own, because traces are kept by function."""

        def logits(params, x):
            for layer, own in zip(stack, params, strict=True):
                x = jnp.tanh(layer.apply(own, x))
            return jnp.sum(x, axis=-1)

        return lambda params: losses.r1(lambda x: logits(params, x), photos)

    monkeypatch.setattr(cpu_gradients, "_LARGE", 0)
    monkeypatch.setattr(cpu_gradients, "_PART", 4 * 2 * 4 * 40)
    penalty = made()
    assert "custom_vjp" in str(jax.make_jaxpr(penalty)(params))
    value, got = jax.jit(jax.value_and_grad(penalty))(params)
    monkeypatch.setattr(cpu_gradients, "_LARGE", 2**60)
    penalty = made()
    assert "custom_vjp" not in str(jax.make_jaxpr(penalty)(params))
    expected, want = jax.jit(jax.value_and_grad(penalty))(params)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1e-3, float(jnp.abs(b).max())))
    along = jax.tree.map(lambda p: jax.random.normal(keys[0], p.shape), params)
    penalty = jax.jit(penalty)
    ahead, behind = (
        penalty(jax.tree.map(lambda p, d, s=s: p + s * d, params, along)) for s in (1e-3, -1e-3)
    )
    slope = sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (got, along)), strict=True))
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-3, rtol=1e-2)


def test_an_update_adds_half_gamma_times_r1_to_the_discriminator_s_loss():
    """By the statistics of the pass of the photos; the generator and the other metrics stay."""
    plain, state, networks = toy_gan.make()
    update, _, _ = toy_gan.make(r1=0.6)
    state = state._replace(d_stats={"calls": jnp.full((), 2.0)})
    before, metrics = jax.jit(plain)(state, a_batch(), KEY, ())
    after, with_r1 = jax.jit(update)(state, a_batch(), KEY, ())
    stats = {"calls": jnp.full((), 3.0)}  # the generated images come first

    def penalty(params):
        apply = networks["discriminator"].apply
        return losses.r1(lambda x: apply(params, stats, x, train=True)[0], a_batch()["hr"])

    value, gradient = jax.jit(jax.value_and_grad(penalty))(state.d_params)
    np.testing.assert_allclose(with_r1.pop("r1"), value, rtol=1e-5)
    expected = jax.tree.map(lambda g, r: g + 0.3 * r, before.d_opt, gradient)
    assert_close(after.d_opt, expected)
    assert_close(after._replace(d_opt=()), before._replace(d_opt=()), 1e-6)
    norm = optax.tree.norm(expected)
    np.testing.assert_allclose(with_r1.pop("d_grad_norm"), norm, rtol=1e-5)
    assert norm > 1.01 * metrics.pop("d_grad_norm")
    assert_close(with_r1, metrics, 1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_the_dirac_gan_converges_by_r1_alone(gamma):
    """Mescheder et al. 2018, section 2.1: D(x) = psi x, G's one sample theta, and photos of 0.

    What R1 is for: with gradient steps of both at once, theta still circles 0 without it.
    """
    adversary, black = losses.ADVERSARIAL["vanilla"], jnp.zeros((1, 1, 1, 3))

    def logits(psi, x):
        return jnp.sum(psi * x, axis=(1, 2, 3))

    def d_loss(psi, theta):
        penalty = losses.r1(lambda x: logits(psi, x), black)
        return adversary.d_loss(logits(psi, black), logits(psi, theta)) + gamma / 2 * penalty

    def g_loss(theta, psi):
        return adversary.g_loss(logits(psi, black), logits(psi, theta))

    def step(state, _):
        psi, theta = state
        new = psi - 0.1 * jax.grad(d_loss)(psi, theta), theta - 0.1 * jax.grad(g_loss)(theta, psi)
        return new, jnp.linalg.norm(theta)

    start = (jnp.zeros((1, 1, 1, 3)), jnp.full((1, 1, 1, 3), 0.5))
    _, distances = jax.jit(lambda: jax.lax.scan(step, start, None, length=500))()
    if gamma:
        assert distances[-1] < 1e-3 * distances[0]
    else:
        assert distances[-130:].max() > 0.5 * distances[0]  # the last round


def test_parts_of_a_batch_give_the_same_r1_and_ldl():
    options = {"normalised": False, "r1": 0.6, "d_pause": 0.1, "ldl": 0.5}
    whole, state, _ = toy_gan.make(**options)
    update, _, _ = toy_gan.make(accumulate=2, **options)
    expected, got = (jax.jit(f)(state, a_batch(), KEY, ()) for f in (whole, update))
    # The statistics count the calls, but those of each part start from the state's.
    assert_close(got, expected)


@pytest.mark.parametrize("parallel, pause", [("jit", 0.1), ("pmap", 100.0)])
def test_every_number_of_devices_gives_the_same_r1_and_pauses(parallel, pause):
    """With statistics of the batch, which tie the images of all devices together."""
    options = {"r1": 0.6, "d_pause": pause, "ldl": 0.5}
    whole, state, _ = toy_gan.make(**options)
    expected = jax.jit(whole)(state, a_batch(), KEY, ())
    assert expected[1]["d_paused"] == float(pause > 1)
    axis_name = "devices" if parallel == "pmap" else None
    update, _, _ = toy_gan.make(axis_name=axis_name, **options)
    assert_close(on_devices(update, state, a_batch(), 4, parallel), expected)


def same(tree, other):
    return jax.tree.all(jax.tree.map(np.array_equal, tree, other))


def test_a_discriminator_pauses_below_its_loss_and_the_generator_does_not():
    options = {"optimizer": optax.adam(1e-3), "r1": 0.1}
    _, state, _ = toy_gan.make(**options)
    runs = {
        pause: jax.jit(toy_gan.make(**options, d_pause=pause)[0])(state, a_batch(), KEY, ())
        for pause in (0.0, 1e-3, 100.0)
    }
    (moved, plain), (awake, of_awake), (still, of_still) = runs.values()
    assert "d_paused" not in plain
    assert (of_awake["d_paused"], of_still["d_paused"]) == (0.0, 1.0)
    assert same(awake, moved)
    assert not same(moved.d_params, state.d_params)
    assert same((still.d_params, still.d_opt), (state.d_params, state.d_opt))
    assert same(still, moved._replace(d_params=still.d_params, d_opt=still.d_opt))


def test_a_pause_ends_when_the_generator_has_caught_up():
    """Each update decides by its own loss alone, so a run that resumes decides the same."""
    options = {"normalised": False, "adversarial_weight": 1.0, "optimizer": optax.adam(2e-2)}
    update, state, _ = toy_gan.make(**options, d_pause=1.3)
    # The counted calls would let the logits grow without end.
    step = lambda state, _: update(  # noqa: E731
        state._replace(d_stats={"calls": jnp.zeros(())}), a_batch(), KEY, ()
    )
    train = jax.jit(lambda state: jax.lax.scan(step, state, None, length=60))
    end, metrics = train(state)
    paused = np.asarray(metrics["d_paused"])
    np.testing.assert_array_equal(paused, metrics["d_loss"] < 1.3)
    assert 0 < paused.sum() < 60 and np.diff(paused).min() == -1
    assert int(end.d_opt[0].count) == 60 - paused.sum()
    assert int(end.g_opt[0].count) == 60


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"r1": -1.0}, r"config\.loss\.r1 is -1\.0; it must be 0 or more"),
        ({"d_pause": float("nan")}, r"config\.loss\.d_pause is nan; it must be 0 or more"),
        ({"ldl": -0.5}, r"config\.loss\.ldl is -0\.5; it must be 0 or more"),
        ({"lattice": -1.0}, r"config\.loss\.lattice is -1\.0; it must be 0 or more"),
        ({"lattice": 1.0, "scale": 1}, r"lattice is 0 for any image at config\.scale=1"),
        ({"r1": 1.0, "adversarial_weight": 0.0}, r"r1 is 1\.0, but no discriminator is trained"),
        ({"d_pause": 0.1, "adversarial_weight": 0.0}, r"d_pause is 0\.1, but no discriminator"),
    ],
)
def test_what_cannot_be_is_named(changed, said):
    config = base.small()
    config.loss.content.l1 = 1.0
    changed = dict(changed)
    config.scale = changed.pop("scale", config.scale)
    config.loss.update(changed)
    with pytest.raises(UserError, match=said):
        checks.check(config, devices=1)
