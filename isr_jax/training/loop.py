"""The training loop: a config and a run folder in, a trained generator and its records out."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict
from rich.console import Console

from isr_jax import protocols
from isr_jax.checkpoints import restore
from isr_jax.checkpoints import runs as checkpoint
from isr_jax.data import sources
from isr_jax.errors import UserError
from isr_jax.models import count_params
from isr_jax.progress import training_bar
from isr_jax.training import checks, pictures
from isr_jax.training.loaders import open_loader, open_validation
from isr_jax.training.program import Program, Series, make_dispatch, make_program, on_all, run_keys
from isr_jax.training.record import Recorder, read_records
from isr_jax.training.runtime import make_run_folder, stop_signals, use_compilation_cache
from isr_jax.training.update import State

BASELINES = ("nearest", "bilinear", "bicubic")


def validate(
    program: Program, state: State, photos: Sequence[sources.Photo], *, scale: int
) -> tuple[dict[str, float], list[np.ndarray]]:
    """Mean scores of the moving average over whole images, vdsr protocol, and its images."""
    # On one device: a replicated state would have each of them do the same.
    ema, stats = jax.device_put((state.ema, state.g_stats), jax.local_devices()[0])
    enlarged = [np.asarray(program.enlarge(ema, stats, photo.lr)) for photo in photos]
    scores = [
        protocols.measure(sr, photo.hr, crop=scale)
        for sr, photo in zip(enlarged, photos, strict=True)
    ]
    return _mean(scores), enlarged


def _mean(scores: Sequence[protocols.Scores]) -> dict[str, float]:
    return dict(zip(protocols.Scores._fields, np.mean(scores, axis=0).tolist(), strict=True))


def interpolations(photos: Sequence[sources.Photo], *, scale: int) -> dict[str, dict[str, float]]:
    """Mean scores of nearest, bilinear and bicubic over whole images, vdsr protocol."""
    return {
        method: _mean(
            [
                protocols.measure_interpolation(photo.lr, photo.hr, scale=scale, method=method)
                for photo in photos
            ]
        )
        for method in BASELINES
    }


def check_finite(
    values: Mapping[str, np.ndarray], *, first: int, manager: ocp.CheckpointManager
) -> None:
    """Raise a UserError that names the first step whose losses or gradients are not finite.

    `values` are the metrics of the updates after `first`.
    """
    bad = ~np.all([np.isfinite(series) for series in values.values()], axis=0)
    if not bad.any():
        return
    at = int(np.argmax(bad))
    names = ", ".join(name for name, series in values.items() if not np.isfinite(series[at]))
    step = first + at + 1
    good = checkpoint.last_good(manager, step)
    raise UserError(
        f"step {step}: {names} is not finite; "
        f"{f'the last good checkpoint is {good}' if good else 'there is no good checkpoint yet'}; "
        "lower the learning rates, or set config.g_optimizer.grad_clip"
    )


def plan(step: int, config: ConfigDict) -> Iterator[tuple[int, bool, bool]]:
    """The dispatches from `step` on: (updates, whether to validate, whether to save) of each.

    They end at the same steps whether or not the run was killed in between, so that the same
    programs run on the same states.
    """
    options = config.train
    everies = (options.steps_per_dispatch, options.validate_every, options.checkpoint_every)
    stages = (config.loss.adversarial_from, options.steps)
    while step < options.steps:
        following = min(
            *((step // every + 1) * every for every in everies), *(s for s in stages if s > step)
        )
        last = following == options.steps
        validating = last or following % options.validate_every == 0
        saving = last or following % options.checkpoint_every == 0
        yield following - step, validating, saving
        step = following


class Result(NamedTuple):
    """What a run came to.

    Attributes:
        run: its folder.
        step: updates done; less than config.train.steps where it was interrupted.
        scores: of the last validation: "psnr" (dB), "ssim", "ms_ssim".
        baselines: the same of each interpolation.
    """

    run: Path
    step: int
    scores: dict[str, float]
    baselines: dict[str, dict[str, float]]


def train(config: ConfigDict, workdir: str | Path, *, console: Console | None = None) -> Result:
    """Train a super-resolution GAN, or go on where the run in `workdir` was.

    Writes checkpoints/, config.json, metrics.jsonl, TensorBoard events, images/ and curves.png.

    Args:
        config: see isr_jax/config.py.
        workdir: the run folder; made where it is missing.
        console: where to print; standard error by default.

    Raises:
        UserError: for settings, data or a run folder that cannot be used, and for a loss or a
            gradient that is not finite.
    """
    console = console or Console(stderr=True)

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    use_compilation_cache()
    devices = jax.devices()
    for line in checks.check(config, devices=len(devices)):
        say(line)
    run = make_run_folder(workdir)

    program = make_program(config)
    pretrain = make_dispatch(config, program.pretrain, devices)
    update = make_dispatch(config, program.update, devices)
    init_key, train_key = run_keys(config.seed)
    state = jax.jit(program.init, out_shardings=on_all(devices))(init_key)
    frozen = jax.device_put(program.frozen(), on_all(devices))

    with ExitStack() as stack:
        loader = open_loader(config, devices, say)
        stack.callback(loader.close)
        photos = open_validation(config, say)
        checkpoint.clear_up(run, warn=say)
        manager = stack.enter_context(checkpoint.open_manager(run, keep=config.train.keep))
        resumed = checkpoint.resume(manager, state, config, warn=say)
        step = 0
        if resumed:
            state, step = resumed.state, int(resumed.state.step)
            # A run that began with the pool has no place in the stream: each step took one batch.
            loader.restore(resumed.data or {"next": step})
            say(f"going on from step {step} of {run}")
        elif config.train.init_from:
            state = restore.begin_from(config.train.init_from, state, config)
            say(f"the generator begins as that of {config.train.init_from}")
        (run / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n")
        adversarial = config.loss.adversarial_weight or config.loss.feature_matching
        judge = (
            f"discriminator of {count_params(state.d_params):,}"
            if adversarial
            else "no discriminator"
        )
        say(
            f"{config.scale}x generator of {count_params(state.g_params):,} parameters, {judge}, "
            f"on {len(devices)} {devices[0].device_kind} ({config.train.parallel})"
        )
        recorder = stack.enter_context(Recorder(run, step=step))
        baselines = interpolations(photos, scale=config.scale)
        if not recorder.has_baselines:
            recorder.baselines(baselines)
        stopped = stack.enter_context(stop_signals())
        bar = stack.enter_context(training_bar(console, total=config.train.steps, step=step))

        def record(first: int, values: Series, *, flush: bool = False) -> None:
            """Wait for a dispatch, check what it computed, write means now and then."""
            series = {name: np.asarray(value) for name, value in values.items()}
            check_finite(series, first=first, manager=manager)
            last = first + len(series["loss"])
            recorder.training(last, series, flush=flush or last % config.train.log_every == 0)
            bar.update(bar.task_ids[0], completed=last, loss=f"{series['loss'].mean():.4f}")

        pending: tuple[int, Series] | None = None
        for n, validating, saving in plan(step, config):
            dispatch = pretrain if step < config.loss.adversarial_from else update
            state, values = dispatch(state, frozen, loader.take(n), train_key, n)
            # The host reads a dispatch's metrics while the device works on the next one.
            if pending:
                record(*pending)
            pending, step = (step, values), step + n
            stopping = stopped()
            if not (validating or saving or stopping):
                continue
            record(*pending, flush=True)
            pending, scores = None, None
            if validating:
                scores, enlarged = validate(program, state, photos, scale=config.scale)
                recorder.scalars("validation", step, scores)
                pictures.panel(
                    run / "images" / f"step_{step:06d}.png", photos, enlarged, scale=config.scale
                )
                say(_verdict(step, scores, baselines["bicubic"]))
            checkpoint.save(manager, state, config, data=loader.place(), scores=scores)
            if stopping:
                say(f"stopped at step {step}; the same command goes on from there")
                break
    pictures.curves(run)
    last = [line for line in read_records(run) if line["kind"] == "validation"]
    scores = {name: last[-1][name] for name in protocols.Scores._fields} if last else {}
    return Result(run, step, scores, baselines)


def _verdict(step: int, scores: Mapping[str, float], bicubic: Mapping[str, float]) -> str:
    names = {"psnr": ("PSNR-Y", "{:.2f} dB", "{:+.2f}"), "ssim": ("SSIM-Y", "{:.4f}", "{:+.4f}")}
    names["ms_ssim"] = ("MS-SSIM", "{:.4f}", "{:+.4f}")
    parts = [
        f"{label} {value.format(scores[name])} ({gain.format(scores[name] - bicubic[name])})"
        for name, (label, value, gain) in names.items()
    ]
    return f"step {step}: {', '.join(parts)}; in brackets, to bicubic"
