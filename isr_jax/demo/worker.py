"""A process that works for the page, so that endless work can be ended: by killing it.

A thread cannot be stopped from outside, and a decoder looks for no signal.
"""

import contextlib
import multiprocessing
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from isr_jax.errors import UserError
from isr_jax.processes import end_with_parent

START = 120.0  # seconds in which a process must be ready
GRACE = 3.0  # seconds in which work may stop by itself
_TICK = 0.1  # seconds between looks whether to stop


class Stopped(Exception):
    """Nobody is waiting for the result any more."""


class BugError(Exception):
    """Something else than a UserError was raised in the process; holds its traceback."""


class Worker:
    """A process that answers one call at a time; it is started again after it was killed."""

    def __init__(
        self, name: str, *, seconds: float, option: str = "", modules: Sequence[str] = ()
    ) -> None:
        """Start the process.

        Args:
            name: of the process.
            seconds: the most that a call may take.
            option: of the command line, that sets it.
            modules: those that it imports before the first call.
        """
        self._name, self._seconds, self._modules = name, seconds, tuple(modules)
        self._option = option and f" ({option})"
        self._turn = threading.Lock()
        self._closed = False
        self._start()

    def call(
        self,
        function: Callable[..., Any],
        *,
        tell: Callable[..., None] = lambda **event: None,
        stop: threading.Event | None = None,
    ) -> Any:
        """Return function(progress=...), computed in the process.

        Args:
            function: what can be pickled, such as a partial of a module's function; it calls
                `progress` with what `tell` is to be given, which raises Stopped once `stop` is set.
            tell: called with the events.
            stop: set where nobody waits any more.

        Raises:
            Stopped: soon after `stop` was set.
            UserError: raised by the function; or it took too long, or the process died.
            BugError: the function raised anything else.
        """
        stop = stop or threading.Event()
        with self._turn:
            if stop.is_set() or self._closed:
                raise Stopped
            if not self._process.is_alive():
                self._start()
            try:
                if not self._ready:
                    self._answer(tell, stop, seconds=START)
                    self._ready = True
                self._pipe.send(function)
                return self._answer(tell, stop, seconds=self._seconds, option=self._option)
            except (EOFError, OSError) as error:
                self._kill()
                if stop.is_set() or self._closed:
                    raise Stopped from error
                raise UserError(
                    "the memory was too small for it, or its decoder crashed"
                ) from error

    def close(self) -> None:
        """Kill the process, whatever it does."""
        self._closed = True
        self._process.kill()
        with self._turn:  # the call that it ended may be closing the pipe
            self._kill()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(theirs, self._modules), name=self._name, daemon=True
        )
        self._process.start()
        self._ready = False
        theirs.close()

    def _kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _answer(
        self,
        tell: Callable[..., None],
        stop: threading.Event,
        *,
        seconds: float,
        option: str = "",
    ) -> Any:
        end = time.monotonic() + seconds
        told = False
        while True:
            if self._pipe.poll(_TICK):
                kind, content = self._pipe.recv()
                if kind == "result":
                    return content
                if kind == "error":
                    raise content
                tell(**content)
            if stop.is_set() and not told:
                self._pipe.send("stop")
                told, end = True, time.monotonic() + GRACE
            if time.monotonic() > end:
                self._kill()
                if told:
                    raise Stopped
                raise UserError(f"it took longer than {seconds:g} s{option}")


def _work(pipe: Connection, modules: Sequence[str]) -> None:
    """Answer calls until the other end is closed: what the process does."""
    # The server decides when to end; if it is killed, so is this.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    for module in modules:
        import_module(module)

    def progress(**event: Any) -> None:
        if pipe.poll():
            pipe.recv()  # the only thing that is sent to a call
            raise Stopped
        pipe.send(("event", event))

    with contextlib.suppress(EOFError, OSError):
        pipe.send(("result", "ready"))
        while True:
            asked = pipe.recv()
            if asked == "stop":
                continue  # it came after the result
            try:
                answer = "result", asked(progress=progress)
            except (UserError, Stopped) as error:
                answer = "error", error
            except MemoryError:
                answer = "error", UserError("the memory is too small for it")
            except Exception as error:
                text = "".join(traceback.format_exception(error))
                answer = "error", BugError(text)
            pipe.send(answer)
