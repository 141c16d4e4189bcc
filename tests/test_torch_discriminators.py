"""Discriminators against PyTorch with the same random weights: logits, gradients, sigma."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.discriminator_cases import CASES, make

torch = pytest.importorskip("torch", reason="compares with PyTorch")

from tests.helpers import torch_networks as twins
from tests.helpers.trunks import to_torch


def pair(case):
    """A discriminator, its parameters, statistics and images, and PyTorch's with the same."""
    network, params, stats, images = make(case)
    options, crop, _ = CASES[case]
    own = {name: value for name, value in options.items() if name != "name"}
    twin = twins.DISCRIMINATORS[options.get("name", "classifier")](crop, **own)
    return network, params, stats, images, twins.load(twin, params, stats)


def assert_near(got, expected, tolerance):
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    assert np.linalg.norm(got - expected) <= tolerance * np.linalg.norm(expected)


def forward(twin, images):
    return twin(to_torch(images))


@pytest.mark.parametrize("case", CASES)
def test_logits_and_gradients_equal_torch(case):
    network, params, stats, images, twin = pair(case)
    weights = np.random.default_rng(1).normal(size=(3, *CASES[case][2])).astype(np.float32)

    def total(params, images):
        logits, _, _ = network.apply(params, stats, images, train=True)
        return jnp.sum(weights * logits), logits

    (_, logits), (by_params, by_images) = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(
        params, images
    )
    torch_images = to_torch(images).requires_grad_()
    expected = twin(torch_images)
    (expected * torch.tensor(weights)).sum().backward()
    assert_near(logits, expected.detach(), 1e-5)
    assert_near(by_images, torch_images.grad.permute(0, 2, 3, 1), 1e-4)
    for (path, got), want in zip(
        jax.tree_util.tree_leaves_with_path(by_params),
        jax.tree.leaves(twins.gradients(twin, params)),
        strict=True,
    ):
        assert np.linalg.norm(got - want) <= 1e-4 * np.linalg.norm(want), path


def test_one_power_iteration_per_training_call_equals_torch():
    """u, v and sigma after one, two and three calls, and none by a call that does not train."""
    network, params, stats, images, twin = pair("unet")
    apply = jax.jit(network.apply, static_argnames="train")
    for _ in range(3):
        logits, _, stats = apply(params, stats, images, train=True)
        assert_near(logits, forward(twin, images).detach(), 1e-5)
        for path, vectors in stats.items():
            layer, kernel = twin.layers[path], params[path]["kernel"]
            assert_near(vectors["u"], layer.weight_u, 1e-5)
            assert_near(twins.in_torch_order(vectors["v"], kernel), layer.weight_v, 1e-5)
            sigma = np.einsum(
                "i,io,o", vectors["v"], kernel.reshape(-1, kernel.shape[-1]), vectors["u"]
            )
            np.testing.assert_allclose(
                sigma, (layer.weight_orig / layer.weight).detach().mean(), rtol=1e-5
            )

    # Sigma is of the parameters as they are, by the vectors as they were.
    moved = jax.tree.map(lambda x: 1.5 * x + 0.01, params)
    twins.load(twin, moved).eval()
    logits, _, same = apply(moved, stats, images, train=False)
    assert_near(logits, forward(twin, images).detach(), 1e-5)
    assert jax.tree.all(jax.tree.map(np.array_equal, same, stats))


def test_power_iterations_come_to_the_largest_singular_value():
    network, params, stats, images = make("unet")
    step = jax.jit(lambda stats: network.apply(params, stats, images, train=True)[2])
    for _ in range(300):
        stats = step(stats)
    for path, vectors in stats.items():
        matrix = np.asarray(params[path]["kernel"]).reshape(len(vectors["v"]), -1)
        largest = np.linalg.svd(matrix, compute_uv=False)[0]
        np.testing.assert_allclose(vectors["v"] @ matrix @ vectors["u"], largest, rtol=1e-3)
