"""Optimizers and learning-rate schedules by name."""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
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


def make_optimizer(
    options: ConfigDict, *, steps: int, learning_rate: Rate | None = None
) -> optax.GradientTransformation:
    """Return Adam with a schedule over `steps` and, if grad_clip is set, clipping by norm."""
    clip = optax.clip_by_global_norm(options.grad_clip) if options.grad_clip else optax.identity()
    schedule = make_schedule(options, steps=steps, learning_rate=learning_rate)
    return optax.chain(clip, optax.adam(schedule, b1=options.b1, b2=options.b2, eps=options.eps))
