"""Optimizers and learning-rate schedules by name."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

Rate = float | Float[Array, ""]


# (first learning rate, options of an optimizer, steps) -> schedule
SCHEDULES: dict[str, Callable[[Rate, ConfigDict, int], optax.Schedule]] = {
    "constant": lambda rate, options, steps: optax.constant_schedule(rate),
    "cosine": lambda rate, options, steps: optax.cosine_decay_schedule(rate, steps),
    # SRGAN, section 3.2: the rate falls to a tenth at half of the updates.
    "halfway": lambda rate, options, steps: optax.piecewise_constant_schedule(
        rate, {steps // 2: 0.1}
    ),
    "milestones": lambda rate, options, steps: optax.piecewise_constant_schedule(
        rate, {step: options.decay for step in options.milestones}
    ),
}


def make_schedule(
    options: ConfigDict, *, steps: int, learning_rate: Rate | None = None
) -> optax.Schedule:
    """Return the schedule: number of an update, from 0 -> learning rate.

    It rises linearly over the first warmup_steps. That is done here, because Optax's schedules with
    a warm-up of 0 steps stay at their first value, 0.

    Args:
        options: config.g_optimizer or config.d_optimizer.
        steps: updates of the whole schedule.
        learning_rate: replaces that of the options; it may be traced.
    """
    rate = options.learning_rate if learning_rate is None else learning_rate
    schedule = SCHEDULES[options.schedule](rate, options, steps)
    warmup = options.warmup_steps
    if not warmup:
        return schedule
    return lambda step: schedule(step) * jnp.minimum(1.0, (step + 1) / warmup)


def is_decayed(params: Any) -> Any:
    """Return for each parameter whether weight decay applies to it: a tree of booleans.

    It applies to the kernels of convolutions and dense layers, and as usual not to biases, scales
    of norms, slopes of activations, temperatures and tables of relative positions.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: _is_kernel(path), params)


def _is_kernel(path: tuple[Any, ...]) -> bool:
    return jax.tree_util.keystr(path[-1:], simple=True) == "kernel"


class AdanState(NamedTuple):
    """The state of Adan: updates done, its three moments, and the gradient of the last update."""

    updates: Int[Array, ""]
    m: Any
    v: Any
    n: Any
    last: Any


def _adan(options: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Return Adan with AdamW's weight decay, which is no_prox of the authors' program.

    Optax's own (0.2.8) weighs differences of gradients by 1 - b2, where the paper has b2.
    """

    def init(params: Any) -> AdanState:
        zeros = (jax.tree.map(jnp.zeros_like, params) for _ in range(4))
        return AdanState(jnp.zeros((), jnp.int32), *zeros)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AdanState]:
        def moment(decay: float, x: Any, before: Any) -> Any:
            return jax.tree.map(lambda x, old: decay * old + (1.0 - decay) * x, x, before)

        def corrected(x: Float[Array, "*s"], decay: float) -> Float[Array, "*s"]:
            return x / (1.0 - decay ** done.astype(jnp.float32))

        def direction(m: Array, v: Array, n: Array) -> Float[Array, "*s"]:
            ahead = corrected(m, options.b1) + options.b2 * corrected(v, options.b2)
            return ahead / (jnp.sqrt(corrected(n, options.b3)) + options.eps)

        done = state.updates + 1
        change = jax.tree.map(
            lambda g, last: jnp.where(done == 1, 0.0, g - last), updates, state.last
        )
        square = jax.tree.map(lambda g, c: jnp.square(g + options.b2 * c), updates, change)
        m = moment(options.b1, updates, state.m)
        v = moment(options.b2, change, state.v)
        n = moment(options.b3, square, state.n)
        return jax.tree.map(direction, m, v, n), AdanState(done, m, v, n, updates)

    return optax.chain(
        optax.GradientTransformation(init, update),
        optax.add_decayed_weights(options.weight_decay, mask=is_decayed),
        optax.scale_by_learning_rate(schedule),
    )


def _schedule_free_adamw(
    options: ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Return the optimizer whose trained parameters are y of the paper; z is in its state."""
    base = optax.chain(
        optax.scale_by_rms(
            decay=options.b2, eps=options.eps, eps_in_sqrt=False, bias_correction=True
        ),
        optax.add_decayed_weights(options.weight_decay, mask=is_decayed),
        optax.scale_by_learning_rate(schedule),
    )
    # The average weighs an update by its learning rate; Optax counts updates from 1 there.
    return optax.contrib.schedule_free(
        base, learning_rate=lambda count: schedule(count - 1), b1=options.b1
    )


# Of the updates of Muon, before the learning rate; about what Adam's have.
MUON_RMS = 0.2


def _muon(options: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Return Muon for hidden kernels, as matrices [h*w*i o], and Adam for the rest.

    Hidden are those with more than 3 channels in and out: not those from or to the 3 channels of an
    image (a last layer before depth-to-space has more), nor depthwise convolutions, which are no
    matrices.
    """

    def label(path: tuple[Any, ...], x: Float[Array, "*s"]) -> str:
        return "muon" if _is_kernel(path) and min(x.shape[-2:]) > 3 else "adam"

    def as_matrices(kernels: Any) -> Any:
        return jax.tree.map(
            lambda x: optax.contrib.MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1),
            kernels,
        )

    def with_rms(updates: Any, params: Any) -> Any:
        # Of an orthogonal matrix [m, n] the RMS is 1 / sqrt(max(m, n)).
        def scaled(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
            return MUON_RMS * math.sqrt(max(x.size // x.shape[-1], x.shape[-1])) * x

        return jax.tree.map(scaled, updates)

    muon = optax.contrib.scale_by_muon(
        beta=options.momentum, eps=options.eps, weight_dimension_numbers=as_matrices
    )
    adam = optax.scale_by_adam(b1=options.b1, b2=options.b2, eps=options.eps)
    return optax.chain(
        optax.partition(
            {"muon": optax.chain(muon, optax.stateless(with_rms)), "adam": adam},
            lambda params: jax.tree_util.tree_map_with_path(label, params),
        ),
        optax.add_decayed_weights(options.weight_decay, mask=is_decayed),
        optax.scale_by_learning_rate(schedule),
    )


# (options of an optimizer, schedule) -> optimizer. Weight decay is decoupled: an update takes
# learning rate * weight_decay of each kernel away.
OPTIMIZERS: dict[str, Callable[[ConfigDict, optax.Schedule], optax.GradientTransformation]] = {
    # Kingma & Ba 2015, algorithm 1.
    "adam": lambda options, schedule: optax.adam(
        schedule, b1=options.b1, b2=options.b2, eps=options.eps
    ),
    # Loshchilov & Hutter 2019, algorithm 2, with the learning rate as PyTorch has it.
    "adamw": lambda options, schedule: optax.adamw(
        schedule,
        b1=options.b1,
        b2=options.b2,
        eps=options.eps,
        weight_decay=options.weight_decay,
        mask=is_decayed,
    ),
    # Xie et al. 2022, algorithm 1, where b is 1 - b here.
    "adan": _adan,
    # Defazio et al. 2024, algorithm 1, with Adam's bias correction as in the authors' code.
    "schedule_free_adamw": _schedule_free_adamw,
    # Jordan et al. 2024, with bias-corrected Nesterov momentum, and Liu et al. 2025, section 2.2,
    # by which the learning rate and the weight decay are AdamW's.
    "muon": _muon,
}


def make_optimizer(
    options: ConfigDict, *, steps: int, learning_rate: Rate | None = None
) -> optax.GradientTransformation:
    """Return an optimizer with a schedule over `steps` and, if set, clipping by the global norm.

    Args:
        options: config.g_optimizer or config.d_optimizer.
        steps: updates of the whole schedule.
        learning_rate: replaces that of the options; it may be traced.
    """
    clip = optax.clip_by_global_norm(options.grad_clip) if options.grad_clip else optax.identity()
    schedule = make_schedule(options, steps=steps, learning_rate=learning_rate)
    return optax.chain(clip, OPTIMIZERS[options.name](options, schedule))


def evaluated_params(state: Any, params: Any) -> Any:
    """Return the parameters to evaluate: those that are trained, or schedule-free's average.

    Args:
        state: the optimizer's state.
        params: the parameters that are trained, after its update.

    Source: Defazio et al. 2024, algorithm 1: x, where gradients are taken at y.
    """

    def is_free(part: Any) -> bool:
        return isinstance(part, optax.contrib.ScheduleFreeState)

    for part in jax.tree.leaves(state, is_leaf=is_free):
        if is_free(part):
            return optax.contrib.schedule_free_eval_params(part, params)
    return params
