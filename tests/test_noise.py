"""Noise against SciPy's distributions and closed forms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from isr_jax.degrade.noise import count_levels, plane_noise, poisson_quantile


def noise_of(
    key: jax.Array,
    images: jax.Array,
    strength: jax.Array,
    gray: jax.Array,
    sizes: jax.Array | None = None,
    *,
    poisson: bool,
) -> jax.Array:
    """`plane_noise` of a batch, channels last; image i's deviates depend on the key and i alone."""
    if sizes is None:
        sizes = jnp.broadcast_to(jnp.array(images.shape[1:3]), (len(images), 2))

    def one(i, planes, size, strength, gray):
        z = jax.random.normal(jax.random.fold_in(key, i), planes.shape)
        return plane_noise(
            z, planes, size, poisson=jnp.array(poisson), strength=strength, gray=gray
        )

    planes = jnp.asarray(images).transpose(0, 3, 1, 2)
    noise = jax.vmap(one)(jnp.arange(len(images)), planes, sizes, strength, gray)
    return noise.transpose(0, 2, 3, 1)


gaussian_noise = partial(noise_of, poisson=False)
poisson_noise = partial(noise_of, poisson=True)


@pytest.mark.parametrize("mean", [0.0, 0.1, 1.0, 4.5, 9.99, 10.0, 11.0, 37.0, 128.0, 256.0])
def test_the_quantile_is_scipys(mean):
    u = (np.arange(200_000) + 0.5) / 200_000
    z = scipy.stats.norm.ppf(u)
    quantile = jax.jit(poisson_quantile)(z.astype(np.float32), jnp.full(len(z), mean))
    truth = scipy.stats.poisson.ppf(u, mean)
    assert np.abs(quantile - truth).max() <= 1
    assert (quantile != truth).mean() < (5e-4 if mean >= 10 else 2e-5)
    shares = np.bincount(np.asarray(quantile, int), minlength=500) / len(u)
    assert 0.5 * np.abs(shares - scipy.stats.poisson.pmf(np.arange(500), mean)).sum() < 2e-4


def test_gaussian_noise_has_its_sigma_and_its_channels():
    images, sigma = jnp.zeros((4, 128, 128, 3)), jnp.array([1.0, 10.0, 30.0, 30.0])
    gray = jnp.array([False, True, False, True])
    for function in (gaussian_noise, jax.jit(gaussian_noise)):
        noise = 255 * np.asarray(function(jax.random.key(0), images, sigma, gray))
        np.testing.assert_allclose(noise.std(axis=(1, 2, 3)), sigma, rtol=0.02)
        # Five standard errors of the mean of 128 * 128 independent values.
        assert (np.abs(noise.mean(axis=(1, 2, 3))) < 5 * np.asarray(sigma) / 128).all()
        for example, same in zip(noise, gray, strict=True):
            correlation = np.corrcoef(example.reshape(-1, 3).T)[np.triu_indices(3, 1)]
            if same:
                assert (example[..., :1] == example).all()
            else:
                assert (np.abs(correlation) < 0.04).all()


def test_poisson_noise_has_the_mean_and_variance_of_its_definition():
    # Columns of one gray each: 1, 3, 16 and 100 different values -> 1, 4, 16 and 128.
    levels = [np.array([128]), np.array([30, 90, 200]), np.arange(16) * 17, np.arange(100) * 2]
    images = np.stack([np.resize(np.repeat(x, 256 // len(x)), 256) for x in levels])
    images = np.broadcast_to(images[:, None, :, None], (4, 256, 256, 3)) / np.float32(255)
    scale, gray = jnp.array([0.05, 1.0, 3.0, 2.0]), jnp.array([False, True, False, True])
    noise = jax.jit(poisson_noise)(jax.random.key(1), jnp.asarray(images), scale, gray)
    for x, example, values, factor, same in zip(
        images, np.asarray(noise, np.float64), (1, 4, 16, 128), scale, gray, strict=True
    ):
        deviates = example / np.sqrt(factor**2 * np.maximum(x, 1e-9) / values)
        deviates = deviates[x > 0.1]
        n = deviates.size / (3 if same else 1)
        assert abs(deviates.mean()) < 5 / np.sqrt(n)
        # The fourth moment of a Poisson variable is 3 + 1/mean times its variance squared.
        spread = np.sqrt((2 + 1 / (0.1 * values)) / n)
        assert abs(deviates.var() - 1) < 5 * spread
        assert (example[..., :1] == example).all() == bool(same)
        assert (example[x == 0] == 0).all()


def test_poisson_noise_comes_in_whole_photons():
    images = jax.random.uniform(jax.random.key(0), (1, 64, 64, 3))
    noise = poisson_noise(jax.random.key(1), images, jnp.ones(1), jnp.zeros(1, bool))
    photons = 256 * (np.asarray(noise) + np.round(255 * np.asarray(images)) / 255)
    np.testing.assert_allclose(photons, np.round(photons), atol=1e-3)


def test_levels_are_counted_as_by_unique():
    rng = np.random.default_rng(0)
    function = jax.jit(jax.vmap(count_levels))
    images = np.stack([np.floor(rng.random((3, 30, 41)) * n) for n in (1, 2, 33, 200, 256, 256)])
    sizes = np.array([[30, 41], [30, 41], [30, 41], [30, 41], [30, 41], [4, 7]])
    truth = [len(np.unique(x[:, :h, :w])) for x, (h, w) in zip(images, sizes, strict=True)]
    counts = function(jnp.asarray(images, jnp.float32), jnp.asarray(sizes))
    np.testing.assert_array_equal(counts, truth)


@pytest.mark.parametrize("which", ["gaussian", "poisson"])
def test_an_examples_noise_depends_on_the_key_and_itself(which):
    @jax.jit
    def noise(key, images):
        strength, gray = jnp.full(len(images), 1.5), jnp.zeros(len(images), bool)
        return noise_of(key, images, strength, gray, poisson=which == "poisson")

    images = jax.random.uniform(jax.random.key(0), (3, 16, 12, 3))
    first = noise(jax.random.key(1), images)
    others = images.at[1:].set(0.0)
    np.testing.assert_array_equal(noise(jax.random.key(1), others)[0], first[0])
    assert (noise(jax.random.key(2), images) != first).any()
    assert (first[0] != first[1]).mean() > 0.9


def test_poisson_noise_respects_sizes():
    few = jnp.round(3 * jax.random.uniform(jax.random.key(0), (1, 20, 30, 3))) / 3
    among_many = (
        jax.random.uniform(jax.random.key(2), few.shape).at[:, :11, :13].set(few[:, :11, :13])
    )
    options = {"strength": jnp.ones(1), "gray": jnp.zeros(1, bool)}
    options["sizes"] = jnp.array([[11, 13]])
    function = jax.jit(poisson_noise)
    a = function(jax.random.key(1), few, **options)
    b = function(jax.random.key(1), among_many, **options)
    np.testing.assert_array_equal(a[:, :11, :13], b[:, :11, :13])
    options["sizes"] = jnp.array([[20, 30]])
    assert (function(jax.random.key(1), among_many, **options) != b).any()


def test_noise_is_a_constant_to_the_gradient():
    images = jnp.zeros((1, 8, 8, 3)).at[0, 0, 0].set(0.5)
    gradient = jax.grad(
        lambda x: poisson_noise(jax.random.key(0), x, jnp.ones(1), jnp.zeros(1, bool)).sum()
    )(images)
    assert (gradient == 0).all()
