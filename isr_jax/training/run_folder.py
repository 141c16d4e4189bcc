"""A run folder from outside: created, locked, and described, so that it can be repeated.

RUN/start.json    of the last start: command, versions, git revision, devices, data
"""

import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from isr_jax import distributed
from isr_jax.errors import UserError
from isr_jax.files import expanded, read_json, to_quarantine, write_json
from isr_jax.training.lock import locked

_FOLDERS = ("checkpoints", "images", "candidates", "wandb")
_FILES = (
    *("config.json", "start.json", "metrics.jsonl", "curves.png"),
    *("tensorboard.json", "wandb.json"),
)
_PACKAGES = ("isr-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain")


@contextmanager
def open_run(workdir: str | Path, *, say: Callable[[str], None]) -> Iterator[Path]:
    """Yield the folder of a run, created if missing and held against other processes.

    What is not the kind of thing that a run writes under its name is moved to RUN/quarantine/.
    Where several processes train, the first one holds the folder for all.

    Args:
        workdir: the folder.
        say: takes lines for the user.

    Raises:
        UserError: it cannot be created or written to, or another process uses it.
    """
    run = expanded(workdir)
    if not distributed.is_first():
        distributed.wait("run folder")
        if not (run / "lock").is_file():
            raise UserError(
                f"{run} is not the first process's folder; all must see one file system"
            )
        yield run
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=run).close()
    except OSError as error:
        raise UserError(f"{run}: {error.strerror}; give another --workdir") from error
    _quarantine_unless(Path.is_file, [run / "lock"], say=say)
    with locked(run, say=say):
        _quarantine_unless(Path.is_dir, [run / name for name in _FOLDERS], say=say)
        _quarantine_unless(Path.is_file, [run / name for name in _FILES], say=say)
        distributed.wait("run folder")
        yield run


def _quarantine_unless(
    good: Callable[[Path], bool], paths: Sequence[Path], *, say: Callable[[str], None]
) -> None:
    """Move what is there, and is not the kind of thing that a run writes, to RUN/quarantine/."""
    kind = "folder" if good is Path.is_dir else "file"
    for path in paths:
        if os.path.lexists(path) and not good(path):
            say(f"{path} is not a {kind}; moved to {to_quarantine(path, path.parent)}")


def note_start(run: Path, data: Mapping[str, str], *, say: Callable[[str], None]) -> None:
    """Write RUN/start.json; say which data are not those of the last start.

    Args:
        run: the run folder.
        data: what each part, such as "train", is read from; see `Source.fingerprint`.
        say: takes lines for the user.
    """
    file = run / "start.json"
    before = _data_of(file)
    for name, now in data.items():
        if before.get(name, now) != now:
            say(f"config.data.{name} has changed since the last start: {before[name]}, now {now}")
    content = {"command": sys.argv, **_surroundings(), "data": dict(data)}
    write_json(file, content)


def differences(start: Mapping[str, Any], *, data: Mapping[str, str]) -> list[str]:
    """Return a line for each thing that is not as start.json says it was.

    Args:
        start: its content.
        data: as for `note_start`.
    """
    lines = []
    # Runs older than the fingerprints have none.
    known = {"data": dict(data)} if "data" in start else {}
    for name, now in (_surroundings() | known).items():
        then = start.get(name)
        if isinstance(then, dict) and isinstance(now, dict):
            changed = [key for key in now if then.get(key) != now[key]]
            label = "config.data." if name == "data" else ""
            lines += [f"{label}{key} was {then.get(key)}, and is {now[key]}" for key in changed]
        elif then != now:
            lines.append(f"{name} was {then}, and is {now}")
    return lines


def _surroundings() -> dict[str, Any]:
    """Return what the numbers of a run depend on, besides its config and data."""
    return {
        "python": sys.version.split()[0],
        "versions": _versions(),
        "git": _revision(),
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
        "processor": platform.processor() or platform.machine(),
    }


def _data_of(file: Path) -> dict[str, Any]:
    data = (read_json(file) or {}).get("data")
    return data if isinstance(data, dict) else {}


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _revision() -> str | None:
    """Return the git revision of this code, with -dirty where it was changed; None without git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(
            [*command, "--abbrev=40"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
