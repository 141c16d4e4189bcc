"""Losses against closed forms, float64 finite differences and PyTorch."""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isr_jax import losses
from isr_jax.errors import UserError

RNG = np.random.default_rng(0)
HR = RNG.uniform(size=(2, 32, 40, 3)).astype(np.float32)
SR = np.clip(HR + RNG.normal(scale=0.1, size=HR.shape), 0, 1).astype(np.float32)
REAL, FAKE = RNG.normal(size=6), RNG.normal(size=6)


def softplus(x):
    return np.logaddexp(0.0, x)


CLOSED_FORMS = {
    "mse": lambda sr, hr: np.mean((sr - hr) ** 2),
    "l1": lambda sr, hr: np.mean(np.abs(sr - hr)),
    "charbonnier": lambda sr, hr: np.mean(np.sqrt((sr - hr) ** 2 + 1e-3**2)),
    "psnr": lambda sr, hr: np.mean(10 * np.log10(np.mean((sr - hr) ** 2, axis=(1, 2, 3)))),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_content_loss_equals_closed_form(name):
    expected = CLOSED_FORMS[name](SR.astype(np.float64), HR.astype(np.float64))
    for call in (losses.CONTENT[name], jax.jit(losses.CONTENT[name])):
        np.testing.assert_allclose(call(jnp.array(SR), jnp.array(HR)), expected, rtol=1e-5)


@pytest.mark.parametrize("name", losses.CONTENT)
def test_content_gradient_equals_finite_differences(name):
    with jax.enable_x64(True):
        sr, hr = jnp.array(SR, jnp.float64), jnp.array(HR, jnp.float64)
        direction = jnp.array(np.random.default_rng(1).normal(size=SR.shape))
        loss = jax.jit(losses.CONTENT[name])
        slope = jnp.vdot(jax.grad(loss)(sr, hr), direction)
        eps = 1e-6
        numeric = (loss(sr + eps * direction, hr) - loss(sr - eps * direction, hr)) / (2 * eps)
        # |x| has kinks within eps of a few pixels; the others are smooth.
        np.testing.assert_allclose(slope, numeric, rtol=2e-3 if name in ("l1", "chroma") else 1e-5)


SPECIAL = {
    "equal": (HR, HR),
    "nearly equal": (HR + 1e-7, HR),
    "constant and equal": (np.full_like(HR, 0.5), np.full_like(HR, 0.5)),
    "constant": (np.full_like(HR, 0.25), np.full_like(HR, 0.75)),
    "black": (np.zeros_like(HR), np.zeros_like(HR)),
    "black for a photograph": (np.zeros_like(HR), HR),
    "negative": (1.0 - HR, HR),
}


@pytest.mark.parametrize("case", SPECIAL)
@pytest.mark.parametrize("name", losses.CONTENT)
def test_content_is_finite_with_finite_gradients(name, case):
    sr, hr = (jnp.array(x, jnp.float32) for x in SPECIAL[case])
    value, gradient = jax.jit(jax.value_and_grad(losses.CONTENT[name]))(sr, hr)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", losses.CONTENT)
def test_content_is_least_at_the_target(name):
    hr = jnp.array(HR)
    best = losses.CONTENT[name](hr, hr)
    assert best < losses.CONTENT[name](jnp.array(SR), hr)
    np.testing.assert_allclose(
        best, {"psnr": -100.0, "charbonnier": 1e-3}.get(name, 0.0), atol=1e-5
    )


def test_content_terms_leave_out_what_has_no_weight():
    terms = losses.content_terms(jnp.array(SR), jnp.array(HR), weights={"mse": 2.0, "l1": 0.0})
    assert list(terms) == ["mse"]
    np.testing.assert_allclose(terms["mse"], CLOSED_FORMS["mse"](SR, HR), rtol=1e-5)
    with pytest.raises(UserError, match="unknown content loss 'huber'; choose one of mse"):
        losses.content_terms(jnp.array(SR), jnp.array(HR), weights={"huber": 1.0})


ADVERSARIAL_FORMS = {
    "vanilla": (
        lambda r, f: np.mean(softplus(-r)) + np.mean(softplus(f)),
        lambda r, f: np.mean(softplus(-f)),
    ),
    "least_squares": (
        lambda r, f: 0.5 * np.mean((r - 1) ** 2) + 0.5 * np.mean(f**2),
        lambda r, f: 0.5 * np.mean((f - 1) ** 2),
    ),
    "hinge": (
        lambda r, f: np.mean(np.maximum(0, 1 - r)) + np.mean(np.maximum(0, 1 + f)),
        lambda r, f: -np.mean(f),
    ),
    "relativistic": (
        lambda r, f: np.mean(softplus(-(r - f.mean()))) + np.mean(softplus(f - r.mean())),
        lambda r, f: np.mean(softplus(r - f.mean())) + np.mean(softplus(-(f - r.mean()))),
    ),
}


@pytest.mark.parametrize("name", losses.ADVERSARIAL)
def test_adversarial_equals_closed_form(name):
    adversary, forms = losses.ADVERSARIAL[name], ADVERSARIAL_FORMS[name]
    for loss, form in zip(adversary, forms, strict=True):
        value = jax.jit(loss)(jnp.array(REAL, jnp.float32), jnp.array(FAKE, jnp.float32))
        np.testing.assert_allclose(value, form(REAL, FAKE), rtol=1e-6)


@pytest.mark.parametrize("name", losses.ADVERSARIAL)
@pytest.mark.parametrize("size", [0.0, 300.0])
def test_adversarial_is_finite_where_the_discriminator_is_sure(name, size):
    real, fake = jnp.full(4, size), jnp.full(4, -size)
    for loss in losses.ADVERSARIAL[name]:
        for pair in ((real, fake), (fake, real)):
            value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(*pair)
            assert np.isfinite([value, *np.ravel(gradients)]).all()


def test_vanilla_generator_learns_where_the_discriminator_is_sure():
    """The non-saturating loss keeps a gradient of -1 / n for images that D rejects outright."""
    gradient = jax.grad(losses.ADVERSARIAL["vanilla"].g_loss, argnums=1)(
        jnp.zeros(4), jnp.full(4, -50.0)
    )
    np.testing.assert_allclose(gradient, -0.25, rtol=1e-6)


def test_logits_of_places_count_alike():
    """The loss of a map of logits is that of its logits in a row."""
    real, fake = (jnp.array(x, jnp.float32) for x in (REAL, FAKE))
    for name, adversary in losses.ADVERSARIAL.items():
        for loss in adversary:
            flat, shaped = loss(real, fake), loss(real.reshape(1, 2, 3), fake.reshape(1, 2, 3))
            np.testing.assert_allclose(shaped, flat, rtol=1e-6, err_msg=name)


def test_feature_matching_sums_the_layers_mean_distances():
    sr, hr = ([jnp.array(x), jnp.array(x[:, ::2, ::2, :1])] for x in (SR, HR))
    means = [np.abs(SR - HR).mean(), np.abs(SR - HR)[:, ::2, ::2, :1].mean()]
    for call in (losses.feature_matching, jax.jit(losses.feature_matching)):
        np.testing.assert_allclose(call(sr, hr), sum(means), rtol=1e-6)
    half = [[x.astype(jnp.bfloat16) for x in layers] for layers in (sr, hr)]
    value = losses.feature_matching(*half)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, sum(means), rtol=1e-2)
    np.testing.assert_array_equal(losses.feature_matching(hr, hr), 0.0)
    gradient = jax.grad(losses.feature_matching)(hr, hr)
    assert all(np.isfinite(leaf).all() for leaf in gradient)
    np.testing.assert_array_equal(losses.feature_matching([], []), 0.0)


def test_losses_equal_torch():
    torch = pytest.importorskip("torch", reason="needs the torch extra")
    functional = torch.nn.functional
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    bce = functional.binary_cross_entropy_with_logits
    ones, zeros = torch.ones_like(real), torch.zeros_like(real)
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else nullcontext():
        adversary = losses.ADVERSARIAL["relativistic"]
        np.testing.assert_allclose(
            adversary.d_loss(jnp.array(REAL), jnp.array(FAKE)),
            (bce(real - fake.mean(), ones) + bce(fake - real.mean(), zeros)).item(),
            rtol=1e-12,
        )
        np.testing.assert_allclose(
            losses.ADVERSARIAL["vanilla"].g_loss(jnp.array(REAL), jnp.array(FAKE)),
            bce(fake, ones).item(),
            rtol=1e-12,
        )
