"""The commands: `isr` in this process, run.py in one of its own."""

import subprocess
import sys
from pathlib import Path

from isr_jax import cli
from tests.helpers.tiny_runs import environment

ROOT = Path(__file__).parents[2]


def run(capsys, *arguments):
    """Exit code, standard output and the lines of standard error of `isr`."""
    try:
        code = cli.main([*map(str, arguments)])
    except SystemExit as stop:  # argparse's own
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err.splitlines()


def run_py(
    *args: str, config: str = "base", optimized: bool = False
) -> subprocess.CompletedProcess:
    """Run `python run.py` to its end; what it printed is text."""
    return subprocess.run(
        [sys.executable, "run.py", "--config", f"configs/{config}.py", *args],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=ROOT,
        env=environment(optimized=optimized),
    )
