"""Check the fields of a config before training starts."""

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from isr_jax import losses, metrics
from isr_jax.config import flatten, get_config
from isr_jax.degrade import DEGRADATIONS
from isr_jax.errors import UserError, unknown
from isr_jax.models.discriminators import make_discriminator
from isr_jax.models.generators import channels_of
from isr_jax.perceptual import distances, lpips
from isr_jax.perceptual.vgg_loss import CRITERIA
from isr_jax.protocols import Scores, least_side
from isr_jax.scoring import LATEST, METRICS
from isr_jax.training import scorer
from isr_jax.training.optimizers import OPTIMIZERS, SCHEDULES
from isr_jax.training.trackers import check_trackers

CHOICES: dict[str, Collection[Any]] = {
    "data.loader": ("pool", "sharded_pool", "stream"),
    "data.degradation": DEGRADATIONS,
    "data.weight_by": ("image", "area"),
    "loss.perceptual.criterion": CRITERIA,
    "loss.lpips_network": lpips.NETWORKS,
    "loss.adversarial": losses.ADVERSARIAL,
    "g_optimizer.name": OPTIMIZERS,
    "d_optimizer.name": OPTIMIZERS,
    "g_optimizer.schedule": SCHEDULES,
    "d_optimizer.schedule": SCHEDULES,
    "train.parallel": ("jit", "pmap"),
    "train.keep_best": (LATEST, *METRICS),
}

LEAST: dict[str, int] = {
    "seed": 0,
    "data.crop": 1,
    "data.margin": 0,
    "data.batch": 1,
    "data.workers": 0,
    "data.validation_images": 0,
    "discriminator.crop": 0,
    "loss.perceptual.weight": 0,
    "loss.lpips": 0,
    "loss.dists": 0,
    "loss.ldl": 0,
    "loss.lattice": 0,
    "loss.adversarial_weight": 0,
    "loss.feature_matching": 0,
    "loss.r1": 0,
    "loss.d_pause": 0,
    "loss.adversarial_from": 0,
    "g_optimizer.learning_rate": 0,
    "d_optimizer.learning_rate": 0,
    "g_optimizer.warmup_steps": 0,
    "d_optimizer.warmup_steps": 0,
    "g_optimizer.decay": 0,
    "d_optimizer.decay": 0,
    "g_optimizer.weight_decay": 0,
    "d_optimizer.weight_decay": 0,
    "g_optimizer.grad_clip": 0,
    "d_optimizer.grad_clip": 0,
    "train.ema_from": 0,
    "train.steps": 1,
    "train.steps_per_dispatch": 1,
    "train.accumulate": 1,
    "train.log_every": 1,
    "train.validate_every": 1,
    "train.checkpoint_every": 1,
    "train.keep": 1,
    "train.keep_every": 0,
    "train.validation_crop": 0,
}


class Elements(NamedTuple):
    """What the elements of a tuple are, and whether one may come twice."""

    words: str
    accepts: Callable[[Any], bool]
    repeated: bool = False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_NAMES = Elements("names", lambda value: isinstance(value, str))
_COUNTS = Elements("whole numbers, 0 or more", _is_count)
_POSITIVE = Elements("numbers above 0", lambda value: _is_number(value) and value > 0)

ELEMENTS: dict[str, Elements] = {
    "data.weights": _POSITIVE._replace(repeated=True),
    "data.resized": Elements(
        "numbers above 0 and below 1", lambda value: _is_number(value) and 0 < value < 1
    ),
    "g_optimizer.milestones": _COUNTS,
    "d_optimizer.milestones": _COUNTS,
    "loss.perceptual.layers": _NAMES,
    "loss.perceptual.layer_weights": Elements(
        "numbers, 0 or more", lambda value: _is_number(value) and value >= 0, repeated=True
    ),
    "train.validation_metrics": _NAMES,
    "train.trackers": _NAMES,
    "study.seeds": _COUNTS,
    "study.only": _NAMES,
    "study.learning_rates": _POSITIVE,
    "study.adversarial_factors": _POSITIVE,
}

BELOW_ONE = (
    "g_optimizer.b1",
    "g_optimizer.b2",
    "g_optimizer.b3",
    "g_optimizer.momentum",
    "d_optimizer.b1",
    "d_optimizer.b2",
    "d_optimizer.b3",
    "d_optimizer.momentum",
    "train.ema_decay",
)


def check(config: ConfigDict, *, devices: int) -> list[str]:
    """Check a config, and return advice for the user, one line each.

    Args:
        config: of a run; see isr_jax/config.py.
        devices: how many train.

    Raises:
        UserError: for the first field that cannot work.
    """
    check_fields(config)
    try:
        channels = channels_of(config)
        make_discriminator(config, channels=channels)
    except UserError as error:
        # The networks' own messages do not know that they are part of a config.
        named = re.sub(r"\b(generator|discriminator|scale)\b", r"config.\1", str(error), count=1)
        raise UserError(named) from None
    values = flatten(config.to_dict())
    for name, allowed in CHOICES.items():
        if values[name] not in allowed:
            raise unknown(f"config.{name}", values[name], allowed)
    for name, least in LEAST.items():
        if not values[name] >= least:
            raise UserError(f"config.{name} is {values[name]}; it must be {least} or more")
    check_elements(values)
    for name in BELOW_ONE:
        if not 0 <= values[name] < 1:
            raise UserError(f"config.{name} is {values[name]}; it must be in [0, 1)")
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"config.{name} is {value}; it must be finite")
        if name.startswith("loss.content.") and value < 0:
            raise UserError(f"config.{name} is {value}; it must be 0 or more")
        if name.endswith("_optimizer.eps") and value <= 0:
            raise UserError(f"config.{name} is {value}; it must be above 0")
    if config.seed >= 2**32:
        raise UserError(f"config.seed is {config.seed}; it must be below 2**32")
    train = config.train
    if train.keep_every % train.checkpoint_every:
        raise UserError(
            f"config.train.keep_every={train.keep_every} must be divisible by "
            f"config.train.checkpoint_every={train.checkpoint_every}"
        )
    _check_channels(config, channels)
    share = config.data.paired_share
    if share is not None and not 0 <= share <= 1:
        raise UserError(f"config.data.paired_share is {share}; it must be in [0, 1]")
    crop, batch = config.data.crop, config.data.batch
    for name in ("data.crop", "data.margin", "train.validation_crop"):
        if values[name] % config.scale:
            raise UserError(
                f"config.{name}={values[name]} must be divisible by config.scale={config.scale}"
            )
    if jax.process_count() > 1 and config.train.parallel == "pmap":
        raise UserError("config.train.parallel=pmap works in one process; set it to jit")
    if config.data.loader == "sharded_pool" and config.train.parallel == "pmap":
        raise UserError("config.data.loader=sharded_pool needs config.train.parallel=jit")
    if batch % devices:
        raise UserError(f"config.data.batch={batch} must be divisible by {devices}, the devices")
    _check_accumulate(config, devices)
    _check_augment(config, devices)
    if config.discriminator.crop > crop:
        raise UserError(
            f"config.discriminator.crop={config.discriminator.crop} exceeds config.data.crop={crop}"
        )
    weights = config.loss.content.to_dict()
    others = losses.has_adversarial(config.loss) or distances.weights(config.loss)
    own = config.loss.ldl or config.loss.lattice
    if not any(weights.values()) and not others and not own:
        raise UserError("every weight in config.loss is 0; set one, as config.loss.content.l1=1.0")
    _check_perceptual(config)
    _check_validation(config)
    for name in ("r1", "d_pause"):
        if config.loss[name] and not losses.has_adversarial(config.loss):
            raise UserError(
                f"config.loss.{name} is {config.loss[name]}, but no discriminator is trained: set "
                f"config.loss.adversarial_weight, or {name}=0"
            )
    if config.loss.ldl and crop < 4:
        raise UserError(f"config.data.crop={crop} is too small for ldl; it must be 4 px or more")
    if config.loss.lattice and config.scale == 1:
        raise UserError("config.loss.lattice is 0 for any image at config.scale=1; set it to 0")
    advice = _check_ssim(crop, weights) + _check_optimizers(config)
    if config.train.steps_per_dispatch > 1 and jax.default_backend() == "cpu":
        advice.append(
            "on a CPU config.train.steps_per_dispatch=1 is much faster: XLA's convolutions are "
            "slow inside a loop there"
        )
    if config.train.accumulate > 1 and (
        values.get("generator.batch_norm") or values.get("discriminator.batch_norm")
    ):
        advice.append(
            f"batch norm takes its statistics from each of the {config.train.accumulate} parts of "
            "a batch (config.train.accumulate)"
        )
    return advice


def check_fields(config: ConfigDict) -> None:
    """Check that a config has all fields and no others, and that each has a value.

    Raises:
        UserError: for the first that is missing, unknown or None.
    """
    networks = ("generator", "discriminator", "study")
    known, given = (
        {name: x for name, x in flatten(fields.to_dict()).items() if not name.startswith(networks)}
        for fields in (get_config(), config)
    )
    for name in given:
        if name not in known:
            raise unknown("field", f"config.{name}", [f"config.{field}" for field in known])
    for name in known:
        if name not in given:
            raise UserError(f"config.{name} is missing; begin with isr_jax.config.get_config()")
        if given[name] is None and known[name] is not None:
            raise UserError(f"config.{name} is None; give a value")


def check_elements(values: Mapping[str, Any]) -> None:
    """Check the tuples among the fields of a config.

    Args:
        values: by the fields' names; see `config.flatten`.

    Raises:
        UserError: for the first that cannot work.
    """
    for name, elements in ELEMENTS.items():
        value = tuple(values.get(name, ()))
        if not all(map(elements.accepts, value)):
            raise UserError(f"config.{name} is {value}; give {elements.words}")
        if not elements.repeated and len(set(value)) < len(value):
            raise UserError(f"config.{name} is {value}; give each once")


def _check_channels(config: ConfigDict, channels: int) -> None:
    if channels == 4:
        raise UserError(
            "config.generator.channels is 4; training images are RGB or gray: set it to 3 or 1"
        )
    if channels != 1:
        return
    for name, value in (
        ("data.augment.rgb", config.data.augment.rgb),
        ("loss.content.chroma", config.loss.content.chroma),
    ):
        if value:
            raise UserError(
                f"config.{name} is {value}, and with config.generator.channels=1 images have no "
                "colours; set it to 0"
            )


def _check_accumulate(config: ConfigDict, devices: int) -> None:
    parts = config.train.accumulate
    if config.data.batch % (devices * parts):
        raise UserError(
            f"config.data.batch={config.data.batch} must be divisible by "
            f"config.train.accumulate={parts} times {devices}, the devices"
        )
    joint = config.loss.adversarial == "relativistic" and losses.has_adversarial(config.loss)
    if parts > 1 and joint:
        raise UserError(
            "a relativistic loss compares each image with the whole batch, which "
            "config.train.accumulate splits: set that to 1, or generator.remat=True to save memory"
        )


def _check_augment(config: ConfigDict, devices: int) -> None:
    options, batch = config.data.augment, config.data.batch
    for name, chance in options.items():
        if not 0 <= chance <= 1:
            raise UserError(f"config.data.augment.{name} is {chance}; it must be in [0, 1]")
    shares = devices if config.train.parallel == "pmap" else 1
    if options.mixup and batch % (2 * shares):
        raise UserError(
            f"config.data.augment.mixup mixes pairs: config.data.batch={batch} must be divisible "
            f"by {2 * shares}"
        )
    if options.cutblur and config.scale != 1:
        raise UserError(
            "config.data.augment.cutblur pastes HR pixels into LR images, which needs "
            f"config.scale=1, not {config.scale}; set it to 0"
        )


def _check_optimizers(config: ConfigDict) -> list[str]:
    advice = []
    for section in ("g_optimizer", "d_optimizer"):
        options, field = config[section], f"config.{section}"
        if options.name == "adam" and options.weight_decay:
            raise UserError(
                f"{field}.weight_decay is {options.weight_decay}, and adam has none; set it to 0, "
                f"or {field}.name=adamw"
            )
        free = options.name == "schedule_free_adamw"
        if free and options.schedule != "constant":
            raise UserError(
                f"{field}.schedule is {options.schedule}; schedule_free_adamw needs constant"
            )
        if free and not options.b1:
            raise UserError(f"{field}.b1 is 0; schedule_free_adamw needs it above 0")
        if options.name == "adan" and (options.b1, options.b2) == (0.9, 0.999):
            advice.append(
                f"{field}.b1 and b2 are Adam's; Adan was published with b1=0.98 and b2=0.92"
            )
    free = config.g_optimizer.name == "schedule_free_adamw"
    if free and flatten(config.to_dict()).get("generator.batch_norm"):
        advice.append(
            "batch norm's running statistics are those of the parameters that are trained, not of "
            "the average that schedule_free_adamw validates and saves"
        )
    return advice


def _check_perceptual(config: ConfigDict) -> None:
    options = config.loss.perceptual
    if len(options.layers) != len(options.layer_weights):
        raise UserError(
            f"config.loss.perceptual.layers has {len(options.layers)} names and layer_weights "
            f"{len(options.layer_weights)} values; give one weight per layer"
        )
    if options.weight and not any(options.layer_weights):
        raise UserError("config.loss.perceptual.layer_weights are all 0; set one, or weight=0")
    for name in distances.weights(config.loss):
        least, needs = distances.DISTANCES[name].least(config.loss)
        if config.data.crop < least:
            raise UserError(
                f"config.data.crop={config.data.crop} is too small for {needs}; "
                f"it must be {least} px or more"
            )


def _check_validation(config: ConfigDict) -> None:
    options = config.train
    check_trackers(options.trackers)
    extras = scorer.chosen(options.validation_metrics)
    if options.keep_best not in (LATEST, *Scores._fields, *extras):
        raise UserError(
            f"config.train.keep_best is {options.keep_best}, which validation does not measure; "
            f"add {options.keep_best} to config.train.validation_metrics"
        )
    least = least_side(config.scale)
    if 0 < options.validation_crop < least:
        raise UserError(
            f"config.train.validation_crop is {options.validation_crop}; it must be {least} or "
            "more at this scale, or 0"
        )


def _check_ssim(crop: int, weights: Mapping[str, float]) -> list[str]:
    scales = metrics.ms_ssim_scales(crop, crop)
    if weights["ssim"] and scales < 1:
        raise UserError(f"config.data.crop={crop} is too small for ssim; it must be 11 px or more")
    if not weights["ms_ssim"] or scales == 5:
        return []
    if scales < 2:
        raise UserError(
            f"config.data.crop={crop} is too small for ms_ssim: two scales need 22 px, five 176"
        )
    return [f"MS-SSIM uses {scales} of its 5 scales, renormalised; five need crops of 176 px"]
