"""Every optimizer against PyTorch or NumPy, and the checks of its fields."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from isr_jax import config as base
from isr_jax.errors import UserError
from isr_jax.training import checks, optimizers

UPDATES = 4
SHAPES = {
    "conv": {"kernel": (3, 3, 6, 8), "bias": (8,)},
    "dense": {"kernel": (5, 12)},
    "act": {"slope": (8,)},
    "attention": {"relative_position_bias_table": (9, 4), "temperature": (2, 1, 1)},
    "depthwise": {"kernel": (3, 3, 1, 8)},
    "head": {"kernel": (3, 3, 8, 3), "bias": (3,)},
}
KERNELS = {("conv", "kernel"), ("dense", "kernel"), ("depthwise", "kernel"), ("head", "kernel")}
HIDDEN = {("conv", "kernel"), ("dense", "kernel")}  # more than 3 channels in and out


def tree(leaf):
    """A tree of the shapes, made by (path, shape) -> array."""
    return {
        layer: {name: leaf((layer, name), shape) for name, shape in leaves.items()}
        for layer, leaves in SHAPES.items()
    }


def a_problem():
    """Parameters, and the gradients of UPDATES updates, which do not depend on the parameters."""
    rng = np.random.default_rng(0)
    draw = lambda path, shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return tree(draw), [tree(draw) for _ in range(UPDATES)]


def options_of(name, **fields):
    options = base.get_config().g_optimizer
    options.update(
        name=name, schedule="constant", learning_rate=0.03, b1=0.8, b2=0.95, b3=0.97, eps=1e-3
    )
    options.update(**fields)
    return options


def ours(options, *, jitted=True):
    """Parameters after each update, and those to evaluate."""
    params, gradients = jax.tree.map(jnp.asarray, a_problem())
    optimizer = optimizers.make_optimizer(options, steps=100)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update) if jitted else optimizer.update
    trained, evaluated = [], []
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        trained.append(params)
        evaluated.append(optimizers.evaluated_params(state, params))
    return trained, evaluated


def theirs(rule, options):
    """Parameters after each update by a rule: (path, shape, options) -> (x, g, t) -> x."""
    params, gradients = a_problem()
    after = [tree(lambda path, shape: None) for _ in range(UPDATES)]
    for layer, leaves in SHAPES.items():
        for name, shape in leaves.items():
            x, step = params[layer][name].astype(np.float64), rule((layer, name), shape, options)
            for t, gradient in enumerate(gradients, start=1):
                x = step(x, gradient[layer][name].astype(np.float64), t)
                after[t - 1][layer][name] = x
    return after


def assert_close(found, expected, tolerance):
    """Every difference is below `tolerance` of how far the parameters have moved."""
    start, _ = a_problem()
    for after, want in zip(found, expected, strict=True):
        for x, y, x0 in zip(*map(jax.tree.leaves, (after, want, start)), strict=True):
            assert np.linalg.norm(x - y) <= tolerance * np.linalg.norm(y - x0)


def decay(path, options):
    return options.weight_decay if path in KERNELS else 0.0


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("jitted", [True, False])
def test_adam_and_adamw_equal_torch(name, jitted):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    options = options_of(name, weight_decay=0.4 if name == "adamw" else 0.0)
    params, gradients = a_problem()
    leaves = {
        (layer, part): torch.tensor(x, requires_grad=True)
        for layer, parts in params.items()
        for part, x in parts.items()
    }
    groups = [{"params": [x], "weight_decay": decay(path, options)} for path, x in leaves.items()]
    adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](
        groups, lr=options.learning_rate, betas=(options.b1, options.b2), eps=options.eps
    )
    expected = []
    for gradient in gradients:
        for (layer, part), x in leaves.items():
            x.grad = torch.tensor(gradient[layer][part])
        adam.step()
        expected.append(tree(lambda path, shape: leaves[path].detach().numpy().copy()))
    assert_close(ours(options, jitted=jitted)[0], expected, 1e-5)


def adan_rule(path, shape, options):
    """Xie et al. 2022, algorithm 1, with 1 - b for its b, and its restart left out."""
    m, v, n, before = (np.zeros(shape) for _ in range(4))

    def step(x, g, t):
        nonlocal m, v, n, before
        difference = np.zeros(shape) if t == 1 else g - before
        m = options.b1 * m + (1 - options.b1) * g
        v = options.b2 * v + (1 - options.b2) * difference
        n = options.b3 * n + (1 - options.b3) * (g + options.b2 * difference) ** 2
        m_hat, v_hat, n_hat = (
            x / (1 - b**t) for x, b in ((m, options.b1), (v, options.b2), (n, options.b3))
        )
        before = g
        direction = (m_hat + options.b2 * v_hat) / (np.sqrt(n_hat) + options.eps)
        return x - options.learning_rate * (direction + decay(path, options) * x)

    return step


def newton_schulz(x):
    """Jordan et al. 2024: five steps of a quintic, on a wide matrix."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.shape[0] > x.shape[1]
    x = (x.T if tall else x) / np.linalg.norm(x)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def muon_rule(path, shape, options):
    """Muon for hidden kernels, whose last axis is the output; Adam for the rest."""
    m, v, momentum = np.zeros(shape), np.zeros(shape), options.momentum

    def direction(g, t):
        nonlocal m, v
        if path not in HIDDEN:
            m = options.b1 * m + (1 - options.b1) * g
            v = options.b2 * v + (1 - options.b2) * g**2
            v_hat = v / (1 - options.b2**t)
            return m / (1 - options.b1**t) / (np.sqrt(v_hat) + options.eps)
        m = momentum * m + (1 - momentum) * g
        # Nesterov's, with the bias corrections of NAdam (Dozat 2016).
        ahead = momentum * m / (1 - momentum ** (t + 1))
        matrix = (ahead + (1 - momentum) * g / (1 - momentum**t)).reshape(-1, shape[-1])
        # Liu et al. 2025, section 2.2: as large as AdamW's.
        return (0.2 * np.sqrt(max(matrix.shape)) * newton_schulz(matrix)).reshape(shape)

    return lambda x, g, t: x - options.learning_rate * (direction(g, t) + decay(path, options) * x)


@pytest.mark.parametrize("jitted", [True, False])
@pytest.mark.parametrize(
    "name, rule, eps, tolerance",
    [("adan", adan_rule, 1e-3, 1e-5), ("muon", muon_rule, 1e-8, 1e-3)],
)
def test_adan_and_muon_equal_their_formulas(name, rule, eps, tolerance, jitted):
    options = options_of(name, weight_decay=0.4, eps=eps)
    expected = theirs(rule, options)
    assert_close(ours(options, jitted=jitted)[0], expected, tolerance)


def test_muon_s_steps_are_orthogonal_and_of_adam_s_size():
    """Whatever the iteration: singular values near each other, and an RMS of 0.2 learning rates."""
    options = options_of("muon", eps=1e-8)
    before, _ = a_problem()
    (after, *_), _ = ours(options)
    for layer, name in HIDDEN:
        step = (before[layer][name] - after[layer][name]) / options.learning_rate
        matrix = np.asarray(step).reshape(-1, step.shape[-1])
        values = np.linalg.svd(matrix, compute_uv=False) / (0.2 * np.sqrt(max(matrix.shape)))
        assert len(values) == min(matrix.shape) and values.min() > 0.6 and values.max() < 1.25
        assert 0.15 < np.sqrt(np.mean(matrix**2)) < 0.25


def schedule_free_rule(path, shape, options, *, evaluated):
    """Defazio et al. 2024, algorithm 1: x where `evaluated`, else y, which is trained."""
    x, z, v, weights = (np.zeros(shape) for _ in range(4))

    def step(given, g, t):
        nonlocal x, z, v, weights
        x, z = (given, given) if t == 1 else (x, z)
        y = (1 - options.b1) * z + options.b1 * x
        rate = options.learning_rate * min(1.0, t / options.warmup_steps)
        v = options.b2 * v + (1 - options.b2) * g**2
        direction = g / (np.sqrt(v / (1 - options.b2**t)) + options.eps)
        z = z - rate * (direction + decay(path, options) * y)
        weights = weights + rate**2
        x = x + rate**2 / weights * (z - x)
        return x if evaluated else (1 - options.b1) * z + options.b1 * x

    return step


@pytest.mark.parametrize("jitted", [True, False])
def test_schedule_free_equals_its_formula(jitted):
    """y and x, while the rate rises, with which the weights of the average do."""
    options = options_of("schedule_free_adamw", weight_decay=0.4, warmup_steps=3)
    trained, evaluated = ours(options, jitted=jitted)
    y, x = (theirs(partial(schedule_free_rule, evaluated=one), options) for one in (False, True))
    assert_close(trained, y, 1e-4)
    assert_close(evaluated, x, 1e-4)
    assert np.abs(x[-1]["conv"]["kernel"] - y[-1]["conv"]["kernel"]).max() > 1e-3


@pytest.mark.parametrize("name", ["adamw", "adan", "muon"])
def test_without_gradients_kernels_decay_and_nothing_else_moves(name):
    options = options_of(name, weight_decay=0.5, learning_rate=0.1)
    params, _ = jax.tree.map(jnp.asarray, a_problem())
    optimizer = optimizers.make_optimizer(options, steps=100)
    state, after = optimizer.init(params), params
    for _ in range(3):
        updates, state = jax.jit(optimizer.update)(
            jax.tree.map(jnp.zeros_like, params), state, after
        )
        after = optax.apply_updates(after, updates)
    for layer, leaves in SHAPES.items():
        for part in leaves:
            left = (1 - 0.1 * 0.5) ** 3 if (layer, part) in KERNELS else 1.0
            np.testing.assert_allclose(after[layer][part], left * params[layer][part], rtol=1e-6)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_runs_of_several_rates_are_those_alone(name):
    """As a study trains them: batched, with rates that are traced."""
    options = options_of(name)
    params, gradients = jax.tree.map(jnp.asarray, a_problem())

    def two_updates(rate):
        optimizer = optimizers.make_optimizer(options, steps=100, learning_rate=rate)
        after, state = params, optimizer.init(params)
        for gradient in gradients[:2]:
            updates, state = optimizer.update(gradient, state, after)
            after = optax.apply_updates(after, updates)
        return after

    rates = jnp.array([0.03, 0.1])
    together = jax.jit(jax.vmap(two_updates))(rates)
    for i, rate in enumerate(rates):
        options.learning_rate = float(rate)
        trained, _ = ours(options)
        assert_close([jax.tree.map(lambda x, i=i: x[i], together)], trained[1:2], 1e-3)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"name": "adamm"}, r"unknown config.g_optimizer.name 'adamm'; .*did you mean adam"),
        ({"weight_decay": 0.1}, "g_optimizer.weight_decay is 0.1, and adam has none; set it to 0"),
        ({"name": "adamw", "weight_decay": -1.0}, "weight_decay is -1.0; it must be 0 or more"),
        ({"name": "adan", "b3": 1.0}, r"g_optimizer.b3 is 1.0; it must be in \[0, 1\)"),
        ({"name": "muon", "momentum": 1.0}, r"g_optimizer.momentum is 1.0; it must be in"),
        ({"name": "schedule_free_adamw"}, "schedule is halfway; schedule_free_adamw needs const"),
        (
            {"name": "schedule_free_adamw", "schedule": "constant", "b1": 0.0},
            "g_optimizer.b1 is 0; schedule_free_adamw needs it above 0",
        ),
    ],
)
def test_what_an_optimizer_cannot_do_is_said(fields, said):
    config = base.get_config()
    config.g_optimizer.update(fields)
    with pytest.raises(UserError, match=said):
        checks.check(config, devices=1)


def test_settings_that_are_rarely_meant_are_said():
    config = base.get_config()
    check = partial(checks.check, config, devices=1)
    said = len(check())
    config.d_optimizer.name = "adan"
    assert "config.d_optimizer.b1 and b2 are Adam's" in check()[0] and len(check()) == said + 1
    config.d_optimizer.update(b1=0.98, b2=0.92)
    assert len(check()) == said
    config.g_optimizer.update(name="schedule_free_adamw", schedule="constant")
    assert config.generator.batch_norm and "batch norm's running statistics" in check()[0]
