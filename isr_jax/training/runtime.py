"""What surrounds a run: its folder, stop signals, and the cache of compiled programs."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import jax

from isr_jax.errors import UserError


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C or SIGTERM (a preempted machine) asks to stop soon; a second one kills."""
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
    """The folder of a run, made where it is missing.

    Raises:
        UserError: where it cannot be made or written to.
    """
    run = Path(workdir).expanduser()
    try:
        run.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=run).close()
    except OSError as error:
        raise UserError(f"{run}: {error.strerror}; give another --workdir") from error
    return run
