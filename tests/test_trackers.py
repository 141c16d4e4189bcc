"""Where scalars and pictures go: the run folder, TensorBoard, Weights & Biases."""

import importlib
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading

import numpy as np
import PIL.Image
import pytest

import isr_jax
from isr_jax import config as base
from isr_jax.errors import UserError
from isr_jax.training import trackers
from isr_jax.training.record import Recorder, RunFolder, read_records
from isr_jax.training.trackers import TRACKERS, TensorBoard
from tests.helpers.command import ROOT
from tests.helpers.events import events, shown
from tests.helpers.tiny_runs import silent, tiny

PICTURE = "validation/images"
CONFIG = base.get_config()


def recorded(run):
    """What metrics.jsonl has, as trackers call it."""
    return {
        (f"{record['kind']}/{name}", record["step"]): value
        for record in read_records(run)
        if record["kind"] != "baselines"
        for name, value in record.items()
        if name not in ("kind", "step")
    }


def rows_of(run):
    """Each step of metrics.jsonl, with its values."""
    rows: dict = {}
    for (tag, step), value in recorded(run).items():
        rows.setdefault(step, {})[tag] = value
    return rows


def opened(name, run, *, step):
    return trackers.open_trackers((name,), run, step=step, config=CONFIG, warn=pytest.fail)


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


def last_step_again(run, opened):
    """What a run that resumes from step 6 records until 8; the records are as they were."""
    last = rows_of(run)[8]
    picture = pixels(run / "images/step_000008.png")
    train, validation = (
        {tag.split("/")[1]: x for tag, x in last.items() if tag.startswith(kind)}
        for kind in ("train", "validation")
    )
    with Recorder(RunFolder(run, step=6, warn=pytest.fail), opened) as recorder:
        recorder.scalars("train", 8, train)
        recorder.picture(8, picture)
        recorder.scalars("validation", 8, validation)
        recorder.flush()


def test_what_a_resumed_run_repeats_is_shown_once(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    last_step_again(run, opened("tensorboard", run, step=6))
    assert len([*run.glob("events*")]) == 2
    points = shown(run)
    assert len({(tag, step) for tag, step, _ in points}) == len(points)
    assert {*points} == {*shown(trained)}
    for name in ("metrics.jsonl", "images/step_000008.png"):
        assert (run / name).read_bytes() == (trained / name).read_bytes()


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from ml_collections import ConfigDict
from isr_jax.training.trackers import TRACKERS

assert not {"tensorboardX", "wandb"} & {*sys.modules}
tracker = TRACKERS[sys.argv[1]].open(Path(sys.argv[2]), step=4, config=ConfigDict(), warn=sys.exit)
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
        command, cwd=ROOT, env={**os.environ, **extra}, capture_output=True, text=True
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
    tracker = TensorBoard(tmp_path, step=0, config=CONFIG, warn=pytest.fail)
    tracker.scalars("train", 1, {"loss": 1.0})
    assert threading.enumerate() == before
    tracker.close()
    (file,) = tmp_path.glob("events*")
    version, start, loss = events(file.read_bytes())
    assert (version.file_version, start.step, loss.step) == ("brain.Event:2", 1, 1)


def test_tensorboard_gets_what_came_before_it_was_chosen(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("events*"))
    for step in (8, 6):
        folder = RunFolder(run, step=step, warn=pytest.fail)
        with Recorder(folder, opened("tensorboard", run, step=step)):
            pass
    expected = [point[:2] for point in shown(trained) if point[1] <= 6]
    assert sorted(point[:2] for point in shown(run)) == sorted(expected)


def test_tensorboard_gets_what_went_on_without_it(trained, tmp_path):
    """It has the first 4 steps; the run went to 8 without it."""
    run = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("events*"))
    (run / "tensorboard.json").unlink()
    for step in (4, 8):
        lines = (trained / "metrics.jsonl").read_text()
        (run / "metrics.jsonl").write_text(lines)
        with Recorder(
            RunFolder(run, step=step, warn=pytest.fail), opened("tensorboard", run, step=step)
        ):
            pass
    expected = [point[:2] for point in shown(trained) if point[1] <= 8]
    assert sorted(point[:2] for point in shown(run)) == sorted(expected)


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


STAND_IN = """
calls, at = [], [0]

class Error(Exception):
    pass

class Settings:
    def __init__(self, *, console):
        assert console == "off"

class Image:
    def __init__(self, data_or_path):
        self.pixels = data_or_path

class Run:
    def __init__(self, step):
        self.step = step

    def log(self, data, step, commit):
        if at[0] is None:
            raise ConnectionResetError("Connection lost")
        assert step >= self.step, "W&B leaves out steps that it has"
        assert commit
        self.step = step + 1
        calls.append((step, data))

    def finish(self):
        calls.append("finished")

def init(*, id, name, dir, resume, config, allow_val_change, settings):
    if at[0] is None:
        raise Error("api_key not configured (no-tty).\\nCall wandb.login")
    calls.append((id, name, dir, resume, config, allow_val_change))
    return Run(at[0])
"""


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """In place of the package: what of it is called, and how."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path/wandb.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path / "path")
    before = sys.modules.pop("wandb", None)
    yield importlib.import_module("wandb")
    del sys.modules["wandb"]
    if before:
        sys.modules["wandb"] = before


@pytest.mark.parametrize("at", [0, 5, 7, 9])
def test_wandb_gets_each_step_that_it_does_not_have(trained, tmp_path, wandb, at):
    """The W&B run of an earlier start has the steps before `at`, of which 6 was the last saved."""
    run, wandb.at[0] = shutil.copytree(trained, tmp_path / "run"), at
    trackers.check_trackers(("wandb",))
    last_step_again(run, opened("wandb", run, step=6))
    sent = wandb.calls[1:-1]
    assert wandb.calls[-1] == "finished"
    pictures = {step: row.pop(PICTURE).pixels for step, row in sent if PICTURE in row}
    assert dict(sent) == {step: row for step, row in rows_of(run).items() if step >= at}
    assert [*pictures] == [step for step in (4, 8) if step >= at]
    for step, image in pictures.items():
        np.testing.assert_array_equal(image, pixels(run / f"images/step_{step:06d}.png"))


def test_wandb_resumes_the_run_of_the_folder(tmp_path, wandb):
    (tmp_path / "wandb.json").write_text('{"id": ["damaged"]}')
    for _ in range(2):
        TRACKERS["wandb"].open(tmp_path, step=0, config=CONFIG, warn=pytest.fail).close()
    first, done, second, _ = wandb.calls
    assert first == second
    name, *others = first
    assert others == [tmp_path.name, str(tmp_path), "allow", CONFIG.to_dict(), True]
    assert json.loads((tmp_path / "wandb.json").read_text()) == {"id": name}
    assert done == "finished"


def test_training_goes_on_where_wandb_has_ended(tmp_path, wandb):
    said = []
    tracker = TRACKERS["wandb"].open(tmp_path, step=0, config=CONFIG, warn=said.append)
    wandb.at[0] = None
    for step in (1, 2, 3):
        tracker.scalars("train", step, {"loss": 1.0})
        tracker.flush()
    tracker.close()
    (line,) = said
    assert line.startswith("W&B has failed (Connection lost); training continues without it")
    assert len(wandb.calls) == 1


def test_a_login_that_is_missing_is_one_line(tmp_path, wandb):
    wandb.at[0] = None
    with pytest.raises(
        UserError, match=r"W&B does not start \(api_key .*login\); log in"
    ) as caught:
        TRACKERS["wandb"].open(tmp_path, step=0, config=CONFIG, warn=pytest.fail)
    assert "\n" not in str(caught.value)


RECORD = """
import os, signal, sys
from pathlib import Path
from isr_jax.config import get_config
from isr_jax.training.record import Recorder, RunFolder
from isr_jax.training.trackers import open_trackers

run = Path(sys.argv[1])
folder = RunFolder(run, step=8, warn=sys.exit)
opened = open_trackers(("wandb",), run, step=8, config=get_config(), warn=sys.exit)
with Recorder(folder, opened) as recorder:
    recorder.scalars("train", 10, {"loss": 0.5})
    recorder.flush()
    os.kill(os.getpid(), int(sys.argv[2]))
"""


def wandb_records(file):
    """The records of a file of W&B, a log in LevelDB's format after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 2**15 - at % 2**15
        if left < 7:
            at += left  # the rest of a block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)  # full, first, middle, last
        part = data[at + 7 : at + 7 + length]
        whole = part if kind in (1, 2) else whole + part
        at += 7 + length
        if kind in (1, 4):
            yield Record.FromString(whole)


@pytest.mark.slow
def test_the_package_keeps_what_a_killed_run_recorded(trained, tmp_path):
    """Offline, each start has all steps, once, whatever the one before had in memory."""
    pytest.importorskip("wandb", reason="needs the package wandb")
    run = shutil.copytree(trained, tmp_path / "mine")
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    for number in (signal.SIGKILL, 0):
        command = [sys.executable, "-c", RECORD, str(run), str(int(number))]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == -number, done.stderr
    files = sorted(run.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime)
    assert len(files) == 2
    assert files[0].name == files[1].name
    records = [*wandb_records(files[1])]
    (begin,) = [r.run for r in records if r.WhichOneof("record_type") == "run"]
    name = json.loads((run / "wandb.json").read_text())["id"]
    assert (begin.run_id, begin.display_name) == (name, "mine")
    config = {one.key: json.loads(one.value_json) for one in begin.config.update}
    assert config["train"]["validate_every"] == base.get_config().train.validate_every
    history = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in one.item}
        for one in (r.history for r in records if r.WhichOneof("record_type") == "history")
    ]
    assert [row["_step"] for row in history] == [2, 4, 6, 8, 10]
    for row, expected in zip(history, rows_of(run).values(), strict=True):
        assert {tag: row[tag] for tag in expected} == expected
        if "validation/psnr" in row:
            picture = files[1].parent / "files" / row[f"{PICTURE}/path"]
            kept = run / f"images/step_{row['_step']:06d}.png"
            np.testing.assert_array_equal(pixels(picture), pixels(kept))
