"""The benchmarks that other machines run: on a CPU, in their small form."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import scaling


def test_the_gpu_benchmark_prints_every_figure(capsys, monkeypatch):
    pytest.importorskip("torch", reason="measures PyTorch too")
    pytest.importorskip("pytorch_msssim", reason="measures PyTorch too")
    from benchmarks import gpu

    monkeypatch.setattr(sys, "argv", ["gpu", "--small", "--rounds", "1"])
    one = jax.devices()[:1]
    monkeypatch.setattr(gpu.jax, "devices", lambda: one)
    gpu.main()
    printed = capsys.readouterr().out
    (update,) = re.findall(r"\| MSRResNet \|(.*)\|", printed)
    assert len([float(figure) for figure in update.split("|")]) == 8
    (upscaled,) = re.findall(r"\| SRVGG-16 \|(.*)\|", printed)
    assert min(float(figure) for figure in upscaled.split("|")) > 0
    assert re.search(r"Sampling a batch of MSRResNet from the pool: \d+\.\d+ ms", printed)


def test_moved_bytes_are_those_of_the_gradients():
    """Of a sum over devices: the float32 arrays that each of them gets, by a closed form."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("devices",))
    whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("devices",)))

    def gradient(weights, batch):
        return jax.grad(lambda w: jnp.sum(jnp.square(batch @ w)))(weights)

    arguments = (
        jax.device_put(jnp.ones((7, 5)), whole),
        jax.device_put(jnp.ones((4, 7)), split),
    )
    compiled = jax.jit(gradient, out_shardings=whole).lower(*arguments).compile()
    assert scaling.moved(compiled.as_text()) == 7 * 5 * 4
    alone = jax.jit(gradient).lower(*map(np.asarray, arguments)).compile()
    assert scaling.moved(alone.as_text()) == 0
