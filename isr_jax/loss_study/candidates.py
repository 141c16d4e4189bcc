"""The candidates of a study: a loss each, laid over the study's config."""

from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from isr_jax.config import flatten, overlay
from isr_jax.errors import UserError, unknown
from isr_jax.perceptual import lpips, niqe
from isr_jax.training import checks

# What a candidate may change; everything else is the same for all.
PARTS = ("loss", "g_optimizer", "d_optimizer")


class Candidate(NamedTuple):
    """A loss of the study.

    Attributes:
        name: of its folder.
        config: of its runs.
        rates: the learning rates to begin with, () where config's own is given.
        weights: the adversarial weights to begin with, () where config's own is given.
    """

    name: str
    config: ConfigDict
    rates: tuple[float, ...]
    weights: tuple[float, ...]


def candidates_of(config: ConfigDict) -> list[Candidate]:
    """Return the candidates of a study, each with its own config, without the study's fields.

    Raises:
        UserError: for the first setting that cannot work.
    """
    if not isinstance(config, ConfigDict) or "study" not in config:
        raise UserError("the config has no study: give one as configs/study.py makes it")
    options = config.study
    _check(config)
    shared = config.copy_and_resolve_references()
    with shared.unlocked():
        del shared.study
    found = []
    for name in options.only or options.candidates:
        partial = options.candidates[name]
        try:
            for part in set(partial) - set(PARTS):
                raise unknown("part of a candidate", part, PARTS)
            run = overlay(shared, partial)
            checks.check(run, devices=1)
        except UserError as error:
            raise UserError(f"config.study.candidates.{name}: {error}") from None
        own = flatten(partial.to_dict()).get("g_optimizer.learning_rate") is not None
        rates = () if own else tuple(sorted(options.learning_rates))
        base, factors = run.loss.adversarial_weight, sorted(options.adversarial_factors)
        weights = tuple(float(f"{base * factor:.6g}") for factor in factors)
        found.append(Candidate(name, run, rates, weights if _has_twin(run) else ()))
    return found


def twin(config: ConfigDict) -> ConfigDict:
    """Return the config of the same loss without its adversarial part."""
    config = config.copy_and_resolve_references()
    config.loss.update(adversarial_weight=0.0, feature_matching=0.0, r1=0.0, d_pause=0.0)
    return config


def _has_twin(config: ConfigDict) -> bool:
    """Return whether the weight of an adversarial part can be tuned: beside another loss."""
    if not config.loss.adversarial_weight:
        return False
    try:
        checks.check(twin(config), devices=1)
    except UserError:
        return False
    return True


def tune_steps(config: ConfigDict) -> int:
    """Return the updates of a tuning run of a study."""
    return config.study.tune_steps or -(-config.train.steps // 2)


def _check(config: ConfigDict) -> None:
    options = config.study
    checks.check_elements(flatten(config.to_dict()))
    for name in options.only:
        if name not in options.candidates:
            raise unknown("candidate in config.study.only", name, options.candidates)
    if not options.candidates:
        raise UserError("config.study.candidates is empty; give at least one loss")
    for name in options.candidates:
        if not name.replace("_", "").replace("-", "").isalnum():
            raise UserError(f"config.study.candidates: {name!r} cannot name a folder")
    seeds = tuple(options.seeds)
    if not seeds or max(seeds) >= 2**32:
        raise UserError(f"config.study.seeds is {seeds}; give ones in [0, 2**32)")
    _check_grid("learning_rates", options.learning_rates)
    _check_grid("adversarial_factors", options.adversarial_factors)
    for name, least in {
        "tune_steps": 0,
        "tune_images": 2,
        "widenings": 0,
        "psnr_cost": 0,
        "pictures": 0,
    }.items():
        if not options[name] >= least:
            raise UserError(f"config.study.{name} is {options[name]}; it must be {least} or more")
    if 2 * tune_steps(config) < config.train.steps:
        raise UserError(
            f"config.study.tune_steps is {options.tune_steps}, less than half of "
            f"config.train.steps={config.train.steps}: rates that are best for few updates are too "
            "high for many; give 0 for half of them"
        )
    for name, allowed in {
        "together": ("auto", "vmap", "unroll"),
        "lpips": ("auto", "none", *lpips.NETWORKS),
        "dists": ("auto", "none", "load"),
        "niqe": ("auto", "none", *niqe.FORMS),
    }.items():
        if options[name] not in allowed:
            raise unknown(f"config.study.{name}", options[name], allowed)
    fixed = {
        "data.loader": "pool",
        "data.weights": [],
        "data.weight_by": "image",
        "data.paired_share": None,
        "train.parallel": "jit",
    }
    for name, needed in fixed.items():
        value = flatten(config.to_dict())[name]
        if value != needed:
            raise UserError(f"config.{name} is {value}; a study needs {needed}")
    if config.train.init_from:
        raise UserError("config.train.init_from: the candidates of a study start from their seeds")


def _check_grid(name: str, values: Sequence[float]) -> None:
    """Check that a grid can be widened, or is empty."""
    if len(values) == 1:
        raise UserError(
            f"config.study.{name} is {tuple(values)}; give two or more, or () not to tune"
        )
