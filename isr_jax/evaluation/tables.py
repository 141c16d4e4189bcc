"""An evaluation as tables: for the terminal, as Markdown and as CSV."""

import csv
import io
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from isr_jax.errors import printable
from isr_jax.evaluation.evaluator import Evaluation, ImageScores, SetScores
from isr_jax.scoring import METRICS


def methods_of(result: Evaluation) -> list[Evaluation]:
    """Return the evaluation of the model, or the first folder, and of each other folder."""
    return [result, *result.get("against", ())]


def evaluation_tables(result: Evaluation) -> dict[str, Table]:
    """Return tables by title: one for each method, set and scale, and last one of all means."""
    methods, protocol = methods_of(result), result["protocol"]
    tables = {
        f"{s['name']} x{s['scale']}: {one['model']}, {protocol}": _set_table(s)
        for one in methods
        for s in one["sets"]
    }
    if len(methods) > 1:
        tables[f"Mean PSNR (dB)/SSIM: {protocol}"] = _comparison_table(methods)
    elif tables:
        title = f"Mean PSNR (dB)/SSIM: {result['model']}, {protocol}"
        tables[title] = _means_table(result["sets"])
    return tables


def _set_table(scores: SetScores) -> Table:
    """Return a row per image, and the mean."""
    table = Table("image")
    for name, metric in METRICS.items():
        if name in scores:
            table.add_column(metric.titled(luma=False), justify="right")
    for image in scores["images"]:
        table.add_row(Text(printable(image["name"])), *_shown(image).values())
    table.add_section()
    table.add_row("mean", *_shown(scores).values(), style="bold")
    return table


def _shown(scores: ImageScores | SetScores) -> dict[str, str]:
    """Return each score, rounded."""
    return {name: METRICS[name].number(scores[name]) for name in METRICS if name in scores}


def _means_table(sets: Sequence[SetScores]) -> Table:
    """Return the mean PSNR/SSIM of each set by scale, as papers print them."""
    table = Table("set")
    scales = sorted({scores["scale"] for scores in sets})
    for scale in scales:
        table.add_column(f"x{scale}", justify="right")
    means = {(s["name"], s["scale"]): _shown(s) for s in sets}
    for name in dict.fromkeys(name for name, _ in means):
        cells = [means.get((name, scale), {}) for scale in scales]
        table.add_row(
            Text(printable(name)), *(f"{c['psnr']}/{c['ssim']}" if c else "-" for c in cells)
        )
    return table


def _comparison_table(methods: Sequence[Evaluation]) -> Table:
    """Return a row per method; where one lacks images of a set, the number that it has is said."""
    counts: dict[tuple[str, int], int] = {}
    for scores in (scores for one in methods for scores in one["sets"]):
        key = scores["name"], scores["scale"]
        counts[key] = max(counts.get(key, 0), len(scores["images"]))
    table = Table("method")
    for name, scale in counts:
        table.add_column(Text(printable(f"{name} x{scale}")), justify="right")
    for one in methods:
        means = {(s["name"], s["scale"]): (_shown(s), len(s["images"])) for s in one["sets"]}
        cells = []
        for key, count in counts.items():
            shown, own = means.get(key, ({}, 0))
            cell = f"{shown['psnr']}/{shown['ssim']}" if shown else "-"
            cells.append(cell if own in (0, count) else f"{cell} ({own} of {count})")
        table.add_row(Text(printable(one["model"])), *cells)
    return table


def evaluation_markdown(result: Evaluation) -> str:
    """Return the tables as Markdown."""
    tables = evaluation_tables(result)
    return "\n".join(f"### {title}\n\n{_markdown(tables[title])}" for title in tables)


def _markdown(table: Table) -> str:
    heads = [str(column.header) for column in table.columns]
    rules = ["---:" if column.justify == "right" else "---" for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    lines = ([str(cell).replace("|", "\\|") for cell in row] for row in (heads, rules, *rows))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def evaluation_csv(result: Evaluation) -> str:
    """Return CSV, unrounded: a line per image and per mean, with model, protocol, set and scale."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    methods = methods_of(result)
    every = [scores for one in methods for scores in one["sets"]]
    names = [name for name in METRICS if all(name in scores for scores in every)]
    writer.writerow(["model", "protocol", "set", "scale", "image", *names])
    for one in methods:
        for scores in one["sets"]:
            key = [one["model"], one["protocol"], scores["name"], scores["scale"]]
            for row in (*scores["images"], {**scores, "name": "mean"}):
                writer.writerow([*key, row["name"], *(row[name] for name in names)])
    return text.getvalue()
