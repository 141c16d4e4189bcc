"""Training in several processes: equal to one, stopped, killed, resumed, and ended together."""

import re
import signal
import socket
import subprocess
import sys
import time
from functools import cache

import jax
import numpy as np
import pytest

import isr_jax
from isr_jax import distributed
from isr_jax.errors import UserError
from isr_jax.training.record import read_records
from tests.helpers.command import ROOT
from tests.helpers.tiny_runs import (
    arguments,
    environment,
    final_arrays,
    heard,
    silent,
    tiny,
    write_photos,
)

STEPS = 20
SETTINGS = {
    "train.steps": STEPS,
    "train.log_every": 1,
    "train.validate_every": STEPS,
    "train.checkpoint_every": STEPS // 2,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"))


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def begin(count, run, photos, *, config="configs/base.py", **settings):
    """Start so many processes, each with one device, that train one run."""
    command = [sys.executable, "run.py", "--config", str(config), f"--workdir={run}"]
    command += arguments(photos, **SETTINGS | settings)
    command += [f"--coordinator=127.0.0.1:{free_port()}", f"--processes={count}"]
    return [
        subprocess.Popen(
            [*command, f"--process={i}"],
            cwd=ROOT,
            env=environment(),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]


def end(processes):
    """Exit codes, and what each printed, without the lines of gloo."""
    printed = [process.communicate(timeout=240) for process in processes]
    texts = [
        "\n".join(line for line in "\n".join(both).splitlines() if line and "Gloo" not in line)
        for both in printed
    ]
    return [process.returncode for process in processes], texts


def wait_for(condition, seconds=120):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def assert_close(run, other, tolerance):
    first, second = final_arrays(run), final_arrays(other)
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_allclose(
            array.astype(np.float64), second[name], rtol=0, atol=tolerance, err_msg=name
        )


@pytest.fixture(scope="module")
def alone(tmp_path_factory, photos):
    """Return a function: loader -> the run that this process alone trained, with four devices."""

    @cache
    def trained(loader):
        run = tmp_path_factory.mktemp(loader) / "alone"
        isr_jax.train(configured(photos, **loading(loader, trained)), run, console=silent())
        return run

    return trained


def configured(photos, **settings):
    """What the command of `begin` makes of settings."""
    return tiny(photos, **SETTINGS | settings)


def loading(loader, alone):
    """The settings of a loader; the stream's runs begin with the generator of the pool's."""
    begun = {"train.init_from": str(alone("pool"))} if loader == "stream" else {}
    return {"data.loader": loader, **begun}


def patched(folder, lines):
    """A config file that also runs some lines in each process, before it trains."""
    file = folder / "patched.py"
    file.write_text("from configs.base import get_config\n" + lines)
    return file


# The second process is asked to stop during its fourth update.
STOPPED = """
import os, signal, jax
from isr_jax.training import loop

make, calls = loop.make_dispatch, []

def make_dispatch(config, update, devices):
    dispatch = make(config, update, devices)

    def counted(state, inputs, key, *, n, adversarial):
        calls.append(n)
        if len(calls) == 4 and jax.process_index() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return dispatch(state, inputs, key, n=n, adversarial=adversarial)

    return counted

loop.make_dispatch = make_dispatch
"""
# Half of the patience with a process that says nothing.
IMPATIENT = """
from isr_jax import distributed

distributed.SILENCE = 10.0
"""


@pytest.mark.parametrize(
    "count, loader, reference", [(2, "sharded_pool", "pool"), (4, "stream", "stream")]
)
def test_several_processes_train_what_one_does(count, loader, reference, alone, photos, tmp_path):
    """A sharded pool, of which each process decodes its part, has the batches of a whole one."""
    run = tmp_path / "run"
    codes, texts = end(begin(count, run, photos, **loading(loader, alone)))
    assert codes == [0] * count, texts
    assert_close(run, alone(reference), 1e-5)
    losses, expected = (
        [[r[n] for n in ("loss", "d_loss")] for r in read_records(x) if r["kind"] == "train"]
        for x in (run, alone(reference))
    )
    np.testing.assert_allclose(losses, expected, atol=1e-5)
    # One process writes what there is one of.
    assert "Validation set" in texts[0] and not any(texts[1:])
    assert len([r for r in read_records(run) if r["kind"] == "validation"]) == 1
    assert len([*run.glob("events*")]) == 1 and (run / "curves.png").exists()


def test_a_run_goes_on_with_other_numbers_of_processes_and_devices(alone, photos, tmp_path):
    """Two processes, of which one is asked to stop, then one with four devices.

    All stop after the same update, the second one after they could know. What is resumed is what
    was saved, bit for bit: its digests are compared.
    """
    run, settings = tmp_path / "run", loading("stream", alone)
    codes, texts = end(begin(2, run, photos, config=patched(tmp_path, STOPPED), **settings))
    assert codes == [75, 75], texts
    assert "stopped at step 6; run the same command again to resume" in texts[0] and not texts[1]
    console = heard()
    assert isr_jax.train(configured(photos, **settings), run, console=console).step == STEPS
    assert f"resuming {run} from step 6" in console.export_text()
    assert_close(run, alone("stream"), 1e-5)


def test_when_a_process_is_lost_the_others_end_and_the_job_resumes(photos, tmp_path):
    run, more = tmp_path / "run", {"config": patched(tmp_path, IMPATIENT)}
    more |= {"train.steps": 100_000, "train.validate_every": 100_000, "train.checkpoint_every": 10}
    started = begin(2, run, photos, **more)
    wait_for(lambda: any(step.name.isdigit() for step in run.glob("checkpoints/*")))
    started[1].kill()
    killed = time.monotonic()
    codes, texts = end(started)
    assert codes == [1, -signal.SIGKILL] and time.monotonic() - killed < 60, texts
    last = texts[0].splitlines()[-1]
    assert re.fullmatch(r"process 1 of 2, on \S+, was lost; start the job again to .*", last)
    assert "Traceback" not in texts[0]
    # The job again, in which the first process is lost. JAX itself ends the others then.
    before = len(read_records(run))
    started = begin(2, run, photos, **more)
    wait_for(lambda: len(read_records(run)) > before)
    started[0].kill()
    killed = time.monotonic()
    codes, texts = end(started)
    assert codes[1] not in (0, 75) and time.monotonic() - killed < 60
    assert re.search(f"resuming {re.escape(str(run))} from step \\d+", texts[0]), texts


def test_an_error_of_one_process_is_one_line(photos, tmp_path):
    started = begin(2, tmp_path / "run", photos, **{"data.batch": 3})
    codes, texts = end(started)
    assert codes == [1, 1]
    assert texts == [
        "run.py: config.data.batch=3 must be divisible by 2, the devices",
        "",
    ]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"process": 1, "processes": 2}, "--processes and --process need --coordinator HOST:PORT"),
        ({"coordinator": "a:1"}, "--coordinator needs --processes N and --process 0..N-1"),
        ({"coordinator": "a:1", "processes": 2}, "--coordinator needs --processes N and"),
        ({"coordinator": "there", "processes": 1, "process": 0}, "--coordinator is there; give"),
        ({"coordinator": "there:1", "processes": 2, "process": 2}, "process 2 of 2: give"),
    ],
)
def test_what_is_missing_is_said(options, message):
    with pytest.raises(UserError, match=message):
        distributed.start(**options)


def test_a_first_process_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(distributed, "JOINING", 0.1)
    port = free_port()
    with pytest.raises(UserError, match=f"the first process does not answer at 127.0.0.1:{port}"):
        distributed.start(coordinator=f"127.0.0.1:{port}", processes=2, process=1)
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} cannot be opened"):
            distributed.start(coordinator=f"127.0.0.1:{port}", processes=2, process=0)
    with pytest.raises(UserError, match="--coordinator is here:x; give HOST:PORT"):
        distributed.start(coordinator="here:x", processes=2, process=0)


def test_a_first_process_that_waits_in_vain_says_so():
    """In a process of its own, because JAX would abort it."""
    code = (
        "from isr_jax import distributed; distributed.JOINING = 1;"
        f"distributed.start(coordinator='127.0.0.1:{free_port()}', processes=2, process=0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "process 0 of 2 has waited 1 s for the others; start them all, with the same "
        "--coordinator and --processes\n"
    )


def test_launchers_say_which_process_this_is(monkeypatch):
    for name in ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    assert distributed.place() == (0, 1)
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b,c,d")
    monkeypatch.setenv("TPU_WORKER_ID", "3")
    assert distributed.place() == (3, 4)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "8")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "7")
    assert distributed.place() == (7, 8)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert distributed.place() == (1, 2)


@pytest.mark.parametrize(
    ("tasks", "node", "own"),
    [("1(x2)", "1", None), ("2", "0", "1"), ("1(x2),2", "2", "1"), ("1(x2),2", "1", None)],
)
def test_a_process_takes_a_device_of_its_own_where_its_node_has_several(
    monkeypatch, tasks, node, own
):
    taken = []
    monkeypatch.setattr(jax.config, "update", lambda *values: taken.append(values))
    for name in ("CUDA_VISIBLE_DEVICES", "OMPI_COMM_WORLD_LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", tasks)
    monkeypatch.setenv("SLURM_NODEID", node)
    monkeypatch.setenv("SLURM_LOCALID", own or "0")
    distributed.take_own_device()
    assert taken == ([("jax_cuda_visible_devices", own)] if own else [])
