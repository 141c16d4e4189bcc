"""The report of a study: report.html, one self-contained file; report.md; results.json."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from scipy.ndimage import uniform_filter

from isr_jax.data.examples import ImagePair
from isr_jax.files import write_json, write_text
from isr_jax.loss_study import tables
from isr_jax.loss_study.charts import charts_of, colours_of, draw_page, svg
from isr_jax.loss_study.results import Results
from isr_jax.pages import page_template
from isr_jax.resize import resize_uint8
from isr_jax.scoring import Scorer

CROP = 96  # HR pixels a side


def write(
    run: Path,
    results: Results,
    photos: Sequence[ImagePair],
    pictures: Mapping[str, Sequence[UInt8[np.ndarray, "h w c"]]],
) -> None:
    """Write the report of a study into its folder.

    Args:
        run: the study's folder.
        results: see `results.summarise`.
        photos: the held-out images that are shown.
        pictures: what each candidate that did not diverge makes of them.
    """
    write_json(run / "results.json", _strict(results))
    charts = charts_of(results)
    draw_page(charts, run / "curves.png")
    write_text(run / "report.md", _markdown(results))
    rows = [
        _row(photo, {name: pictures[name][i] for name in results["candidates"] if name in pictures})
        for i, photo in enumerate(photos)
    ]
    page = page_template("isr_jax.loss_study", "report.html").render(
        results=results,
        table=tables.main_table(results),
        means=tables.means_table(results),
        tuning=tables.tuning_table(results),
        instability=tables.instability_table(results),
        hours=tables.hours_words(results),
        differences=tables.differences_table(results),
        losses={name: tables.loss_words(one) for name, one in results["candidates"].items()},
        colours=colours_of(results),
        hollow=[name for name, one in results["candidates"].items() if tables.has_adversarial(one)],
        tuning_explanation=tables.explain_tuning(results),
        charts=[(chart.title, svg(chart, i)) for i, chart in enumerate(charts)],
        rows=rows,
        explanation=tables.EXPLANATION,
        unstable=tables.UNSTABLE,
        notes=tables.notes_of(results),
        config=json.dumps(results["config"], indent=2),
    )
    write_text(run / "report.html", page)


def _strict(value: Any) -> Any:
    """Return a tree with None in place of numbers that are not finite, which JSON lacks."""
    if isinstance(value, dict):
        return {name: _strict(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _markdown(results: Results) -> str:
    def lines(table: tables.Table) -> str:
        rule = ["---"] * len(table.heads)
        return "".join(f"| {' | '.join(row)} |\n" for row in (table.heads, rule, *table.rows))

    losses = tables.Table(
        ["loss", "weights"],
        [[n, tables.loss_words(one)] for n, one in results["candidates"].items()],
    )
    parts = [
        "# Loss study",
        results["verdict"],
        lines(tables.main_table(results)),
        tables.EXPLANATION,
    ]
    parts += [lines(tables.means_table(results)), tables.hours_words(results)]
    reasons = [
        f"{name} diverged: {one['diverged']}."
        for name, one in results["candidates"].items()
        if one["diverged"]
    ]
    parts += [*reasons, "## Instability", lines(tables.instability_table(results)), tables.UNSTABLE]
    parts += ["![Gains and learning curves](curves.png)", lines(losses)]
    tuning = tables.tuning_table(results)
    if tuning:
        parts += ["## What tuning tried", tables.explain_tuning(results), lines(tuning)]
    parts += tables.notes_of(results)
    parts += ["## Differences of gains, a - b", lines(tables.differences_table(results))]
    parts += ["## Configuration", f"```json\n{json.dumps(results['config'], indent=2)}\n```"]
    return "\n\n".join(parts) + "\n"


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


def _row(photo: ImagePair, pictures: Mapping[str, UInt8[np.ndarray, "h w c"]]) -> Row:
    """Return the crops of HR, bicubic, and what each candidate makes of the image."""
    scale = photo.hr.shape[0] // photo.lr.shape[0]
    upscaled = {"bicubic": resize_uint8(photo.lr, scale=scale), **pictures}
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
    """Return where bicubic is furthest from the photo: there, what a network learnt shows."""
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
