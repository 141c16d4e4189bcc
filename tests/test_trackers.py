"""Where scalars and pictures go: the run folder, TensorBoard, Weights & Biases."""

import io
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import PIL.Image
import pytest

import isr_jax
from isr_jax import config as base
from isr_jax.errors import UserError
from isr_jax.training.record import read_records
from isr_jax.training.trackers import TRACKERS, TensorBoard
from tests.helpers.command import ROOT
from tests.helpers.events import events, shown
from tests.helpers.tiny_runs import environment, silent, tiny

PICTURE = "validation/images"


def recorded(run):
    """What metrics.jsonl has, as trackers call it."""
    return {
        (f"{record['kind']}/{name}", record["step"]): value
        for record in read_records(run)
        if record["kind"] != "baselines"
        for name, value in record.items()
        if name not in ("kind", "step")
    }


def pixels(png):
    return np.array(PIL.Image.open(io.BytesIO(png) if isinstance(png, bytes) else png))


def test_tensorboard_gets_the_scalars_and_pictures_of_the_run_folder(trained):
    points = shown(trained)
    scalars = {(tag, step): value for tag, step, value in points if tag != PICTURE}
    expected = recorded(trained)
    assert scalars.keys() == expected.keys()
    np.testing.assert_allclose([*scalars.values()], [expected[key] for key in scalars], rtol=1e-6)
    pictures = {step: png for tag, step, png in points if tag == PICTURE}
    assert [*pictures] == [4, 8]
    for step, png in pictures.items():
        image = pixels(trained / f"images/step_{step:06d}.png")
        assert image.std() > 10
        np.testing.assert_array_equal(pixels(png), image)


def test_what_a_resumed_run_repeats_is_shown_once(photos, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(run / "checkpoints/8")
    assert isr_jax.train(tiny(photos), run, console=silent()).step == 8
    assert len([*run.glob("events*")]) == 2
    points = shown(run)
    assert len({(tag, step) for tag, step, _ in points}) == len(points)
    assert {*points} == {*shown(trained)}


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from isr_jax.config import get_config
from isr_jax.training.trackers import TRACKERS

tracker = TRACKERS[sys.argv[1]].open(Path(sys.argv[2]), step=4, config=get_config())
tracker.scalars("train", 5, {"loss": 0.5})
tracker.picture(5, np.full((2, 3, 3), 7, np.uint8))
tracker.flush()
tracker.scalars("train", 6, {"loss": 0.25})
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(name, run, **extra):
    """Take values, flush, take another, and be killed."""
    command = [sys.executable, "-c", KILLED, name, str(run)]
    done = subprocess.run(
        command, cwd=ROOT, env={**environment(), **extra}, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done


def test_a_kill_loses_no_event_that_was_flushed(tmp_path):
    killed("tensorboard", tmp_path)
    (loss, step, value), (tag, _, png), *_ = shown(tmp_path)
    assert (loss, step, value, tag) == ("train/loss", 5, 0.5, PICTURE)
    assert (pixels(png) == 7).all()


def test_tensorboard_has_no_thread(tmp_path):
    """Which a kill could catch with events in its queue."""
    before = threading.enumerate()
    tracker = TensorBoard(tmp_path, step=0, config=base.get_config())
    tracker.scalars("train", 1, {"loss": 1.0})
    assert threading.enumerate() == before
    tracker.close()
    (file,) = tmp_path.iterdir()
    version, start, loss = events(file.read_bytes())
    assert (version.file_version, start.step, loss.step) == ("brain.Event:2", 1, 1)


def test_without_trackers_the_run_folder_has_the_same(photos, trained, tmp_path):
    config = tiny(photos, **{"train.checkpoint_every": 2, "train.trackers": ()})
    isr_jax.train(config, tmp_path, console=silent())
    assert not [*tmp_path.glob("events*")]
    for name in ("metrics.jsonl", "images/step_000004.png", "images/step_000008.png"):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()


@pytest.mark.parametrize(
    "names, package, said",
    [
        (
            ("tensorbord",),
            "tensorboardX",
            "unknown config.train.trackers 'tensorbord'.*tensorboard",
        ),
        (
            ("tensorboard", "wandb"),
            "no_such_package",
            r"names wandb, .*: pip install .isr-jax.wandb",
        ),
        (("wandb",), "only_a_folder", "names wandb, which is not installed"),
    ],
)
def test_a_tracker_that_cannot_be_had_is_said_before_training(
    photos, tmp_path, monkeypatch, names, package, said
):
    """A folder of the package's name, which W&B leaves where it is used, is not the package."""
    (tmp_path / "only_a_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(TRACKERS, "wandb", TRACKERS["wandb"]._replace(package=package))
    with pytest.raises(UserError, match=said):
        isr_jax.train(tiny(photos, **{"train.trackers": names}), tmp_path / "r", console=silent())
    assert not (tmp_path / "r").exists()


def test_only_what_is_chosen_is_imported(tmp_path):
    program = (
        "import sys; from isr_jax.training import loop, trackers;"
        "sys.exit(bool({'tensorboardX', 'wandb'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
