"""The results of a study as plain data: results.json, from which the report is made."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
from jaxtyping import Bool, Float64
from ml_collections import ConfigDict
from scipy.stats import rankdata

from isr_jax.loss_study.comparison import Comparison, compare
from isr_jax.scoring import METRICS

# A seed fell back if it ended so far below its own best validation.
FALL = 0.5  # dB of PSNR-Y


class Scored(NamedTuple):
    """A candidate with the weights of its loss and its outcome, as in outcome.json."""

    name: str
    loss: Mapping[str, Any]
    outcome: Mapping[str, Any]


class CandidateResult(TypedDict):
    """One candidate; of one that diverged, there are no scores, ranks and ties.

    Attributes:
        loss: its weights, config.loss, with the adversarial weight that was chosen.
        learning_rate: the generator's, None where no seed was finite at any.
        searches: what tuning tried, see `tuning.tune`.
        notes: what to know of its tuning.
        diverged: why it has no place, or None: fewer than two of its seeds finished.
        failed: {seed: the update at which it was not finite}.
        fell_back: {seed: dB of PSNR-Y by which it ended below its own best validation}.
        below_bicubic: {seed: dB of PSNR-Y by which it ended below bicubic}.
        curve: {"step", "scores": {metric: [[per image] per seed]}} of each validation.
        scores: the last of them, {metric: [[per image] per seed]}, nan for a failed seed.
        mean, spread: over images and finished seeds; the standard deviation over these seeds of the
            images' mean.
        gain: over bicubic, {metric: [mean, low, high]}; positive is better for every metric.
        rank: by each metric, 1 + the number of candidates ahead without a tie.
        mean_rank: over the metrics, the mean of the ranks by mean gain.
        place: 1 + the number of candidates of better mean rank.
        ties: the candidates that are neither ahead overall nor behind: by as many metrics ahead
            without a tie as behind.
        behind: those that are, overall, behind it.
    """

    loss: Mapping[str, Any]
    learning_rate: float | None
    searches: list[dict[str, Any]]
    notes: list[str]
    diverged: str | None
    failed: dict[str, int]
    fell_back: dict[str, float]
    below_bicubic: dict[str, float]
    curve: list[dict[str, Any]]
    scores: dict[str, list[list[float]]]
    mean: dict[str, float]
    spread: dict[str, float]
    gain: dict[str, list[float]]
    rank: dict[str, int]
    mean_rank: float
    place: int
    ties: list[str]
    behind: list[str]


class Results(TypedDict):
    """results.json. Everything but `seconds` is the same when a study is repeated.

    Attributes:
        verdict: one sentence.
        winner: the candidate of the best mean rank, or None where all diverged.
        leaders: the winner, and those that it is not ahead of.
        best: by each metric, the candidates that none is ahead of without a tie.
        metrics, seeds, images: their names, in the order of the scores.
        bicubic: {metric: mean}.
        candidates: by name, in order of place, those that diverged last.
        differences: a's gain less b's, of each pair by each metric: {"a", "b", "metric", "mean",
            "low", "high", "tied"}.
        seconds: {"update": by candidate, of one run, None where too short to be measured;
            "tuning", "training": of all, with validation and compilation}.
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
    seconds: dict[str, Any]
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
        found = compare(scores * signs, bicubic * signs)
        place = np.asarray(rankdata(found.mean_rank, method="min")).astype(int).tolist()
        order = sorted(range(len(finished)), key=place.__getitem__)
        for i in order:
            results[finished[i].name] = _result(
                finished, i, scores[i], bicubic, found, place[i], names
            )
        for m, name in enumerate(names):
            best[name] = [finished[i].name for i in order if found.rank[i, m] == 1]
        differences = _differences([one.name for one in finished], found, names)
    for one in scored:
        if one.outcome["diverged"]:
            results[one.name] = _without_scores(one, names, bicubic)
    winner = next(iter(results)) if finished else None
    leaders: list[str] = []
    if winner:
        rest = [name for name in results if not results[name]["diverged"] and name != winner]
        leaders = [winner, *(name for name in rest if name not in results[winner]["behind"])]
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
        "seconds": _seconds(scored),
        "config": config.to_dict(),
    }
    summary["verdict"] = _verdict(summary)
    return summary


def _seconds(scored: Sequence[Scored]) -> dict[str, Any]:
    trials = {
        tried["trial"]: tried["seconds"]
        for one in scored
        for search in one.outcome["searches"]
        for tried in search["tried"]
    }
    return {
        "update": {one.name: one.outcome["seconds_per_update"] for one in scored},
        "tuning": math.fsum(trials.values()),
        "training": math.fsum(one.outcome["seconds"] for one in scored),
    }


def _result(
    finished: Sequence[Scored],
    i: int,
    scores: Float64[np.ndarray, "seed image metric"],
    bicubic: Float64[np.ndarray, "image metric"],
    found: Comparison,
    place: int,
    names: Sequence[str],
) -> CandidateResult:
    by_seed = scores.mean(axis=1)
    by_seed = by_seed[np.isfinite(by_seed).all(axis=1)]
    spread = by_seed.std(axis=0, ddof=1) if len(by_seed) > 1 else np.zeros(len(names))

    def others(which: Bool[np.ndarray, " candidate"]) -> list[str]:
        return [other.name for j, other in enumerate(finished) if j != i and which[j]]

    result = _without_scores(finished[i], names, bicubic)
    result["scores"] = result["curve"][-1]["scores"]
    result["mean"] = dict(zip(names, by_seed.mean(axis=0).tolist(), strict=True))
    result["spread"] = dict(zip(names, spread.tolist(), strict=True))
    result["gain"] = dict(zip(names, np.stack(found.gain, axis=-1)[i].tolist(), strict=True))
    result["rank"] = dict(zip(names, found.rank[i].tolist(), strict=True))
    result["mean_rank"] = float(found.mean_rank[i])
    result["place"] = place
    result["ties"] = others(~found.ahead[i] & ~found.ahead[:, i])
    result["behind"] = others(found.ahead[i])
    return result


def _without_scores(
    one: Scored, names: Sequence[str], bicubic: Float64[np.ndarray, "image metric"]
) -> CandidateResult:
    """Return what is known of a candidate whether or not it diverged."""
    outcome = one.outcome
    curve = [
        {"step": point["step"], "scores": _by_metric(point["scores"], names)}
        for point in outcome["curve"]
    ]
    seeds = [str(seed) for seed in outcome["seeds"]]
    psnr = np.array([np.mean(point["scores"]["psnr"], axis=1) for point in curve])
    fell: dict[str, float] = {}
    below: dict[str, float] = {}
    for r, seed in enumerate(seeds if len(psnr) else []):
        if seed in outcome["failed"]:
            continue
        lost, missing = psnr[:, r].max() - psnr[-1, r], bicubic[:, 0].mean() - psnr[-1, r]
        if lost > FALL:
            fell[seed] = float(lost)
        if missing > 0:
            below[seed] = float(missing)
    # Times are in Results.seconds: everything else is the same when a study is repeated.
    searches = [
        search
        | {"tried": [{k: v for k, v in t.items() if k != "seconds"} for t in search["tried"]]}
        for search in outcome["searches"]
    ]
    return {
        "loss": one.loss,
        "learning_rate": outcome["learning_rate"],
        "searches": searches,
        "notes": outcome["notes"],
        "diverged": outcome["diverged"],
        "failed": outcome["failed"],
        "fell_back": fell,
        "below_bicubic": below,
        "curve": curve,
        "scores": {},
        "mean": {},
        "spread": {},
        "gain": {},
        "rank": {},
        "mean_rank": 0.0,
        "place": 0,
        "ties": [],
        "behind": [],
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
    ahead = "".join(
        f"; by {METRICS[name].luma} {best} is ahead"
        for name, best in _ahead_of(winner, results).items()
    )
    return f"Best loss: {winner}{rivals}; it gains {gains} over bicubic {budget}{ahead}{others}."


def _ahead_of(winner: str, results: Results) -> dict[str, str]:
    """Return, of each metric by which the winner is not 1st, the candidate of most gain."""
    finished = {n: one for n, one in results["candidates"].items() if not one["diverged"]}
    return {
        name: max(finished, key=lambda n: finished[n]["gain"][name][0])
        for name in results["metrics"]
        if finished[winner]["rank"][name] > 1
    }


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
