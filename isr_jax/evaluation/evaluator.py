"""Score models, or finished pictures, over benchmark sets: per image and as means.

As the literature prints them.
"""

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict, cast

import numpy as np

from isr_jax.checkpoints.restore import INTERPOLATIONS
from isr_jax.data.pairs import BenchmarkSet, PairFiles, find_sets, read_pair
from isr_jax.errors import UserError, one_line, printable, whole_number
from isr_jax.evaluation.finished import find_finished, load_finished
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

    Attributes:
        model: the model, or the folder of finished pictures.
        protocol: by which it was scored.
        sets: the scores of each set at each scale.
        failed: a line for each file that could not be scored and is in no mean.
        notices: a line for each thing that should be known of scored files.
        against: the same of each other folder of finished pictures, where there are any.
    """

    model: str
    protocol: str
    sets: list[SetScores]
    failed: list[str]
    notices: list[str]
    against: NotRequired[list["Evaluation"]]


# What is scored of one image: the scores, the SR image, and notices.
_Scored = tuple[dict[str, float], np.ndarray, tuple[str, ...]]


class _Method(NamedTuple):
    """What is scored: its name, its sets, and how an image of a set is scored."""

    name: str
    sets: Sequence[BenchmarkSet]
    score: Callable[[BenchmarkSet, PairFiles, Scorer], _Scored]


def evaluate(
    model: str | Path | Upscaler | None,
    data: str | Path,
    *,
    against: Sequence[str | Path] = (),
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
    """Score a model, or finished pictures, over every benchmark set below a folder.

    Bad files are skipped and listed in `failed`; of an error that no file should be able to cause,
    the traceback follows at the end, on standard error. An interpolation under vdsr is scored in
    luma, as published tables do (`protocols.measure_interpolation`).

    Args:
        model: what `isr_jax.load` takes, or an `Upscaler`, which may wrap any function; None to
            score `against` alone.
        data: a set, or a tree of sets, in one of the layouts of `isr_jax.data.pairs`.
        against: folders of SR images that other programs have made of the same sets; see
            `evaluation.finished`. What is returned is of the model, or of the first folder without
            one, and has the others in its `against`.
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
        UserError: there is no such model, folder, set, protocol or scale; `save` is not empty, or
            there is no model for it; or there is neither a model nor a folder.
    """
    # Checked before weights are looked for.
    make_scorer(scale=1, protocol=protocol)
    how = {
        "protocol": protocol,
        "lpips": load_lpips(lpips, folder=lpips_folder) if lpips else None,
        "dists": load_dists(folder=dists_folder) if dists else None,
        "niqe": load_niqe(niqe, folder=niqe_folder) if niqe else None,
    }
    if model is None and (save is not None or not against):
        raise UserError("give a model to save its images" if against else "give a model or against")
    given = scale if isinstance(scale, Iterable) and not isinstance(scale, str) else (scale,)
    scales = tuple(dict.fromkeys(whole_number(one, name="scale") for one in given))
    if isinstance(model, Path):
        model = str(model)
    if isinstance(against, str | Path):
        against = (against,)
    methods: list[_Method] = []
    if model is None:
        sets = find_sets(data, scales=scales)
    elif isinstance(model, str) and model in INTERPOLATIONS:
        sets = find_sets(data, scales=scales)
        upscalers = {found.scale: load(model, scale=found.scale) for found in sets}
        methods.append(_Method(model, sets, partial(_score, upscalers)))
    else:
        if not isinstance(model, Upscaler):
            model = load(model, weights=weights, checkpoint=checkpoint, tile=tile, exact=True)
        upscaler = model
        for other in set(scales) - {upscaler.scale}:
            raise UserError(f"{upscaler.name} upscales by {upscaler.scale}, not by {other}")
        scales = (upscaler.scale,)
        sets = find_sets(data, scales=scales)
        methods.append(_Method(upscaler.name, sets, partial(_score, {upscaler.scale: upscaler})))
    for pictures in against:
        found_ones = find_finished(pictures, sets, scales=scales)
        methods.append(_Method(str(pictures), found_ones, _score_finished))
    folder = None if save is None else new_folder(save)
    results: list[Evaluation] = []
    with image_bar(shown=progress) as bar:
        total = sum(len(found.pairs) for method in methods for found in method.sets)
        task = bar.add_task("", total=total)
        for method in methods:
            show, folder = partial(bar.update, task), None if results else folder
            results.append(_evaluate(method, how, save=folder, show=show))
    if model is None:
        lines = [line for found in sets for line in found.faults]
        results[0]["failed"] = [*lines, *results[0]["failed"]]
    return {**results[0], "against": results[1:]} if results[1:] else results[0]


def _evaluate(
    method: _Method,
    how: Mapping[str, Any],
    *,
    save: Path | None,
    show: Callable[..., None],
) -> Evaluation:
    """Score a method.

    Args:
        method: what is scored.
        how: the arguments of `make_scorer` but the scale.
        save: a folder for the SR images.
        show: updates the bar.
    """
    results: list[SetScores] = []
    failed: list[str] = []
    bugs: list[Exception] = []
    noticed: dict[str, list[Path]] = {}
    for found in method.sets:
        failed += found.faults
        images: list[ImageScores] = []
        for pair in found.pairs:
            show(description=printable(f"{found.name} x{found.scale} {pair.name}"))
            try:
                scores, sr, notices = method.score(
                    found, pair, make_scorer(scale=found.scale, **how)
                )
                images.append(cast(ImageScores, {"name": pair.name, **scores}))
                for notice in notices:
                    noticed.setdefault(notice, []).append(pair.hr)
                if save:
                    write_png(sr, save / found.name / f"x{found.scale}" / f"{pair.name}.png")
            except Exception as error:
                line = one_line(error, limit=1000)
                if is_bug(error):
                    bugs.append(error)
                    line = f"a bug in isr_jax, {type(error).__name__}: {line}"
                parts = (str(pair.hr), str(pair.lr), f"{pair.name}.")
                named = isinstance(error, UserError) and any(printable(x) in line for x in parts)
                failed.append(line if named else f"{printable(str(pair.hr))}: {line}")
            show(advance=1)
        if images:
            rows: list[Any] = [{k: v for k, v in row.items() if k != "name"} for row in images]
            summary = {"name": found.name, "scale": found.scale, **means(rows), "images": images}
            results.append(cast(SetScores, summary))
    for bug in bugs:
        traceback.print_exception(bug)
    lines = []
    for notice, files in noticed.items():
        others = f" and {len(files) - 1} more" if len(files) > 1 else ""
        lines.append(f"{printable(str(files[0]))}{others}: {notice}")
    return {
        "model": method.name,
        "protocol": how["protocol"],
        "sets": results,
        "failed": failed,
        "notices": lines,
    }


def _score(
    upscalers: Mapping[int, Upscaler], found: BenchmarkSet, pair: PairFiles, scorer: Scorer
) -> _Scored:
    """Score what a model makes of an image."""
    upscaler = upscalers[found.scale]
    loaded = read_pair(pair, scale=found.scale)
    assert loaded.lr is not None
    sr = upscaler(loaded.lr)
    if method := upscaler.method:
        scores = scorer.interpolation(loaded.lr, loaded.hr, method=method)
    else:
        scores = scorer.image(sr, loaded.hr)
    return scores, sr, loaded.notices


def _score_finished(found: BenchmarkSet, pair: PairFiles, scorer: Scorer) -> _Scored:
    """Score a finished picture."""
    sr, hr, notices = load_finished(pair, scale=found.scale)
    return scorer.image(sr, hr), sr, notices
