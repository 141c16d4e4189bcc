"""Several processes as one: how they find each other, agree, and end together.

Every process runs the same program. JAX's coordination service, in the first process, holds a few
keys beside JAX's own, through which the processes tell what no collective can: that one failed, was
lost, or was asked to stop.
"""

import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding
from jaxtyping import Int32

from isr_jax.errors import UserError, one_line

BEAT = 2.0  # seconds between the heartbeats of a process
SILENCE = 20.0  # seconds without one, after which it counts as lost
JOINING = 300  # seconds that processes wait for each other at the start
# Seconds after which JAX itself would end a process, with a stack trace: later than we do.
_JAX_PATIENCE = 600
_ending = threading.Lock()  # held by the thread that ends this process

# What launchers tell a process: how many there are, and which one it is.
_LAUNCHERS = {
    "SLURM": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
}
_LOCAL_OPEN_MPI = ("OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK")


def place() -> tuple[int, int]:
    """Return which process this is, from 0, and how many there are, as the launcher says."""
    for count, index in _LAUNCHERS.values():
        if count in os.environ and index in os.environ:
            return int(os.environ[index]), int(os.environ[count])
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return int(os.environ.get("TPU_WORKER_ID", "0")), len(hosts)


def take_own_device() -> None:
    """Leave the other GPUs of this machine to the other processes that the launcher started on it.

    Call it before JAX is used, where processes work side by side and do not call `start`.
    """
    count, index = _LOCAL_OPEN_MPI
    local = {index: int(os.environ.get(count, "1")), "SLURM_LOCALID": _tasks_of_node()}
    for index, number in local.items():
        if number > 1 and index in os.environ:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            mine = int(os.environ[index])
            # A launcher that gives each process a GPU of its own has done it already.
            if visible is None or mine < len(visible.split(",")):
                jax.config.update("jax_cuda_visible_devices", str(mine))
            return


def _tasks_of_node() -> int:
    """Return how many processes SLURM started on this node, of a list such as 4(x2),1."""
    node, before = int(os.environ.get("SLURM_NODEID", "0")), 0
    for part in os.environ.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        number, _, times = part.partition("(x")
        before += int(times.rstrip(")") or 1)
        if node < before:
            return int(number)
    return 1


def start(
    *, coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Join the other processes of this job; do nothing where there are none.

    Call it before JAX is used. SLURM's srun, Open MPI's mpirun and TPU pods say by themselves what
    the arguments are.

    Args:
        coordinator: HOST:PORT of the first process, the port being free there.
        processes: how many there are.
        process: which one this is, from 0.

    Raises:
        UserError: only some of the arguments are known, or the others do not come.
    """
    index, count = place()
    given = (coordinator, processes, process)
    if given == (None, None, None) and count == 1:
        return
    if coordinator is None and given != (None, None, None):
        raise UserError("--processes and --process need --coordinator HOST:PORT as well")
    if coordinator and count == 1 and (processes is None or process is None):
        raise UserError("--coordinator needs --processes N and --process 0..N-1 as well")
    if coordinator and ":" not in coordinator:
        raise UserError(f"--coordinator is {coordinator}; give HOST:PORT")
    processes = count if processes is None else processes
    process = index if process is None else process
    if coordinator and not 0 <= process < processes:
        raise UserError(
            f"process {process} of {processes}: give --processes N and --process 0..N-1"
        )
    if coordinator:
        _check_address(coordinator, first=process == 0)
    # JAX would abort the process with a stack trace, so we give up before it does.
    others = threading.Timer(JOINING, _give_up, (process, processes))
    others.daemon = True
    others.start()
    # A signal is for us: we stop after an update, and save.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator,
            processes if coordinator else None,
            process if coordinator else None,
            initialization_timeout=2 * JOINING,
            heartbeat_timeout_seconds=_JAX_PATIENCE,
            cluster_detection_method="deactivate" if coordinator and count == 1 else None,
        )
    except Exception as error:
        raise UserError(
            f"process {process} of {processes} cannot join the others"
            f"{f' at {coordinator}' if coordinator else ''}: {one_line(error, limit=200)}; start "
            "them all, with the same --coordinator and --processes"
        ) from error
    finally:
        others.cancel()
    threading.Thread(target=_watch, name="processes", daemon=True).start()


def _give_up(process: int, processes: int) -> NoReturn:
    """End this process, for which the others have not come."""
    print(
        f"process {process} of {processes} has waited {JOINING:g} s for the others; start them "
        "all, with the same --coordinator and --processes",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def _check_address(coordinator: str, *, first: bool) -> None:
    """Raise a UserError where JAX would abort this process: there is nobody, or no free port."""
    host, _, port = coordinator.rpartition(":")
    if not port.isdigit():
        raise UserError(f"--coordinator is {coordinator}; give HOST:PORT")
    end = time.monotonic() + JOINING
    while True:
        try:
            if first:
                socket.create_server(("", int(port))).close()
            else:
                socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except (OSError, OverflowError) as error:
            if first:
                raise UserError(
                    f"port {port} cannot be opened for the other processes ({error}); choose "
                    "another one in --coordinator"
                ) from error
            if time.monotonic() > end:
                raise UserError(
                    f"the first process does not answer at {coordinator} ({error}); start it, with "
                    "the same --coordinator and --processes"
                ) from error
        time.sleep(0.5)


def is_first() -> bool:
    """Return whether this is the first process: the one that writes logs, records and pictures."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Wait until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def from_first(values: Mapping[str, float]) -> dict[str, float]:
    """Return the first process's values, to all."""
    if jax.process_count() == 1:
        return dict(values)
    numbers = np.array([*values.values()], np.float64)
    # As bytes, because JAX would round them to float32.
    sent = multihost_utils.broadcast_one_to_all(numbers.view(np.uint8))
    return dict(zip(values, np.asarray(sent).view(np.float64).tolist(), strict=True))


def summed(array: Int32[np.ndarray, "*shape"]) -> Int32[np.ndarray, "*shape"]:
    """Return the sum over the arrays of all processes, to all."""
    if jax.process_count() == 1:
        return array
    return np.asarray(multihost_utils.process_allgather(array)).sum(axis=0, dtype=np.int32)


def on_devices(tree: Any, sharding: Sharding) -> Any:
    """Put arrays on the devices of all processes.

    Args:
        tree: of arrays: the whole of each, where the sharding copies it to all devices; else this
            process's part.
        sharding: where.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    put = partial(jax.make_array_from_process_local_data, sharding)
    return jax.tree.map(lambda x: put(np.asarray(x)), tree)


def agreed(turn: int, *, wanted: bool) -> bool:
    """Return whether all processes stop after this turn, because one of them wants to.

    Call it in every process once a turn, in which each starts one program that has a collective and
    waits for that of the turn before. So no process is more than one turn ahead of another, and
    what one says in a turn all have read two turns later.

    Args:
        turn: counted from 0.
        wanted: whether this process wants to stop.
    """
    if jax.process_count() == 1:
        return wanted
    client = _client()
    at = client.key_value_dir_get("stop/")
    if wanted and not at:
        client.key_value_set(f"stop/{jax.process_index()}", str(turn + 2), allow_overwrite=True)
    return any(turn >= int(value) for _, value in at)


def finish() -> None:
    """Leave the others in order; call it at the end of a process that has done its work."""
    if jax.distributed.is_initialized():
        _set("done")
        jax.distributed.shutdown()


def fail(message: str, say: Callable[[str], None]) -> None:
    """Tell the other processes that this one ends, and why; the first one says it, and all end.

    Of several processes none returns: JAX would wait for the others, which have ended. The first
    ends after them, because JAX would abort them without its service.

    Args:
        message: the reason.
        say: prints a line.
    """
    if not jax.distributed.is_initialized():
        say(message)
        return
    _ending.acquire()
    if not is_first():
        _leave(message)
    say(message)
    _set("failed", message[:1000])
    _await_others()
    _leave(message)


def end_after(error: Exception, say: Callable[[str], None]) -> None:
    """End all processes after an error of any kind, as `fail` does, with its traceback.

    What a collective raises where another process is lost says little: the watch gets the time to
    find that first, and ends this process then. A process alone is left to go on.
    """
    if jax.distributed.is_initialized():
        time.sleep(SILENCE + 3 * BEAT)
        traceback.print_exception(error)
        fail(f"{type(error).__name__}: {one_line(error)}", say)


def _client() -> Any:
    """Return the client of JAX's coordination service, which JAX does not export."""
    from jax._src.distributed import global_state

    return global_state.client


def _set(name: str, value: str = "") -> None:
    _client().key_value_set(f"{name}/{jax.process_index()}", value, allow_overwrite=True)


def _watch() -> None:
    """Send heartbeats, and end this process as soon as another has failed or was lost."""
    client, me, beat = _client(), jax.process_index(), 0
    seen: dict[str, tuple[str, float]] = {}
    while True:
        beat += 1
        try:
            client.key_value_set(
                f"beat/{me}", f"{beat} {socket.gethostname()}", allow_overwrite=True
            )
            failed, done, beats = (
                {
                    int(key.rpartition("/")[2]): value
                    for key, value in client.key_value_dir_get(name)
                }
                for name in ("failed/", "done/", "beat/")
            )
        except Exception:
            # This process is leaving, or JAX ends it because the first one is gone.
            return
        if me in done or me in failed:
            return
        for process, message in failed.items():
            _end(f"process {process}: {message}", known=process)
            return
        for process, value in beats.items():
            last, since = seen.get(str(process), ("", 0.0))
            if value != last:
                seen[str(process)] = value, time.monotonic()
            elif process not in done and time.monotonic() - since > SILENCE:
                host = value.partition(" ")[2]
                _end(
                    f"process {process} of {jax.process_count()}, on {host}, was lost; start the "
                    "job again to resume from the latest checkpoint",
                    known=process,
                )
                return
        time.sleep(BEAT)


def _end(message: str, *, known: int) -> None:
    """End this process, unless it ends already; the first that is left says why."""
    if not _ending.acquire(blocking=False):
        return
    if jax.process_index() == (1 if known == 0 else 0):
        print(message, file=sys.stderr, flush=True)
    if is_first():
        _await_others(known)
    _leave(message)


def _leave(message: str) -> NoReturn:
    """Say that this process ends, and end it."""
    with contextlib.suppress(Exception):  # the first one is gone
        _set("failed", message[:1000])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _await_others(known: int = 0) -> None:
    """Wait until all others have said that they end, but for one that is known to be gone.

    Those that say nothing for too long are lost.
    """
    awaited = {*range(1, jax.process_count())} - {known}
    end = time.monotonic() + SILENCE
    while awaited and time.monotonic() < end:
        time.sleep(BEAT / 4)
        for name in ("failed/", "done/"):
            awaited -= {int(k.rpartition("/")[2]) for k, _ in _client().key_value_dir_get(name)}
    time.sleep(BEAT / 4)
