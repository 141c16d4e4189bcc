"""What surrounds a run: stop signals, the cache of programs, full disks, and divergence."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import jax
import numpy as np
import orbax.checkpoint as ocp
import platformdirs
from jaxtyping import Float
from ml_collections import ConfigDict

from isr_jax.checkpoints import runs as checkpoint
from isr_jax.errors import UserError, disk_error, is_out_of_memory
from isr_jax.files import is_writable


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a check for a request to stop; a second one kills.

    It is requested by Ctrl-C, SIGTERM, or SIGHUP (a closed terminal). What is ignored, as by nohup,
    stays so; and signals come to the main thread alone, so that in others nothing requests it.
    """
    caught: list[int] = []

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, before[signal.Signals(number)])

    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    main = threading.current_thread() is threading.main_thread()
    before = {n: action for n, action in before.items() if main and action is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, catch)
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def use_all_cores(examples: int) -> None:
    """Split a CPU into as many devices as it has cores, where JAX is the faster for it.

    Before 0.11, XLA leaves cores idle in the gradients of convolutions. The batch of an update is
    the same on any number of devices. Call it before JAX is used; afterwards it does nothing.

    Args:
        examples: that pass through the networks at once; they must be divisible by the number of
            devices.
    """
    chosen = "XLA_FLAGS" in os.environ and "device_count" in os.environ["XLA_FLAGS"]
    if jax.__version_info__ >= (0, 11) or chosen or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with suppress(RuntimeError):  # JAX was used already
        jax.config.update("jax_num_cpu_devices", cpu_devices(examples, cores=cores or 1))


def cpu_devices(examples: int, *, cores: int) -> int:
    """Return the largest number of devices, one for each core at most, that divides examples."""
    # Each device holds the pool: more than 8 would take more memory than they save time.
    most = max(1, min(cores, examples, 8))
    return max(n for n in range(1, most + 1) if examples % n == 0)


def use_compilation_cache() -> None:
    """Keep compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or the user's cache.

    Where that cannot be written, as in a container without a home, none are kept.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = platformdirs.user_cache_path("isr_jax") / "jax"
        if is_writable(folder):
            jax.config.update("jax_compilation_cache_dir", str(folder))


@contextmanager
def explained(run: Path, config: ConfigDict) -> Iterator[None]:
    """Turn errors of a full disk or a full memory into a UserError that says what to do.

    Args:
        run: the run folder.
        config: of the run.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        crop, batch = config.data.crop, config.data.batch
        if is_out_of_memory(error):
            raise UserError(
                f"out of memory, with crops of {crop} px and batches of {batch}: lower "
                "config.data.batch or config.data.crop, or choose a smaller network"
            ) from error
        reason = disk_error(error)
        if reason:
            raise UserError(
                f"{run} cannot be written: {reason}; make it writable or make room, and run the "
                "same command again to resume"
            ) from error
        raise


def check_finite(
    values: Mapping[str, Float[np.ndarray, " n"]], *, first: int, manager: ocp.CheckpointManager
) -> None:
    """Check the metrics of the updates after step `first`.

    Raises:
        UserError: for a loss or gradient that is not finite, with the first such step and the last
            checkpoint to return to.
    """
    bad = ~np.all([np.isfinite(series) for series in values.values()], axis=0)
    if not bad.any():
        return
    at = int(np.argmax(bad))
    names = ", ".join(name for name, series in values.items() if not np.isfinite(series[at]))
    step = first + at + 1
    good = checkpoint.last_good(manager, step)
    raise UserError(
        f"step {step}: {names} is not finite; "
        f"{f'the last good checkpoint is {good}' if good else 'there is no good checkpoint yet'}; "
        "lower the learning rates, or set config.g_optimizer.grad_clip"
    )
