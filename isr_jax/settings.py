"""What a config may say, and the optimizers it asks for."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from isr_jax import losses, metrics
from isr_jax.errors import UserError
from isr_jax.models.generators import SCALES


def check(config: ConfigDict, *, devices: int) -> list[str]:
    """What to tell the person before training starts.

    Raises:
        UserError: for settings that cannot work, naming the first.
    """
    crop, batch = config.data.crop, config.data.batch
    choices = {
        "scale": (config.scale, SCALES),
        "data.loader": (config.data.loader, ("pool", "stream")),
        "loss.adversarial": (config.loss.adversarial, losses.ADVERSARIAL),
        "train.parallel": (config.train.parallel, ("jit", "pmap")),
        "g_optimizer.schedule": (config.g_optimizer.schedule, SCHEDULES),
        "d_optimizer.schedule": (config.d_optimizer.schedule, SCHEDULES),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise UserError(f"config.{name} is {value!r}; it can be {', '.join(map(str, allowed))}")
    positive = ("steps", "steps_per_dispatch", "log_every", "validate_every", "checkpoint_every")
    for name, value in [("data.crop", crop), ("data.batch", batch)] + [
        (f"train.{name}", config.train[name]) for name in positive
    ]:
        if value < 1:
            raise UserError(f"config.{name} is {value}; it must be 1 or more")
    if crop % config.scale:
        raise UserError(f"config.data.crop={crop} is no multiple of config.scale={config.scale}")
    if batch % devices:
        raise UserError(f"config.data.batch={batch} does not divide among {devices} devices")
    if config.discriminator.crop > crop:
        raise UserError(
            f"config.discriminator.crop={config.discriminator.crop} exceeds config.data.crop={crop}"
        )
    weights = config.loss.content.to_dict()
    if not any(weights.values()) and not config.loss.adversarial_weight:
        raise UserError("every weight in config.loss is 0; give one, as config.loss.content.l1=1.0")
    advice = _check_ssim(crop, weights)
    if config.train.steps_per_dispatch > 1 and jax.default_backend() == "cpu":
        advice.append(
            "on a CPU config.train.steps_per_dispatch=1 is much faster: XLA's convolutions there "
            "are slow inside a loop"
        )
    return advice


def _check_ssim(crop: int, weights: Mapping[str, float]) -> list[str]:
    scales = metrics.ms_ssim_scales(crop, crop)
    if weights["ssim"] and scales < 1:
        raise UserError(f"config.data.crop={crop} is too small for ssim, which needs 11 px")
    if not weights["ms_ssim"] or scales == 5:
        return []
    if scales < 2:
        raise UserError(
            f"config.data.crop={crop} is too small for ms_ssim: two scales need 22 px, five 176"
        )
    return [f"MS-SSIM uses {scales} of its 5 scales, renormalised: five need crops of 176 px"]


# (rate, steps) -> schedule
SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda rate, steps: optax.constant_schedule(rate),
    "cosine": lambda rate, steps: optax.cosine_decay_schedule(rate, steps),
    # SRGAN, section 3.2: the rate falls to a tenth at half of the updates.
    "halfway": lambda rate, steps: optax.piecewise_constant_schedule(rate, {steps // 2: 0.1}),
}


def make_schedule(options: ConfigDict, *, steps: int) -> optax.Schedule:
    """Update number, from 0 -> learning rate; it rises linearly over the first warmup_steps.

    The rise is ours, for Optax's schedules with a warm-up of 0 steps stay at their first value, 0.
    """
    schedule = SCHEDULES[options.schedule](options.learning_rate, steps)
    warmup = options.warmup_steps
    if not warmup:
        return schedule
    return lambda step: schedule(step) * jnp.minimum(1.0, (step + 1) / warmup)


def make_optimizer(options: ConfigDict, *, steps: int) -> optax.GradientTransformation:
    """Adam with a schedule over `steps` and, where grad_clip is positive, clipping by norm."""
    clip = optax.clip_by_global_norm(options.grad_clip) if options.grad_clip else optax.identity()
    schedule = make_schedule(options, steps=steps)
    return optax.chain(clip, optax.adam(schedule, b1=options.b1, b2=options.b2, eps=options.eps))
