"""Gradients that are computed in another way than JAX's own: blocks again, kernels in parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from isr_jax.models import cpu_gradients, generator, layers

RESIDUAL = {
    "resnet": {"blocks": 2, "width": 8, "batch_norm": True},
    "msrresnet": {"blocks": 2, "width": 8},
    "rrdbnet": {"blocks": 2, "width": 8, "growth": 4},
    "span": {"width": 8},
    "plksr": {"width": 8, "blocks": 2, "kernel": 5, "partial": 4},
    "realplksr": {"width": 8, "blocks": 2, "kernel": 5, "partial": 4},
    "swinir": {"width": 8, "depths": (2,), "heads": (2,), "features": 8},
    "hat": {
        "width": 8,
        "depths": (2,),
        "heads": (2,),
        "features": 8,
        "window": 8,
        "overlapping": 12,
        "compressed": 4,
        "squeezed": 4,
    },
    "dat": {"width": 32, "depths": (2,), "heads": (2,), "split": (4, 8), "features": 8},
    "omnisr": {"width": 8, "groups": 1},
    "rcan": {"width": 8, "groups": 1, "blocks": 2, "squeezed": 2},
}


@pytest.mark.parametrize("name", RESIDUAL)
def test_recomputed_blocks_change_no_number(name):
    """The same parameters, gradients and statistics, and blocks that the backward pass repeats."""
    lr = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
    results, counts = [], []
    for remat in (False, True):
        network = generator({"name": name, **RESIDUAL[name], "remat": remat}, scale=2)
        params, stats = network.init(jax.random.key(0))

        def loss(params, network=network, stats=stats):
            sr, new = network.apply(params, stats, lr, train=True)
            return jnp.mean(jnp.square(sr)), new

        gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
        counts.append(str(jax.make_jaxpr(gradient)(params)).count("prevent_cse"))
        slow = name in ("dat", "omnisr", "hat", "span", "plksr")  # to compile
        results.append(params if slow else gradient(params))
    assert counts[0] == 0 and counts[1] > 0
    plain, repeated = map(jax.tree_util.tree_leaves_with_path, results)
    for (path, want), (same_path, got) in zip(plain, repeated, strict=True):
        assert path == same_path
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-9 + 1e-5 * float(jnp.abs(want).max()))


@pytest.mark.parametrize("shape, width", [((2, 37, 50, 3), 5), ((3, 16, 9, 6), 4)])
@pytest.mark.parametrize("devices", [1, 2])
def test_the_gradient_of_a_kernel_in_parts_is_the_whole(shape, width, devices, monkeypatch):
    """Against XLA's own, and a difference quotient; of maps of any sides, on several devices."""
    monkeypatch.setattr(cpu_gradients, "_LARGE", 0)
    monkeypatch.setattr(cpu_gradients, "_PART", 4 * shape[0] * width * 100)
    keys = jax.random.split(jax.random.key(0), 3)
    batch = shape[0] if devices == 1 else 2 * shape[0]
    x, dy = (
        jax.random.normal(key, (batch, *shape[1:3], n))
        for key, n in zip(keys, (shape[3], width), strict=False)
    )
    layer = layers.conv(width, dtype=jnp.float32)
    params = layer.init(keys[2], x)

    def made():
        """A function of its own, because traces are kept by function."""
        return lambda params, x: jnp.sum(layer.apply(params, x) * dy)

    spread = Mesh(np.array(jax.devices()[:devices]), ("devices",))
    placed = jax.device_put(x, NamedSharding(spread, PartitionSpec("devices")))
    loss = made()
    assert "custom_vjp" in str(jax.make_jaxpr(loss)(params, x))
    got = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, placed)
    monkeypatch.setattr(cpu_gradients, "_LARGE", 2**60)
    loss = made()
    assert "custom_vjp" not in str(jax.make_jaxpr(loss)(params, x))
    want = jax.grad(loss, argnums=(0, 1))(params, x)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))
    along = jax.tree.map(lambda p: jax.random.normal(keys[0], p.shape), params)
    ahead, behind = (
        loss(jax.tree.map(lambda p, d, s=s: p + s * d, params, along), x) for s in (0.5, -0.5)
    )
    slope = sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (got[0], along)), strict=True))
    np.testing.assert_allclose(slope, ahead - behind, rtol=1e-3)
