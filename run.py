"""Train a super-resolution GAN, or run a loss study.

python run.py --config configs/msssim.py [--config.train.steps=2000] [--workdir runs/msssim]
python run.py --config configs/study.py:quick

Run the same command again to resume. Every field of isr_jax/config.py can be overridden. Some
configs have variants, such as configs/esrgan.py:smoke.

Exit codes: 0 finished; 75 stopped by a signal, the same command resumes; 1 an error, in one line;
2 wrong usage; 130 interrupted before there was anything to save.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

STOPPED = 75  # EX_TEMPFAIL of sysexits.h, which schedulers can be told to run again
DEADLINE = 30.0  # seconds that the end of the process may take


def leave(code: int, *, last: Callable[[], None] = lambda: None) -> NoReturn:
    """Do a last thing and exit, by a deadline: after a failed save Orbax can wait for ever."""
    timer = threading.Timer(DEADLINE, os._exit, [code])
    timer.daemon = True
    timer.start()
    last()
    sys.exit(code)


def say(line: str) -> None:
    """Print one line to standard error."""
    print(f"run.py: {line}", file=sys.stderr)


def fail(message: str, *, code: int) -> NoReturn:
    """Print one line to standard error and exit."""
    say(message)
    leave(code)


def interrupt(*_: object) -> NoReturn:
    """End on a Ctrl-C for which there is nothing to save."""
    fail("interrupted; run the same command again to resume from the latest checkpoint", code=130)


# Here already, because the imports below take a while.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, interrupt)

from absl import app, flags  # noqa: E402
from ml_collections import ConfigDict, config_flags  # noqa: E402

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/, with :VARIANT where it has one.", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run folder; by default runs/NAME, after the config."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of the first of several processes; srun, mpirun and TPU pods need no such flags.",
)
PROCESSES = flags.DEFINE_integer("processes", None, "How many processes train together.")
PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.")


_NO_CONFIG = "get_config() must return a ConfigDict, and returns something else"


def parse(argv: list[str]) -> list[str]:
    """Parse the command line; wrong usage is one line on standard error and exit code 2."""
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise flags.Error(f"unexpected argument {rest[1]!r}; options are --NAME=VALUE")
        config = cast(Any, CONFIG.value)
        if config is None:
            given = any("-config" in argument for argument in argv)
            none = "no config given; try --config configs/msssim.py"
            raise flags.Error(_NO_CONFIG if given else none)
        if not isinstance(config, ConfigDict) and not _failed(config):
            raise flags.Error(_NO_CONFIG)
        if WORKDIR.value == "":
            raise flags.Error("--workdir is empty; name a folder, or leave it out")
        # A file that could not be loaded raises at the first access.
        list(config)
    # A config file is the user's own program, which can raise anything.
    except Exception as error:
        fail(_place(error) + _one_line(error), code=2)
    return rest


def _failed(config: object) -> bool:
    """Return whether a config stands for a file that could not be loaded."""
    return type(config).__module__.startswith("ml_collections")


def _place(error: Exception) -> str:
    """Return where a config file raised an error that says nothing of it, and its name."""
    if isinstance(error, flags.Error | AttributeError | KeyError | OSError | ValueError):
        return ""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: "
    frames = traceback.extract_tb(error.__traceback__)
    libraries = ("site-packages", "importlib", "<frozen")
    mine = [
        frame
        for frame in frames
        if frame.filename != __file__ and not any(part in frame.filename for part in libraries)
    ]
    last = (mine or frames)[-1]
    return f"{last.filename}, line {last.lineno}: {type(error).__name__}: "


def _one_line(error: Exception) -> str:
    """Return the message of absl or ml_collections without quoting, line breaks and traceback."""
    lines = str(error).replace("\\n", "\n").replace("\\", "").strip(" '\"\n").splitlines()
    if any(line.strip().startswith("Traceback") for line in lines):
        lines = [lines[0], lines[-1].rpartition("UserError: ")[2]]
    text = " ".join(" ".join(lines).split()).replace("'", "")
    if isinstance(error, AttributeError | KeyError) and text.isidentifier():
        return f"{text}: no such config field; isr_jax/config.py lists all"
    return text.replace(" Did you mean", ": no such config field; did you mean", 1).strip('"')


def main(argv: list[str]) -> None:
    """Hand the config to isr_jax.train, or to isr_jax.study if it has a study's fields."""
    # Imported here, so that wrong usage is reported at once.
    from rich.console import Console

    import isr_jax
    from isr_jax import UserError, distributed
    from isr_jax.errors import silence_libraries
    from isr_jax.training.record import closing_table

    silence_libraries()
    file, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    name = "-".join(filter(None, (Path(file).stem, variant)))
    workdir = f"runs/{name}" if WORKDIR.value is None else WORKDIR.value
    try:
        distributed.start(
            coordinator=COORDINATOR.value, processes=PROCESSES.value, process=PROCESS.value
        )
        if "study" in CONFIG.value:
            outcome = isr_jax.study(CONFIG.value, workdir)
            if outcome.results:
                print(f"{outcome.results['verdict']}\nThe report is {outcome.run / 'report.html'}")
            leave(0 if outcome.results else STOPPED)
        result = isr_jax.train(CONFIG.value, workdir)
    except UserError as error:
        distributed.fail(str(error), say)
        leave(1)
    except Exception as error:
        distributed.end_after(error, say)
        raise
    if result.scores and distributed.is_first():
        title = f"Validation set, {result.step} updates"
        closing_table(Console(), result.scores, result.baselines, title)
    done = result.step >= CONFIG.value.train.steps
    leave(0 if done else STOPPED, last=distributed.finish)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
