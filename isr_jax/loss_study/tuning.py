"""Tuning: the learning rate of a candidate, and the weight of its adversarial part, over all seeds.

A trial trains every seed for at least half of the study's updates, and is scored on training images
that are held out meanwhile. A grid whose edge is best gets a value beyond it, until none is.

A learning rate is scored by fidelity: the gains over bicubic by PSNR, SSIM and MS-SSIM, each in
units of the standard deviation of bicubic's scores over the images, averaged (Glass's delta); mean
over seeds less one standard deviation. A perceptual metric would reward the noise of a high rate.

By fidelity the best adversarial weight is none. So a weight is scored by a perceptual metric, among
those that cost no more than `study.psnr_cost` beside the same loss without an adversarial part. The
rate of that loss is tuned first, then the weight at this rate, then the rate at this weight.

Source: Glass 1976, "Primary, Secondary, and Meta-Analysis of Research", Educational Researcher 5
(the control group's deviation as the unit); Blau et al. 2018, "The 2018 PIRM Challenge on
Perceptual Image Super-Resolution", section 2 (the best perceptual score within bounds of
distortion).
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from ml_collections import ConfigDict

from isr_jax.data.examples import ImagePair
from isr_jax.files import read_json, write_json
from isr_jax.loss_study.candidates import Candidate, tune_steps, twin
from isr_jax.loss_study.runs import Training, Validation, train_runs
from isr_jax.scoring import METRICS

FIDELITY = ("psnr", "ssim", "ms_ssim")
# Those that compare with the HR image first: they are harder to please with noise.
PERCEPTUAL = ("dists", "lpips", "niqe")

# What makes a trial better than another; compared from the first number on.
Rank = tuple[float, ...]


class Bench(NamedTuple):
    """What the trials of all candidates share.

    Attributes:
        config: of the study.
        training: what all runs share.
        photos: the training images that are not held out.
        validation: the training images that are held out.
        bicubic: its scores of those, in the order of `validation.names`.
        data: fingerprint of the training images.
        folder: where each trial is kept, as JSON.
        say: prints a line.
    """

    config: ConfigDict
    training: Training
    photos: Sequence[ImagePair]
    validation: Validation
    bicubic: Float64[np.ndarray, "image metric"]
    data: str
    folder: Path
    say: Callable[[str], None]

    @property
    def perceptual(self) -> str | None:
        """The metric by which adversarial weights are chosen; None where none is at hand."""
        return next((name for name in PERCEPTUAL if name in self.validation.names), None)


def tune(candidate: Candidate, bench: Bench, *, title: str) -> dict[str, Any]:
    """Tune a candidate; trials that were done before are read.

    Returns:
        {"learning_rate", "adversarial_weight", "searches", "notes"}: the chosen ones, the rate None
        where no seed was finite at any; what was tried, see `_search`; and what to know of it.
    """
    run, notes = candidate.config, []
    rate, weight = run.g_optimizer.learning_rate, run.loss.adversarial_weight
    searches: list[dict[str, Any]] = []

    def tune_rate(config: ConfigDict, start: Sequence[float], what: str) -> float:
        """Add a search for the learning rate of a config, and return the best."""
        searches.append(_search_rate(config, start, bench, title=title, what=what))
        return searches[-1]["chosen"]

    weights = candidate.weights if bench.perceptual else ()
    if candidate.weights and not weights:
        notes.append(
            f"the adversarial weight {weight:g} is not tuned: no perceptual metric is at hand"
        )
    alone = twin(run)
    if candidate.rates:
        config, what = (alone, "learning rate, no adversarial part") if weights else (run, "")
        rate = tune_rate(config, candidate.rates, what or "learning rate")
    if weights:
        searches.append(_search_weight(run, alone, weights, rate, bench, title=title))
        weight = searches[-1]["chosen"]
        if candidate.rates:
            at_weight = run.copy_and_resolve_references()
            at_weight.loss.adversarial_weight = weight
            start = _around(rate, [one["value"] for one in searches[0]["tried"]])
            rate = tune_rate(at_weight, start, f"learning rate, adversarial weight {weight:g}")
    for search in searches:
        notes += [f"{search['of']}: {note}" for note in search["notes"]]
    finished = [one["finished"] for one in searches[-1]["tried"]] if searches else [1]
    return {
        "learning_rate": rate if any(finished) else None,
        "adversarial_weight": weight,
        "searches": searches,
        "notes": notes,
    }


def widen(
    start: Sequence[float], rank: Callable[[float], Rank], *, most: int, none: Rank | None = None
) -> tuple[dict[float, Rank], bool]:
    """Try values of a geometric grid, and further ones while the best lies at the edge.

    Args:
        start: two or more values > 0.
        rank: value -> how good it is.
        most: values tried beyond the first ones, at most.
        none: how good 0 is, where the value may be 0: a neighbour of the smallest value. Then
            smaller ones are tried only while the best is worse than 0 in more than its last number.

    Returns:
        What each value is worth, in the order of the trials, and whether the best is at the edge.
    """
    tried = {value: rank(value) for value in sorted(start)}
    for _ in range(most):
        beyond = _beyond(tried, none)
        if beyond is None:
            break
        tried[beyond] = rank(beyond)
    return tried, _beyond(tried, none) is not None


def best_of(tried: Mapping[float, Rank]) -> float:
    """Return the best value; of equal ones the smallest."""
    return max(tried, key=lambda value: (tried[value], -value))


def _beyond(tried: Mapping[float, Rank], none: Rank | None) -> float | None:
    """Return the next value beyond the edge where the best is; None where it is inside."""
    values, best = sorted(tried), best_of(tried)
    if best == values[-1]:
        beyond = values[-1] ** 2 / values[-2]
    elif best == values[0] and (none is None or tried[best][:-1] < none[:-1]):
        beyond = values[0] ** 2 / values[1]
    else:
        return None
    beyond = float(f"{beyond:.6g}")
    return None if beyond in tried else beyond


def _around(value: float, tried: Sequence[float]) -> list[float]:
    """Return a value with its neighbours of those that were tried."""
    ordered = sorted(tried)
    i = ordered.index(value)
    return ordered[max(0, i - 1) : i + 2]


def _search_rate(
    config: ConfigDict, start: Sequence[float], bench: Bench, *, title: str, what: str
) -> dict[str, Any]:
    """Search for the learning rate of most fidelity."""
    unit = _yardstick(bench)
    trials: dict[float, dict[str, Any]] = {}

    def rank(rate: float) -> Rank:
        trials[rate] = _trial(config, rate, bench, title=title)
        return fidelity(trials[rate]["scores"], bicubic=_bicubic(bench), unit=unit)

    tried, edge = widen(start, rank, most=bench.config.study.widenings)
    return _search(what, "fidelity", tried, trials, edge=edge)


def _search_weight(
    config: ConfigDict,
    alone: ConfigDict,
    start: Sequence[float],
    rate: float,
    bench: Bench,
    *,
    title: str,
) -> dict[str, Any]:
    """Search for the best perceptual score at a bounded cost, beside the loss alone."""
    metric, bound = str(bench.perceptual), bench.config.study.psnr_cost
    bicubic = _bicubic(bench)
    trials = {0.0: _trial(alone, rate, bench, title=title)}
    without = means_of(trials[0.0]["scores"])["psnr"]
    ranks: dict[str, Any] = {"metric": metric, "bicubic": bicubic, "least": without - bound}

    def rank(weight: float) -> Rank:
        run = config.copy_and_resolve_references()
        run.loss.adversarial_weight = weight
        trials[weight] = _trial(run, rate, bench, title=title)
        return perception(trials[weight]["scores"], **ranks)

    none = perception(trials[0.0]["scores"], **ranks)
    tried, edge = widen(start, rank, most=bench.config.study.widenings, none=none)
    what = f"adversarial weight, learning rate {rate:g}"
    search = _search(what, metric, tried, trials, edge=edge)
    best = tried[search["chosen"]]
    if not best[1]:
        search["notes"].append(f"each costs more than {bound:g} dB of PSNR-Y")
    elif best <= none:
        search["notes"].append("none is better than no adversarial part")
    entry = _entry(0.0, none, trials[0.0])
    return search | {"tried": [entry, *search["tried"]]}


def _search(
    what: str,
    by: str,
    tried: Mapping[float, Rank],
    trials: Mapping[float, dict[str, Any]],
    *,
    edge: bool,
) -> dict[str, Any]:
    """Return a search as JSON.

    {"of": what was searched, "by": what scored it, "tried": [{"value", "finished", "score",
    "allowed", "scores": {metric: mean}, "seconds", "trial"}], "chosen", "edge", "notes"}
    """
    rows = [_entry(value, tried[value], trials[value]) for value in sorted(tried)]
    notes = ["the best is at the edge of what was tried"] if edge else []
    return {
        "of": what,
        "by": by,
        "tried": rows,
        "chosen": best_of(tried),
        "edge": edge,
        "notes": notes,
    }


def _entry(value: float, rank: Rank, trial: Mapping[str, Any]) -> dict[str, Any]:
    allowed = bool(rank[1]) if len(rank) == 3 else True
    return {
        "value": value,
        "finished": int(rank[0]),
        "allowed": allowed,
        "score": rank[-1] if allowed and np.isfinite(rank[-1]) else None,
        "scores": means_of(trial["scores"]) if rank[0] else {},
        "seconds": trial["seconds"],
        "trial": trial["name"],
    }


# Scores of a trial: by metric, the mean over the images of each seed, None where it has none.
Seeds = Mapping[str, Sequence[float | None]]


def fidelity(scores: Seeds, *, bicubic: Mapping[str, float], unit: Mapping[str, float]) -> Rank:
    """Rank a trial by its seeds that are finite, then by their fidelity less a deviation."""
    by_metric = [(_finite(scores[name]) - bicubic[name]) / unit[name] for name in FIDELITY]
    values = np.mean(by_metric, axis=0)
    return (float(len(values)), _cautious(values))


def perception(scores: Seeds, *, metric: str, bicubic: Mapping[str, float], least: float) -> Rank:
    """Rank a trial by its seeds that are finite, then by whether PSNR is enough, then by a metric.

    Where PSNR is not enough, the last number is PSNR: less weight is better.
    """
    seeds, psnr = _finite(scores["psnr"]), means_of(scores)["psnr"]
    if not psnr >= least:
        return (float(len(seeds)), 0.0, psnr)
    gains = METRICS[metric].sign * (_finite(scores[metric]) - bicubic[metric])
    return (float(len(seeds)), 1.0, _cautious(gains))


def means_of(scores: Seeds) -> dict[str, float]:
    """Return the mean over the seeds that are finite; -inf where none is."""
    values = {name: _finite(seeds) for name, seeds in scores.items()}
    return {name: float(x.mean()) if len(x) else -np.inf for name, x in values.items()}


def _finite(seeds: Sequence[float | None]) -> Float64[np.ndarray, " n"]:
    return np.array([value for value in seeds if value is not None], np.float64)


def _cautious(values: Float64[np.ndarray, " n"]) -> float:
    """Return the mean less one standard deviation."""
    if not len(values):
        return -np.inf
    return float(values.mean() - (values.std(ddof=1) if len(values) > 1 else 0.0))


def _bicubic(bench: Bench) -> dict[str, float]:
    return dict(zip(bench.validation.names, bench.bicubic.mean(axis=0).tolist(), strict=True))


def _yardstick(bench: Bench) -> dict[str, float]:
    """Return the standard deviation over images of bicubic's scores; 1 where they are all equal."""
    spread = bench.bicubic.std(axis=0, ddof=1)
    units = np.where(spread > 0, spread, 1.0).tolist()
    return dict(zip(bench.validation.names, units, strict=True))


def shortened(config: ConfigDict, steps: int) -> ConfigDict:
    """Return a config of fewer updates, with all that is counted in updates in proportion."""
    run = config.copy_and_resolve_references()

    def scaled(updates: int) -> int:
        return round(updates * steps / config.train.steps)

    for name in ("g_optimizer", "d_optimizer"):
        run[name].warmup_steps = scaled(run[name].warmup_steps)
        run[name].milestones = tuple(scaled(updates) for updates in run[name].milestones)
    run.loss.adversarial_from = scaled(run.loss.adversarial_from)
    run.train.ema_from = scaled(run.train.ema_from)
    run.train.steps = run.train.validate_every = run.train.checkpoint_every = steps
    return run


def _trial(config: ConfigDict, rate: float, bench: Bench, *, title: str) -> dict[str, Any]:
    """Train all seeds at a learning rate, or read what was done before.

    Candidates that need the same trial share it: it is named by all that it depends on.
    """
    seeds, names = tuple(bench.config.study.seeds), bench.validation.names
    run = shortened(config, tune_steps(bench.config))
    run.g_optimizer.learning_rate = rate
    identity = {
        "run": run.to_dict(),
        "seeds": seeds,
        "metrics": names,
        "trained": [photo.name for photo in bench.photos],
        "held_out": [photo.name for photo in bench.validation.photos],
        "data": bench.data,
    }
    text = json.dumps(identity, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    file = bench.folder / f"{name}.json"
    done = read_json(file)
    if done:
        return done
    weight = run.loss.adversarial_weight
    at = f"learning rate {rate:g}" + (f", adversarial weight {weight:g}" if weight else "")
    course = train_runs(
        run,
        bench.training,
        seeds=seeds,
        photos=bench.photos,
        validation=bench.validation,
        title=f"{title}, {at}",
    )
    values = np.full((len(seeds), len(names)), np.nan)
    if course.curve:
        values = np.mean(course.curve[-1]["scores"], axis=1)
    values[~np.isfinite(values).all(axis=1)] = np.nan
    by_seed = [[None if np.isnan(x) else x for x in one] for one in values.tolist()]
    trial = {
        "name": name,
        "identity": identity,
        "scores": {metric: [one[m] for one in by_seed] for m, metric in enumerate(names)},
        "failed": {str(seeds[int(r)]): step for r, step in course.failed.items()},
        "seconds": course.seconds,
    }
    write_json(file, trial)
    means, finished = means_of(trial["scores"]), int(np.isfinite(values).all(axis=1).sum())
    scored = ", ".join(METRICS[metric].score(mean) for metric, mean in means.items() if finished)
    bench.say(f"{title}: {at}: {finished} of {len(seeds)} seeds finished; {scored or 'no score'}")
    return trial
