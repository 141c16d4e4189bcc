"""Score a model over benchmark sets: per image and as means, as the literature prints them."""

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

import numpy as np
from jaxtyping import UInt8, UInt16

from isr_jax.checkpoints.restore import INTERPOLATIONS
from isr_jax.data.pairs import PairFiles, find_sets, load_pair
from isr_jax.errors import UserError, one_line, printable
from isr_jax.files import new_folder
from isr_jax.perceptual.dists import load_dists
from isr_jax.perceptual.lpips import load_lpips
from isr_jax.perceptual.niqe import load_niqe
from isr_jax.photo.writing import write_png
from isr_jax.progress import image_bar
from isr_jax.scoring import Scorer, make_scorer, means
from isr_jax.upscaling.tasks import is_bug
from isr_jax.upscaling.upscaler import Upscaler, load


class ImageScores(TypedDict):
    """The scores of one image: psnr in dB, inf when identical; the last three where requested.

    A score is nan where the image is too small (11x11 pixels for ssim and ms_ssim).
    """

    name: str
    psnr: float
    ssim: float
    ms_ssim: float
    lpips: NotRequired[float]
    dists: NotRequired[float]
    niqe: NotRequired[float]


class SetScores(TypedDict):
    """The scores of one set at one scale: means over its images, ignoring nan."""

    name: str
    scale: int
    psnr: float
    ssim: float
    ms_ssim: float
    lpips: NotRequired[float]
    dists: NotRequired[float]
    niqe: NotRequired[float]
    images: list[ImageScores]


class Evaluation(TypedDict):
    """What `evaluate` returns and `isr evaluate --json` writes, unrounded.

    `failed` has a line for each file that could not be scored and is in no mean.
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
    dists: bool = False,
    dists_folder: str | Path | None = None,
    niqe: str | None = None,
    niqe_folder: str | Path | None = None,
    save: str | Path | None = None,
    tile: int | None = None,
    progress: bool = False,
) -> Evaluation:
    """Score a model over every benchmark set below a folder.

    Bad files are skipped and listed in `failed`; of an error that no file should be able to cause,
    the traceback follows at the end, on standard error. An interpolation under vdsr is scored in
    luma, as published tables do (`protocols.measure_interpolation`).

    Args:
        model: what `isr_jax.load` takes, or an `Upscaler`, which may wrap any function.
        data: a set, or a tree of sets, in one of the layouts of `isr_jax.data.pairs`.
        scale: the scale or scales; a generator has just its own, and an interpolation takes all
            those of the LR images.
        protocol: a name in `protocols.PROTOCOLS`: vdsr, basicsr, basicsr-color or rgb, which crop
            `scale` pixels, or ntire-sr or ntire-esr, which crop 4.
        weights: as for `isr_jax.load`.
        checkpoint: as for `isr_jax.load`.
        lpips: alex, vgg or squeeze, to measure LPIPS by that network too, on RGB images cropped
            likewise; its published weights must be available.
        lpips_folder: a folder to look for them first; see `isr_jax.perceptual.weight_files`.
        dists: measure DISTS too, likewise, by its published weights.
        dists_folder: as lpips_folder.
        niqe: matlab or pyiqa, to measure NIQE of the SR images in that form too, cropped likewise;
            see `isr_jax.perceptual.niqe`.
        niqe_folder: a folder to look for its parameters first, or their file.
        save: a new folder for the SR images, SET/xSCALE/NAME.png.
        tile: tile size in LR pixels, as for `isr_jax.load`; None for one that changes no score.
        progress: show a bar on standard error, where that is a terminal.

    Raises:
        UserError: there is no such model, set, protocol or scale, or `save` is not empty.
    """
    # Checked before weights are looked for.
    make_scorer(scale=1, protocol=protocol)
    perceptual = {
        "distance": load_lpips(lpips, folder=lpips_folder) if lpips else None,
        "dists": load_dists(folder=dists_folder) if dists else None,
        "niqe": load_niqe(niqe, folder=niqe_folder) if niqe else None,
    }
    scales = (scale,) if isinstance(scale, int) else tuple(dict.fromkeys(scale))
    if isinstance(model, str) and model in INTERPOLATIONS:
        sets = find_sets(data, scales=scales)
        upscalers = {found.scale: load(model, scale=found.scale) for found in sets}
    else:
        if not isinstance(model, Upscaler):
            model = load(model, weights=weights, checkpoint=checkpoint, tile=tile, exact=True)
        upscaler = model
        for other in set(scales) - {upscaler.scale}:
            raise UserError(f"{upscaler.name} upscales by {upscaler.scale}, not by {other}")
        sets = find_sets(data, scales=(upscaler.scale,))
        upscalers = {upscaler.scale: upscaler}
    folder = None if save is None else new_folder(save)

    results: list[SetScores] = []
    failed: list[str] = []
    bugs: list[Exception] = []
    with image_bar(shown=progress) as bar:
        task = bar.add_task("", total=sum(len(found.pairs) for found in sets))
        for found in sets:
            failed += found.faults
            images: list[ImageScores] = []
            for pair in found.pairs:
                bar.update(task, description=printable(f"{found.name} x{found.scale} {pair.name}"))
                try:
                    scorer = make_scorer(scale=found.scale, protocol=protocol, **perceptual)
                    scores, sr = _score(upscalers[found.scale], pair, scorer)
                    images.append(cast(ImageScores, {"name": pair.name, **scores}))
                    if folder:
                        write_png(sr, folder / found.name / f"x{found.scale}" / f"{pair.name}.png")
                except Exception as error:
                    line = one_line(error, limit=1000)
                    if is_bug(error):
                        bugs.append(error)
                        line = f"a bug in isr_jax, {type(error).__name__}: {line}"
                    named = isinstance(error, UserError)
                    failed.append(line if named else f"{printable(str(pair.hr))}: {line}")
                bar.advance(task)
            if images:
                rows: list[Any] = [{k: v for k, v in row.items() if k != "name"} for row in images]
                scores = means(rows)
                summary = {"name": found.name, "scale": found.scale, **scores, "images": images}
                results.append(cast(SetScores, summary))
    for bug in bugs:
        traceback.print_exception(bug)
    return {
        "model": model.name if isinstance(model, Upscaler) else str(model),
        "protocol": protocol,
        "sets": results,
        "failed": failed,
    }


def _score(
    upscaler: Upscaler, pair: PairFiles, scorer: Scorer
) -> tuple[dict[str, float], UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w *c"]]:
    """Return the scores of one image, and the SR image."""
    lr, hr = load_pair(pair, scale=upscaler.scale)
    sr = upscaler(lr)
    if upscaler.method:
        return scorer.interpolation(lr, hr, method=upscaler.method), sr
    return scorer.image(sr, hr), sr
