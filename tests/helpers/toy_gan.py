"""A GAN of a few numbers, for tests of the update that real networks would take long to compile."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from isr_jax import config as base
from isr_jax.models import Discriminator, Generator
from isr_jax.training.update import init_state, make_update


def toy_generator():
    """Nearest-neighbour upscaling times a gain, which training doubles; and a bias."""

    def init(key):
        del key
        return {"gain": jnp.full(3, 0.4), "bias": jnp.full(3, 0.1)}, {"offset": jnp.full((), 0.05)}

    def apply(params, stats, lr, *, train):
        sr = lr.repeat(2, axis=1).repeat(2, axis=2) * params["gain"] + params["bias"]
        return (2.0 * sr if train else sr + stats["offset"]), stats

    return Generator(init, apply, 2, None)


def toy_discriminator(*, axis_name, normalised):
    """A logit per pixel; it can subtract the batch's mean, and its statistics count its calls."""

    def init(key):
        params = {"first": jax.random.normal(key, (3, 2)), "second": jnp.array([1.5, -2.0])}
        return params, {"calls": jnp.zeros(())}

    def apply(params, stats, images, *, train):
        del train
        x = jnp.tanh(images @ params["first"])
        if normalised:
            mean = jnp.mean(x, axis=(0, 1, 2))
            x = x - (lax.pmean(mean, axis_name) if axis_name else mean)
        logits = (1.0 + 0.5 * stats["calls"]) * (jnp.square(x) @ params["second"])
        return logits, (x,), {"calls": stats["calls"] + 1.0}

    return Discriminator(init, apply)


def keep_gradient():
    """An optimizer that moves nothing and whose state is the gradient."""
    zeros = lambda tree: jax.tree.map(jnp.zeros_like, tree)  # noqa: E731
    return optax.GradientTransformation(zeros, lambda grad, state, params: (zeros(grad), grad))


def make(*, axis_name=None, normalised=True, optimizer=None, accumulate=1, **loss):
    """Return the update of fields of `config.loss`, a state, and the networks."""
    networks = {
        "generator": toy_generator(),
        "discriminator": toy_discriminator(axis_name=axis_name, normalised=normalised),
    }
    optimizers = dict.fromkeys(("g_optimizer", "d_optimizer"), optimizer or keep_gradient())
    fields = base.get_config().loss
    fields.update({"adversarial_weight": 0.1, **loss})
    update = make_update(
        fields, accumulate=accumulate, axis_name=axis_name, **networks, **optimizers
    )
    return update, init_state(jax.random.key(1), **networks, **optimizers), networks


def a_batch():
    hr = jax.random.uniform(jax.random.key(2), (8, 20, 20, 3))
    return {"lr": hr.reshape(8, 10, 2, 10, 2, 3).mean((2, 4)), "hr": hr}
