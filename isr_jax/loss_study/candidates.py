"""The candidates of a study: a loss each, laid over the study's config."""

import math
from typing import NamedTuple

from ml_collections import ConfigDict

from isr_jax.config import flatten, overlay
from isr_jax.errors import UserError, unknown
from isr_jax.perceptual import lpips
from isr_jax.training import checks

# What a candidate may change; everything else is the same for all.
PARTS = ("loss", "g_optimizer", "d_optimizer")


class Candidate(NamedTuple):
    """A loss of the study: its name, the config of its runs, and the learning rates to try."""

    name: str
    config: ConfigDict
    rates: tuple[float, ...]


def candidates_of(config: ConfigDict) -> list[Candidate]:
    """Return the candidates of a study, each with its own config, without the study's fields.

    Raises:
        UserError: for the first setting that cannot work.
    """
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
        rates = () if own else tuple(options.learning_rates)
        found.append(Candidate(name, run, rates or (run.g_optimizer.learning_rate,)))
    return found


def _check(config: ConfigDict) -> None:
    options = config.study
    for name in options.only:
        if name not in options.candidates:
            raise unknown("candidate in config.study.only", name, options.candidates)
    if not options.candidates:
        raise UserError("config.study.candidates is empty; give at least one loss")
    for name in options.candidates:
        if not name.replace("_", "").replace("-", "").isalnum():
            raise UserError(f"config.study.candidates: {name!r} cannot name a folder")
    seeds = tuple(options.seeds)
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= s < 2**32 for s in seeds):
        raise UserError(f"config.study.seeds is {seeds}; give different ones in [0, 2**32)")
    rates = tuple(options.learning_rates)
    if not all(0 < rate < math.inf for rate in rates) or len(set(rates)) < len(rates):
        raise UserError(
            f"config.study.learning_rates is {rates}; give different ones above 0, or () for none"
        )
    for name, least in {"tune_steps": 1, "tune_images": 1, "resamples": 100, "pictures": 0}.items():
        if options[name] < least:
            raise UserError(f"config.study.{name} is {options[name]}; it must be {least} or more")
    for name, allowed in {
        "together": ("auto", "vmap", "unroll"),
        "lpips": ("auto", "none", *lpips.NETWORKS),
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
