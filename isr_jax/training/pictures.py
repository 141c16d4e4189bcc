"""Pictures of a run: comparison panels and training curves."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from jaxtyping import UInt8
from PIL import ImageDraw, ImageFont

from isr_jax.data.examples import ImagePair
from isr_jax.images import busiest
from isr_jax.protocols import Scores
from isr_jax.resize import resize_uint8
from isr_jax.scoring import METRICS, Scorer
from isr_jax.training.record import read_records

Image = UInt8[np.ndarray, "_ _ c"]  # RGB or gray

# The colour-blind safe palette of Okabe and Ito.
BLUE, ORANGE, RED, GRAY = "#0072B2", "#E69F00", "#D55E00", "#6E6E6E"

# A panel in pixels: width of a column, gap, height of the text, and side of a detail.
COLUMN, GAP, HEADER, DETAIL = 320, 6, 42, 80


def panel(
    photos: Sequence[ImagePair],
    images: Sequence[Image],
    *,
    scale: int,
    crop: int = 0,
    most: int = 4,
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Draw LR (nearest) | bicubic | SR | HR, and below each a detail, for each photo.

    The detail is where the bicubic image has most edges, shown by nearest-neighbour upscaling.

    Args:
        photos: validation images with their LR images.
        images: the generator's output for each.
        scale: the scale factor.
        crop: draw the centre of this side in HR pixels alone, a multiple of the scale; 0 for all.
            The scores are of what is drawn.
        most: draw the first so many.
    """
    strips = []
    for photo, sr in list(zip(photos, images, strict=True))[:most]:
        shown = centre(photo.hr.shape[:2], crop=crop, scale=scale)
        versions = {**upscaled_plainly(photo.lr, scale=scale), "SR": sr, "HR": photo.hr}
        versions = {name: image[shown] for name, image in versions.items()}
        strips.append(strip(versions, title=Path(photo.name).stem, scale=scale))
    return np.concatenate(strips)


def upscaled_plainly(lr: Image, *, scale: int) -> dict[str, Image]:
    """Return an LR image upscaled without a model, by name: as it is, and by bicubic."""
    return {
        "LR, nearest": resize_uint8(lr, scale=scale, method="nearest"),
        "bicubic": resize_uint8(lr, scale=scale),
    }


def strip(versions: Mapping[str, Image], *, title: str, scale: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Draw versions of a photo side by side, each with its scores if HR is among them.

    Args:
        versions: images of one size by name; "bicubic" determines the detail.
        title: of the photo.
        scale: the scale factor.
    """
    hr = versions.get("HR")
    bicubic = versions["bicubic"]
    side = min(DETAIL, *bicubic.shape[:2])
    corner = busiest(bicubic, sides=(side, side))
    columns = []
    for name, image in versions.items():
        caption = "" if hr is None else _caption(image, hr, scale)
        columns.append(
            _column(image, name if columns else f"{title}: {name}", caption, corner, side)
        )
    return np.concatenate(columns, axis=1)


def centre(size: tuple[int, int], *, crop: int, scale: int) -> tuple[slice, slice]:
    """Return the rows and columns of the centre of an image, at multiples of the scale.

    Args:
        size: of the image, in pixels, multiples of the scale.
        crop: of its centre, a multiple of the scale; 0, or more than the image has, for all.
        scale: the scale factor.
    """
    kept = [min(crop or side, side) for side in size]
    starts = [(side - k) // 2 // scale * scale for side, k in zip(size, kept, strict=True)]
    rows, columns = (slice(at, at + k) for at, k in zip(starts, kept, strict=True))
    return rows, columns


def _caption(image: Image, hr: Image, scale: int) -> str:
    if image is hr:
        return "ground truth"
    scores = Scorer(scale).image(image, hr)
    return f"{scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}"


def _column(
    image: Image, name: str, caption: str, corner: tuple[int, int], side: int
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Draw two lines of text, the image with the detail framed, and the detail, COLUMN wide."""
    y, x = corner
    image = np.broadcast_to(image, (*image.shape[:2], 3))
    framed = PIL.Image.fromarray(image)
    frame = (x, y, x + side - 1, y + side - 1)
    ImageDraw.Draw(framed).rectangle(frame, outline=RED, width=max(2, image.shape[1] // 160))
    height = round(COLUMN * image.shape[0] / image.shape[1])
    detail = PIL.Image.fromarray(image[y : y + side, x : x + side])

    column = PIL.Image.new("RGB", (COLUMN + GAP, HEADER + height + GAP + COLUMN + GAP), "white")
    draw, font = ImageDraw.Draw(column), ImageFont.load_default(14)
    draw.text((2, 4), name, fill="black", font=font)
    draw.text((2, 22), caption, fill=GRAY, font=font)
    column.paste(framed.resize((COLUMN, height), PIL.Image.Resampling.LANCZOS), (0, HEADER))
    column.paste(
        detail.resize((COLUMN, COLUMN), PIL.Image.Resampling.NEAREST), (0, HEADER + height + GAP)
    )
    return np.asarray(column)


def curves(run: Path) -> None:
    """Draw RUN/curves.png from RUN/metrics.jsonl: losses, gradient norms, and validation scores."""
    # Imported late: only the end of a run needs Matplotlib.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = read_records(run)
    training = [line for line in records if line["kind"] == "train"]
    validation = [line for line in records if line["kind"] == "validation"]
    # The latest is of the metrics that validation has now.
    bicubic = [line["bicubic"] for line in records if line["kind"] == "baselines"][-1]
    shown = [name for name in METRICS if name in Scores._fields or name in bicubic]
    rows = 1 + math.ceil(len(shown) / 3)
    figure = Figure(figsize=(14, 3.75 * rows), dpi=100)
    FigureCanvasAgg(figure)
    content, adversarial, norms, *scores = figure.subplots(rows, 3).flat

    recorded = dict.fromkeys(name for line in training for name in line)
    # In another panel, or of the discriminator.
    elsewhere = ("kind", "step", "loss", "g_adversarial", "g_grad_norm", "r1")
    parts = [name for name in recorded if name not in elsewhere and not name.startswith("d_")]
    for name in ("loss", *parts):
        label = "generator, total" if name == "loss" else name
        _line(content, training, name, GRAY if name == "loss" else None, label=label)
    content.set_title("Generator losses")
    for name, colour in (("g_adversarial", BLUE), ("d_loss", ORANGE)):
        label = "generator, adversarial" if name == "g_adversarial" else "discriminator"
        _line(adversarial, training, name, colour, label=label)
    adversarial.set_title("Adversarial losses")
    for axes in scores[len(shown) :]:
        axes.remove()
    for axes, name in zip(scores, shown, strict=False):
        _line(axes, validation, name, BLUE, label="SR (EMA)", marker="o")
        axes.axhline(bicubic[name], color=GRAY, linestyle="--", label="bicubic")
        axes.set_title(f"{METRICS[name].titled(luma=True)}, validation set")
    for name, colour in (("g_grad_norm", BLUE), ("d_grad_norm", ORANGE)):
        label = "generator" if name == "g_grad_norm" else "discriminator"
        _line(norms, training, name, colour, label=label)
    norms.set_title("Gradient norms")
    norms.set_yscale("log")
    for axes in figure.axes:
        axes.set_xlabel("updates")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(run / "curves.png")


def _line(
    axes: Any,
    records: Sequence[dict[str, Any]],
    name: str,
    colour: str | None,
    *,
    label: str,
    marker: str = "",
) -> None:
    """Draw a metric of the records on Matplotlib's `axes`."""
    points = [(line["step"], line[name]) for line in records if name in line]
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, label=label, marker=marker, ms=4)
