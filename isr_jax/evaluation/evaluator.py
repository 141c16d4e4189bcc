"""A model over benchmark sets: scores per image and their means, as the literature prints them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import numpy as np
from jaxtyping import UInt8

from isr_jax.checkpoints.restore import INTERPOLATIONS
from isr_jax.data.pairs import BenchmarkSet, PairFiles, find_sets, load_pair
from isr_jax.errors import UserError, one_line
from isr_jax.files import new_folder
from isr_jax.perceptual.lpips import Lpips, load_lpips
from isr_jax.photo.writing import write_png
from isr_jax.progress import image_bar
from isr_jax.protocols import PROTOCOLS, measure, measure_interpolation
from isr_jax.upscaling.upscaler import EXCUSABLE, Upscaler, load


class ImageScores(TypedDict):
    """One image: psnr in dB, inf when identical; lpips where it was asked for.

    Where an image is too small (11x11 pixels for ssim and ms_ssim), its score is nan.
    """

    name: str
    psnr: float
    ssim: float
    ms_ssim: float
    lpips: NotRequired[float]


class SetScores(TypedDict):
    """One set at one scale: the means over its images, of those that are not nan."""

    name: str
    scale: int
    psnr: float
    ssim: float
    ms_ssim: float
    lpips: NotRequired[float]
    images: list[ImageScores]


class Evaluation(TypedDict):
    """What `evaluate` returns and `isr evaluate --json` writes, unrounded.

    `failed` has a line for each file that could not be scored; no mean includes it.
    """

    model: str
    protocol: str
    sets: list[SetScores]
    failed: list[str]


def evaluate(
    model: str | Path | Upscaler,
    data: str | Path,
    *,
    scale: int | Sequence[int] = (),
    protocol: str = "vdsr",
    weights: Literal["ema", "raw"] = "ema",
    checkpoint: Literal["best", "latest"] | int = "best",
    lpips: str | None = None,
    lpips_folder: str | Path | None = None,
    save: str | Path | None = None,
    progress: bool = False,
) -> Evaluation:
    """Score a model over every benchmark set below a folder.

    One bad file does not end it: it is named in `failed`. An interpolation under vdsr is scored
    as published tables do, in luma (`metrics.measure_interpolation`).

    Args:
        model: what `isr_jax.load` takes, or an `Upscaler`, which may wrap any function.
        data: a set, or a tree of sets, in one of the layouts of `isr_jax.data.pairs`.
        scale: the scale or scales; a generator has just its own, and an interpolation takes all
            those of the LR images.
        protocol: vdsr, basicsr or rgb; see `metrics.measure`. `scale` pixels are cropped.
        weights: as for `isr_jax.load`.
        checkpoint: as for `isr_jax.load`.
        lpips: alex, vgg or squeeze, to measure LPIPS by that network too, on RGB images cropped
            likewise; its published weights must be at hand.
        lpips_folder: a folder to look for them first; see `isr_jax.perceptual.weight_files`.
        save: a new folder for the enlarged images, SET/xSCALE/NAME.png.
        progress: show a bar on standard error, where that is a terminal.

    Raises:
        UserError: where there is no such model, set, protocol or scale, or `save` is in use.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol {protocol!r}; choose one of {', '.join(PROTOCOLS)}")
    distance = load_lpips(lpips, folder=lpips_folder) if lpips else None
    scales = (scale,) if isinstance(scale, int) else tuple(dict.fromkeys(scale))
    if isinstance(model, str) and model in INTERPOLATIONS:
        sets = find_sets(data, scales)
        upscalers = {found.scale: load(model, scale=found.scale) for found in sets}
    else:
        if not isinstance(model, Upscaler):
            model = load(model, weights=weights, checkpoint=checkpoint)
        upscaler = model
        for other in set(scales) - {upscaler.scale}:
            raise UserError(f"{upscaler.name} upscales by {upscaler.scale}, not by {other}")
        sets = find_sets(data, (upscaler.scale,))
        upscalers = {upscaler.scale: upscaler}
    folder = None if save is None else new_folder(save)

    results: list[SetScores] = []
    failed: list[str] = []
    with image_bar(shown=progress) as bar:
        task = bar.add_task("", total=sum(len(found.pairs) for found in sets))
        for found in sets:
            failed += found.faults
            images: list[ImageScores] = []
            for pair in found.pairs:
                bar.update(task, description=f"{found.name} x{found.scale} {pair.name}")
                try:
                    row, sr = _score(upscalers[found.scale], pair, protocol, distance)
                    images.append(row)
                    if folder:
                        write_png(sr, folder / found.name / f"x{found.scale}" / f"{pair.name}.png")
                except EXCUSABLE as error:
                    named = isinstance(error, UserError)
                    failed.append(str(error) if named else f"{pair.hr}: {one_line(error)}")
                bar.advance(task)
            if images:
                results.append(_summed_up(found, images))
    return {
        "model": model.name if isinstance(model, Upscaler) else str(model),
        "protocol": protocol,
        "sets": results,
        "failed": failed,
    }


def _score(
    upscaler: Upscaler, pair: PairFiles, protocol: str, distance: Lpips | None
) -> tuple[ImageScores, UInt8[np.ndarray, "h w *c"]]:
    """The scores of one image, and the image."""
    scale = upscaler.scale
    lr, hr = load_pair(pair, scale=scale)
    sr = upscaler(lr)
    if upscaler.method:
        scores = measure_interpolation(
            lr, hr, scale=scale, method=upscaler.method, protocol=protocol
        )
    else:
        scores = measure(sr, hr, crop=scale, protocol=protocol)
    row: ImageScores = {
        "name": pair.name,
        "psnr": scores.psnr,
        "ssim": scores.ssim,
        "ms_ssim": scores.ms_ssim,
    }
    if distance:
        try:
            row["lpips"] = distance(sr, hr, crop=scale)
        except UserError:  # too small: the images themselves have been compared
            row["lpips"] = math.nan
    return row, sr


def _summed_up(found: BenchmarkSet, images: list[ImageScores]) -> SetScores:
    """The images of a set under their means."""
    means: SetScores = {
        "name": found.name,
        "scale": found.scale,
        "psnr": _mean([image["psnr"] for image in images]),
        "ssim": _mean([image["ssim"] for image in images]),
        "ms_ssim": _mean([image["ms_ssim"] for image in images]),
        "images": images,
    }
    if "lpips" in images[0]:
        means["lpips"] = _mean([image["lpips"] for image in images])
    return means


def _mean(values: Sequence[float]) -> float:
    """The mean of the values that are not nan; nan where there are none."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
