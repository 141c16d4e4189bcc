"""One whole update of each published GAN against PyTorch: losses, gradients, and Adam's step.

SRGAN's, ESRGAN's and Real-ESRGAN's, in PyTorch written from the papers, in the usual order: the
generator by a frozen discriminator, then the discriminator by the same images. Float32, on a CPU,
with the same random weights.
"""

from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from isr_jax import config as base
from isr_jax.models import discriminator, generator
from isr_jax.perceptual.backbones import params_from_torch
from isr_jax.state import State
from isr_jax.training.update import make_update
from tests.helpers.discriminator_cases import random_like

torch = pytest.importorskip("torch", reason="compares with PyTorch")

from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss, mse_loss

from isr_jax.training import optimizers
from tests.helpers import torch_networks as twins
from tests.helpers import trunks

CROP, BATCH = 16, 2  # the smallest that VGG19 reaches conv5_4 with
DIFFERENCES = {"l1": l1_loss, "mse": mse_loss, "l2": mse_loss}
# Places in VGG19, counting activations and pools.
PLACES = {"conv1_2": 2, "conv2_2": 7, "conv3_4": 16, "conv4_4": 25, "conv5_4": 34, "relu5_4": 35}


def real_or_fake(logits, label):
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def vanilla(real, fake):
    """Losses of D and of G. SRGAN, equations 2 and 6; -log(1 - D(sr)) becomes what G dislikes."""
    return real_or_fake(real, 1.0) + real_or_fake(fake, 0.0), real_or_fake(fake, 1.0)


def relativistic(real, fake):
    """Losses of D and of G. ESRGAN, equations 1 and 2."""
    above, below = real - fake.mean(), fake - real.mean()
    return (
        real_or_fake(above, 1.0) + real_or_fake(below, 0.0),
        real_or_fake(above, 0.0) + real_or_fake(below, 1.0),
    )


SRGAN_GENERATOR = {
    "generator": lambda: generator(
        {**base.GENERATORS["srresnet"], "width": 8, "blocks": 2}, scale=4
    ),
    "torch_generator": lambda: twins.SRResNet(width=8, blocks=2),
}
SMALL_RRDBNET = {"width": 8, "growth": 4, "blocks": 2}
ESRGAN_GENERATOR = {
    "generator": lambda: generator({"name": "rrdbnet", **SMALL_RRDBNET}, scale=4),
    "torch_generator": lambda: twins.RRDBNet(**SMALL_RRDBNET),
}
SRGAN = {
    **SRGAN_GENERATOR,
    "discriminator": lambda: discriminator({"widths": (8, 16), "dense": 16}, crop=CROP),
    "torch_discriminator": lambda: twins.Classifier(CROP, widths=(8, 16), dense=16),
    "adversarial": "vanilla",
    "adversarial_weight": 1e-3,
}
ESRGAN = {
    **ESRGAN_GENERATOR,
    "discriminator": lambda: discriminator({"name": "vgg", "width": 4, "dense": 10}, crop=CROP),
    "torch_discriminator": lambda: twins.VGGStyle(CROP, width=4, dense=10),
    "adversarial": "relativistic",
    "adversarial_weight": 5e-3,
}
REAL_ESRGAN = {
    **ESRGAN_GENERATOR,
    "discriminator": lambda: discriminator({"name": "unet", "width": 4}, crop=CROP),
    "torch_discriminator": lambda: twins.UNet(CROP, width=4),
    "adversarial": "vanilla",
    "adversarial_weight": 0.1,
}
CASES = {
    "SRGAN-MSE": {**SRGAN, "content": {"mse": 1.0}, "layers": {}, "criterion": "l2"},
    # Section 3.2: features are scaled by 1 / 12.75.
    "SRGAN-VGG54": {
        **SRGAN,
        "content": {},
        "layers": {"relu5_4": 1.0 / 12.75**2},
        "criterion": "l2",
    },
    "ESRGAN": {**ESRGAN, "content": {"l1": 1e-2}, "layers": {"conv5_4": 1.0}, "criterion": "l1"},
    "Real-ESRGAN": {
        **REAL_ESRGAN,
        "content": {"l1": 1.0},
        "layers": {
            "conv1_2": 0.1,
            "conv2_2": 0.1,
            "conv3_4": 1.0,
            "conv4_4": 1.0,
            "conv5_4": 1.0,
        },
        "criterion": "l1",
    },
}


def an_optimizer():
    """Adam as `config.g_optimizer` makes it, with steps large enough to be compared."""
    options = base.get_config().g_optimizer
    options.update(learning_rate=1e-2, schedule="constant", b1=0.9, b2=0.99)
    return options, optimizers.make_optimizer(options, steps=1)


@cache
def vgg19():
    """Random weights, larger in the last block: its kernels see one pixel and eight of padding."""
    trunk = trunks.random_trunk("vgg19", length=36)
    for layer in trunk[PLACES["conv5_4"] - 6 :: 2]:
        layer.weight *= 3
    return trunk


@cache
def ours(case):
    """The state before and after one update, its metrics, and both gradients."""
    options = CASES[case]
    g, d = options["generator"](), options["discriminator"]()
    g_params, g_stats = random_like(jax.eval_shape(g.init, jax.random.key(0)))
    d_params, d_stats = random_like(jax.eval_shape(d.init, jax.random.key(0)))
    adam, optimizer = an_optimizer()
    state = State(
        step=jnp.zeros((), jnp.int32),
        g_params=g_params,
        g_stats=g_stats,
        ema=g_params,
        g_opt=optimizer.init(g_params),
        d_params=d_params,
        d_stats=d_stats,
        d_opt=optimizer.init(d_params),
    )
    layers, frozen = options["layers"], ()
    loss = base.get_config().loss
    loss.content.update({**dict.fromkeys(loss.content, 0.0), **options["content"]})
    loss.update(
        adversarial=options["adversarial"], adversarial_weight=options["adversarial_weight"]
    )
    if layers:
        params = params_from_torch("vgg19", trunks.arrays(vgg19()), layers=list(layers))
        frozen = {"perceptual": params}
        loss.perceptual.update(
            weight=1.0,
            layers=tuple(layers),
            layer_weights=tuple(layers.values()),
            criterion=options["criterion"],
        )
    update = make_update(
        loss,
        generator=g,
        discriminator=d,
        g_optimizer=optimizer,
        d_optimizer=optimizer,
    )
    new, metrics = jax.jit(update)(state, a_batch(), jax.random.key(3), frozen)
    # After one update, Adam's first moment is 1 - b1 times the gradient.
    g_gradient, d_gradient = (
        jax.tree.map(lambda m: m / (1 - adam.b1), optax.tree.get(opt, "mu"))
        for opt in (new.g_opt, new.d_opt)
    )
    return SimpleNamespace(
        state=state, new=new, metrics=metrics, g_gradient=g_gradient, d_gradient=d_gradient
    )


def a_batch():
    # A seed with which no activation is so near its kink that rounding could tip it: moving every
    # weight by 1e-6 of itself moved no gradient by more than 3e-5, sixty times. In larger images
    # there are so many activations that float32 tips one or another with most seeds.
    rng = np.random.default_rng(8)
    coarse = rng.uniform(size=(BATCH, CROP // 4, CROP // 4, 3))
    hr = np.clip(
        np.kron(coarse, np.ones((1, 4, 4, 1))) + rng.normal(0, 0.1, (1, CROP, CROP, 1)), 0, 1
    )
    return {"lr": jnp.asarray(coarse, jnp.float32), "hr": jnp.asarray(hr, jnp.float32)}


@cache
def theirs(case):
    """PyTorch's losses by our names, and its networks with their gradients."""
    options, state = CASES[case], ours(case).state
    g = twins.load(options["torch_generator"](), state.g_params)
    d = twins.load(options["torch_discriminator"](), state.d_params, state.d_stats)
    batch = a_batch()
    lr, hr = trunks.to_torch(batch["lr"]), trunks.to_torch(batch["hr"])
    adversary = {"vanilla": vanilla, "relativistic": relativistic}[options["adversarial"]]

    sr = g(lr)
    terms = {name: DIFFERENCES[name](sr, hr) for name in options["content"]}
    loss = sum((weight * terms[name] for name, weight in options["content"].items()), 0.0)
    if options["layers"]:
        features = [
            trunks.outputs(vgg19(), trunks.imagenet_normalised(images)) for images in (sr, hr)
        ]
        terms["perceptual"] = sum(
            weight * DIFFERENCES[options["criterion"]](*(f[PLACES[layer]] for f in features))
            for layer, weight in options["layers"].items()
        )
        loss = loss + terms["perceptual"]
    d.requires_grad_(False)
    fake, vectors = d(sr), twins.spectral_vectors(d)
    _, terms["g_adversarial"] = adversary(d(hr), fake)
    terms["loss"] = loss + options["adversarial_weight"] * terms["g_adversarial"]
    terms["loss"].backward()

    d.requires_grad_(True)
    twins.set_spectral_vectors(d, vectors)
    real = d(hr)
    # Ours judges sr once for both updates, so with the same power iteration.
    twins.set_spectral_vectors(d, vectors)
    fake = twins.without_power_iteration(d, sr.detach())
    terms["d_loss"], _ = adversary(real, fake)
    terms |= {"d_real": real.mean(), "d_fake": fake.mean()}
    terms["d_loss"].backward()
    return g, d, {name: term.item() for name, term in terms.items()}


@pytest.mark.parametrize("case", CASES)
def test_every_loss_term_equals_torch(case):
    metrics, (_, _, terms) = ours(case).metrics, theirs(case)
    assert set(metrics) == {*terms, "g_grad_norm", "d_grad_norm"}
    for name, expected in terms.items():
        assert abs(float(metrics[name]) - expected) <= 1e-5 * max(1.0, abs(expected)), name


@pytest.mark.parametrize("network", ["g", "d"])
@pytest.mark.parametrize("case", CASES)
def test_every_gradient_equals_torch(case, network):
    """To 1e-4 of each tensor's norm; one that cancels, as a relativistic D's bias, to 1e-6."""
    gradient = getattr(ours(case), f"{network}_gradient")
    expected = twins.gradients(theirs(case)["gd".index(network)], gradient)
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(expected), strict=True
    )
    for (path, got), want in pairs:
        norm = np.linalg.norm(want)
        assert np.linalg.norm(got - want) <= (1e-4 * norm if norm > 1e-6 else 1e-6), path
    norms = ours(case).metrics[f"{network}_grad_norm"], optax.tree.norm(expected)
    np.testing.assert_allclose(*norms, rtol=1e-4)


@pytest.mark.parametrize("network", ["g", "d"])
@pytest.mark.parametrize("case", CASES)
def test_adam_s_new_parameters_equal_torch(case, network):
    """From the same gradients, to 1e-6 where a step is of 1e-2."""
    result, (options, _) = ours(case), an_optimizer()
    before = jax.tree.leaves(getattr(result.state, f"{network}_params"))
    after = jax.tree.leaves(getattr(result.new, f"{network}_params"))
    tensors = [torch.tensor(np.asarray(leaf), requires_grad=True) for leaf in before]
    for tensor, gradient in zip(
        tensors, jax.tree.leaves(getattr(result, f"{network}_gradient")), strict=True
    ):
        tensor.grad = torch.tensor(np.asarray(gradient))
    adam = torch.optim.Adam(
        tensors, lr=options.learning_rate, betas=(options.b1, options.b2), eps=options.eps
    )
    adam.step()
    assert max(np.abs(new - old).max() for old, new in zip(before, after, strict=True)) > 9e-3
    for new, tensor in zip(after, tensors, strict=True):
        np.testing.assert_allclose(new, tensor.detach(), rtol=0, atol=1e-6)
