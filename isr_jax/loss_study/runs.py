"""Several runs of one config, trained at once and validated on the way."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Float64, UInt8
from ml_collections import ConfigDict
from rich.console import Console

from isr_jax.checkpoints import runs as checkpoint
from isr_jax.checkpoints.digests import digests_of, digests_of_json, verify
from isr_jax.data import pool
from isr_jax.data.examples import ImagePair
from isr_jax.errors import UserError, one_line
from isr_jax.files import to_quarantine
from isr_jax.progress import training_bar
from isr_jax.scoring import METRICS, Scorer
from isr_jax.state import State
from isr_jax.training.program import (
    AXIS,
    Devices,
    Inputs,
    make_program,
    make_runs_dispatch,
    on_all,
    plan_dispatches,
    run_keys,
    run_of,
)
from isr_jax.training.validation import UpscaleAll

# Identical images have an infinite PSNR, of which there is no mean.
MOST_PSNR = 100.0  # dB


class Interrupted(Exception):
    """Stopped by Ctrl-C or SIGTERM; what was done is saved."""


class Validation(NamedTuple):
    """The validation set, and how images are upscaled and scored.

    Attributes:
        photos: the images.
        scorer: of all candidates.
        upscale: see `make_upscale_all`; one for all candidates.
    """

    photos: Sequence[ImagePair]
    scorer: Scorer
    upscale: UpscaleAll

    @property
    def names(self) -> list[str]:
        """The names of the metrics."""
        return list(self.scorer.metrics)

    def score_runs(
        self, states: State, alive: Sequence[bool]
    ) -> Float64[np.ndarray, "run image metric"]:
        """Return the scores of each run's EMA; nan for a run that is not alive."""
        scores = np.full((len(alive), len(self.photos), len(self.names)), np.nan)
        for r, images in self.upscaled(states, alive):
            pairs = zip(images, self.photos, strict=True)
            scores[r] = [self._row(self.scorer.image(sr, photo.hr)) for sr, photo in pairs]
        return scores

    def upscaled(
        self, states: State, alive: Sequence[bool]
    ) -> list[tuple[int, list[UInt8[np.ndarray, "h w c"]]]]:
        """Return the SR images of the EMA of each run that is alive."""
        one = jax.local_devices()[0]
        ema, stats = jax.device_put((states.ema, states.g_stats), one)
        outputs = []
        for r in np.flatnonzero(alive).tolist():
            params, averages = run_of(ema, r), run_of(stats, r)
            outputs.append((r, self.upscale(params, averages, self.photos)))
        return outputs

    def score_bicubic(self) -> Float64[np.ndarray, "image metric"]:
        """Return the scores of bicubic interpolation, as in published tables."""
        return np.array(
            [self._row(self.scorer.interpolation(one.lr, one.hr)) for one in self.photos]
        )

    def _row(self, scores: dict[str, float]) -> list[float]:
        capped = scores | {"psnr": min(scores["psnr"], MOST_PSNR)}
        return [capped[name] for name in self.names]


OPTIONAL = ("lpips", "dists", "niqe")  # the metrics that may be left out


def fit_scorer(
    scorer: Scorer, photos: Sequence[ImagePair], *, say: Callable[[str], None]
) -> Scorer:
    """Return a scorer without the metrics for which an image is too small, and say which.

    Raises:
        UserError: an image is too small for a metric that cannot be left out.
    """
    for photo in photos:
        scores = scorer.interpolation(photo.lr, photo.hr)
        for name in scorer.metrics:
            if not np.isnan(scores[name]):
                continue
            if name not in OPTIONAL:
                raise UserError(f"{photo.name} is too small for {METRICS[name].heading}; remove it")
            say(f"{METRICS[name].heading} is left out: {photo.name} is too small for it")
            scorer = scorer._replace(**{name: None})
    return scorer


class Course(NamedTuple):
    """Several runs of one config, as far as they have got; all but the states is JSON.

    Attributes:
        states: stacked, [run ...].
        step: updates done.
        curve: {"step", "scores"} of each validation, scores [run image metric].
        durations: seconds per update and run of each dispatch but the first of a kind, which
            compiles.
        failed: by run, the update at which its loss or gradient was not finite.
        seconds: that it took, with validation and compilation, in all processes.
    """

    states: State
    step: int
    curve: list[dict[str, Any]]
    durations: list[float]
    failed: dict[str, int]
    seconds: float


class Training(NamedTuple):
    """What all the runs of a study share.

    Attributes:
        devices: over which the runs of one candidate are spread.
        together: vmap or unroll; see `program.make_runs_dispatch`.
        console: where the bar is drawn.
        stopped: whether the user wants to stop.
    """

    devices: Devices
    together: Literal["vmap", "unroll"]
    console: Console
    stopped: Callable[[], bool]


def train_runs(
    config: ConfigDict,
    training: Training,
    *,
    seeds: Sequence[int],
    photos: Sequence[ImagePair],
    validation: Validation,
    title: str,
    folder: Path | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> Course:
    """Train runs of one config at once, a seed each, and validate on the way.

    They end early when none of them is finite. With a `folder` they are saved there, and resume
    from there; without one they are validated at the end alone.

    Raises:
        Interrupted: when the user wanted to stop.
    """
    devices = training.devices[: _most_that_divides(len(training.devices), len(seeds))]
    program = make_program(config)
    keys = jax.vmap(run_keys)(jnp.array(seeds, jnp.uint32))
    states = jax.jit(jax.vmap(program.init), out_shardings=on_all(devices, axis=AXIS))(keys[:, 0])
    inputs = Inputs(frozen=program.frozen(), images=pool.make_pool(photos))
    inputs = jax.device_put(inputs, on_all(devices))
    split = on_all(devices, axis=AXIS)
    rates = jnp.full(len(seeds), config.g_optimizer.learning_rate, jnp.float32)
    train_keys, g_rates = jax.device_put((keys[:, 1], rates), split)
    dispatch = make_runs_dispatch(config, devices, together=training.together)
    course = Course(states, 0, [], [], {}, 0.0)
    compiled: set[tuple[bool, int]] = set()
    started = time.perf_counter()

    with ExitStack() as stack:
        manager = None
        if folder:
            checkpoint.clear_up(folder, warn=warn)
            manager = stack.enter_context(checkpoint.open_manager(folder, keeping={"keep": 1}))
            course = _resumed(manager, course, warn=warn)
        bar = stack.enter_context(
            training_bar(training.console, total=config.train.steps, step=course.step, title=title)
        )
        states, step, curve, durations, failed, before = course

        def alive() -> list[bool]:
            return [str(r) not in failed for r in range(len(seeds))]

        def so_far() -> Course:
            seconds = before + time.perf_counter() - started
            return Course(states, step, curve, durations, failed, seconds)

        def validated() -> dict[str, Any]:
            return {"step": step, "scores": validation.score_runs(states, alive()).tolist()}

        if folder and not curve:
            curve.append(validated())
        for n, adversarial, validating, saving in plan_dispatches(config, step=step):
            began = time.perf_counter()
            states, values = dispatch(
                states, inputs, train_keys, g_rates, n=n, adversarial=adversarial
            )
            series = {name: np.asarray(value) for name, value in values.items()}
            took = time.perf_counter() - began
            if (adversarial, n) in compiled:
                durations.append(took / n / len(seeds))
            compiled.add((adversarial, n))
            finite = np.all([np.isfinite(x) for x in series.values()], axis=0)
            for r in np.flatnonzero(~finite.all(axis=1)):
                failed.setdefault(str(r), step + int(np.argmin(finite[r])) + 1)
            step += n
            if not any(alive()):
                break
            loss = float(np.mean(series["loss"][alive()]))
            bar.update(bar.task_ids[0], completed=step, loss=f"{loss:.4f}")
            if validating:
                curve.append(validated())
            stopping = training.stopped()
            if manager and (saving or stopping):
                _save(manager, so_far())
            if stopping and step < config.train.steps:
                raise Interrupted
        return so_far()


def _most_that_divides(devices: int, runs: int) -> int:
    return max(d for d in range(1, devices + 1) if runs % d == 0)


def _save(manager: ocp.CheckpointManager, course: Course) -> None:
    progress = course._asdict()
    # Copied on the device, because the next dispatch overwrites the donated buffers.
    states = jax.tree.map(jnp.copy, progress.pop("states"))._asdict()
    digests = digests_of({"states": states}) | digests_of_json({"progress": progress})
    manager.save(
        course.step,
        args=ocp.args.Composite(
            states=ocp.args.StandardSave(states),
            progress=ocp.args.JsonSave(progress),
            digests=ocp.args.JsonSave(digests),
        ),
    )


def _resumed(
    manager: ocp.CheckpointManager, course: Course, *, warn: Callable[[str], None]
) -> Course:
    """Return the newest course that can be read, or the one given; move damaged ones aside."""
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, course.states)._asdict()
    for step in sorted(manager.all_steps(), reverse=True):
        args = ocp.args.Composite(
            states=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
        )
        try:
            saved: Any = manager.restore(step, args=args)
            found = digests_of({"states": saved.states})
            found |= digests_of_json({"progress": saved.progress})
            verify(found, manager, step=step)
            return Course(states=State(**saved.states), **saved.progress)
        # A damaged file can raise anything.
        except Exception as error:
            place, why = Path(manager.directory) / str(step), one_line(error, limit=120)
            aside = to_quarantine(place, place.parents[1])
            warn(f"{place} cannot be read ({why}) and is done again; moved to {aside}")
            manager.reload()
    return course
