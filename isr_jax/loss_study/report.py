"""The report of a study: report.html, one self-contained file; report.md; results.json."""

import base64
import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from scipy.ndimage import uniform_filter

from isr_jax.data.examples import ImagePair
from isr_jax.loss_study.results import CandidateResult, Results
from isr_jax.pages import page_template
from isr_jax.resize import resize_uint8
from isr_jax.scoring import METRICS, Scorer

# The colour-blind safe palette of Okabe and Ito, less the yellow and the black, of which each
# vanishes on one of the two backgrounds.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a6ff0", "#8c6d46")
# Matplotlib knows no currentColor, by which a drawing follows the page into the dark.
INK = "#010203"
CROP = 96  # HR pixels a side


def write(run: Path, results: Results, photos: Sequence[ImagePair]) -> None:
    """Write the report of a study into its folder.

    Args:
        run: the study's folder, with candidates/NAME/images/I.png of each that did not diverge.
        results: see `results.summarise`.
        photos: the held-out images that are shown, in the order of those files.
    """
    (run / "results.json").write_text(json.dumps(_strict(results), indent=1) + "\n")
    charts = _charts(results)
    _draw_page(charts, run / "curves.png")
    (run / "report.md").write_text(_markdown(results))
    rows = [_row(run, results, photo, i) for i, photo in enumerate(photos)]
    page = page_template("isr_jax.loss_study", "report.html").render(
        results=results,
        table=_table(results),
        means=_means(results),
        tuning=_tuning(results),
        differences=_differences(results),
        losses={name: _loss(one) for name, one in results["candidates"].items()},
        colours=_colours(results),
        charts=[(chart.title, _svg(chart, i)) for i, chart in enumerate(charts)],
        rows=rows,
        explanation=EXPLANATION,
        config=json.dumps(results["config"], indent=2),
    )
    (run / "report.html").write_text(page)


def _strict(value: Any) -> Any:
    """Return a tree with None in place of numbers that are not finite, which JSON lacks."""
    if isinstance(value, dict):
        return {name: _strict(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


# Tables


class Table(NamedTuple):
    """A table's heads, and its rows of text."""

    heads: list[str]
    rows: list[list[str]]


def _table(results: Results) -> Table:
    """Every candidate by place: gains with their intervals, ranks, time."""
    names = results["metrics"]
    gains = [f"{METRICS[name].luma} gain" for name in names]
    rows = []
    for name, one in results["candidates"].items():
        rate = f"{one['learning_rate']:g}" if one["learning_rate"] else "-"
        seconds = results["seconds_per_update"][name]
        time = f"{1000 * seconds:.1f}" if seconds else "-"
        if one["diverged"]:
            rows.append(["diverged", name, *["-"] * len(names), "-", rate, time])
            continue
        tie = len(results["leaders"]) > 1 and name in results["leaders"]
        place = f"{one['place']}" + (" (tie)" if tie else "")
        rank, low, high = one["mean_rank"]
        cells = [_gain(one, metric) for metric in names]
        rows.append([place, name, *cells, f"{rank:.2f} [{low:.2f}, {high:.2f}]", rate, time])
    return Table(["place", "loss", *gains, "mean rank", "rate", "ms per update"], rows)


def _means(results: Results) -> Table:
    """Return the scores, bicubic's last."""
    shown = {name: METRICS[name].decimals for name in results["metrics"]}
    rows = [
        ["", name]
        + [f"{one['mean'][m]:.{d}f} ± {one['spread'][m]:.{d}f}" for m, d in shown.items()]
        for name, one in results["candidates"].items()
        if not one["diverged"]
    ]
    rows.append(["", "bicubic", *(f"{results['bicubic'][m]:.{d}f}" for m, d in shown.items())])
    return Table(["", "loss", *(METRICS[name].luma for name in shown)], rows)


def _gain(one: CandidateResult, metric: str) -> str:
    decimals = METRICS[metric].decimals
    mean, low, high = (f"{value:+.{decimals}f}" for value in one["gain"][metric])
    first = " (1st)" if one["rank"][metric] == 1 else ""
    return f"{mean} [{low}, {high}]{first}"


def _tuning(results: Results) -> Table | None:
    """Return the scores of each learning rate, where several were tried."""
    tried = {name: one["tuning"] for name, one in results["candidates"].items() if one["tuning"]}
    if not tried:
        return None
    rows = []
    for name, trials in tried.items():
        for trial in trials:
            chosen = trial["learning_rate"] == results["candidates"][name]["learning_rate"]
            edge = chosen and trial["learning_rate"] in (
                min(t["learning_rate"] for t in trials),
                max(t["learning_rate"] for t in trials),
            )
            scores = (
                [f"{trial['scores'][m]:.{METRICS[m].decimals}f}" for m in results["metrics"]]
                if trial["scores"]
                else ["not finite"] * len(results["metrics"])
            )
            note = "chosen, at the edge of what was tried" if edge else "chosen" if chosen else ""
            rows.append([name, f"{trial['learning_rate']:g}", *scores, note])
    headings = [METRICS[m].luma for m in results["metrics"]]
    return Table(["loss", "learning rate", *headings, ""], rows)


def _differences(results: Results) -> Table:
    """Each pair, with the difference of their gains by each metric."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for one in results["differences"]:
        decimals = METRICS[one["metric"]].decimals
        mean, low, high = (f"{one[key]:+.{decimals}f}" for key in ("mean", "low", "high"))
        tie = " (tie)" if one["tied"] else ""
        pairs.setdefault((one["a"], one["b"]), []).append(f"{mean} [{low}, {high}]{tie}")
    headings = [METRICS[m].luma for m in results["metrics"]]
    return Table(["pair", *headings], [[f"{a} - {b}", *row] for (a, b), row in pairs.items()])


def _loss(one: CandidateResult) -> str:
    """Return the nonzero weights of a loss in words."""
    loss = one["loss"]
    parts = [f"{weight:g} {name}" for name, weight in loss["content"].items() if weight]
    others = {
        "{:g} perceptual": loss["perceptual"]["weight"],
        f"{{:g}} lpips ({loss['lpips_network']})": loss["lpips"],
        "{:g} dists": loss["dists"],
        "{:g} ldl": loss["ldl"],
        f"{{:g}} adversarial ({loss['adversarial']})": loss["adversarial_weight"],
        "{:g} feature matching": loss["feature_matching"],
        "R1 of gamma {:g}": loss["r1"],
        "pauses below {:g}": loss["d_pause"],
    }
    return " + ".join(parts + [text.format(weight) for text, weight in others.items() if weight])


def _markdown(results: Results) -> str:
    def lines(table: Table) -> str:
        rule = ["---"] * len(table.heads)
        return "".join(f"| {' | '.join(row)} |\n" for row in (table.heads, rule, *table.rows))

    losses = Table(
        ["loss", "weights"], [[n, _loss(one)] for n, one in results["candidates"].items()]
    )
    parts = ["# Loss study", results["verdict"], lines(_table(results)), EXPLANATION]
    parts += [lines(_means(results))]
    reasons = [
        f"{name} diverged: {one['diverged']}."
        for name, one in results["candidates"].items()
        if one["diverged"]
    ]
    parts += [*reasons, "![Gains and learning curves](curves.png)", lines(losses)]
    tuning = _tuning(results)
    if tuning:
        parts += ["## Learning rates that were tried", lines(tuning)]
    parts += ["## Differences of gains, a - b", lines(_differences(results))]
    parts += ["## Configuration", f"```json\n{json.dumps(results['config'], indent=2)}\n```"]
    return "\n\n".join(parts) + "\n"


EXPLANATION = (
    "Gains are over bicubic after the same number of updates, mean over images and seeds, positive "
    "when better, with 95% intervals of a paired bootstrap over images and seeds. By a metric a "
    "loss is 1st when none is ahead of it by a difference whose interval leaves out 0. Places "
    "go by the mean rank over the metrics; a loss ties with the best when the interval of the "
    "difference of their mean ranks holds 0. Rate is the generator's learning rate; scores are "
    "means ± the standard deviation over seeds."
)


# Charts


class Chart(NamedTuple):
    """A title, and what draws it."""

    title: str
    draw: Callable[[Axes], None]


def _colours(results: Results) -> dict[str, str]:
    # By name, so that a loss keeps its colour whatever its place.
    names = sorted(results["candidates"])
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}


def _charts(results: Results) -> list[Chart]:
    """By each metric: final gains, and learning curves against updates and against time."""
    charts = []
    for name in results["metrics"]:
        heading = METRICS[name].luma
        unit = f" ({METRICS[name].unit.strip()})" if METRICS[name].unit else ""
        title = f"{heading}, gain over bicubic{unit}"
        by_updates = partial(_draw_curves, results=results, metric=name, by_time=False)
        by_time = partial(_draw_curves, results=results, metric=name, by_time=True)
        charts += [
            Chart(f"{title}, 95% intervals", partial(_draw_gains, results=results, metric=name)),
            Chart(f"{title}, by updates", by_updates),
            Chart(f"{title}, by seconds of training", by_time),
        ]
    return charts


def _draw_gains(axes: Axes, results: Results, metric: str) -> None:
    shown = {n: one for n, one in results["candidates"].items() if not one["diverged"]}
    colours = _colours(results)
    for y, (name, one) in enumerate(shown.items()):
        mean, low, high = one["gain"][metric]
        axes.plot([low, high], [y, y], color=colours[name], linewidth=2)
        axes.plot([mean], [y], "o", color=colours[name], markersize=6)
    axes.set_yticks(range(len(shown)), list(shown))
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=5)  # long numbers, such as 0.0105, need the room
    axes.grid(axis="x", alpha=0.25)


def _draw_curves(axes: Axes, results: Results, metric: str, *, by_time: bool) -> None:
    """Means over seeds, with a band of one standard deviation to either side."""
    colours, sign = _colours(results), METRICS[metric].sign
    for name, one in results["candidates"].items():
        seconds = results["seconds_per_update"][name]
        if one["diverged"] or (by_time and not seconds):
            continue
        x = [point["step"] * (seconds or 0 if by_time else 1) for point in one["curve"]]
        scores = np.array([np.mean(point["scores"][metric], axis=1) for point in one["curve"]])
        gains = sign * (scores - results["bicubic"][metric])
        mean, spread = gains.mean(axis=1), gains.std(axis=1)
        axes.plot(x, mean, color=colours[name], linewidth=1.6, label=name)
        axes.fill_between(x, mean - spread, mean + spread, color=colours[name], alpha=0.18, lw=0)
    axes.axhline(0, color=INK, linestyle="--", linewidth=0.8)
    axes.set_xlabel("seconds of training, one run" if by_time else "updates")
    axes.grid(alpha=0.25)


def _style(**more: Any) -> Any:
    ink = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(ink, INK),
        "svg.fonttype": "none",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        **more,
    }


def _svg(chart: Chart, number: int) -> str:
    """Return a drawing as SVG that takes the colour of the text around it."""
    # The salt keeps the ids of one drawing apart from those of another, and the same every time.
    with mpl.rc_context(_style(**{"svg.hashsalt": f"chart {number}"})):
        figure = Figure(figsize=(4.6, 3.2), layout="constrained")
        chart.draw(figure.subplots())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    # As large as its place.
    head, rest = drawing.split(">", 1)
    head = " ".join(part for part in head.split() if not part.startswith(("width=", "height=")))
    return f'{head} role="img" aria-label="{chart.title}">{rest}'


def _draw_page(charts: Sequence[Chart], file: Path) -> None:
    """All charts in one picture."""
    with mpl.rc_context(_style()):
        rows = len(charts) // 3
        figure = Figure(figsize=(15, 3.6 * rows), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        for axes, chart in zip(figure.subplots(rows, 3, squeeze=False).flat, charts, strict=True):
            chart.draw(axes)
            axes.set_title(chart.title, fontsize=10)
        handles = figure.axes[1].get_legend_handles_labels()
        if handles[0]:
            figure.legend(*handles, loc="outside lower center", ncols=8, frameon=False)
        figure.savefig(file)


# Pictures


class Cell(NamedTuple):
    """A zoomed crop: its name, what is said of the whole image, and the PNG as a data URI."""

    name: str
    caption: str
    uri: str


class Row(NamedTuple):
    """The crops of one image."""

    name: str
    cells: list[Cell]


def _row(run: Path, results: Results, photo: ImagePair, number: int) -> Row:
    """HR, bicubic, and the first seed of each candidate."""
    scale = results["config"]["scale"]
    upscaled = {"bicubic": resize_uint8(photo.lr, scale=scale)}
    for name, one in results["candidates"].items():
        file = run / "candidates" / name / "images" / f"{number}.png"
        if not one["diverged"]:
            mode = "RGB" if photo.hr.shape[2] == 3 else "L"
            upscaled[name] = np.atleast_3d(np.asarray(Image.open(file).convert(mode)))
    window = _window(photo.hr, upscaled["bicubic"])
    cells = [Cell("HR", "ground truth", _uri(photo.hr[window]))]
    for name, image in upscaled.items():
        scores = Scorer(scale).image(image, photo.hr)
        caption = f"{scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}"
        cells.append(Cell(name, caption, _uri(image[window])))
    return Row(Path(photo.name).stem, cells)


def _window(
    hr: UInt8[np.ndarray, "h w c"], bicubic: UInt8[np.ndarray, "h w c"]
) -> tuple[slice, slice]:
    """Where bicubic is furthest from the photograph: there, what a network learnt shows."""
    side = min(CROP, *hr.shape[:2])
    error = np.abs(hr.astype(np.float64) - bicubic).mean(axis=2)
    lead = side // 2
    inner = uniform_filter(error, side)[lead : hr.shape[0] - side + lead + 1]
    inner = inner[:, lead : hr.shape[1] - side + lead + 1]
    y, x = np.unravel_index(np.argmax(inner), inner.shape)
    return slice(int(y), int(y) + side), slice(int(x), int(x) + side)


def _uri(image: UInt8[np.ndarray, "h w c"]) -> str:
    data = io.BytesIO()
    Image.fromarray(image if image.shape[2] == 3 else image[..., 0]).save(
        data, format="PNG", optimize=True
    )
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
