"""The training loop: a config and a run folder in, a trained generator and its records out."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from isr_jax import distributed, losses
from isr_jax.checkpoints import restore
from isr_jax.checkpoints import runs as checkpoint
from isr_jax.errors import UserError
from isr_jax.files import write_json
from isr_jax.models import count_params
from isr_jax.progress import training_bar
from isr_jax.scoring import Scorer
from isr_jax.training import checks, pictures
from isr_jax.training.loaders import fingerprints, open_loader, open_validation
from isr_jax.training.program import (
    Devices,
    Series,
    make_dispatch,
    make_program,
    on_all,
    plan_dispatches,
    run_keys,
)
from isr_jax.training.record import Recorder, RunFolder, read_records
from isr_jax.training.run_folder import note_start, open_run
from isr_jax.training.runtime import (
    check_finite,
    explained,
    stop_signals,
    use_all_cores,
    use_compilation_cache,
)
from isr_jax.training.scorer import load_scorer
from isr_jax.training.trackers import open_trackers
from isr_jax.training.validation import interpolations, make_upscale_all, score_line, validate


class Result(NamedTuple):
    """The outcome of a run.

    Attributes:
        run: its folder.
        step: updates done; less than config.train.steps where it was interrupted.
        scores: of the last validation: "psnr" (dB), "ssim", "ms_ssim", and those of
            config.train.validation_metrics; {} without one.
        baselines: the same scores of each interpolation.
    """

    run: Path
    step: int
    scores: dict[str, float]
    baselines: dict[str, dict[str, float]]


def train(config: ConfigDict, workdir: str | Path, *, console: Console | None = None) -> Result:
    """Train a super-resolution GAN, or resume the run in `workdir`.

    Writes checkpoints/, config.json, metrics.jsonl, images/ and curves.png; the trackers of
    config.train.trackers write what is theirs.

    Args:
        config: see isr_jax/config.py.
        workdir: the run folder; created if missing.
        console: where to print; standard error by default.

    Raises:
        UserError: for unusable settings, data or run folder, and for a loss or gradient that is not
            finite.
    """
    if not isinstance(config, ConfigDict):
        raise UserError(f"config is {type(config).__name__}; give what get_config() returns")
    if not isinstance(workdir, str | Path):
        raise UserError(f"workdir is {workdir!r}; name a folder")
    checks.check_fields(config)
    if not jax.distributed.is_initialized():
        use_all_cores(config.data.batch // max(1, config.train.accumulate))
    console = console or Console(stderr=True)
    if not distributed.is_first():
        console = Console(quiet=True)

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    use_compilation_cache()
    devices = jax.devices()
    for line in checks.check(config, devices=len(devices)):
        say(line)
    # Before the folder: weights that are missing are to leave none.
    scorer = load_scorer(config.train.validation_metrics, scale=config.scale)
    with open_run(workdir, say=say) as run, explained(run, config):
        return _train(config, run, devices, scorer, console=console, say=say)


def _train(
    config: ConfigDict,
    run: Path,
    devices: Devices,
    scorer: Scorer,
    *,
    console: Console,
    say: Callable[[str], None],
) -> Result:
    """Train in a run folder that no other process uses."""
    program = make_program(config)
    dispatch = make_dispatch(config, program.update, devices)
    init_key, train_key = run_keys(config.seed)
    state = distributed.on_devices(program.init(init_key), on_all(devices))

    with ExitStack() as stack:
        records = run
        # The first process's records are the run's; those of the others are not kept.
        if not distributed.is_first():
            records = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        loader = open_loader(config, devices, frozen=program.frozen(), warn=say)
        stack.callback(loader.close)
        photos = open_validation(config, say)
        note_start(records, fingerprints(config), say=say)
        if distributed.is_first():
            checkpoint.clear_up(run, warn=say)
        distributed.wait("cleared up")
        manager = stack.enter_context(checkpoint.open_manager(run, keeping=config.train.to_dict()))
        resumed = checkpoint.resume(manager, state, config, warn=say)
        step, unrecorded = 0, {}
        if resumed:
            state, step = resumed.state, int(resumed.state.step)
            # A run that began with the pool has no state of the stream: each step took one batch.
            unrecorded = resumed.data.pop("unrecorded", {})
            loader.restore(resumed.data or {"next": step})
            say(f"resuming {run} from step {step}")
        elif config.train.init_from:
            state = restore.begin_from(config.train.init_from, state, config)
            say(f"the generator is initialised from {config.train.init_from}")
        write_json(records / "config.json", config.to_dict())
        discriminator = "no discriminator"
        if losses.has_adversarial(config.loss):
            discriminator = f"discriminator of {count_params(state.d_params):,}"
        say(
            f"{config.scale}x generator of {count_params(state.g_params):,} parameters, "
            f"{discriminator}, on {len(devices)} {devices[0].device_kind} ({config.train.parallel})"
        )
        baselines = interpolations(photos, scorer=scorer)
        upscale = make_upscale_all(program.generator, photos)
        folder = RunFolder(records, step=step, warn=say)
        named = config.train.trackers if distributed.is_first() else ()
        trackers = open_trackers(named, run, step=step, config=config, warn=say)
        recorder = stack.enter_context(Recorder(folder, trackers, unrecorded=unrecorded))
        recorder.baselines(baselines)
        stopped = stack.enter_context(stop_signals())
        bar = stack.enter_context(training_bar(console, total=config.train.steps, step=step))

        def record(first: int, values: Series, *, flush: bool = False) -> None:
            """Wait for a dispatch, check its metrics, and record their means at intervals."""
            series = {name: np.asarray(value) for name, value in values.items()}
            check_finite(series, first=first, manager=manager)
            last = first + len(series["loss"])
            recorder.training(last, series, flush=flush or last % config.train.log_every == 0)
            bar.update(bar.task_ids[0], completed=last, loss=f"{series['loss'].mean():.4f}")

        pending: tuple[int, Series] | None = None
        for turn, planned in enumerate(plan_dispatches(config, step=step)):
            n, adversarial, validating, saving = planned
            state, values = dispatch(state, loader.take(n), train_key, n=n, adversarial=adversarial)
            # The host reads a dispatch's metrics while the device works on the next one.
            if pending:
                record(*pending)
            pending, step = (step, values), step + n
            stopping = distributed.agreed(turn, wanted=stopped())
            if not (validating or saving or stopping):
                continue
            # A stop leaves no record of its own: the next start records as if there had been none.
            record(*pending, flush=validating or saving)
            pending, scores = None, None
            if validating:
                scores = baselines["bicubic"]  # of the shape that the first process's scores have
                if distributed.is_first():
                    scores, images = validate(upscale, state, photos, scorer=scorer)
                    crop = config.train.validation_crop
                    panel = pictures.panel(photos, images, scale=config.scale, crop=crop)
                    recorder.picture(step, panel)
                scores = distributed.from_first(scores)
                recorder.scalars("validation", step, scores)
                say(score_line(step, scores, baselines["bicubic"]))
            recorder.flush()
            data = loader.state()
            if kept := recorder.unrecorded():
                data["unrecorded"] = kept
            checkpoint.save(manager, state, config, data=data, scores=scores)
            if stopping:
                say(f"stopped at step {step}; run the same command again to resume")
                break
        if distributed.is_first():
            pictures.curves(run)
        last = [line for line in read_records(records) if line["kind"] == "validation"]
    scores = {name: last[-1][name] for name in scorer.metrics if last and name in last[-1]}
    return Result(run, step, scores, baselines)
