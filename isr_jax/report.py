"""Pictures of a run: comparison panels, training curves, and the closing table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.console import Console
from rich.table import Table

from isr_jax import metrics
from isr_jax.data.sources import Photo
from isr_jax.record import read_records
from isr_jax.resize import resize_uint8

Image = UInt8[np.ndarray, "h w 3"]

# The colour-blind safe palette of Okabe and Ito.
BLUE, ORANGE, GREEN, RED, GRAY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7F7F7F"


def busiest(image: Image, side: int) -> tuple[int, int]:
    """Top-left corner (y, x) of the side x side window in which neighbouring pixels differ most."""
    gray = image.astype(np.float32).mean(axis=-1)
    change = np.zeros_like(gray)
    change[:, 1:] += np.abs(np.diff(gray, axis=1))
    change[1:] += np.abs(np.diff(gray, axis=0))
    total = np.pad(change, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    window = total[side:, side:] - total[:-side, side:] - total[side:, :-side]
    window += total[:-side, :-side]
    y, x = np.unravel_index(int(window.argmax()), window.shape)
    return int(y), int(x)


def panel(
    path: Path, photos: Sequence[Photo], enlarged: Sequence[Image], *, scale: int, most: int = 4
) -> None:
    """Draw LR (nearest) | bicubic | SR | HR with a zoomed detail, two rows for each photograph.

    Args:
        path: of the PNG to write.
        photos: held-out photographs with their LR images.
        enlarged: the generator's image of each.
        scale: the factor of enlargement.
        most: draw the first so many.
    """
    count = min(most, len(photos))
    heights = [
        ratio for photo in photos[:count] for ratio in (photo.hr.shape[0] / photo.hr.shape[1], 1.0)
    ]
    column = 3.2
    figure = Figure(figsize=(4 * column, sum(heights) * column + 0.45 * 2 * count + 0.2), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 * count, 4, squeeze=False, height_ratios=heights)
    for row, (photo, sr) in enumerate(zip(photos[:count], enlarged, strict=False)):
        versions = {
            f"{photo.name}: LR, nearest": resize_uint8(photo.lr, scale=scale, method="nearest"),
            "bicubic": resize_uint8(photo.lr, scale=scale),
            "SR": sr,
            "HR": photo.hr,
        }
        side = min(96, *photo.hr.shape[:2])
        y, x = busiest(photo.hr, side)
        for column_index, (name, image) in enumerate(versions.items()):
            whole, detail = axes[2 * row, column_index], axes[2 * row + 1, column_index]
            _show(whole, image, name + _score(image, photo.hr, scale))
            whole.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=RED, linewidth=1.5))
            _show(detail, image[y : y + side, x : x + side], "")
    figure.tight_layout(pad=0.4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _score(image: Image, hr: Image, scale: int) -> str:
    if image is hr:
        return ""
    scores = metrics.measure(image, hr, crop=scale)
    return f"\n{scores.psnr:.2f} dB, SSIM {scores.ssim:.4f}"


def _show(axes: Axes, image: Image, title: str) -> None:
    axes.imshow(image, interpolation="nearest", aspect="equal")
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def curves(run: Path) -> None:
    """Draw RUN/curves.png from RUN/metrics.jsonl: losses, adversarial losses, PSNR-Y and SSIMs."""
    records = read_records(run)
    training = [line for line in records if line["kind"] == "train"]
    validation = [line for line in records if line["kind"] == "validation"]
    bicubic = next(line["bicubic"] for line in records if line["kind"] == "baselines")
    figure = Figure(figsize=(11, 7), dpi=110)
    FigureCanvasAgg(figure)
    ((content, adversarial), (psnr, ssim)) = figure.subplots(2, 2)

    others = {"kind", "step", "g_adversarial", "d_loss", "d_real", "d_fake"}
    names = (
        [n for n in training[0] if n not in others and not n.endswith("norm")] if training else []
    )
    for name, colour in zip(names, (GRAY, BLUE, ORANGE, GREEN, RED), strict=False):
        _line(content, training, name, colour, label="generator, total" if name == "loss" else name)
    content.set_title("Generator's losses")
    for name, colour in (("g_adversarial", BLUE), ("d_loss", ORANGE)):
        label = "generator, adversarial" if name == "g_adversarial" else "discriminator"
        _line(adversarial, training, name, colour, label=label)
    adversarial.set_title("Adversarial losses")
    _line(psnr, validation, "psnr", BLUE, label="SR (moving average)", marker="o")
    psnr.axhline(bicubic["psnr"], color=GRAY, linestyle="--", label="bicubic")
    psnr.set_title("PSNR-Y of held-out photographs")
    psnr.set_ylabel("dB")
    for name, colour, label in (("ssim", BLUE, "SSIM-Y"), ("ms_ssim", ORANGE, "MS-SSIM")):
        _line(ssim, validation, name, colour, label=f"{label}, SR", marker="o")
        ssim.axhline(bicubic[name], color=colour, linestyle="--", label=f"{label}, bicubic")
    ssim.set_title("Structural similarity of held-out photographs")
    for axes in (content, adversarial, psnr, ssim):
        axes.set_xlabel("updates")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(run / "curves.png")


def _line(
    axes: Axes,
    records: Sequence[dict[str, Any]],
    name: str,
    colour: str,
    *,
    label: str,
    marker: str = "",
) -> None:
    points = [(line["step"], line[name]) for line in records if name in line]
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, label=label, marker=marker, ms=4)


def closing_table(
    console: Console, scores: dict[str, float], baselines: dict[str, dict[str, float]], title: str
) -> None:
    """Print the generator's scores beside the interpolations', with the gain over bicubic."""
    table = Table(title=title)
    table.add_column("method")
    for name in ("PSNR-Y (dB)", "SSIM-Y", "MS-SSIM"):
        table.add_column(name, justify="right")
    for method, row in {**baselines, "SR": scores}.items():
        table.add_row(method, f"{row['psnr']:.2f}", f"{row['ssim']:.4f}", f"{row['ms_ssim']:.4f}")
    gain = {name: scores[name] - baselines["bicubic"][name] for name in scores}
    table.add_section()
    table.add_row(
        "SR - bicubic", f"{gain['psnr']:+.2f}", f"{gain['ssim']:+.4f}", f"{gain['ms_ssim']:+.4f}"
    )
    console.print(table)
