"""What surrounds a run: its folder, stop signals, the cache of programs, and divergence."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Float

from isr_jax.checkpoints import runs as checkpoint
from isr_jax.errors import UserError


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a check for a request to stop: one Ctrl-C or SIGTERM requests it, a second kills."""
    caught: list[int] = []

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, catch)
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def use_compilation_cache() -> None:
    """Keep compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or ~/.cache/isr_jax."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache/isr_jax/jax"))


def make_run_folder(workdir: str | Path) -> Path:
    """Return the folder of a run, created if missing.

    Raises:
        UserError: if it cannot be created or written to.
    """
    run = Path(workdir).expanduser()
    try:
        run.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=run).close()
    except OSError as error:
        raise UserError(f"{run}: {error.strerror}; give another --workdir") from error
    return run


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
