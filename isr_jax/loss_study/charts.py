"""The charts of a study's report: gains with their intervals, and learning curves."""

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from isr_jax.loss_study.results import Results
from isr_jax.loss_study.tables import content_of, has_adversarial
from isr_jax.scoring import METRICS

# The colour-blind safe palette of Okabe and Ito, less the yellow and the black, of which each
# vanishes on one of the two backgrounds.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a6ff0", "#8c6d46")
# Matplotlib knows no currentColor, by which a drawing follows the page into the dark.
INK = "#010203"


class Chart(NamedTuple):
    """A title, what draws it, and its height in inches."""

    title: str
    draw: Callable[[Axes], None]
    height: float


def colours_of(results: Results) -> dict[str, str]:
    """Return a colour for each content loss, with or without an adversarial part."""
    parts = {name: content_of(one) for name, one in results["candidates"].items()}
    order = sorted(set(parts.values()))
    return {name: PALETTE[order.index(part) % len(PALETTE)] for name, part in parts.items()}


def charts_of(results: Results) -> list[Chart]:
    """Return by each metric: final gains, and learning curves against updates and against time."""
    charts, height = [], max(3.2, 0.6 + 0.24 * len(results["candidates"]))
    for name in results["metrics"]:
        heading = METRICS[name].luma
        unit = f" ({METRICS[name].unit.strip()})" if METRICS[name].unit else ""
        title = f"{heading}, gain over bicubic{unit}"
        by_updates = partial(_draw_curves, results=results, metric=name, by_time=False)
        by_time = partial(_draw_curves, results=results, metric=name, by_time=True)
        gains = partial(_draw_gains, results=results, metric=name)
        charts += [
            Chart(f"{title}, 95% intervals", gains, height),
            Chart(f"{title}, by updates", by_updates, height),
            Chart(f"{title}, by seconds of training", by_time, height),
        ]
    return charts


def _draw_gains(axes: Axes, results: Results, metric: str) -> None:
    shown = {n: one for n, one in results["candidates"].items() if not one["diverged"]}
    colours = colours_of(results)
    for y, (name, one) in enumerate(shown.items()):
        mean, low, high = one["gain"][metric]
        axes.plot([low, high], [y, y], color=colours[name], linewidth=2)
        face = "white" if has_adversarial(one) else colours[name]
        axes.plot([mean], [y], "o", color=colours[name], markersize=6, markerfacecolor=face)
    axes.axvline(0, color=INK, linestyle="--", linewidth=0.8)
    axes.set_yticks(range(len(shown)), list(shown))
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=5)  # long numbers, such as 0.0105, need the room
    axes.grid(axis="x", alpha=0.25)


def _draw_curves(axes: Axes, results: Results, metric: str, *, by_time: bool) -> None:
    """Draw means over seeds, with a band of one standard deviation to either side."""
    colours, sign = colours_of(results), METRICS[metric].sign
    for name, one in results["candidates"].items():
        seconds = results["seconds"]["update"][name]
        if one["diverged"] or (by_time and not seconds):
            continue
        x = [point["step"] * (seconds or 0 if by_time else 1) for point in one["curve"]]
        scores = np.array([np.mean(point["scores"][metric], axis=1) for point in one["curve"]])
        gains = sign * (scores - results["bicubic"][metric])
        gains = gains[:, [str(seed) not in one["failed"] for seed in results["seeds"]]]
        mean, spread = gains.mean(axis=1), gains.std(axis=1)
        style = "--" if has_adversarial(one) else "-"
        axes.plot(x, mean, style, color=colours[name], linewidth=1.6, label=name)
        axes.fill_between(x, mean - spread, mean + spread, color=colours[name], alpha=0.12, lw=0)
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


def svg(chart: Chart, number: int) -> str:
    """Return a drawing as SVG that takes the colour of the text around it."""
    # The salt keeps the ids of one drawing apart from those of another, and the same every time.
    with mpl.rc_context(_style(**{"svg.hashsalt": f"chart {number}"})):
        figure = Figure(figsize=(4.6, chart.height), layout="constrained")
        chart.draw(figure.subplots())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    # As large as its place.
    head, rest = drawing.split(">", 1)
    head = " ".join(part for part in head.split() if not part.startswith(("width=", "height=")))
    return f'{head} role="img" aria-label="{chart.title}">{rest}'


def draw_page(charts: Sequence[Chart], file: Path) -> None:
    """Draw all charts in one picture."""
    with mpl.rc_context(_style()):
        rows = len(charts) // 3
        figure = Figure(
            figsize=(15, (charts[0].height + 0.4) * rows), dpi=100, layout="constrained"
        )
        FigureCanvasAgg(figure)
        for axes, chart in zip(figure.subplots(rows, 3, squeeze=False).flat, charts, strict=True):
            chart.draw(axes)
            axes.set_title(chart.title, fontsize=10)
        handles = figure.axes[1].get_legend_handles_labels()
        if handles[0]:
            figure.legend(*handles, loc="outside lower center", ncols=7, frameon=False)
        figure.savefig(file)
