"""Which checkpoints are kept, and runs that are trained once more."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest

import isr_jax
from isr_jax import cli
from isr_jax import config as base
from isr_jax.checkpoints import runs
from isr_jax.errors import UserError
from isr_jax.training import loop
from tests.helpers.command import ROOT
from tests.helpers.tiny_runs import (
    arguments,
    assert_bit_identical,
    environment,
    heard,
    silent,
    tiny,
)

pytestmark = pytest.mark.usefixtures("undrawn")


def save_all(run, scores, **keeping):
    """Save a checkpoint for each of some scores; return the steps that are left, and the best."""
    from isr_jax.state import State

    one = {"a": jax.numpy.ones(3)}
    for step, row in enumerate(scores, start=1):
        # Each by a manager of its own, as after a restart.
        with runs.open_manager(run, keeping=keeping) as manager:
            state = State(jax.numpy.int32(step), one, {}, one, one, one, {}, one)
            config = base.get_config()
            runs.save(manager, state, config, data={}, scores=row)
    with runs.open_manager(run, keeping=keeping) as manager:
        return sorted(manager.all_steps()), manager.best_step()


def rows(*pairs):
    return [{"psnr": float(p), "ssim": s, "ms_ssim": s} for p, s in pairs]


def test_the_latest_the_best_and_every_so_many_are_kept(tmp_path):
    scores = rows((20, 0.9), (30, 0.5), (21, 0.6), (22, 0.6), (23, 0.6), (24, 0.6), (25, 0.6))
    assert save_all(tmp_path / "a", scores) == ([2, 6, 7], 2)
    assert save_all(tmp_path / "b", scores, keep=1, keep_best="ssim") == ([1, 7], 1)
    assert save_all(tmp_path / "d", scores, keep=2, keep_best="latest") == ([6, 7], 7)
    steps, best = save_all(tmp_path / "c", scores, keep=1, keep_every=3)
    assert best == 2
    assert {2, 7} < set(steps)
    assert len(steps) in (4, 5)  # and those three updates apart


def test_less_is_better_by_some_and_what_has_no_score_is_never_the_best(tmp_path):
    """Of a validation before the metric was chosen, or of an image that has none."""
    niqes = [None, 5.0, 4.0, float("nan"), 6.0]
    scores = rows(*[(20 + i, 0.9) for i in range(len(niqes))])
    for row, niqe in zip(scores, niqes, strict=True):
        row |= {} if niqe is None else {"niqe": niqe}
    assert save_all(tmp_path / "a", scores, keep=1, keep_best="niqe") == ([3, 5], 3)
    assert save_all(tmp_path / "b", scores[:2], keep_best="niqe") == ([1, 2], 2)
    assert save_all(tmp_path / "c", scores[3:], keep_best="niqe") == ([1, 2], 2)
    for run in ("a", "b", "c"):
        runs.clear_up(tmp_path / run, warn=pytest.fail)
    (tmp_path / "a/config.json").write_text(json.dumps({"train": {"keep_best": "niqe"}}))
    with runs.open_manager(tmp_path / "a") as manager:
        assert manager.best_step() == 3


def test_the_best_is_chosen_as_the_run_says(tmp_path):
    save_all(tmp_path / "run", rows((20, 0.9), (30, 0.5)), keep_best="ssim")
    (tmp_path / "run/config.json").write_text(json.dumps({"train": {"keep_best": "ssim"}}))
    with runs.open_manager(tmp_path / "run") as manager:
        assert manager.best_step() == 1
    for damaged in ('{"train": {"keep_best": "beauty"}}', "[]", "{", '{"train": {"keep": "2"}}'):
        (tmp_path / "run/config.json").write_text(damaged)
        with runs.open_manager(tmp_path / "run") as manager:
            assert manager.best_step() == 2


@pytest.mark.slow
def test_there_is_always_a_checkpoint(photos, tmp_path):
    """Looked at as fast as possible, while each new one replaces the one before."""
    run = tmp_path / "run"
    many = {"train.steps": 10**6, "train.checkpoint_every": 1, "train.keep": 1}
    many |= {"train.validate_every": 10**6}
    command = [sys.executable, "run.py", "--config", "configs/base.py", f"--workdir={run}"]
    seen = set()
    with subprocess.Popen(
        [*command, *arguments(photos, **many)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        end = time.monotonic() + 120
        while len(seen) < 5:
            assert time.monotonic() < end
            assert process.poll() is None
            steps = {int(p.name) for p in run.glob("checkpoints/*") if p.name.isdigit()}
            assert steps or not seen
            seen |= steps
        process.send_signal(signal.SIGKILL)
    assert isr_jax.load(run, checkpoint="latest").step >= max(seen) - 1


def test_a_run_is_trained_once_more_from_its_folder(photos, trained, tmp_path, capsys):
    assert cli.main(["rerun", str(trained), str(tmp_path / "again")]) == 0
    assert_bit_identical(trained, tmp_path / "again")
    assert "was" not in capsys.readouterr().err.split("generator of")[0]
    run = shutil.copytree(trained, tmp_path / "other")
    start = json.loads((run / "start.json").read_text())
    start["versions"]["jax"] = "0.1"
    (run / "start.json").write_text(json.dumps(start))
    assert cli.main(["rerun", str(run), str(tmp_path / "again")]) == 0
    assert f"isr rerun: jax was 0.1, and is {jax.__version__}" in capsys.readouterr().err
    (run / "start.json").unlink()
    assert cli.main(["rerun", str(run), str(tmp_path / "third")]) == 1
    assert "does not say how it was started" in capsys.readouterr().err


def test_a_saved_config_is_checked():
    saved = json.loads(json.dumps(base.get_config().to_dict()))
    assert base.from_saved(saved) == base.get_config()
    del saved["train"]["keep_every"]  # as from before it
    assert base.from_saved(saved) == base.get_config()
    for section, field, value in (("train", "stepz", 3), ("train", "steps", "many")):
        bad = json.loads(json.dumps(saved))
        bad[section][field] = value
        with pytest.raises(UserError, match="the saved config cannot be used"):
            base.from_saved(bad)


def test_old_and_new_fields_resume(photos, trained, tmp_path):
    """A field that an older run lacks changes nothing."""
    run = shutil.copytree(trained, tmp_path / "run")
    console = heard()
    isr_jax.train(tiny(photos, **{"train.steps": 10}), run, console=console)
    assert "from step 8" in console.export_text()
    with pytest.raises(UserError, match=r"config\.train\.keep_best"):
        isr_jax.train(tiny(photos, **{"train.keep_best": "beauty"}), run, console=silent())


def test_a_stop_between_records_leaves_no_trace(photos, trained, tmp_path, monkeypatch):
    """Ctrl-C during update 3, with a record every 2: the records are those of `trained`."""
    run, make, calls = tmp_path / "run", loop.make_dispatch, []

    def counted(config, update, devices):
        dispatch = make(config, update, devices)

        def one(state, inputs, key, *, n, adversarial):
            calls.append(0)
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return dispatch(state, inputs, key, n=n, adversarial=adversarial)

        return one

    monkeypatch.setattr(loop, "make_dispatch", counted)
    config = tiny(photos, **{"train.checkpoint_every": 2})
    assert isr_jax.train(config, run, console=silent()).step == 3
    assert isr_jax.train(config, run, console=silent()).step == 8
    assert (run / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()
    assert_bit_identical(run, trained)
