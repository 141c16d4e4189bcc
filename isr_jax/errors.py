"""Errors that are reported to the user in one line."""

import errno
import logging
import operator
import os
import sys
import threading
import warnings
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


def printable(text: str) -> str:
    """Return a text whose control characters are escaped, such as a newline in a file name.

    Printed as they are, they could forge lines on the terminal. So are characters that have no
    encoding, which stand for the bytes of a file name that is not UTF-8.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class UserError(ValueError):
    """Something the user can fix: one line that names it and says what to do.

    `run.py` prints the message to standard error and exits with 1; any other exception is a bug
    and keeps its traceback.
    """

    def __init__(self, message: object) -> None:
        super().__init__(printable(str(message)))


class UsageError(UserError):
    """Options that cannot be combined; the `isr` command exits with 2."""


def one_line(reason: object, *, limit: int = 200) -> str:
    """Return the message of an exception as one line of at most `limit` characters."""
    text = printable(" ".join(str(reason).split())) or type(reason).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def unknown(what: str, value: object, choices: Iterable[object]) -> UserError:
    """Return the error for a name that is none of `choices`; it names the nearest.

    Args:
        what: what the name refers to, such as "protocol" or "config.loss.adversarial".
        value: the name that was given.
        choices: the valid names.
    """
    names = [str(choice) for choice in choices]
    message = f"unknown {what} {str(value)!r}; choose one of {', '.join(names)}"
    near = get_close_matches(str(value), names, n=1)
    return UserError(f"{message}; did you mean {near[0]}?" if near else message)


def whole_number(value: object, *, name: str, least: int = 1, unit: str = "whole number") -> int:
    """Return a whole number of Python or NumPy as an int.

    Args:
        value: what was given.
        name: of the argument or field.
        least: the smallest that is allowed.
        unit: what it is, for the message.

    Raises:
        UserError: it is something else, or smaller.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise UserError(f"{name} is {value!r}; give a {unit}, {least} or more")
    return number


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
# What XLA says where memory is missing.
_NO_MEMORY = ("Out of memory", "out of memory", "RESOURCE_EXHAUSTED: Failed to allocate")


def disk_error(error: BaseException) -> str | None:
    """Return what is wrong with a disk, such as "No space left on device".

    None where an error is about something else. Orbax and TensorStore raise errors that only say so
    in their text, or are caused by one that does.
    """
    if isinstance(error, OSError) and error.errno in _DISK:
        return error.strerror
    return _said(error, [os.strerror(number) for number in _DISK])


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is missing, of the machine or of a device."""
    return isinstance(error, MemoryError) or _said(error, _NO_MEMORY) is not None


def _said(error: BaseException | None, texts: Sequence[str]) -> str | None:
    """Return the first of some texts that an error or one of its causes says."""
    for _ in range(10):
        if error is None:
            return None
        found = next((text for text in texts if text in str(error)), None)
        if found:
            return found
        error = error.__cause__ or error.__context__
    return None


def silence_libraries() -> None:
    """Keep libraries from printing what they also raise: for commands, which say it in one line.

    Orbax logs a traceback in each of its threads, and asyncio one for each array, of a disk that is
    full or a checkpoint that is damaged.
    """
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    in_threads, ignored = threading.excepthook, sys.unraisablehook

    def of_thread(arguments: Any) -> None:
        if arguments.exc_value is None or not disk_error(arguments.exc_value):
            in_threads(arguments)

    def of_callback(arguments: Any) -> None:
        # TensorStore calls back for each array, when nobody waits any more.
        if str(arguments.exc_value) != "Event loop is closed":
            ignored(arguments)

    threading.excepthook, sys.unraisablehook = of_thread, of_callback
    warnings.filterwarnings("ignore", message=r"coroutine .* was never awaited")
