"""Runs go on where they were: stopped, killed, diverged, damaged, of another architecture."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import orbax.checkpoint as ocp
import pytest
from rich.console import Console

import isr_jax
from isr_jax.errors import UserError
from isr_jax.training.record import read_records
from tests.helpers.command import ROOT, run_py
from tests.helpers.tiny_runs import (
    arguments,
    assert_bit_identical,
    biggest_file,
    environment,
    final_arrays,
    heard,
    silent,
    tiny,
    tiny_unet,
)

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.mark.parametrize(
    "make, loader, parallel",
    [
        (tiny, "pool", "jit"),
        (tiny, "stream", "jit"),
        (tiny_unet, "stream", "pmap"),
    ],
)
def test_a_stopped_run_goes_on_where_it_was(photos, tmp_path, trained, make, loader, parallel):
    """Stopped by Ctrl-C after 4 of 8 steps, and resumed: bit-identical."""
    config = make(photos, **{"data.loader": loader, "train.parallel": parallel})
    straight, resumed = trained, tmp_path / "resumed"
    if (make, loader, parallel) != (tiny, "pool", "jit"):
        straight = tmp_path / "straight"
        isr_jax.train(config, straight, console=silent())

    class Impatient(Console):
        """Presses Ctrl-C once, when step 4 has been validated."""

        pressed = False

        def print(self, *args, **kwargs):
            super().print(*args, **kwargs)
            if not self.pressed and str(args[0]).startswith("step 4:"):
                self.pressed = True
                os.kill(os.getpid(), signal.SIGINT)

    console = Impatient(file=io.StringIO())
    result = isr_jax.train(config, resumed, console=console)
    assert 4 <= result.step < 8
    console = heard()
    assert isr_jax.train(config, resumed, console=console).step == 8
    assert f"from step {result.step}" in console.export_text()
    assert_bit_identical(straight, resumed)
    assert any("d_stats" in name for name in final_arrays(resumed)) == (make is tiny_unet)
    assert any("RRDB_0" in name for name in final_arrays(resumed)) == (make is tiny_unet)
    scale = config.scale
    assert isr_jax.load(resumed)(np.zeros((5, 6, 3), np.uint8)).shape == (5 * scale, 6 * scale, 3)
    records = read_records(resumed)
    assert [r["step"] for r in records if r["kind"] == "validation"] == [4, 8]
    training = [r for r in records if r["kind"] == "train"]
    assert all(("feature_matching" in r) == (make is tiny_unet) for r in training)


@pytest.mark.slow
def test_a_killed_run_ends_bit_for_bit_like_an_undisturbed_one(photos, tmp_path):
    """kill -9 between two checkpoints, the same command again."""
    extra = {"train.steps": 100, "train.validate_every": 50, "train.checkpoint_every": 25}
    command = [*arguments(photos, **extra)]
    done = run_py(*command, f"--workdir={tmp_path / 'straight'}")
    assert done.returncode == 0, done.stderr
    assert "SR - bicubic" in done.stdout

    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [
            sys.executable,
            "run.py",
            "--config",
            "configs/base.py",
            *command,
            f"--workdir={killed}",
        ],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        saved = [int(p.name) for p in killed.glob("checkpoints/*") if p.name.isdigit()]
        if saved and read_records(killed)[-1]["step"] > max(saved):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL
    steps = [int(p.name) for p in killed.glob("checkpoints/*") if p.name.isdigit()]
    assert 0 < max(steps) < 100
    # As if it had been killed while it wrote a checkpoint, too.
    (killed / "checkpoints" / f"99{ocp.utils.TMP_DIR_SUFFIX}-1").mkdir()
    again = run_py(*command, f"--workdir={killed}")
    assert again.returncode == 0, again.stderr
    assert f"from step {max(steps)}" in again.stderr
    assert_bit_identical(tmp_path / "straight", killed)
    assert not list((killed / "checkpoints").glob("*tmp*"))
    keep = [(r["kind"], r["step"], r.get("loss")) for r in read_records(killed)]
    assert keep == [
        (r["kind"], r["step"], r.get("loss")) for r in read_records(tmp_path / "straight")
    ]


def test_a_checkpoint_that_diverges_at_once_is_not_called_good(photos, tmp_path):
    """Step 1 is finite and its update explodes; the checkpoint of step 1 would fail for ever."""
    extra = {"train.checkpoint_every": 1, "g_optimizer.learning_rate": 1e30}
    with pytest.raises(UserError, match=r"step 2: .*; there is no good checkpoint yet"):
        isr_jax.train(tiny(photos, **extra), tmp_path, console=silent())
    assert (tmp_path / "quarantine" / "1").is_dir()
    assert isr_jax.train(tiny(photos), tmp_path, console=silent()).step == 8


def test_a_run_may_go_on_by_the_other_loader(photos, tmp_path, trained):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    config = tiny(photos, **{"data.loader": "stream", "train.steps": 10})
    assert isr_jax.train(config, run, console=silent()).step == 10


def test_before_the_first_validation_the_latest_checkpoint_is_the_best(tmp_path, trained):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for step in run.glob("checkpoints/*"):
        if step.name != "6":
            shutil.rmtree(step)
    assert isr_jax.load(run).step == 6


def test_damaged_records_and_scores_do_not_stop_a_run(photos, tmp_path, trained):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "metrics.jsonl").write_text("")
    scores = run / "checkpoints/8/metrics/metrics"
    scores.write_text(scores.read_text()[:5])
    console = heard()
    isr_jax.train(tiny(photos), run, console=console)
    assert "checkpoint 8 cannot be read (its scores)" in console.export_text()
    assert [r["kind"] for r in read_records(run)].count("baselines") == 1
    assert_bit_identical(trained, run)


def test_divergence_names_the_step_and_the_last_good_checkpoint(photos, tmp_path, trained):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    config = tiny(photos)
    config.train.steps = 16
    config.g_optimizer.learning_rate = 1e30
    console = heard()
    with pytest.raises(UserError, match=r"step \d+: .* not finite; .*checkpoints/8; lower"):
        isr_jax.train(config, run, console=console)
    said = console.export_text()
    assert "config.g_optimizer.learning_rate is 1e+30 from here on; it was 0.0001" in said
    assert isr_jax.load(run, checkpoint="latest").step == 8


def test_a_checkpoint_cut_short_goes_to_quarantine_for_the_one_before(photos, tmp_path, trained):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    with open(biggest_file(run / "checkpoints" / "8"), "r+b") as file:
        file.truncate(os.fstat(file.fileno()).st_size // 2)
    console = heard()
    assert isr_jax.train(tiny(photos), run, console=console).step == 8
    said = console.export_text()
    assert "checkpoint 8 cannot be read" in said
    assert "from step 6" in said
    assert (run / "quarantine" / "8").is_dir()
    assert_bit_identical(trained, run)

    left = [p for p in (run / "checkpoints").iterdir() if p.name.isdigit()]
    for step in left:
        biggest_file(step).write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read"):
        isr_jax.train(tiny(photos), run, console=silent())
    biggest_file(run / "checkpoints" / "8" / "generator").write_bytes(b"")
    with pytest.raises(UserError, match=r"checkpoint 8 of .* cannot be read \(.*choose another"):
        isr_jax.load(run, checkpoint=8)
    assert all(step.is_dir() for step in left)


def test_a_run_of_another_architecture_is_refused(photos, trained, tmp_path):
    run = tmp_path / "whole crop"
    whole = {"discriminator.crop": 0, "train.steps": 2}
    isr_jax.train(tiny(photos, **whole), run, console=silent())
    with pytest.raises(UserError, match=r"holds a run with data.crop=24, this one has 32"):
        larger = tiny(photos, **{"discriminator.crop": 0, "data.crop": 32})
        isr_jax.train(larger, run, console=silent())
    assert (run / "checkpoints" / "2").is_dir()
    with pytest.raises(UserError, match=r"holds a run with generator.width=4, this one has 8"):
        isr_jax.train(tiny(photos, **{"generator.width": 8}), trained, console=silent())


def test_a_run_older_than_the_choice_of_networks_goes_on(photos, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (saved,) = (run / "checkpoints/8/config").glob("metadata")
    config = json.loads(saved.read_text())
    del config["discriminator"]["name"], config["loss"]["feature_matching"]
    del config["generator"]["name"], config["generator"]["img_range"]
    saved.write_text(json.dumps(config))
    shutil.rmtree(run / "checkpoints/8/digests")  # younger still
    image = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    np.testing.assert_array_equal(isr_jax.load(run)(image), isr_jax.load(trained)(image))
    console = heard()
    assert isr_jax.train(tiny(photos, **{"train.steps": 10}), run, console=console).step == 10
    said = console.export_text()
    assert "from step 8" in said
    assert "discriminator.name" not in said
    assert "config.generator" not in said
    with pytest.raises(UserError, match=r"discriminator.name=classifier, this one has unet"):
        isr_jax.train(tiny_unet(photos), run, console=silent())


@pytest.mark.slow
def test_damaged_and_foreign_run_folders_through_the_command_line(photos, tmp_path, trained):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    file = biggest_file(run / "checkpoints" / "8")
    file.write_bytes(file.read_bytes()[:-9])
    done = run_py(*arguments(photos), f"--workdir={run}")
    assert done.returncode == 0, done.stderr
    assert "checkpoint 8 cannot be read" in done.stderr
    done = run_py(*arguments(photos), f"--workdir={file}")
    assert done.returncode == 1
    assert "give another --workdir" in done.stderr.strip().splitlines()[-1]


def test_a_folder_without_images_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"{tmp_path / 'empty'}"):
        isr_jax.train(tiny(tmp_path / "empty"), tmp_path / "run", console=silent())
