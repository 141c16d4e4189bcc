"""The loss study on small photographs: fairness, runs at once, ties, divergence, resuming."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from rich.console import Console

import isr_jax
from isr_jax import config as base
from isr_jax import protocols
from isr_jax.data import loading, pool, sources
from isr_jax.errors import UserError
from isr_jax.loss_study import loop
from isr_jax.perceptual.lpips import at_hand, load_lpips
from isr_jax.resize import resize_uint8
from isr_jax.training.program import (
    Inputs,
    make_program,
    make_runs_dispatch,
    on_all,
    run_keys,
)
from isr_jax.training.record import read_records
from tests.helpers.tiny_runs import environment, silent, tiny

ROOT = Path(__file__).parent.parent
# Beside two that are what they seem: one that cannot but diverge, and one twin.
CANDIDATES = {
    "l1": {"loss": {"content": {"l1": 1.0}}},
    "l1_again": {"loss": {"content": {"l1": 1.0}}},
    "mse_gan": {"loss": {"content": {"mse": 1.0}, "adversarial_weight": 1e-3}},
    "too_fast": {"loss": {"content": {"l1": 1.0}}, "g_optimizer": {"learning_rate": 1e6}},
}


def tiny_study(photos, candidates=CANDIDATES, **extra):
    # These photographs are what bicubic makes: nearest leaves something to learn.
    fields = {"generator.global_skip": "nearest", "g_optimizer.learning_rate": 1e-3, **extra}
    study = {k: fields.pop(k) for k in list(fields) if k.startswith("study.")}
    config = tiny(photos, **fields)
    config = base.with_study(config, {n: base.candidate(**c) for n, c in candidates.items()})
    config.study.update(seeds=(0, 1), learning_rates=(), adversarial_factors=(), pictures=1)
    config.study.update(lpips="none", dists="none", niqe="none")
    config.update_from_flattened_dict(study)
    return config


@pytest.fixture(scope="module")
def done(photos, tmp_path_factory):
    """A finished study that nothing disturbed."""
    run = tmp_path_factory.mktemp("studies") / "done"
    return isr_jax.study(tiny_study(photos), run, console=silent())


def without_times(results):
    return {name: value for name, value in results.items() if name != "seconds"}


SEEDS, RATES = (3, 5), (1e-4, 1e-3)


def twenty_updates(photos):
    config = tiny(photos, **{"train.steps": 20, "train.log_every": 1, "train.validate_every": 20})
    config.train.checkpoint_every = 20
    config.loss.content.ms_ssim = 1.0
    return config


@pytest.fixture(scope="module")
def single_losses(photos, tmp_path_factory):
    """Of each of two runs, by `isr_jax.train`."""
    config, losses = twenty_updates(photos), []
    for config.seed, config.g_optimizer.learning_rate in zip(SEEDS, RATES, strict=True):
        run = tmp_path_factory.mktemp("single")
        isr_jax.train(config, run, console=silent())
        losses.append([r["loss"] for r in read_records(run) if r["kind"] == "train"])
    assert not np.allclose(*losses, rtol=1e-2)
    return losses


@pytest.mark.parametrize("together, devices", [("unroll", 1), ("vmap", 1), ("unroll", 2)])
def test_runs_at_once_have_the_losses_of_single_runs(photos, single_losses, together, devices):
    """Over 20 updates to 1e-4, with two seeds and their two learning rates, in one program."""
    config = twenty_updates(photos)
    config.g_optimizer.learning_rate = 123.0  # that of each run stands for it
    source = sources.open_source(config.data.train, "train", scale=2)
    photos = loading.load_all(source, min_size=24, warn=pytest.fail)
    used = jax.devices()[:devices]
    split = on_all(used, axis="devices")
    keys = jax.vmap(run_keys)(jnp.array(SEEDS, jnp.uint32))
    states = jax.jit(jax.vmap(make_program(config).init), out_shardings=split)(keys[:, 0])
    inputs = jax.device_put(Inputs(frozen=(), images=pool.make_pool(photos)), on_all(used))
    each = jax.device_put((keys[:, 1], jnp.array(RATES)), split)
    dispatch = make_runs_dispatch(config, used, together=together)
    losses = []
    for _ in range(20):
        states, series = dispatch(states, inputs, *each, n=1, adversarial=True)
        losses.append(series["loss"][:, 0])
    np.testing.assert_allclose(np.transpose(losses), single_losses, rtol=1e-4)
    assert states.ema["Conv_0"]["kernel"].sharding.device_set == set(used)


def test_all_start_alike_and_only_the_loss_differs(done):
    """Step 0 is the same for all; twins stay the same to the last bit, others do not."""
    candidates = done.results["candidates"]
    starts = [one["curve"][0]["scores"] for one in candidates.values()]
    assert all(start == starts[0] for start in starts)
    assert candidates["l1"]["curve"] == candidates["l1_again"]["curve"]
    assert candidates["l1"]["curve"][-1] != candidates["mse_gan"]["curve"][-1]
    # The two seeds of a candidate differ.
    first, second = candidates["l1"]["scores"]["psnr"]
    assert first != second


def test_twins_tie_and_what_diverges_is_said_to(done):
    results = done.results
    assert "l1_again" in results["candidates"]["l1"]["ties"]
    pair = {"l1", "l1_again"}
    same = [d for d in results["differences"] if {d["a"], d["b"]} == pair]
    assert [d["metric"] for d in same] == ["psnr", "ssim", "ms_ssim"]
    assert all(d["tied"] and d["mean"] == d["low"] == d["high"] == 0 for d in same)
    bad = results["candidates"]["too_fast"]
    assert bad["diverged"] and bad["place"] == 0
    assert list(results["candidates"])[-1] == "too_fast"
    assert "too_fast diverged" in results["verdict"]
    assert not any("too_fast" in (d["a"], d["b"]) for d in results["differences"])
    markdown = (done.run / "report.md").read_text()
    assert "| diverged | too_fast |" in markdown
    assert f"too_fast diverged: {bad['diverged']}" in markdown
    assert "0 of 2" in markdown
    assert bad["failed"] == {"0": 3, "1": 3}  # as `isr_jax.train` says of these seeds alone
    assert results["verdict"] in markdown


def test_scores_are_those_of_the_run_folders(done, photos):
    """Each seed's folder gives, by `isr_jax.load`, the images that were judged."""
    results = done.results
    for seed in (0, 1):
        upscaler = isr_jax.load(done.run / "candidates" / "mse_gan" / f"seed_{seed}")
        for i, name in enumerate(results["images"]):
            hr = np.array(Image.open(photos / name))
            scores = protocols.measure(upscaler(resize_uint8(hr, scale=0.5)), hr, crop=2)
            stored = results["candidates"]["mse_gan"]["scores"]
            assert stored["psnr"][seed][i] == pytest.approx(scores.psnr, abs=1e-9)
            assert stored["ssim"][seed][i] == pytest.approx(scores.ssim, abs=1e-9)
    truths = [np.array(Image.open(photos / name)) for name in results["images"]]
    bicubic = [
        protocols.measure_interpolation(resize_uint8(hr, scale=0.5), hr, scale=2).psnr
        for hr in truths
    ]
    assert results["bicubic"]["psnr"] == pytest.approx(np.mean(bicubic))
    gain = results["candidates"]["mse_gan"]["gain"]["psnr"][0]
    mean = np.mean(results["candidates"]["mse_gan"]["scores"]["psnr"])
    assert gain == pytest.approx(mean - np.mean(bicubic), abs=1e-9)


def test_the_best_run_is_ready_for_use(done):
    best = isr_jax.load(done.run / "best")
    winner = done.results["winner"]
    assert winner == next(iter(done.results["candidates"]))
    image = np.arange(16 * 12 * 3, dtype=np.uint8).reshape(16, 12, 3)
    scores = done.results["candidates"][winner]["scores"]
    ranks = np.sum([np.argsort(np.argsort(-np.mean(s, axis=1))) for s in scores.values()], axis=0)
    seed = int(np.argmin(ranks))
    chosen = isr_jax.load(done.run / "candidates" / winner / f"seed_{seed}")(image)
    np.testing.assert_array_equal(best(image), chosen)


def test_a_stopped_study_goes_on_and_repeats_nothing(photos, tmp_path, done):
    """Ctrl-C within the second candidate; then the results are those of one undisturbed."""
    calls = []

    class Impatient(Console):
        """Presses Ctrl-C when the first candidate is done."""

        def print(self, *args, **kwargs):
            super().print(*args, **kwargs)
            if args and str(args[0]).startswith("l1 (1 of 4):"):
                os.kill(os.getpid(), signal.SIGINT)

    config = tiny_study(photos)
    stopped = isr_jax.study(config, tmp_path, console=Impatient(file=io.StringIO()))
    assert stopped.results is None
    first = tmp_path / "candidates" / "l1" / "outcome.json"
    before = first.stat().st_mtime_ns
    assert list((tmp_path / "candidates" / "l1_again" / "checkpoints").iterdir())

    def noted(config, training, **options):
        calls.append(options["title"])
        return train_runs(config, training, **options)

    train_runs = loop.train_runs
    with mock.patch.object(loop, "train_runs", noted):
        again = isr_jax.study(config, tmp_path, console=silent())
    assert [title.split()[0] for title in calls] == ["l1_again", "mse_gan", "too_fast"]
    assert first.stat().st_mtime_ns == before
    assert without_times(again.results) == without_times(done.results)


@pytest.mark.slow
def test_a_killed_study_ends_like_an_undisturbed_one(photos, tmp_path, done):
    """kill -9 while the second candidate trains, the same command again, from the command line."""
    config = tmp_path / "small.py"
    config.write_text(
        "import sys\n"
        f"sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        "from test_study import tiny_study\n"
        f"get_config = lambda: tiny_study({str(photos)!r})\n"
    )
    command = [sys.executable, "run.py", "--config", str(config), f"--workdir={tmp_path / 'run'}"]
    start = partial(subprocess.Popen, command, cwd=ROOT, env=environment(4), text=True)
    process = start(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    begun = tmp_path / "run" / "candidates" / "l1_again" / "checkpoints"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if begun.is_dir() and any(p.name.isdigit() for p in begun.iterdir()):
            process.kill()
            break
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "run" / "candidates" / "l1_again" / "outcome.json").exists()
    process = start(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert done.results["verdict"] in out and "report.html" in out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    for name, value in json.loads((done.run / "results.json").read_text()).items():
        if name not in ("seconds", "config"):
            assert results[name] == value, name


def test_another_study_in_the_same_folder_is_refused(photos, tmp_path, done):
    other = shutil.copytree(photos, tmp_path / "other")
    Image.open(other / "0.png").transpose(Image.Transpose.ROTATE_90).save(other / "0.png")
    with pytest.raises(UserError, match=r"was started with data.train=5 images .*, which is now 5"):
        isr_jax.study(
            tiny_study(photos, **{"data.train": f"folder:{other}"}), done.run, console=silent()
        )
    config = tiny_study(photos, **{"data.batch": 2})
    with pytest.raises(UserError, match=r"was started with run.data.batch=4, which is now 2; give"):
        isr_jax.study(config, done.run, console=silent())


def test_a_damaged_outcome_is_done_again(photos, tmp_path, done):
    shutil.copytree(done.run, tmp_path / "copy")
    outcome = tmp_path / "copy" / "candidates" / "l1" / "outcome.json"
    outcome.write_text(outcome.read_text()[:100])
    again = isr_jax.study(tiny_study(photos), tmp_path / "copy", console=silent())
    assert without_times(again.results) == without_times(done.results)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"study.only": ("l1", "l3")},
            "unknown candidate in config.study.only 'l3'; choose one of l1, l1_again",
        ),
        ({"study.only": ("l1", "l1")}, "only is .'l1', 'l1'.; give each once"),
        ({"study.seeds": (1, 1)}, "seeds is .1, 1.; give each once"),
        ({"study.seeds": (0, 0.5)}, "seeds is .0, 0.5.; give whole numbers"),
        ({"study.seeds": ("a", "b")}, "seeds is .'a', 'b'.; give whole numbers"),
        ({"study.learning_rates": (1e-3, 0.0)}, "learning_rates is .*; give numbers above 0"),
        ({"study.learning_rates": (1e-3,)}, "learning_rates is .*; give two or more"),
        ({"study.adversarial_factors": (1.0, 1.0)}, "adversarial_factors is .*; give each once"),
        ({"study.tune_steps": 3}, "tune_steps is 3, less than half of config.train.steps=8"),
        ({"study.niqe": "on"}, "unknown config.study.niqe 'on'; choose one of auto, none, matlab"),
        (
            {"study.together": "both"},
            "unknown config.study.together 'both'; choose one of auto, vmap, unroll",
        ),
        (
            {"study.lpips": "resnet"},
            "unknown config.study.lpips 'resnet'; choose one of auto, none, alex",
        ),
        ({"data.loader": "stream"}, "data.loader is stream; a study needs pool"),
        ({"train.parallel": "pmap"}, "train.parallel is pmap; a study needs jit"),
        ({"study.tune_images": 1}, "tune_images is 1; it must be 2 or more"),
        ({"study.learning_rates": (1e-3, 1e-2), "study.tune_images": 5}, "leaves none of the 5"),
        ({"study.candidates.l1.loss.content.l1": 0.0}, "candidates.l1: every weight .* is 0"),
    ],
)
def test_settings_that_cannot_work_are_named(photos, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        isr_jax.study(tiny_study(photos, **changes), tmp_path, console=silent())


def test_a_candidate_is_laid_over_the_study_s_config(photos):
    """Weights that it does not name are 0; other fields that it does not name are the study's."""
    config = tiny_study(photos, **{"study.learning_rates": (1e-4, 1e-3)})
    assert config.loss.content.mse == 1.0 and config.loss.adversarial_weight > 0
    config.loss.adversarial = "hinge"
    found = {one.name: one for one in loop.candidates_of(config)}
    loss = found["l1"].config.loss
    assert {name for name, weight in loss.content.items() if weight} == {"l1"}
    assert (loss.adversarial, loss.adversarial_weight, loss.feature_matching) == ("hinge", 0.0, 0.0)
    assert found["l1"].rates == (1e-4, 1e-3)
    assert found["too_fast"].rates == ()
    only_loss = found["mse_gan"].config.copy_and_resolve_references()
    only_loss.loss = found["l1"].config.loss
    assert only_loss == found["l1"].config
    assert "study" not in only_loss


@pytest.mark.parametrize(
    "partial, message",
    [
        (
            {"loss": {"content": {"l11": 1.0}}},
            "l1: unknown field 'loss.content.l11'; .* mean .*l1?",
        ),
        ({"loss": {"adversarial": 3}}, "candidates.l1: loss.adversarial is 3; .* of type str"),
        ({"loss": {}}, "candidates.l1: every weight .* is 0"),
    ],
)
def test_a_wrong_field_of_a_candidate_is_named(photos, partial, message):
    with pytest.raises(UserError, match=message):
        loop.candidates_of(tiny_study(photos, {"l1": partial}))


def test_a_candidate_changes_no_data(photos):
    config = tiny_study(photos)
    with config.unlocked():
        config.study.candidates.l1.data = ConfigDict({"batch": 2})
    with pytest.raises(UserError, match="unknown part of a candidate 'data'; choose one of loss"):
        loop.candidates_of(config)


def test_lpips_is_judged_where_its_weights_are_at_hand(photos, tmp_path, monkeypatch):
    """Files of the published layout with random weights; a smaller LPIPS is a better one."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    shapes = {
        0: (64, 3, 11),
        3: (192, 64, 5),
        6: (384, 192, 3),
        8: (256, 384, 3),
        10: (256, 256, 3),
    }
    trunk, heads = {}, {}
    for i, (layer, (out, into, side)) in enumerate(shapes.items()):
        weight = rng.normal(0, (2 / (into * side**2)) ** 0.5, (out, into, side, side))
        trunk[f"features.{layer}.weight"] = weight.astype(np.float32)
        trunk[f"features.{layer}.bias"] = np.zeros(out, np.float32)
        heads[f"lin{i}.model.1.weight"] = rng.random((1, out, 1, 1)).astype(np.float32)
    save_file(trunk, tmp_path / "alexnet-owt-7be5be79.safetensors")
    monkeypatch.setenv("ISR_WEIGHTS", str(tmp_path))
    assert not at_hand("alex")
    save_file(heads, tmp_path / "alex.safetensors")

    extra = {"study.lpips": "auto", "study.seeds": (0,), "train.steps": 4}
    config = tiny_study(photos, {"l1": {"loss": {"content": {"l1": 1.0}}}}, **extra)
    results = isr_jax.study(config, tmp_path / "run", console=silent()).results
    assert results["metrics"] == ["psnr", "ssim", "ms_ssim", "lpips"]
    candidate = results["candidates"]["l1"]
    best, distance = isr_jax.load(tmp_path / "run" / "best"), load_lpips("alex")
    truths = [np.array(Image.open(photos / name)) for name in results["images"]]
    expected = [distance(best(resize_uint8(hr, scale=0.5)), hr, crop=2) for hr in truths]
    assert candidate["scores"]["lpips"][0] == pytest.approx(expected, rel=1e-4)
    gain = results["bicubic"]["lpips"] - np.mean(expected)
    assert candidate["gain"]["lpips"][0] == pytest.approx(gain, rel=1e-3)
    assert "LPIPS" in (tmp_path / "run" / "report.html").read_text()
