"""The loss study: by which loss does a generator learn most?

Candidates differ by their loss, and by what is tuned for it, the learning rate and the weight of an
adversarial part: all start from the same parameters, per seed, and see the same crops in the same
order. The best loss has the largest gain over bicubic on the validation set after the same number
of updates, by each metric; overall, the best mean rank over the metrics. Candidates are tied where
the interval of their difference holds 0.

    RUN/report.html, report.md, results.json, curves.png
    RUN/best/                       the best run: a run folder for `isr upscale`
    RUN/trials/                     what each tuning run scored
    RUN/candidates/NAME/seed_S/     the run folder of each seed's generator
                        outcome.json, study.json, images/

Finished trials and candidates are not repeated; of an interrupted one, the trial is run again and
the final runs are resumed.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict
from rich.console import Console

from isr_jax.checkpoints import restore
from isr_jax.checkpoints import runs as checkpoint
from isr_jax.config import flatten, get_config, sampled_crop
from isr_jax.data import loading
from isr_jax.data.choices import share_of_pairs
from isr_jax.data.examples import ImagePair, in_8_bits, without_own
from isr_jax.errors import UserError
from isr_jax.files import read_json, write_json
from isr_jax.loss_study import report
from isr_jax.loss_study.candidates import Candidate, candidates_of, tune_steps
from isr_jax.loss_study.results import Results, Scored, best_by_mean_rank, summarise
from isr_jax.loss_study.runs import (
    Interrupted,
    Training,
    Validation,
    fit_scorer,
    train_runs,
)
from isr_jax.loss_study.tuning import Bench, tune
from isr_jax.perceptual import dists, lpips, niqe
from isr_jax.scoring import METRICS, Scorer
from isr_jax.state import State
from isr_jax.training.loaders import fingerprints, open_images, open_validation
from isr_jax.training.program import make_program, run_of
from isr_jax.training.run_folder import open_run
from isr_jax.training.runtime import explained, stop_signals, use_compilation_cache
from isr_jax.training.validation import UpscaleAll, degraded, make_upscale_all


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
    held_out, photos = open_validation(config, say), _training_photos(config, say)
    upscale = partial(make_upscale_all, make_program(candidates[0].config).generator)
    scorer = _scorer(config, say)
    validation = Validation(held_out, fit_scorer(scorer, held_out, say=say), upscale(held_out))
    data = fingerprints(config)
    with stop_signals() as stopped:
        together = options.together
        if together == "auto":
            together = "unroll" if jax.default_backend() == "cpu" else "vmap"
        training = Training(jax.local_devices(), together, console, stopped)
        bench = None
        if any(one.rates or one.weights for one in candidates):
            kept, tuned = photos[: -options.tune_images], photos[-options.tune_images :]
            tuned = degraded([in_8_bits(photo, scale=config.scale) for photo in tuned], config)
            on_tuned = Validation(tuned, fit_scorer(scorer, tuned, say=say), upscale(tuned))
            bicubic = on_tuned.score_bicubic()
            folder = run / "trials"
            bench = Bench(config, training, kept, on_tuned, bicubic, data["train"], folder, say)
        try:
            scored = []
            for i, candidate in enumerate(candidates):
                title = f"{candidate.name} ({i + 1} of {len(candidates)})"
                folder = run / "candidates" / candidate.name
                outcome = _outcome(
                    candidate, bench, config, data, training, photos, validation, folder, title, say
                )
                loss = candidate.config.loss.to_dict()
                loss["adversarial_weight"] = outcome["adversarial_weight"]
                scored.append(Scored(candidate.name, loss, outcome))
        except Interrupted:
            say("interrupted; run the same command again to resume")
            return StudyResult(run, None)
    names = [photo.name for photo in validation.photos]
    results = summarise(scored, validation.score_bicubic(), validation.names, names, config)
    _keep_best(run, results)
    shown = _shown(validation.photos, options.pictures)
    report.write(run, results, shown, _pictures(run, results, shown, upscale(shown)))
    return StudyResult(run, results)


def _scorer(config: ConfigDict, say: Callable[[str], None]) -> Scorer:
    """Return what scores all images, with the metrics whose weights are at hand or asked for."""
    options = config.study

    def wanted(name: str, *, at_hand: bool, loads: str) -> bool:
        if options[name] == "auto" and not at_hand:
            say(
                f"{METRICS[name].heading} is left out: its weights are not cached "
                f"(config.study.{name}={loads} downloads them)"
            )
        return at_hand if options[name] == "auto" else options[name] != "none"

    network = "alex" if options.lpips == "auto" else options.lpips
    form = "matlab" if options.niqe == "auto" else options.niqe
    use_lpips = wanted("lpips", at_hand=lpips.at_hand("alex"), loads="alex")
    use_dists = wanted("dists", at_hand=dists.at_hand(), loads="load")
    use_niqe = wanted("niqe", at_hand=niqe.at_hand(), loads="matlab")
    return Scorer(
        config.scale,
        lpips=lpips.load_lpips(network) if use_lpips else None,
        dists=dists.load_dists() if use_dists else None,
        niqe=niqe.load_niqe(form) if use_niqe else None,
    )


def _training_photos(config: ConfigDict, say: Callable[[str], None]) -> list[ImagePair]:
    options = config.data
    source = open_images(config, "train")
    share = share_of_pairs(degradation=options.degradation, paired_share=None, spec=options.train)
    photos = loading.load_all(source, min_size=sampled_crop(config), warn=say, keep_bits=True)
    photos = [photo if share else without_own(photo, scale=config.scale) for photo in photos]
    tuned = config.study.learning_rates or config.study.adversarial_factors
    if tuned and len(photos) <= config.study.tune_images:
        raise UserError(
            f"config.study.tune_images={config.study.tune_images} leaves none of the "
            f"{len(photos)} images of {options.train} to train on; give fewer"
        )
    return photos


def _shown(photos: Sequence[ImagePair], most: int) -> list[ImagePair]:
    """Return up to `most` of the images, evenly spread."""
    places = np.linspace(0, len(photos) - 1, min(most, len(photos))).round().astype(int)
    return [photos[i] for i in places]


def _pictures(
    run: Path, results: Results, photos: Sequence[ImagePair], upscale: UpscaleAll
) -> dict[str, list[UInt8[np.ndarray, "h w c"]]]:
    """Return what the first finished seed of each candidate makes of some images."""
    pictures = {}
    for name, one in results["candidates"].items():
        if not one["diverged"]:
            seed = next(seed for seed in results["seeds"] if str(seed) not in one["failed"])
            model = restore.restore_generator(run / "candidates" / name / f"seed_{seed}")
            pictures[name] = list(upscale(model.params, model.stats, photos))
    return pictures


def _outcome(
    candidate: Candidate,
    bench: Bench | None,
    config: ConfigDict,
    data: Mapping[str, str],
    training: Training,
    photos: Sequence[ImagePair],
    validation: Validation,
    folder: Path,
    title: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Tune and train a candidate, or read what was done before."""
    seeds = tuple(config.study.seeds)
    _claim(folder, _identity(candidate, bench, config, data, photos, validation))
    done = read_json(folder / "outcome.json")
    if done:
        return done
    run = candidate.config.copy_and_resolve_references()
    rate, weight = run.g_optimizer.learning_rate, run.loss.adversarial_weight
    outcome: dict[str, Any] = {
        "learning_rate": rate,
        "adversarial_weight": weight,
        "searches": [],
        "notes": [],
        "seeds": seeds,
        "failed": {},
        "diverged": None,
        "curve": [],
        "seconds_per_update": None,
        "seconds": 0.0,
    }
    if bench and (candidate.rates or candidate.weights):
        outcome |= tune(candidate, bench, title=title)
    if outcome["learning_rate"] is None:
        outcome["diverged"] = "no seed was finite at any of the learning rates"
    else:
        run.g_optimizer.learning_rate = outcome["learning_rate"]
        run.loss.adversarial_weight = outcome["adversarial_weight"]
        course = train_runs(
            run,
            training,
            seeds=seeds,
            photos=photos,
            validation=validation,
            title=title,
            folder=folder,
            warn=say,
        )
        last = np.isfinite(course.curve[-1]["scores"]).all(axis=(1, 2))
        failed = course.failed | {
            str(r): course.step for r in np.flatnonzero(~last) if str(r) not in course.failed
        }
        outcome["failed"] = {str(seeds[int(r)]): step for r, step in failed.items()}
        outcome["curve"], outcome["seconds"] = course.curve, course.seconds
        if course.durations:
            outcome["seconds_per_update"] = float(np.median(course.durations))
        finished = [str(seed) not in outcome["failed"] for seed in seeds]
        # With one seed of several an interval would know nothing of the others.
        if sum(finished) < min(2, len(seeds)):
            first = next(iter(outcome["failed"].items()))
            outcome["diverged"] = (
                f"{len(failed)} of {len(seeds)} seeds; seed {first[0]} was not finite at update "
                f"{first[1]}"
            )
        else:
            _keep_runs(folder, run, course.states, finished, seeds)
    write_json(folder / "outcome.json", outcome)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    what = (
        f"diverged: {outcome['diverged']}" if outcome["diverged"] else _scored(outcome, validation)
    )
    say(f"{title}: {_tuned(outcome)}, {what}")
    return outcome


def _identity(
    candidate: Candidate,
    bench: Bench | None,
    config: ConfigDict,
    data: Mapping[str, str],
    photos: Sequence[ImagePair],
    validation: Validation,
) -> dict[str, Any]:
    """Return all that the outcome of a candidate depends on."""
    options = config.study
    tuning = {}
    if bench and (candidate.rates or candidate.weights):
        tuning = {
            "steps": tune_steps(config),
            "images": options.tune_images,
            "rates": candidate.rates,
            "weights": candidate.weights,
            "psnr_cost": options.psnr_cost,
            "widenings": options.widenings,
            "metrics": bench.validation.names,
        }
    return {
        "run": candidate.config.to_dict(),
        "seeds": tuple(options.seeds),
        "tuning": tuning,
        "metrics": validation.names,
        "images": [photo.name for photo in validation.photos],
        "training_images": len(photos),
        "data": data,
    }


def _tuned(outcome: Mapping[str, Any]) -> str:
    rate, weight = outcome["learning_rate"], outcome["adversarial_weight"]
    parts = ["no learning rate" if rate is None else f"learning rate {rate:g}"]
    return ", ".join(parts + [f"adversarial weight {weight:g}"] * (weight > 0))


def _scored(outcome: Mapping[str, Any], validation: Validation) -> str:
    means = np.nanmean(outcome["curve"][-1]["scores"], axis=(0, 1))
    return ", ".join(
        METRICS[name].score(mean) for name, mean in zip(validation.names, means, strict=True)
    )


def _claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write what the folder is for; a UserError names the first difference to an earlier study.

    Fields that are newer than the study had their defaults, and its data are taken to be the same.
    """
    file = folder / "study.json"
    now = flatten(json.loads(json.dumps(identity)))
    before = read_json(file)
    if before is None:
        write_json(file, identity)
        return
    defaults = flatten(get_config().to_dict())
    named = {f"run.{name}": default for name, default in defaults.items()}
    named |= {name: value for name, value in now.items() if name.startswith("data.")}
    then = {name: default for name, default in named.items() if name in now} | flatten(before)
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name):
            raise UserError(
                f"{folder} was started with {name}={then.get(name)}, which is now {now.get(name)}; "
                "give another --workdir, or remove that folder"
            )


def _keep_runs(
    folder: Path,
    run: ConfigDict,
    states: State,
    finished: Sequence[bool],
    seeds: Sequence[int],
) -> None:
    """Write a run folder of each finished seed."""
    for r in np.flatnonzero(finished).tolist():
        seed = seeds[r]
        target = folder / f"seed_{seed}"
        shutil.rmtree(target, ignore_errors=True)
        ema, stats = run_of((states.ema, states.g_stats), r)
        checkpoint.write_generator(target, ema, stats, run.to_dict() | {"seed": seed})


def _keep_best(run: Path, results: Results) -> None:
    """Copy the run folder of the best loss's best seed to RUN/best."""
    shutil.rmtree(run / "best", ignore_errors=True)
    if not results["winner"]:
        return
    winner = results["candidates"][results["winner"]]
    seeds = [seed for seed in results["seeds"] if str(seed) not in winner["failed"]]
    means = np.array([np.mean(winner["scores"][name], axis=1) for name in results["metrics"]]).T
    means = means[[seed in seeds for seed in results["seeds"]]]
    seed = seeds[best_by_mean_rank(means, results["metrics"])]
    shutil.copytree(run / "candidates" / results["winner"] / f"seed_{seed}", run / "best")
