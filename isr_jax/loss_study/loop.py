"""The loss study: by which loss does a generator learn most?

Candidates differ by their loss, and by the learning rate tuned for it: all start from the same
parameters, per seed, and see the same crops in the same order. The best loss has the largest gain
over bicubic on the validation set after the same number of updates, by each metric; overall, the
best mean rank over the metrics. Candidates between which a bootstrap sees no difference are tied.

    RUN/report.html, report.md, results.json, curves.png
    RUN/best/                       the best run: a run folder for `isr upscale`
    RUN/candidates/NAME/seed_S/     the run folder of each seed's generator
                        outcome.json, tuning.json, study.json, images/

A finished candidate is not repeated, and an interrupted one is resumed.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image
from rich.console import Console

from isr_jax.checkpoints import runs as checkpoint
from isr_jax.config import flatten, get_config, sampled_crop
from isr_jax.data import sources
from isr_jax.data.examples import ImagePair
from isr_jax.errors import UserError
from isr_jax.files import replacing
from isr_jax.loss_study import report
from isr_jax.loss_study.candidates import Candidate, candidates_of
from isr_jax.loss_study.results import Results, Scored, best_by_mean_rank, summarise
from isr_jax.loss_study.runs import Course, Interrupted, Training, Validation, train_runs
from isr_jax.perceptual import lpips
from isr_jax.perceptual.inputs import ImageDistance
from isr_jax.scoring import METRICS, Scorer
from isr_jax.state import State
from isr_jax.training.loaders import open_images, open_validation
from isr_jax.training.program import make_program, run_of
from isr_jax.training.run_folder import open_run
from isr_jax.training.runtime import explained, stop_signals, use_compilation_cache
from isr_jax.training.validation import make_upscale_all

# A run whose score ends this far below where it began counts as diverged.
COLLAPSE = 3.0  # dB of PSNR-Y


class StudyResult(NamedTuple):
    """The outcome of a study: its folder, and its results, None where it was interrupted."""

    run: Path
    results: Results | None


def study(
    config: ConfigDict, workdir: str | Path, *, console: Console | None = None
) -> StudyResult:
    """Study the candidates of `config.study`, or resume the study in `workdir`.

    Args:
        config: see configs/study.py, and `with_study` in isr_jax/config.py for the fields.
        workdir: the study's folder; created if missing.
        console: where to print; standard error by default.

    Raises:
        UserError: for unusable settings, data or folder.
    """
    console = console or Console(stderr=True)

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    use_compilation_cache()
    if jax.process_count() > 1:
        raise UserError("a loss study runs in one process; it uses all devices of one machine")
    candidates = candidates_of(config)
    with open_run(workdir, say=say) as run, explained(run, config):
        return _study(config, candidates, run, console=console, say=say)


def _study(
    config: ConfigDict,
    candidates: Sequence[Candidate],
    run: Path,
    *,
    console: Console,
    say: Callable[[str], None],
) -> StudyResult:
    """Study the candidates in a folder that no other process uses."""
    options = config.study
    held_out = open_validation(config, say)
    validation = Validation(
        held_out,
        Scorer(config.scale, distance=_distance(options.lpips, say)),
        make_upscale_all(make_program(candidates[0].config).generator, held_out),
    )
    photos = _training_photos(config, say)
    with stop_signals() as stopped:
        together = options.together
        if together == "auto":
            together = "unroll" if jax.default_backend() == "cpu" else "vmap"
        training = Training(jax.local_devices(), together, console, stopped)
        try:
            scored = []
            for i, candidate in enumerate(candidates):
                title = f"{candidate.name} ({i + 1} of {len(candidates)})"
                folder = run / "candidates" / candidate.name
                outcome = _outcome(
                    candidate, config, training, photos, validation, folder, title=title, say=say
                )
                scored.append(Scored(candidate.name, candidate.config.loss.to_dict(), outcome))
        except Interrupted:
            say("interrupted; run the same command again to resume")
            return StudyResult(run, None)
    names = [photo.name for photo in validation.photos]
    results = summarise(scored, validation.score_bicubic(), validation.names, names, config)
    _keep_best(run, results)
    report.write(run, results, _pictures(validation.photos, options.pictures))
    return StudyResult(run, results)


def _distance(network: str, say: Callable[[str], None]) -> ImageDistance | None:
    if network == "none":
        return None
    if network == "auto" and not lpips.at_hand("alex"):
        say(
            "LPIPS is left out: its weights are not cached (config.study.lpips=alex downloads them)"
        )
        return None
    return lpips.load_lpips("alex" if network == "auto" else network)


def _training_photos(config: ConfigDict, say: Callable[[str], None]) -> list[ImagePair]:
    options = config.data
    source = open_images(config, "train")
    crop = sampled_crop(config)
    photos = sources.load_all(source, min_size=crop, warn=say)
    if config.study.learning_rates and len(photos) <= config.study.tune_images:
        raise UserError(
            f"config.study.tune_images={config.study.tune_images} leaves none of the "
            f"{len(photos)} images of {options.train} to train on; give fewer"
        )
    return photos


def _pictures(photos: Sequence[ImagePair], most: int) -> list[ImagePair]:
    """Return up to `most` of the images, evenly spread."""
    places = np.linspace(0, len(photos) - 1, min(most, len(photos))).round().astype(int)
    return [photos[i] for i in places]


def _outcome(
    candidate: Candidate,
    config: ConfigDict,
    training: Training,
    photos: Sequence[ImagePair],
    validation: Validation,
    folder: Path,
    *,
    title: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Tune and train a candidate, or read what was done before."""
    options, seeds = config.study, tuple(config.study.seeds)
    tuning_of = {"steps": options.tune_steps, "images": options.tune_images, "seed": seeds[0]}
    _claim(
        folder,
        {
            "run": candidate.config.to_dict(),
            "seeds": seeds,
            "learning_rates": candidate.rates,
            "tuning": tuning_of if candidate.rates[1:] else {},
            "metrics": validation.names,
            "images": [photo.name for photo in validation.photos],
            "training_images": len(photos),
        },
    )
    done = _read(folder / "outcome.json")
    if done:
        return done
    tuning = _read(folder / "tuning.json")
    if tuning is None:
        tuning = _tune(candidate, config, training, photos, validation, title=title)
        _write(folder / "tuning.json", tuning)
    rate = tuning["learning_rate"]
    run = candidate.config.copy_and_resolve_references()
    run.g_optimizer.learning_rate = rate if rate else candidate.rates[0]
    outcome: dict[str, Any] = {**tuning, "seeds": seeds, "curve": [], "seconds_per_update": None}
    if rate is None:
        outcome["diverged"] = "not finite at any of the learning rates"
    else:
        course = train_runs(
            run,
            training,
            seeds=seeds,
            rates=[rate] * len(seeds),
            photos=photos,
            validation=validation,
            title=title,
            folder=folder,
            warn=say,
        )
        outcome["diverged"] = _divergence(course, seeds)
        outcome["curve"] = course.curve
        if course.durations:
            outcome["seconds_per_update"] = float(np.median(course.durations))
        if not course.failed:
            _keep_runs(folder, run, course.states, seeds, validation, options.pictures)
    _write(folder / "outcome.json", outcome)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    what = (
        f"diverged: {outcome['diverged']}" if outcome["diverged"] else _scored(outcome, validation)
    )
    say(f"{title}: learning rate {run.g_optimizer.learning_rate:g}, {what}")
    return outcome


def _scored(outcome: Mapping[str, Any], validation: Validation) -> str:
    means = np.mean(outcome["curve"][-1]["scores"], axis=(0, 1))
    return ", ".join(
        METRICS[name].score(mean) for name, mean in zip(validation.names, means, strict=True)
    )


def _claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write what the folder is for; a UserError names the first difference to an earlier study.

    Fields that are newer than the study had their defaults.
    """
    file = folder / "study.json"
    now = flatten(json.loads(json.dumps(identity)))
    before = _read(file)
    if before is None:
        folder.mkdir(parents=True, exist_ok=True)
        _write(file, identity)
        return
    defaults = flatten(get_config().to_dict())
    named = {f"run.{name}": default for name, default in defaults.items()}
    then = {name: default for name, default in named.items() if name in now} | flatten(before)
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name):
            raise UserError(
                f"{folder} was started with {name}={then.get(name)}, which is now {now.get(name)}; "
                "give another --workdir, or remove that folder"
            )


def _tune(
    candidate: Candidate,
    config: ConfigDict,
    training: Training,
    photos: Sequence[ImagePair],
    validation: Validation,
    *,
    title: str,
) -> dict[str, Any]:
    """Return the learning rate of the best mean rank over the metrics, and the scores of each.

    All rates train at once, by the first seed, on all images but those that score them.
    """
    if len(candidate.rates) == 1:
        return {"learning_rate": candidate.rates[0], "tuning": []}
    options = config.study
    run = candidate.config.copy_and_resolve_references()
    run.train.steps = run.train.validate_every = run.train.checkpoint_every = options.tune_steps
    course = train_runs(
        run,
        training,
        seeds=[options.seeds[0]] * len(candidate.rates),
        rates=candidate.rates,
        photos=photos[: -options.tune_images],
        validation=validation._replace(photos=photos[-options.tune_images :]),
        title=f"{title}, learning rates",
    )
    trials: list[dict[str, Any]] = []
    ended = course.step == options.tune_steps and len(course.curve) > 1
    means = np.mean(course.curve[-1]["scores"], axis=1) if ended else None
    for r, rate in enumerate(candidate.rates):
        failed = course.failed.get(str(r))
        scores = (
            None if failed or means is None else dict(zip(validation.names, means[r], strict=True))
        )
        trials.append({"learning_rate": rate, "failed_at": failed, "scores": scores})
    rest = [trial for trial in trials if trial["scores"]]
    if not rest:
        return {"learning_rate": None, "tuning": trials}
    table = [[trial["scores"][name] for name in validation.names] for trial in rest]
    best = rest[best_by_mean_rank(np.array(table), validation.names)]
    return {"learning_rate": best["learning_rate"], "tuning": trials}


def _divergence(course: Course, seeds: Sequence[int]) -> str | None:
    """Return why a candidate counts as diverged, or None."""
    if course.failed:
        r, step = next(iter(course.failed.items()))
        return f"the loss or its gradient was not finite at update {step} of seed {seeds[int(r)]}"
    first, last = (np.mean(course.curve[i]["scores"], axis=1)[:, 0] for i in (0, -1))
    for seed, began, ended in zip(seeds, first, last, strict=True):
        if ended < began - COLLAPSE:
            return f"seed {seed} fell from {began:.2f} to {ended:.2f} dB"
    return None


def _keep_runs(
    folder: Path,
    config: ConfigDict,
    states: State,
    seeds: Sequence[int],
    validation: Validation,
    pictures: int,
) -> None:
    """Write a run folder of each seed, and the first seed's pictures for the report."""
    for r, seed in enumerate(seeds):
        target = folder / f"seed_{seed}"
        shutil.rmtree(target, ignore_errors=True)
        ema, stats = run_of((states.ema, states.g_stats), r)
        checkpoint.write_generator(target, ema, stats, config.to_dict() | {"seed": seed})
    shown = validation._replace(photos=_pictures(validation.photos, pictures))
    alive = [r == 0 for r in range(len(seeds))]
    ((_, images),) = shown.upscaled(states, alive)
    (folder / "images").mkdir(exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / "images" / f"{i}.png")


def _keep_best(run: Path, results: Results) -> None:
    """Copy the run folder of the best loss's best seed to RUN/best."""
    shutil.rmtree(run / "best", ignore_errors=True)
    if not results["winner"]:
        return
    winner = results["candidates"][results["winner"]]
    means = np.array([np.mean(winner["scores"][name], axis=1) for name in results["metrics"]]).T
    seed = results["seeds"][best_by_mean_rank(means, results["metrics"])]
    shutil.copytree(run / "candidates" / results["winner"] / f"seed_{seed}", run / "best")


def _read(file: Path) -> Any:
    """Return a JSON file, or None if it is missing or damaged: what it held is done again."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def _write(file: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    with replacing(file) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1) + "\n")
