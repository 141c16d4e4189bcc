"""The results of a study as plain data: results.json, from which the report is made."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
from jaxtyping import Float64
from ml_collections import ConfigDict
from scipy.stats import rankdata

from isr_jax.loss_study.comparison import Comparison, compare
from isr_jax.scoring import METRICS


class Scored(NamedTuple):
    """A candidate with the weights of its loss and its outcome, as in outcome.json."""

    name: str
    loss: Mapping[str, Any]
    outcome: Mapping[str, Any]


class CandidateResult(TypedDict):
    """One candidate; where it diverged, only loss, learning_rate, tuning, diverged and curve hold.

    Attributes:
        loss: its weights, config.loss.
        learning_rate: the generator's, None where none was finite.
        tuning: the outcome of each learning rate that was tried.
        diverged: why it counts as diverged, or None.
        curve: {"step", "scores": {metric: [[per image] per seed]}} of each validation.
        scores: the last of them, {metric: [[per image] per seed]}.
        mean, spread: over images and seeds; the standard deviation over seeds of the images' mean.
        gain: over bicubic, {metric: [mean, low, high]}; positive is better for every metric.
        rank: by each metric, 1 + the number of candidates ahead without a tie.
        mean_rank: [mean, low, high].
        place: 1 + the number of candidates of better mean rank.
        ties: the candidates that it is tied with overall.
    """

    loss: Mapping[str, Any]
    learning_rate: float | None
    tuning: list[dict[str, Any]]
    diverged: str | None
    curve: list[dict[str, Any]]
    scores: dict[str, list[list[float]]]
    mean: dict[str, float]
    spread: dict[str, float]
    gain: dict[str, list[float]]
    rank: dict[str, int]
    mean_rank: list[float]
    place: int
    ties: list[str]


class Results(TypedDict):
    """results.json. Everything but `seconds_per_update` is the same when a study is repeated.

    Attributes:
        verdict: one sentence.
        winner: the candidate of the best mean rank, or None where all diverged.
        leaders: the winner, and those tied with it.
        best: by each metric, the candidates that none is ahead of without a tie.
        metrics, seeds, images: their names, in the order of the scores.
        bicubic: {metric: mean}.
        candidates: by name, in order of place, those that diverged last.
        differences: a's gain less b's, of each pair by each metric: {"a", "b", "metric", "mean",
            "low", "high", "tied"}.
        seconds_per_update: by candidate, of one run; None where too short to be measured.
        config: of the study.
    """

    verdict: str
    winner: str | None
    leaders: list[str]
    best: dict[str, list[str]]
    metrics: list[str]
    seeds: list[int]
    images: list[str]
    bicubic: dict[str, float]
    candidates: dict[str, CandidateResult]
    differences: list[dict[str, Any]]
    seconds_per_update: dict[str, float | None]
    config: dict[str, Any]


def best_by_mean_rank(scores: Float64[np.ndarray, "candidate metric"], names: Sequence[str]) -> int:
    """Return the index of the best mean rank over the metrics; of equal ones, of the best PSNR."""
    signs = np.array([METRICS[name].sign for name in names])
    ranks = np.asarray(rankdata(-scores * signs, axis=0)).mean(axis=1)
    return min(range(len(scores)), key=lambda i: (ranks[i], -scores[i, 0]))


def summarise(
    scored: Sequence[Scored],
    bicubic: Float64[np.ndarray, "image metric"],
    names: Sequence[str],
    images: Sequence[str],
    config: ConfigDict,
) -> Results:
    """Compare the candidates that did not diverge, and sum up.

    Args:
        scored: the candidates.
        bicubic: the scores of bicubic interpolation.
        names: of the metrics, the last axis of the scores.
        images: their names.
        config: of the study.
    """
    finished = [one for one in scored if not one.outcome["diverged"]]
    results: dict[str, CandidateResult] = {}
    differences: list[dict[str, Any]] = []
    best: dict[str, list[str]] = {name: [] for name in names}
    if finished:
        signs = np.array([METRICS[name].sign for name in names], np.float64)
        scores = np.array([one.outcome["curve"][-1]["scores"] for one in finished])
        found = compare(scores * signs, bicubic * signs, resamples=config.study.resamples)
        place = np.asarray(rankdata(found.mean_rank.mean, method="min")).astype(int).tolist()
        order = sorted(range(len(finished)), key=place.__getitem__)
        for i in order:
            results[finished[i].name] = _result(finished, i, scores[i], found, place[i], names)
        for m, name in enumerate(names):
            best[name] = [finished[i].name for i in order if found.rank[i, m] == 1]
        differences = _differences([one.name for one in finished], found, names)
    for one in scored:
        if one.outcome["diverged"]:
            results[one.name] = _without_scores(one, names)
    winner = next(iter(results)) if finished else None
    leaders = [winner, *results[winner]["ties"]] if winner else []
    summary: Results = {
        "verdict": "",
        "winner": winner,
        "leaders": leaders,
        "best": best,
        "metrics": list(names),
        "seeds": list(config.study.seeds),
        "images": list(images),
        "bicubic": dict(zip(names, bicubic.mean(axis=0).tolist(), strict=True)),
        "candidates": results,
        "differences": differences,
        "seconds_per_update": {one.name: one.outcome["seconds_per_update"] for one in scored},
        "config": config.to_dict(),
    }
    summary["verdict"] = _verdict(summary)
    return summary


def _result(
    finished: Sequence[Scored],
    i: int,
    scores: Float64[np.ndarray, "seed image metric"],
    found: Comparison,
    place: int,
    names: Sequence[str],
) -> CandidateResult:
    by_seed = scores.mean(axis=1)
    spread = by_seed.std(axis=0, ddof=1) if len(by_seed) > 1 else np.zeros(len(names))
    others = [other.name for j, other in enumerate(finished) if j != i and found.overall_tied[i, j]]
    result = _without_scores(finished[i], names)
    result["scores"] = result["curve"][-1]["scores"]
    result["mean"] = dict(zip(names, by_seed.mean(axis=0).tolist(), strict=True))
    result["spread"] = dict(zip(names, spread.tolist(), strict=True))
    result["gain"] = dict(zip(names, np.stack(found.gain, axis=-1)[i].tolist(), strict=True))
    result["rank"] = dict(zip(names, found.rank[i].tolist(), strict=True))
    result["mean_rank"] = np.stack(found.mean_rank, axis=-1)[i].tolist()
    result["place"] = place
    result["ties"] = others
    return result


def _without_scores(one: Scored, names: Sequence[str]) -> CandidateResult:
    """Return what is known of a candidate whether or not it diverged."""
    outcome = one.outcome
    return {
        "loss": one.loss,
        "learning_rate": outcome["learning_rate"],
        "tuning": outcome["tuning"],
        "diverged": outcome["diverged"],
        "curve": [
            {"step": point["step"], "scores": _by_metric(point["scores"], names)}
            for point in outcome["curve"]
        ],
        "scores": {},
        "mean": {},
        "spread": {},
        "gain": {},
        "rank": {},
        "mean_rank": [],
        "place": 0,
        "ties": [],
    }


def _by_metric(scores: Any, names: Sequence[str]) -> dict[str, list[list[float]]]:
    """Return [seed image metric] as {metric: [[per image] per seed]}."""
    return {name: np.asarray(scores)[..., m].tolist() for m, name in enumerate(names)}


def _differences(
    candidates: Sequence[str], found: Comparison, names: Sequence[str]
) -> list[dict[str, Any]]:
    return [
        {
            "a": a,
            "b": candidates[j],
            "metric": name,
            "mean": float(found.difference.mean[i, j, m]),
            "low": float(found.difference.low[i, j, m]),
            "high": float(found.difference.high[i, j, m]),
            "tied": bool(found.tied[i, j, m]),
        }
        for i, a in enumerate(candidates)
        for j in range(i + 1, len(candidates))
        for m, name in enumerate(names)
    ]


def _verdict(results: Results) -> str:
    """Return the verdict, one sentence."""
    candidates, winner = results["candidates"], results["winner"]
    if winner is None:
        return "No best loss: every candidate diverged."
    gained = candidates[winner]["gain"]
    gains = " and ".join(
        f"{METRICS[name].gain(gained[name][0])}{METRICS[name].unit} {METRICS[name].luma}"
        for name in results["metrics"][:2]
    )
    budget = (
        f"after {results['config']['train']['steps']:,} updates, over {len(results['seeds'])} "
        f"seed{'s' * (len(results['seeds']) > 1)} and {len(results['images'])} held-out images"
    )
    diverged = [name for name, one in candidates.items() if one["diverged"]]
    others = f"; {_listed(diverged)} diverged" if diverged else ""
    ties = results["leaders"][1:]
    if all(candidates[winner]["gain"][name][0] <= 0 for name in results["metrics"]):
        return f"No loss beats bicubic {budget}; {winner} comes closest, with {gains}{others}."
    if len(candidates) - len(diverged) == 1:
        rivals = ", the only one that did not diverge" if diverged else ", the only candidate"
    elif ties:
        rivals = f", statistically tied with {_listed(ties)}"
    else:
        rivals = ", not tied with any other"
    return f"Best loss: {winner}{rivals}; it gains {gains} over bicubic {budget}{others}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
