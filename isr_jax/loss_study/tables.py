"""The tables of a study's report, and the words that explain them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from isr_jax.loss_study.results import FALL, CandidateResult, Results
from isr_jax.scoring import METRICS


class Table(NamedTuple):
    """A table's heads, and its rows of text."""

    heads: list[str]
    rows: list[list[str]]


def main_table(results: Results) -> Table:
    """Return every candidate by place: its mean rank, and gains with their intervals."""
    names = results["metrics"]
    rows = []
    for name, one in results["candidates"].items():
        if one["diverged"]:
            rows.append(["diverged", name, "-", *["-"] * len(names)])
            continue
        tie = len(results["leaders"]) > 1 and name in results["leaders"]
        place = f"{one['place']}" + (" (tie)" if tie else "")
        rows.append([place, name, f"{one['mean_rank']:.2f}", *(_gain(one, m) for m in names)])
    gains = [f"{METRICS[name].luma} gain" for name in names]
    return Table(["place", "loss", "mean rank", *gains], rows)


def means_table(results: Results) -> Table:
    """Return the scores, bicubic's last, with what was tuned, and the time of an update."""
    shown = {name: METRICS[name].decimals for name in results["metrics"]}
    rows = []
    for name, one in results["candidates"].items():
        weight, seconds = one["loss"]["adversarial_weight"], results["seconds"]["update"][name]
        rate = f"{one['learning_rate']:g}" if one["learning_rate"] else "-"
        time = f"{1000 * seconds:.1f}" if seconds else "-"
        tail = [rate, f"{weight:g}" if weight else "-", time]
        if not one["diverged"]:
            scores = [
                f"{one['mean'][m]:.{d}f} ± {one['spread'][m]:.{d}f}" for m, d in shown.items()
            ]
            rows.append(["", name, *scores, *tail])
    bicubic = [f"{results['bicubic'][m]:.{d}f}" for m, d in shown.items()]
    rows.append(["", "bicubic", *bicubic, "", "", ""])
    heads = [*(METRICS[name].luma for name in shown), "rate", "adversarial", "ms per update"]
    return Table(["", "loss", *heads], rows)


def _gain(one: CandidateResult, metric: str) -> str:
    decimals = METRICS[metric].decimals
    mean, low, high = (f"{value:+.{decimals}f}" for value in one["gain"][metric])
    first = " (1st)" if one["rank"][metric] == 1 else ""
    return f"{mean} [{low}, {high}]{first}"


def instability_table(results: Results) -> Table:
    """Return how many seeds did not end well, and how far those of a candidate are apart."""
    names, count = results["metrics"], len(results["seeds"])
    rows = []
    for name, one in results["candidates"].items():
        cells = [f"{count - len(one['failed'])} of {count}"]
        cells += [_seeds_of(one[kind]) for kind in ("fell_back", "below_bicubic")]
        rows.append(["", name, *cells, *(_spread(one, metric) for metric in names)])
    spreads = [f"{METRICS[name].luma} spread" for name in names]
    return Table(["", "loss", "finished", "fell back", "ended below bicubic", *spreads], rows)


def _seeds_of(found: Mapping[str, float]) -> str:
    """Return the number of seeds, and the most dB that one of them lost."""
    return f"{len(found)} (by up to {max(found.values()):.2f} dB)" if found else "0"


def _spread(one: CandidateResult, metric: str) -> str:
    return "-" if one["diverged"] else f"{one['spread'][metric]:.{METRICS[metric].decimals}f}"


def tuning_table(results: Results) -> Table | None:
    """Return every value that was tried, with its score, where something was tuned."""
    rows, seen, names = [], [], results["metrics"]
    for name, one in results["candidates"].items():
        for search in one["searches"]:
            trials = [tried["trial"] for tried in search["tried"]]
            if trials in seen:  # of the loss without its adversarial part, which is here too
                continue
            seen.append(trials)
            for tried in search["tried"]:
                scores = [
                    METRICS[m].number(tried["scores"][m]) if m in tried["scores"] else "-"
                    for m in names
                ]
                cells = [_score(tried), f"{tried['finished']}", *scores, _note(tried, search)]
                rows.append([search["of"], name, f"{tried['value']:g}", *cells])
    heads = ["", "loss", "value", "score", "seeds", *(METRICS[m].luma for m in names), ""]
    return Table(heads, rows) if rows else None


def _score(tried: Mapping[str, Any]) -> str:
    return "-" if tried["score"] is None else f"{tried['score']:+.3f}"


def _note(tried: Mapping[str, Any], search: Mapping[str, Any]) -> str:
    if tried["value"] == search["chosen"]:
        return ", ".join(["chosen", *search["notes"]])
    return "" if tried["allowed"] else "costs too much PSNR-Y"


def explain_tuning(results: Results) -> str:
    """Return how values were tried and chosen."""
    study, steps = results["config"]["study"], results["config"]["train"]["steps"]
    return (
        f"Each value was tried for {study['tune_steps'] or -(-steps // 2):,} updates with all "
        f"seeds, and scored on {study['tune_images']} training images that were left out "
        "meanwhile; scores are means over seeds less one standard deviation. A learning rate is "
        "scored by fidelity: the gains over bicubic by PSNR-Y, SSIM-Y and MS-SSIM in units of the "
        "standard deviation of bicubic's scores over the images, averaged. An adversarial weight "
        "is scored by the gain of a perceptual metric, among weights that cost no more than "
        f"{study['psnr_cost']:g} dB of PSNR-Y beside no adversarial part. A seed that is not "
        "finite makes a value worse than any with more finished seeds."
    )


def hours_words(results: Results) -> str:
    """Return how long the study took."""
    parts = [results["seconds"][part] for part in ("tuning", "training")]
    total, tuning, training = (_duration(seconds) for seconds in (sum(parts), *parts))
    split = f": {tuning} of tuning and {training} of final runs" if parts[0] else ""
    return f"The study took {total}{split}, with validation and compilation."


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return (
        f"{seconds / 3600:.1f} hours"
        if minutes >= 60
        else f"{minutes} minute{'s' * (minutes != 1)}"
    )


def differences_table(results: Results) -> Table:
    """Return each pair, with the difference of their gains by each metric."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for one in results["differences"]:
        decimals = METRICS[one["metric"]].decimals
        mean, low, high = (f"{one[key]:+.{decimals}f}" for key in ("mean", "low", "high"))
        tie = " (tie)" if one["tied"] else ""
        pairs.setdefault((one["a"], one["b"]), []).append(f"{mean} [{low}, {high}]{tie}")
    headings = [METRICS[m].luma for m in results["metrics"]]
    return Table(["pair", *headings], [[f"{a} - {b}", *row] for (a, b), row in pairs.items()])


def content_of(one: CandidateResult) -> str:
    """Return the nonzero weights of a loss in words, without its adversarial part."""
    loss = one["loss"]
    parts = [f"{weight:g} {name}" for name, weight in loss["content"].items() if weight]
    others = {
        "{:g} perceptual": loss["perceptual"]["weight"],
        f"{{:g}} lpips ({loss['lpips_network']})": loss["lpips"],
        "{:g} dists": loss["dists"],
        "{:g} ldl": loss["ldl"],
        "{:g} lattice": loss["lattice"],
    }
    return " + ".join(parts + [text.format(weight) for text, weight in others.items() if weight])


def has_adversarial(one: CandidateResult) -> bool:
    """Return whether a loss has an adversarial part."""
    return bool(one["loss"]["adversarial_weight"] or one["loss"]["feature_matching"])


def loss_words(one: CandidateResult) -> str:
    """Return the nonzero weights of a loss in words."""
    loss = one["loss"]
    others = {
        f"{{:g}} adversarial ({loss['adversarial']})": loss["adversarial_weight"],
        "{:g} feature matching": loss["feature_matching"],
        "R1 of gamma {:g}": loss["r1"],
        "pauses below {:g}": loss["d_pause"],
    }
    parts = [text.format(weight) for text, weight in others.items() if weight]
    return " + ".join(filter(None, [content_of(one), *parts]))


def notes_of(results: Results) -> list[str]:
    """Return what is to be known of the tuning of each candidate."""
    found = results["candidates"].items()
    return [f"{name}: {note}." for name, one in found for note in one["notes"]]


EXPLANATION = (
    "Gains are over bicubic after the same number of updates, mean over images and the seeds that "
    "finished, positive when better, with 95% intervals that treat images and seeds as crossed "
    "random effects: they are for other images and other seeds, one at a time. By a metric a loss "
    "is 1st when none is ahead of it by a difference whose interval leaves out 0. Places go by the "
    "mean rank over the metrics; a loss ties with the best when the best is not ahead of it by "
    "more metrics than it is behind. Rate is the generator's learning rate, adversarial the weight "
    "of that part; scores are means ± the standard deviation over seeds."
)
UNSTABLE = (
    f"A seed finished if its loss, gradients and scores were finite; it fell back if it ended more "
    f"than {FALL:g} dB of PSNR-Y below its own best validation. All that finished count above. "
    "Spread is the standard deviation over seeds of the mean over images."
)
