"""Losses against the faults of GANs: chroma by Ottosson's values, LDL by its authors' formula,
the lattice loss by loops and closed forms.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isr_jax import losses
from tests.helpers import toy_gan
from tests.test_update import KEY, assert_close

RNG = np.random.default_rng(0)
HR = RNG.uniform(size=(2, 12, 15, 3))
SR = np.clip(HR + RNG.normal(scale=0.1, size=HR.shape), 0, 1)
EMA = np.clip(HR + RNG.normal(scale=0.1, size=HR.shape), 0, 1)

# Ottosson's table to test implementations with: XYZ, and L, a and b to three places.
OKLAB = {
    (0.950, 1.000, 1.089): (1.000, 0.000, 0.000),
    (1.000, 0.000, 0.000): (0.450, 1.236, -0.019),
    (0.000, 1.000, 0.000): (0.922, -0.671, 0.263),
    (0.000, 0.000, 1.000): (0.153, -1.415, -0.449),
}
XYZ_TO_LINEAR = np.array(  # IEC 61966-2-1
    [
        [3.2404542, -1.5371385, -0.4985314],
        [-0.9692660, 1.8760108, 0.0415560],
        [0.0556434, -0.2040259, 1.0572252],
    ]
)


chroma, ldl, artifact_map = map(jax.jit, (losses.chroma, losses.ldl, losses.artifact_map))


def floats(*arrays, dtype=jnp.float32):
    return [jnp.asarray(x, dtype) for x in arrays]


@pytest.mark.parametrize("jitted", [False, True])
def test_oklab_has_its_published_values(jitted):
    convert = jax.jit(losses.oklab) if jitted else losses.oklab
    linear = np.array(list(OKLAB)) @ XYZ_TO_LINEAR.T
    np.testing.assert_allclose(convert(*floats(linear)), list(OKLAB.values()), rtol=0, atol=1e-3)


def test_linear_light_is_srgb_s():
    srgb = np.array([-0.1, 0.0, 0.04, 0.0405, 0.5, 1.0, 1.2]).repeat(3).reshape(-1, 3)
    linear = [-0.1 / 12.92, 0, 0.04 / 12.92, 0.00313474, 0.214041, 1, (1.255 / 1.055) ** 2.4]
    for call in (losses.linear_rgb, jax.jit(losses.linear_rgb)):
        np.testing.assert_allclose(call(*floats(srgb))[:, 1], linear, rtol=1e-4)


def test_every_gray_of_8_bits_has_no_chroma_and_the_cube_root_of_its_light():
    grays = np.arange(256).repeat(3).reshape(-1, 3) / 255
    linear = losses.linear_rgb(*floats(grays))
    lab = losses.oklab(linear)
    np.testing.assert_allclose(lab[:, 0], np.cbrt(linear[:, 0]), atol=1e-6)
    np.testing.assert_allclose(lab[:, 1:], 0.0, atol=1e-6)


def test_chroma_is_the_difference_of_a_and_b():
    """By the published matrices in NumPy; no pixel here is below the line near black."""

    def ab(srgb):
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        return (np.cbrt(linear @ losses.LMS.T) @ losses.LAB.T)[..., 1:]

    sr, hr = (0.05 + 0.95 * x for x in (SR, HR))
    expected = np.abs(ab(sr) - ab(hr)).mean()
    for call in (losses.chroma, jax.jit(losses.chroma)):
        np.testing.assert_allclose(call(*floats(sr, hr)), expected, rtol=1e-5)


def test_chroma_sees_a_shift_of_colour_and_no_gray_detail():
    gray = np.broadcast_to(HR.mean(-1, keepdims=True), HR.shape)
    sharpened = np.broadcast_to(SR.mean(-1, keepdims=True), HR.shape)
    assert chroma(*floats(sharpened, gray)) < 1e-6 < losses.l1(*floats(sharpened, gray))
    tinted = gray * np.array([1.0, 0.95, 0.9])
    assert chroma(*floats(tinted, gray)) > 5e-3


@pytest.mark.parametrize("sr", [0.0, 1e-8, -1e-8, -0.2, 1.5], ids=str)
@pytest.mark.parametrize("hr", [0.0, 0.5])
def test_chroma_has_a_bounded_gradient_at_black_and_beyond(sr, hr):
    """Where the cube root's slope is infinite; the largest is 221 / 12.92 times the matrices'."""
    sr, target = jnp.full((1, 4, 4, 3), sr), jnp.full((1, 4, 4, 3), hr).at[..., 0].add(0.3)
    gradient = jax.jit(jax.grad(losses.chroma))(sr, target) * (4 * 4 * 2)
    bound = 221 / 12.92 * np.abs(np.abs(losses.LAB[1:]) @ losses.LMS).sum(0).max()
    assert np.isfinite(gradient).all() and 0 < np.abs(gradient).max() < bound


def test_chroma_s_gradient_equals_finite_differences_across_black():
    """On the line near black as well as off it, and for values below 0."""
    with jax.enable_x64(True):
        sr, hr, along = floats(SR * 0.02 - 0.005, HR, RNG.normal(size=SR.shape), dtype=jnp.float64)
        slope = jnp.vdot(jax.jit(jax.grad(losses.chroma))(sr, hr), along)
        ahead, behind = (chroma(sr + e * along, hr) for e in (1e-9, -1e-9))
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-9, rtol=1e-4)


def published_map(sr, hr, ema):
    """Liang et al. 2022, as the authors' code has it, in NumPy."""
    residual, of_ema = (np.abs(hr - x).sum(-1) for x in (sr, ema))
    padded = np.pad(residual, ((0, 0), (3, 3), (3, 3)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(1, 2))
    weights = windows.var(axis=(-1, -2), ddof=1)
    weights *= residual.var(axis=(1, 2), ddof=1)[:, None, None] ** (1 / 5)
    weights[residual < of_ema] = 0
    return weights[..., None]


@pytest.mark.parametrize("jitted", [False, True])
def test_the_artifact_map_and_its_loss_are_the_authors(jitted):
    wrap = jax.jit if jitted else lambda f: f
    expected = published_map(SR, HR, EMA)
    assert 0.2 < (expected == 0).mean() < 0.8
    got = wrap(losses.artifact_map)(*floats(SR, HR, EMA))
    np.testing.assert_array_equal(got == 0, expected == 0)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    loss = np.mean(np.abs(expected * SR - expected * HR))
    np.testing.assert_allclose(wrap(losses.ldl)(*floats(SR, HR, EMA)), loss, rtol=1e-5)


def test_ldl_s_gradient_goes_through_the_map():
    with jax.enable_x64(True):
        sr, hr, ema = floats(SR, HR, EMA, dtype=jnp.float64)
        along = jnp.asarray(RNG.normal(size=SR.shape))
        slope = jnp.vdot(jax.jit(jax.grad(losses.ldl))(sr, hr, ema), along)
        ahead, behind = (ldl(sr + e * along, hr, ema) for e in (1e-7, -1e-7))
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-7, rtol=1e-5)
        weights = artifact_map(sr, hr, ema)
        through_errors = weights * jnp.sign(sr - hr) / sr.size
        assert abs(jnp.vdot(through_errors, along) / slope - 1) > 0.1


def test_ldl_is_0_where_the_ema_is_worse_everywhere():
    hr, worse = floats(HR, 1.0 - HR)
    near = hr + 0.01 * jnp.sign(worse - hr) * jnp.abs(worse - hr)
    np.testing.assert_array_equal(artifact_map(near, hr, worse), 0.0)
    value, gradient = jax.jit(jax.value_and_grad(losses.ldl))(near, hr, worse)
    np.testing.assert_array_equal([value, jnp.abs(gradient).max()], 0.0)


EVEN = np.full((2, 12, 15, 3), 0.25)
SPECIAL = {
    "equal": (HR, HR, HR),
    "equal to the truth alone": (HR, HR, EMA),
    "of equal residuals": (EVEN, EVEN + 0.5, EVEN),
    "nearly": (HR + 1e-7, HR, HR),
    "black": (0 * HR, 0 * HR, 0 * HR),
    "far out": (1e3 * SR, HR, EMA),
    "smallest": (SR[:1, :4, :4], HR[:1, :4, :4], EMA[:1, :4, :4]),
}


@pytest.mark.parametrize("case", SPECIAL)
def test_ldl_is_finite_with_a_finite_gradient(case):
    value, gradient = jax.jit(jax.value_and_grad(losses.ldl))(*floats(*SPECIAL[case]))
    assert np.isfinite(value) and np.isfinite(gradient).all()
    if "equal" in case or case == "black":
        np.testing.assert_allclose(value, 0.0, atol=1e-7)
    if case == "smallest":
        images = SPECIAL[case]
        expected = np.mean(published_map(*images) * np.abs(images[0] - images[1]))
        np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_ldl_weighs_a_wrong_stripe_above_even_noise_of_the_same_size():
    """What it is for: an error that is gathered in one place costs more than the same, spread."""
    hr = np.full((1, 32, 32, 3), 0.5)
    stripe = hr.copy()
    stripe[:, :, 8:12] += np.tile([0.2, -0.2], 16)[:, None, None]
    spread = hr + 0.2 * 4 / 32 * np.where(np.indices((32, 32)).sum(0) % 2, 1, -1)[..., None]
    sizes = [np.abs(x - hr).mean() for x in (stripe, spread)]
    np.testing.assert_allclose(*sizes, rtol=1e-6)
    of_stripe, of_spread = (ldl(*floats(x, hr, x)) for x in (stripe, spread))
    assert of_stripe > 100 * of_spread


def test_an_update_s_ldl_compares_with_the_ema_s_output():
    """By its own forward pass, as in validation, and by the photo where targets are sharpened."""
    update, state, networks = toy_gan.make(adversarial_weight=0.0, ldl=50.0)
    state = state._replace(ema={"gain": jnp.full(3, 0.9), "bias": jnp.full(3, 0.02)})
    batch = toy_gan.a_batch()
    batch["target"] = 0.9 * batch["hr"]
    g = networks["generator"]
    ema, _ = jax.jit(partial(g.apply, train=False))(state.ema, state.g_stats, batch["lr"])

    def loss(params):
        sr, _ = g.apply(params, state.g_stats, batch["lr"], train=True)
        ldl = losses.ldl(sr, batch["hr"], ema)
        return losses.mse(sr, batch["target"]) + 50.0 * ldl, (ldl, sr)

    (total, (ldl, sr)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(state.g_params)
    better = (artifact_map(sr, batch["hr"], ema) == 0).mean()
    assert 0.05 < better < 0.95 and 50.0 * ldl > 0.05 * total
    new, metrics = jax.jit(update)(state, batch, KEY, ())
    assert_close(new.g_opt, gradient, 1e-5)
    np.testing.assert_allclose([metrics["loss"], metrics["ldl"]], [total, ldl], rtol=1e-5)


@pytest.mark.parametrize("weight, passes", [(0.0, [True]), (1.0, [True, False])])
def test_without_a_weight_the_ema_has_no_forward_pass(weight, passes, monkeypatch):
    network, trained = toy_gan.toy_generator(), []

    def apply(params, stats, lr, *, train):
        trained.append(train)
        return network.apply(params, stats, lr, train=train)

    monkeypatch.setattr(toy_gan, "toy_generator", lambda: network._replace(apply=apply))
    update, state, _ = toy_gan.make(ldl=weight)
    jax.eval_shape(update, state, toy_gan.a_batch(), KEY, ())
    assert trained == passes


def looped_lattice(sr, hr, *, scale, windows):
    """The loss by its description: of each window, place and channel, the error by slices."""
    found = []
    for error in sr - hr:
        for y, x in windows:
            places = [
                error[y, x][i::scale, j::scale].mean((0, 1))
                for i in range(scale)
                for j in range(scale)
            ]
            found.append(np.abs(places - np.mean(places, axis=0)).mean())
    return np.mean(found)


HALVES = [slice(0, 26), slice(26, 52)]  # 13 LR pixels at 2x
LATTICES = {
    "one small window": ((16, 12), 4, [(slice(None), slice(None))]),
    "three windows": ((36, 108), 3, [(slice(None), slice(i, i + 36)) for i in (0, 36, 72)]),
    "larger windows": ((52, 52), 2, [(y, x) for y in HALVES for x in HALVES]),
    "a remainder": ((24, 54), 2, [(slice(None), slice(i, i + 26)) for i in (0, 26)]),
}


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
@pytest.mark.parametrize("case", LATTICES)
def test_the_lattice_loss_is_as_described(case, wrap):
    (height, width), scale, windows = LATTICES[case]
    sr, hr = RNG.uniform(size=(2, 3, height, width, 3))
    got = wrap(partial(losses.lattice, scale=scale))(*floats(sr, hr))
    expected = looped_lattice(sr, hr, scale=scale, windows=windows)
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_of_a_lattice_all_counts_and_of_noise_and_colour_next_to_nothing():
    hr = RNG.uniform(size=(1, 96, 96, 3))
    # A quarter of the places are 0.1 too light.
    dots = np.tile(0.1 * np.eye(4)[::-1], (24, 24))[..., None]
    lattice = jax.jit(partial(losses.lattice, scale=4))
    np.testing.assert_allclose(lattice(*floats(hr + dots, hr)), 0.1 * 2 * 0.25 * 0.75, rtol=1e-4)
    np.testing.assert_allclose(
        lattice(*floats(hr + np.array([0.1, 0.0, -0.2]), hr)), 0.0, atol=1e-7
    )
    noise = RNG.permutation(np.broadcast_to(dots, hr.shape).ravel()).reshape(hr.shape)
    assert lattice(*floats(hr + noise, hr)) < 0.1 * lattice(*floats(hr + dots, hr))
    # One that changes its sign from window to window is one still.
    signs = np.kron(np.array([[1, -1], [-1, 1]]), np.ones((48, 48)))[..., None]
    np.testing.assert_allclose(lattice(*floats(hr + signs * dots, hr)), 0.0375, rtol=1e-4)
    assert losses.lattice(*floats(hr + noise, hr), scale=1) == 0


def test_the_lattice_loss_s_gradient():
    with jax.enable_x64(True):
        sr, hr = floats(*RNG.uniform(size=(2, 1, 52, 28, 3)), dtype=jnp.float64)
        along = jnp.asarray(RNG.normal(size=sr.shape))
        lattice = jax.jit(partial(losses.lattice, scale=2))
        slope = jnp.vdot(jax.jit(jax.grad(lattice))(sr, hr), along)
        ahead, behind = (lattice(sr + e * along, hr) for e in (1e-6, -1e-6))
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_an_update_s_lattice_loss_compares_with_the_target(accumulate):
    update, state, networks = toy_gan.make(
        adversarial_weight=0.0, lattice=5.0, accumulate=accumulate
    )
    batch = toy_gan.a_batch()
    batch["target"] = 0.9 * batch["hr"]

    def loss(params):
        sr, _ = networks["generator"].apply(params, state.g_stats, batch["lr"], train=True)
        lattice = losses.lattice(sr, batch["target"], scale=2)
        return losses.mse(sr, batch["target"]) + 5.0 * lattice, lattice

    (total, lattice), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(state.g_params)
    new, metrics = jax.jit(update)(state, batch, KEY, ())
    assert lattice > 1e-3
    assert_close(new.g_opt, gradient, 1e-5)
    np.testing.assert_allclose([metrics["loss"], metrics["lattice"]], [total, lattice], rtol=1e-5)
