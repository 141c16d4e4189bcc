"""Tuning of a study: grids that widen, scores of trials, and trials that are kept and shared."""

import base64
import io
import json
import math
import re
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

import isr_jax
from isr_jax import config as base
from isr_jax.errors import UserError
from isr_jax.loss_study import loop, tuning
from isr_jax.loss_study.candidates import candidates_of
from isr_jax.loss_study.runs import Course, Interrupted
from isr_jax.loss_study.tuning import Bench, best_of, fidelity, perception, shortened, widen
from isr_jax.resize import resize_uint8
from tests.helpers.tiny_runs import silent, tiny

L1 = {"content": {"l1": 1.0}}


def peak(at):
    return lambda value: (5.0, -abs(math.log2(value / at)))


@pytest.mark.parametrize(
    "at, more, best",
    [
        (2e-3, [], 2e-3),
        (3e-2, [8e-3, 1.6e-2, 3.2e-2, 6.4e-2], 3.2e-2),
        (4e-4, [5e-4, 2.5e-4], 5e-4),
    ],
)
def test_a_grid_is_widened_until_the_best_is_inside(at, more, best):
    start = [1e-3, 2e-3, 4e-3]
    tried, edge = widen(start, peak(at), most=6)
    assert list(tried) == start + more
    assert best_of(tried) == best and not edge


def test_widening_ends_and_says_so():
    tried, edge = widen([1.0, 2.0], lambda value: (5.0, value), most=3)
    assert list(tried) == [1, 2, 4, 8, 16] and edge
    # A seed that failed is worse than any score; of values that are equally bad, the smallest.
    tried, edge = widen([1.0, 2.0], lambda value: (4.0 if value > 3 else 5.0, value), most=6)
    assert (list(tried), best_of(tried), edge) == ([1, 2, 4], 2, False)
    tried, edge = widen([1.0, 2.0], lambda value: (0.0, -math.inf), most=2)
    assert list(tried) == [1, 2, 0.5, 0.25] and edge


def test_no_adversarial_part_lies_below_the_smallest_weight():
    """Smaller weights are tried only while all cost too much, not while none is better."""
    none = (5.0, 1.0, 0.3)
    worse = widen([1.0, 3.0], lambda weight: (5.0, 1.0, 0.3 - weight), most=6, none=none)
    assert worse == ({1: (5.0, 1.0, -0.7), 3: (5.0, 1.0, -2.7)}, False)
    better = widen([1.0, 3.0], lambda weight: (5.0, 1.0, 1 / weight), most=6, none=none)
    assert list(better[0]) == [1, 3] and not better[1]

    def costly(weight):
        return (5.0, 1.0, 0.5) if weight < 0.2 else (5.0, 0.0, 30 - weight)

    tried, edge = widen([1.0, 3.0], costly, most=6, none=none)
    assert list(tried) == pytest.approx([1, 3, 1 / 3, 1 / 9], rel=1e-5)
    assert best_of(tried) == pytest.approx(1 / 9, rel=1e-5) and not edge


def test_fidelity_is_glass_s_delta_less_a_deviation():
    """One seed gains 1, 2 and 3 units, 2 on average; the other 6, 4 and 2, which is 4."""
    bicubic = {"psnr": 25.0, "ssim": 0.7, "ms_ssim": 0.9}
    unit = {"psnr": 2.0, "ssim": 0.1, "ms_ssim": 0.02}
    scores = {"psnr": [27.0, 37.0], "ssim": [0.9, 1.1], "ms_ssim": [0.96, 0.94], "niqe": [5.0, 9.0]}
    finished, score = fidelity(scores, bicubic=bicubic, unit=unit)
    assert finished == 2 and score == pytest.approx(3 - math.sqrt(2))
    alone = {name: [None, seeds[0]] for name, seeds in scores.items()}
    assert fidelity(alone, bicubic=bicubic, unit=unit) == (1, pytest.approx(2))
    nothing = {name: [None, None] for name in scores}
    assert fidelity(nothing, bicubic=bicubic, unit=unit) == (0, -math.inf)


def test_perception_counts_only_where_psnr_is_enough():
    options = {"metric": "niqe", "bicubic": {"niqe": 7.0}, "least": 27.0}
    good = {"psnr": [27.5, 26.5], "niqe": [5.0, 4.0]}
    assert perception(good, **options) == (2, 1.0, pytest.approx(2.5 - math.sqrt(0.5)))
    # The lower NIQE costs too much.
    costly = {"psnr": [26.9, 26.9], "niqe": [3.0, 3.0]}
    assert perception(costly, **options) == (2, 0.0, pytest.approx(26.9))
    assert perception(good, **options) > perception(costly, **options)
    assert perception({"psnr": [None], "niqe": [None]}, **options) == (0, 0.0, -math.inf)


def test_a_shorter_schedule_is_the_same_in_proportion():
    config = base.get_config()
    config.train.steps, config.train.ema_from, config.loss.adversarial_from = 1000, 100, 300
    config.g_optimizer.warmup_steps, config.g_optimizer.milestones = 200, (400, 900)
    run = shortened(config, 500)
    assert (run.train.steps, run.train.validate_every, run.train.ema_from) == (500, 500, 50)
    assert (run.g_optimizer.warmup_steps, run.g_optimizer.milestones) == (100, (200, 450))
    assert run.loss.adversarial_from == 150
    assert config.train.steps == 1000


def tuned_study(photos, candidates, **study):
    fields = {"generator.global_skip": "nearest", "g_optimizer.learning_rate": 1e-3}
    config = tiny(photos, **fields)
    losses = {name: base.candidate(loss=loss) for name, loss in candidates.items()}
    config = base.with_study(config, losses)
    config.study.update(seeds=(0, 1), learning_rates=(), adversarial_factors=(), pictures=1)
    config.study.update(lpips="none", dists="none", niqe="none")
    config.study.update(study)
    return config


def run_study(config, folder):
    """Return the results, and the (title, photos, validation photos) of everything trained."""
    trained = []

    def noted(config, training, **options):
        names = [[p.name for p in options["photos"]]]
        names.append([p.name for p in options["validation"].photos])
        trained.append((options["title"], *names))
        return train_runs(config, training, **options)

    train_runs = loop.train_runs
    with (
        mock.patch.object(loop, "train_runs", noted),
        mock.patch.object(tuning, "train_runs", noted),
    ):
        results = isr_jax.study(config, folder, console=silent()).results
    assert results
    return results, trained


@pytest.fixture(scope="module")
def tuned(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned") / "run"
    config = tuned_study(photos, {"l1": L1}, learning_rates=(1e-9, 3e-3, 1e9), tune_steps=24)
    return config, folder, *run_study(config, folder)


def test_the_learning_rate_is_tuned_on_images_that_are_not_the_test_s(tuned):
    _, folder, results, trained = tuned
    *trials, (_, all_trained, test) = trained
    assert len(trials) == 3
    for _, kept, held_out in trials:
        assert kept == ["0.png", "1.png", "2.png"] and held_out == ["3.png", "4.png"]
    assert all_trained == [f"{i}.png" for i in range(5)] and test == ["0.png", "1.png"]
    candidate = results["candidates"]["l1"]
    assert candidate["learning_rate"] == 3e-3
    (search,) = candidate["searches"]
    slow, chosen, fast = search["tried"]
    assert (fast["finished"], fast["scores"], fast["score"]) == (0, {}, None)
    assert (slow["finished"], chosen["finished"], search["edge"]) == (2, 2, False)
    assert chosen["score"] > slow["score"]
    assert "l1 comes closest" in results["verdict"]  # of photographs that bicubic made
    for name in ("report.html", "report.md"):
        report = (folder / name).read_text()
        assert "What tuning tried" in report and "chosen" in report
    # Independently, from what is on disk: the mean over both seeds of the trial that was chosen.
    trial = json.loads((folder / "trials" / f"{chosen['trial']}.json").read_text())
    assert len(trial["scores"]["psnr"]) == 2 and trial["identity"]["run"]["train"]["steps"] == 24
    assert chosen["scores"]["psnr"] == pytest.approx(np.mean(trial["scores"]["psnr"]))


def test_a_killed_study_repeats_no_trial_that_was_finished(tuned):
    config, folder, results, _ = tuned
    (folder / "candidates" / "l1" / "outcome.json").unlink()
    unfinished = results["candidates"]["l1"]["searches"][0]["tried"][1]["trial"]
    (folder / "trials" / f"{unfinished}.json").unlink()
    again, trained = run_study(config, folder)
    assert [title for title, *_ in trained] == ["l1 (1 of 1), learning rate 0.003", "l1 (1 of 1)"]
    assert again | {"seconds": None} == results | {"seconds": None}


NAMES = ["psnr", "ssim", "ms_ssim", "niqe"]


def made_up(config, training, *, seeds, **options):
    """Scores with one best rate, 8e-3, or 16e-3 with an adversarial part, which costs PSNR."""
    rate, weight = config.g_optimizer.learning_rate, config.loss.adversarial_weight
    psnr = 27 - 0.1 * math.log2(rate / (16e-3 if weight else 8e-3)) ** 2 - 100 * weight
    niqe = 7 - math.log2(1 + 1000 * weight)
    scores = np.full((len(seeds), 2, 4), [psnr, 0.75, 0.95, niqe])
    scores[..., 0] += [-0.1, 0.1]  # the two images
    scores[0] += 0.01  # the first seed
    curve = [{"step": config.train.steps, "scores": scores.tolist()}]
    nothing: Any = None
    return Course(nothing, config.train.steps, curve, [], {}, 1.0)


def test_rate_and_weight_are_tuned_in_turn(photos, tmp_path):
    """Of scores whose best values are known, beyond the first grids."""
    losses = {"l1": L1, "gan": L1 | {"adversarial_weight": 1e-3}}
    study = {"learning_rates": (1e-3, 2e-3, 4e-3), "adversarial_factors": (1 / 3, 1.0, 3.0)}
    config = tuned_study(photos, losses, seeds=(0, 1, 2, 3, 4), **study)
    gan, l1 = candidates_of(config)
    images: Any = [SimpleNamespace(name=f"{i}.png") for i in range(2)]
    bicubic = np.array([[24.0, 0.65, 0.90, 8.0], [26.0, 0.75, 0.92, 9.0]])
    held_out: Any = SimpleNamespace(names=NAMES, photos=images)
    nothing: Any = None
    bench = Bench(config, nothing, images, held_out, bicubic, "", tmp_path, lambda line: None)
    with mock.patch.object(tuning, "train_runs", side_effect=made_up) as trained:
        first = tuning.tune(l1, bench, title="l1")
        assert (first["learning_rate"], first["adversarial_weight"]) == (8e-3, 0)
        rates = [one["value"] for one in first["searches"][0]["tried"]]
        assert rates == [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]
        assert trained.call_count == 5
        found = tuning.tune(gan, bench, title="gan")
        alone, weights, again = found["searches"]
        assert alone["tried"] == first["searches"][0]["tried"]
        # The smallest is better than none, and the largest that costs less than 0.5 dB the best.
        tried = {one["value"]: one["allowed"] for one in weights["tried"]}
        assert tried == {0: True, 0.000333333: True, 1e-3: True, 3e-3: True, 9e-3: False}
        assert found["adversarial_weight"] == weights["chosen"] == 3e-3
        assert [one["value"] for one in again["tried"]] == [4e-3, 8e-3, 1.6e-2, 3.2e-2]
        assert found["learning_rate"] == 1.6e-2 and found["notes"] == []
        # The loss alone was tuned already, and the weight of 3e-3 at the rate of 8e-3.
        assert trained.call_count == 5 + 4 + 3
        assert tuning.tune(gan, bench, title="gan") == found
        assert trained.call_count == 12
    # By hand: 2 dB in units of the deviation of 24 and 26, and so on; the seeds less a deviation.
    score = {one["value"]: one["score"] for one in alone["tried"]}
    gains = np.array([2 / math.sqrt(2), 0.05 / math.sqrt(0.005), 0.04 / math.sqrt(0.0002)])
    units = np.array([math.sqrt(2), math.sqrt(0.005), math.sqrt(0.0002)])
    seeds = np.mean(gains) + 0.01 * np.mean(1 / units) * np.array([1, 0, 0, 0, 0])
    assert score[8e-3] == pytest.approx(seeds.mean() - seeds.std(ddof=1))


@pytest.mark.slow
def test_an_adversarial_weight_is_tuned_beside_the_loss_alone(photos, tmp_path):
    """MS-SSIM stands for a perceptual metric, which needs larger images."""
    losses = {"l1": L1, "gan": L1 | {"adversarial_weight": 1e-3}}
    study = {"learning_rates": (1e-4, 1e-3), "adversarial_factors": (0.5, 2.0), "widenings": 0}
    study["seeds"] = (0,)
    config = tuned_study(photos, losses, psnr_cost=1e9, **study)
    with mock.patch.object(tuning, "PERCEPTUAL", ("ms_ssim",)):
        results, trained = run_study(config, tmp_path)
    alone, weights, rates = results["candidates"]["gan"]["searches"]
    # The loss alone was tuned for its own candidate: nothing of it is trained again.
    assert alone["tried"] == results["candidates"]["l1"]["searches"][0]["tried"]
    titles = [title.split(", ", 1)[1] for title, *_ in trained if "," in title]
    assert len(titles) == len(set(titles))
    assert all("adversarial" in t for t in titles[len(alone["tried"]) :])
    none, *others = weights["tried"]
    assert none["value"] == 0 and [one["value"] for one in others][:2] == [5e-4, 2e-3]
    assert none["trial"] in [one["trial"] for one in alone["tried"]]
    # Each chosen value is the best of those tried, and what was trained in the end.
    for search in (alone, weights, rates):
        positive = [one for one in search["tried"] if one["value"]]
        assert search["chosen"] == max(positive, key=lambda one: one["score"])["value"]
    run = json.loads((tmp_path / "candidates" / "gan" / "seed_0" / "config.json").read_text())
    assert run["loss"]["adversarial_weight"] == weights["chosen"]
    assert run["g_optimizer"]["learning_rate"] == rates["chosen"]
    assert results["candidates"]["gan"]["loss"]["adversarial_weight"] == weights["chosen"]
    assert f"{weights['chosen']:g} adversarial" in (tmp_path / "report.md").read_text()


def test_without_a_perceptual_metric_the_weight_stays_and_the_report_says_so(photos):
    losses = {"gan": L1 | {"adversarial_weight": 1e-3}}
    (candidate,) = candidates_of(tuned_study(photos, losses, adversarial_factors=(0.5, 2.0)))
    assert candidate.weights == (5e-4, 2e-3)
    found = tuning.tune(candidate, mock.Mock(spec=Bench, perceptual=None), title="gan")
    assert found["adversarial_weight"] == 1e-3 and found["searches"] == []
    assert found["notes"] == [
        "the adversarial weight 0.001 is not tuned: no perceptual metric is at hand"
    ]


def test_a_gray_study_has_gray_pictures(photos, tmp_path):
    config = tuned_study(photos, {"l1": L1}, seeds=(0,))
    config.generator.channels = 1
    config.train.steps = 1
    isr_jax.study(config, tmp_path, console=silent())
    data = re.search(r"data:image/png;base64,([^'\"]+)", (tmp_path / "report.html").read_text())
    with Image.open(io.BytesIO(base64.b64decode(data[1]))) as picture:
        assert picture.mode == "L"


def test_rates_are_tuned_on_what_is_trained(photos, tmp_path, monkeypatch):
    """LR images that are not bicubic's; and pairs whose LR images would be ignored are refused."""
    benches = []

    def interrupted(candidate, bench, *, title):
        benches.append(bench)
        raise Interrupted

    monkeypatch.setattr(loop, "tune", interrupted)
    settings = {"seeds": (0,), "learning_rates": (1e-4, 1e-3), "tune_images": 2}
    config = tuned_study(photos, {"l1": L1}, **settings)
    config.data.degradation = "second_order"
    isr_jax.study(config, tmp_path, console=silent())
    (bench,) = benches
    assert len(bench.validation.photos) == 2
    for photo in bench.validation.photos:
        clean = resize_uint8(photo.hr, scale=0.5)
        assert photo.lr.shape == clean.shape
        assert np.std(photo.lr.astype(float) - clean) > 2
    config.data.train = f"pairs:{photos}:{photos}"
    with pytest.raises(UserError, match=r"has LR images, and config\.data\.degradation="):
        isr_jax.study(config, tmp_path / "pairs", console=silent())
