"""Timing shared by the benchmarks: interleaved repetitions, processes, and the machine's name."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

Way = Callable[[], object]


class Process(NamedTuple):
    """Seconds of a process by the clock and on processors, and its peak memory in GiB."""

    seconds: float
    processor_seconds: float
    peak_gib: float


def parser(doc: str | None, *, rounds: int | None = None) -> argparse.ArgumentParser:
    """Return a parser whose help is the docstring of a benchmark.

    Args:
        doc: the docstring.
        rounds: default of the option --rounds, which exists unless this is None.
    """
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if rounds is not None:
        made.add_argument(
            "--rounds", type=int, default=rounds, help=f"repetitions of each; default: {rounds}"
        )
    return made


def machine() -> str:
    """Return the name of the processor, if the system tells it, and the number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores"


def print_machine(*libraries: str) -> None:
    """Print the versions of JAX and other libraries, the devices, and the processor."""
    devices = jax.devices()
    count = f"{len(devices)} x " if len(devices) > 1 else ""
    versions = ", ".join([f"JAX {jax.__version__}", *libraries])
    print(f"{versions} on {count}{devices[0].device_kind}; {machine()}\n", flush=True)


def elapsed(way: Way) -> float:
    """Return the seconds of one call, including the arrays that it returns."""
    start = time.perf_counter()
    jax.block_until_ready(way())
    return time.perf_counter() - start


def interleaved(
    ways: Mapping[str, Way], *, rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Time functions in turn, so that a disturbance affects all of them.

    Args:
        ways: the functions by name.
        rounds: number of timed calls of each.
        warm_up: calls of each before, which compile.

    Returns:
        The seconds of each call, by name.
    """
    for way in ways.values():
        for _ in range(warm_up):
            jax.block_until_ready(way())
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(elapsed(way))
    return seconds


def run_python(arguments: Sequence[str]) -> Process:
    """Run this Python with arguments in a process of its own, and measure it.

    Raises:
        RuntimeError: the process failed.
    """
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"exit code {child.returncode} of {' '.join(arguments)}")
    on_processors = used.ru_utime + used.ru_stime
    return Process(time.perf_counter() - start, on_processors, used.ru_maxrss / 2**20)
