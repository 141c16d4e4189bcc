"""What a run keeps of its optimizers: schedule-free's average, and states that resume."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import isr_jax
from isr_jax import config as base
from isr_jax.checkpoints.restore import begin_from, restore_generator
from isr_jax.checkpoints.runs import check_architecture
from isr_jax.errors import UserError
from isr_jax.models import discriminator, generator
from isr_jax.training import optimizers
from isr_jax.training.program import make_program
from isr_jax.training.update import init_state, make_update
from tests.helpers.tiny_runs import assert_bit_identical, final_arrays, silent, tiny

pytestmark = pytest.mark.usefixtures("undrawn")


def keep_gradient():
    """An optimizer that moves nothing and whose state is the gradient."""
    zeros = lambda tree: jax.tree.map(jnp.zeros_like, tree)  # noqa: E731
    return optax.GradientTransformation(zeros, lambda grad, state, params: (zeros(grad), grad))


def test_the_ema_is_of_schedule_free_s_average():
    """Three updates of a network, whose average is followed by hand from the same gradients."""
    loss = base.get_config().loss
    loss.content.update({**dict.fromkeys(loss.content, 0.0), "l1": 1.0})
    loss.adversarial_weight = 0.0
    options = base.get_config().g_optimizer
    options.update(name="schedule_free_adamw", schedule="constant", learning_rate=0.05)
    options.update(b1=0.5, b2=0.95, eps=1e-3)
    networks = {
        "generator": generator({"width": 4, "blocks": 1, "batch_norm": False}, scale=2),
        "discriminator": discriminator({"widths": (4,), "dense": 4}, crop=8),
        "d_optimizer": keep_gradient(),
    }
    parts = {**networks, "g_optimizer": optimizers.make_optimizer(options, steps=3)}
    probe = {**networks, "g_optimizer": keep_gradient()}
    update = jax.jit(make_update(loss, ema_decay=0.6, **parts))
    gradient = jax.jit(make_update(loss, **probe))
    state, still = (init_state(jax.random.key(0), **one) for one in (parts, probe))
    hr = jax.random.uniform(jax.random.key(1), (2, 8, 8, 3))
    batch = {"lr": hr[:, ::2, ::2], "hr": hr}

    as_array = lambda tree: np.asarray(tree["Conv_0"]["kernel"], np.float64)  # noqa: E731
    x = z = ema = as_array(state.g_params)
    v = np.zeros_like(x)
    for t in range(1, 4):
        seen, _ = gradient(still._replace(g_params=state.g_params), batch, jax.random.key(2), ())
        state, _ = update(state, batch, jax.random.key(2), ())
        v = 0.95 * v + 0.05 * as_array(seen.g_opt) ** 2
        z = z - 0.05 * as_array(seen.g_opt) / (np.sqrt(v / (1 - 0.95**t)) + 1e-3)
        x = (1 - 1 / t) * x + z / t  # at a constant rate, the mean of all z
        np.testing.assert_allclose(as_array(state.g_params), 0.5 * (x + z), atol=1e-5)
        kept = min(0.6, t / (9 + t))
        ema = kept * ema + (1 - kept) * x
        np.testing.assert_allclose(as_array(state.ema), ema, atol=1e-5)
    assert np.abs(ema - as_array(state.g_params)).max() > 1e-3


FREE = {
    "g_optimizer.name": "schedule_free_adamw",
    "g_optimizer.schedule": "constant",
    "g_optimizer.learning_rate": 1e-2,
    "d_optimizer.name": "muon",
    "train.ema_decay": 0.0,
    "train.steps": 4,
    "train.validate_every": 2,
    "train.checkpoint_every": 2,
}


@pytest.fixture(scope="module")
def free(photos, tmp_path_factory):
    """A run of schedule-free AdamW for the generator, and Muon for the discriminator."""
    run = tmp_path_factory.mktemp("runs") / "free"
    isr_jax.train(tiny(photos, **FREE), run, console=silent())
    return run


def test_a_run_saves_the_average_and_resumes_bit_for_bit(free, photos, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(free, run)
    shutil.rmtree(run / "checkpoints" / "4")
    assert isr_jax.train(tiny(photos, **FREE), run, console=silent()).step == 4
    assert_bit_identical(free, run)
    arrays = final_arrays(run)
    place = "['Conv_0']['kernel']"
    (z,) = (x for name, x in arrays.items() if name.endswith(f"['z']{place}"))
    params, ema = (arrays[f"['generator']['{part}']{place}"] for part in ("params", "ema"))
    np.testing.assert_allclose(ema, (params - 0.1 * z) / 0.9, atol=1e-6)
    assert np.abs(ema - params).max() > 1e-5
    used = restore_generator(run, checkpoint="latest").params
    np.testing.assert_array_equal(used["Conv_0"]["kernel"], ema)


def test_another_optimizer_is_refused(free, photos):
    config = tiny(photos, **{**FREE, "d_optimizer.name": "adan"})
    said = "d_optimizer.name=muon, this one has adan; give another --workdir, or the same optimizer"
    with pytest.raises(UserError, match=said):
        isr_jax.train(config, free, console=silent())
    older = tiny(photos).to_dict()
    del older["g_optimizer"]["name"]
    for saved, fields, said in [
        (
            tiny(photos, **FREE).to_dict(),
            {**FREE, "g_optimizer.b1": 0.5},
            "b1=0.9, this one has 0.5",
        ),
        (older, {"g_optimizer.name": "adamw"}, "g_optimizer.name=adam, this one has adamw"),
    ]:
        with pytest.raises(UserError, match=said):
            check_architecture(saved, tiny(photos, **fields), run=free)
    check_architecture(older, tiny(photos, **{"g_optimizer.b1": 0.5}), run=free)


def test_schedule_free_starts_where_the_generator_is_initialised(free, photos):
    """Were its own sequence left at the random start, the first update would go back there."""
    config = tiny(photos, **FREE)
    state = begin_from(str(free), make_program(config).init(jax.random.key(5)), config)
    expected = restore_generator(free).params
    average = optimizers.evaluated_params(state.g_opt, state.g_params)
    for tree in (state.g_params, state.ema, optax.tree.get(state.g_opt, "z"), average):
        for x, y in zip(*map(jax.tree.leaves, (tree, expected)), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-6)
