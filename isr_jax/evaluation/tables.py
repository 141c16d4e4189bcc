"""An evaluation as tables: for the terminal, as Markdown and as CSV."""

import csv
import io
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from isr_jax.errors import printable
from isr_jax.evaluation.evaluator import Evaluation, ImageScores, SetScores
from isr_jax.scoring import METRICS


def evaluation_tables(result: Evaluation) -> dict[str, Table]:
    """Return tables by title: one for each set and scale, and last one of all means."""
    subject = f"{result['model']}, {result['protocol']}"
    tables = {f"{s['name']} x{s['scale']}: {subject}": _set_table(s) for s in result["sets"]}
    return {**tables, f"Mean PSNR (dB)/SSIM: {subject}": _means_table(result["sets"])}


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
    names = [name for name in METRICS if all(name in scores for scores in result["sets"])]
    writer.writerow(["model", "protocol", "set", "scale", "image", *names])
    for scores in result["sets"]:
        key = [result["model"], result["protocol"], scores["name"], scores["scale"]]
        for row in (*scores["images"], {**scores, "name": "mean"}):
            writer.writerow([*key, row["name"], *(row[name] for name in names)])
    return text.getvalue()
