"""Runs on damaged folders and full disks, beside each other, and told to stop."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

import isr_jax
from isr_jax.errors import UserError
from isr_jax.training import lock
from isr_jax.training.record import read_records
from tests.helpers.command import ROOT
from tests.helpers.tiny_runs import (
    arguments,
    assert_bit_identical,
    environment,
    heard,
    silent,
    tiny,
)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(trained, tmp_path / "run")


def flip(file, share):
    """Flip one bit, so far into a file."""
    data = bytearray(file.read_bytes())
    data[int(share * len(data))] ^= 1
    file.write_bytes(data)


def largest(folder):
    return max(folder.rglob("d/*"), key=lambda file: file.stat().st_size)


# TensorStore's own errors call back into a loop that is closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_flipped_bit_is_seen_or_harmless(run, trained):
    image = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    expected = isr_jax.load(trained, checkpoint=8)(image)
    file = largest(run / "checkpoints/8/generator")
    whole = file.read_bytes()
    for share in np.arange(1, 10) / 10:
        flip(file, share)
        try:
            np.testing.assert_array_equal(isr_jax.load(run, checkpoint=8)(image), expected)
        except UserError as error:
            assert "checkpoint 8 of" in str(error)
            assert "choose another" in str(error)
        file.write_bytes(whole)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("item", ["generator", "training"])
def test_other_arrays_than_were_saved_are_seen(photos, run, trained, item):
    """Orbax reads them without a word: those of the checkpoint before."""
    shutil.rmtree(run / "checkpoints/8" / item)
    shutil.copytree(run / "checkpoints/6" / item, run / "checkpoints/8" / item)
    if item == "generator":
        with pytest.raises(
            UserError, match=r"checkpoint 8 of .*generator/\S+ is not what was saved"
        ):
            isr_jax.load(run, checkpoint=8)
    console = heard()
    assert isr_jax.train(tiny(photos), run, console=console).step == 8
    said = console.export_text()
    assert "is not what was saved" in said
    assert "from step 6" in said
    assert (run / "quarantine/8").is_dir()
    assert_bit_identical(run, trained)


def test_digests_are_those_of_the_arrays(trained):
    """Recomputed from what Orbax reads, by another library's SHA-256."""
    import hashlib

    from tests.helpers.tiny_runs import final_arrays

    saved = json.loads((trained / "checkpoints/8/digests/metadata").read_text())
    arrays = final_arrays(trained)
    assert len(saved) == len(arrays) + 2
    kernels = {hashlib.sha256(x.tobytes()).hexdigest() for x in arrays.values()}
    assert {v for k, v in saved.items() if k not in ("config", "data")} == kernels


def test_a_changed_config_in_a_checkpoint_is_seen(run):
    (file,) = (run / "checkpoints/8/config").glob("metadata")
    file.write_text(file.read_text().replace('"width": 4', '"width": 5'))
    with pytest.raises(UserError, match="config is not what was saved"):
        isr_jax.load(run, checkpoint=8)


DAMAGED = [b"{", b"", b"[]", b"17", b"\xff\xfe", b'{"kind": "train"}', b'{"kind": 3, "step": 1}']
DAMAGED += [b'{"kind": "train", "step": 2, "loss": "high"}', b"[" * 100_000]


def test_damaged_records_are_left_out_and_kept_aside(photos, run):
    file = run / "metrics.jsonl"
    good = read_records(run)
    whole = file.read_bytes()
    file.write_bytes(b"".join(line + b"\n" for line in DAMAGED) + whole)
    before = file.read_bytes()
    console = heard()
    isr_jax.train(tiny(photos), run, console=console)
    assert f"left {len(DAMAGED)} damaged lines out of" in console.export_text()
    assert read_records(run) == good
    assert (run / "quarantine/metrics.jsonl").read_bytes() == before


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("scores", ["{}", "[]", '{"psnr": null}', '{"psnr": NaN}', "[" * 10**5])
def test_scores_that_are_none_cost_their_checkpoint_alone(photos, run, trained, scores):
    (run / "checkpoints/8/metrics/metrics").write_text(scores)
    console = heard()
    assert isr_jax.train(tiny(photos), run, console=console).step == 8
    assert "checkpoint 8 cannot be read (its scores)" in console.export_text()
    assert_bit_identical(run, trained)


def test_what_is_of_another_kind_is_set_aside(photos, run):
    (run / "lock").touch()
    for name in ("metrics.jsonl", "config.json", "curves.png", "lock"):
        (run / name).unlink()
        (run / name).mkdir()
    for name in ("images", "checkpoints"):
        shutil.rmtree(run / name)
        (run / name).write_text("")
    (run / "quarantine").write_text("")
    console = heard()
    assert isr_jax.train(tiny(photos), run, console=console).step == 8
    said = console.export_text()
    for name in ("metrics.jsonl", "config.json", "curves.png", "lock", "images", "checkpoints"):
        assert f"{run / name} is not a " in said
        assert (run / "quarantine" / name).exists()


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "lock").mkdir()
    with (
        pytest.raises(UserError, match=r"lock: Is a directory; give another --workdir"),
        lock.locked(tmp_path, say=pytest.fail),
    ):
        pass


def test_a_folder_has_one_run(photos, run):
    with lock.locked(run, say=pytest.fail), pytest.raises(UserError) as error:
        isr_jax.train(tiny(photos), run, console=silent())
    assert str(error.value) == (
        f"{run} is in use by process {os.getpid()} on {socket.gethostname()}; stop that run, or "
        "give another --workdir"
    )
    with lock.locked(run, say=pytest.fail):
        pass


def other_machine(beat=0):
    """What the lock file of a process of another machine says."""
    return json.dumps({"host": "other", "process": 7, "boot": "b", "beat": beat}).encode()


def test_another_machine_s_heart_is_watched(run, monkeypatch):
    """As on a network file system where both may lock the file."""
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "WATCH", 0.5)
    said = []
    (run / "lock").write_bytes(other_machine())
    with lock.locked(run, say=said.append):
        assert json.loads((run / "lock").read_bytes())["process"] == os.getpid()
    (line,) = said
    assert line.startswith(f"{run} was last used by process 7 on other; waiting")
    assert (run / "lock").read_bytes() == b""

    stop = threading.Event()

    def beat():
        for i in range(10**6):
            with open(run / "lock", "r+b") as file:
                file.write(other_machine(i).ljust(512))
            if stop.wait(0.02):
                return

    thread = threading.Thread(target=beat)
    thread.start()
    while not (run / "lock").read_bytes():
        time.sleep(0.01)
    try:
        with pytest.raises(UserError, match="in use by process 7 on other"):
            lock.locked(run, say=said.append).__enter__()
    finally:
        stop.set()
        thread.join()


def test_the_heart_beats(run, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    with lock.locked(run, say=pytest.fail):
        first = json.loads((run / "lock").read_bytes())
        end = time.monotonic() + 20
        while json.loads((run / "lock").read_bytes())["beat"] < first["beat"] + 3:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_suspended_run_ends_where_another_machine_took_its_folder(run):
    code = (
        "import pathlib, time\nfrom isr_jax.training import lock\nlock.BEAT = 0.05\n"
        f"with lock.locked(pathlib.Path({str(run)!r}), say=lambda line: print(line, flush=True)):\n"
        "    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=-1, text=True) as process:
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGSTOP)
        (run / "lock").write_bytes(other_machine().ljust(512))
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said.startswith(f"{run} was taken over by process 7 on other while this process was")
    assert (run / "lock").read_bytes() == other_machine().ljust(512)


def test_a_killed_process_leaves_no_lock(run):
    code = (
        "import os, sys, pathlib\nfrom isr_jax.training.lock import locked\n"
        f"with locked(pathlib.Path({str(run)!r}), say=print):\n    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -9
    assert json.loads((run / "lock").read_bytes())["boot"]
    with lock.locked(run, say=pytest.fail):
        pass


def test_changed_data_are_said(photos, run, tmp_path):
    start = json.loads((run / "start.json").read_text())
    assert start["data"]["train"].startswith("5 images (")
    assert start["versions"]["jax"] == jax.__version__
    more = shutil.copytree(photos, tmp_path / "more")
    shutil.copy(more / "0.png", more / "9.png")
    config = tiny(photos, **{"data.train": f"folder:{more}"})
    console = heard()
    isr_jax.train(config, run, console=console)
    said = console.export_text()
    assert "config.data.train has changed since the last start: 5 images (" in said
    assert ", now 6 images (" in said


@pytest.fixture
def small_disk(tmp_path):
    """A function that gives a file system of so many KiB."""
    mounted = []

    def mount(size):
        folder = tmp_path / f"disk{size}"
        folder.mkdir()
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", folder], capture_output=True
        )
        if made.returncode:
            pytest.skip("only root can mount a small disk")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder])


@pytest.mark.slow
@pytest.mark.parametrize("size", [20, 120, 640])
def test_a_full_disk_is_one_line(photos, small_disk, size):
    """At the first file, within a checkpoint, and in the background of a later one."""
    disk = small_disk(size)
    command = [sys.executable, "run.py", "--config", "configs/base.py", f"--workdir={disk}/run"]
    many = {"train.steps": 12, "train.checkpoint_every": 1}
    done = subprocess.run(
        [*command, *arguments(photos, **many)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=120,
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[-1] == (
        f"run.py: {disk}/run cannot be written: No space left on device; make it writable or make "
        "room, and run the same command again to resume"
    )
    assert "Traceback" not in done.stderr
    assert "E1" not in [line[:2] for line in lines]


def test_missing_memory_is_one_line(photos, tmp_path, monkeypatch):
    from isr_jax.training import loop

    def dispatch(config, update, devices):
        def none(state, inputs, key, *, n, adversarial):
            raise RuntimeError("RESOURCE_EXHAUSTED: Failed to allocate request for 99GiB")

        return none

    monkeypatch.setattr(loop, "make_dispatch", dispatch)
    with pytest.raises(UserError, match=r"out of memory, with crops of 24 px and batches of 4"):
        isr_jax.train(tiny(photos), tmp_path / "run", console=silent())


@pytest.mark.slow
def test_a_closed_terminal_stops_a_run_like_ctrl_c(photos, tmp_path):
    """SIGHUP: a checkpoint is saved, and the exit code is that of a stopped run."""
    command = [sys.executable, "run.py", "--config", "configs/base.py", f"--workdir={tmp_path}/run"]
    long = {"train.steps": 10**6, "train.validate_every": 10**6, "train.checkpoint_every": 10**6}
    with subprocess.Popen(
        [*command, *arguments(photos, **long)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    ) as process:
        end = time.monotonic() + 120
        while not any((tmp_path / "run").glob("metrics.jsonl")) or not read_records(
            tmp_path / "run"
        ):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "run the same command again to resume" in err
    (step,) = [int(p.name) for p in (tmp_path / "run/checkpoints").iterdir()]
    assert math.isfinite(np.sum([r["loss"] for r in read_records(tmp_path / "run") if "loss" in r]))
    assert step > 0
