"""One run folder, one process: a lock that dies with its process, also on network file systems.

`flock` decides between processes of one machine. On a network file system it can succeed on two
machines at once, so the holder also writes a heartbeat into the file. A process that finds another
machine's name there watches it for WATCH seconds, and takes the folder over if the heart stood
still. It only looks for a change, so the machines' clocks need not agree. A holder that was
suspended for longer finds the other's name when it wakes, and ends at once.

    RUN/lock    {"host": ..., "process": ..., "boot": ..., "beat": ...}; empty when it was released
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isr_jax.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

BEAT = 5.0  # seconds between heartbeats
WATCH = 20.0  # seconds that another machine's heart is watched

_SIZE = 512  # bytes; overwritten in place, which takes no space on a full disk


@contextmanager
def locked(run: Path, *, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a run folder's lock.

    Args:
        run: the folder.
        say: takes a line for the user, where another machine's heartbeat is watched.

    Raises:
        UserError: another process holds it; the message names the process and its machine. Or the
            file cannot be made.
    """
    path = run / "lock"
    try:
        opened = open(path, "a+b", buffering=0)  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give another --workdir") from error
    with opened as file:
        sure = _flock(file, path)
        holder = _holder(path)
        if holder and not (sure and holder.get("boot") == _boot()):
            _watch(path, holder, say)
        stop = threading.Event()
        heart = threading.Thread(target=_beat, args=(path, stop, say), name="run-lock", daemon=True)
        with contextlib.suppress(OSError):  # a full disk; whoever writes next says so
            _write(path, 0)
        heart.start()
        try:
            yield
        finally:
            stop.set()
            heart.join()
            with contextlib.suppress(OSError):
                os.truncate(path, 0)


def _flock(file: Any, path: Path) -> bool:
    """Lock a file; return whether this machine's other processes are kept out by it."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _taken(path, _holder(path)) from None
    except OSError:  # a file system without locks
        return False
    return True


def _watch(path: Path, holder: dict[str, Any], say: Callable[[str], None]) -> None:
    """Return when the holder's heart has stood still for WATCH seconds."""
    say(
        f"{path.parent} was last used by {_name(holder)}; waiting {WATCH:.0f} s to see whether it "
        "still runs"
    )
    end = time.monotonic() + WATCH
    while time.monotonic() < end:
        time.sleep(min(1.0, BEAT / 2))
        now = _holder(path)
        if now and now != holder:
            raise _taken(path, now)


def _taken(path: Path, holder: dict[str, Any]) -> UserError:
    return UserError(
        f"{path.parent} is in use by {_name(holder)}; stop that run, or give another --workdir"
    )


def _name(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process"
    return f"process {holder.get('process')} on {holder.get('host')}"


def _holder(path: Path) -> dict[str, Any]:
    """Return what the lock file says of its holder; {} where it was released, or is damaged."""
    try:
        # Opened anew each time: only then do network file systems look for changes.
        content = json.loads(path.read_bytes()[:_SIZE])
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _beat(path: Path, stop: threading.Event, say: Callable[[str], None]) -> None:
    beat = 0
    while not stop.wait(BEAT):
        beat += 1
        now = _holder(path)
        if now and (now.get("boot"), now.get("process")) != (_boot(), os.getpid()):
            say(
                f"{path.parent} was taken over by {_name(now)} while this process was suspended; "
                "this one ends, and saves nothing"
            )
            # An orderly end would save, into a folder that has another writer now.
            os._exit(1)
        with contextlib.suppress(OSError):
            _write(path, beat)


def _write(path: Path, beat: int) -> None:
    content = {"host": socket.gethostname(), "process": os.getpid(), "boot": _boot(), "beat": beat}
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        os.pwrite(file, json.dumps(content).encode().ljust(_SIZE), 0)
        os.fsync(file)
    finally:
        os.close(file)


def _boot() -> str:
    """Return what tells this boot of this machine from others, whose names may be the same."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
