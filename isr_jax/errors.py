"""Errors that are reported to the user in one line."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Something the user can fix: one line that names it and says what to do.

    `run.py` prints the message to standard error and exits with 1; any other exception is a bug
    and keeps its traceback.
    """


class UsageError(UserError):
    """Options that cannot be combined; the `isr` command exits with 2."""


def one_line(reason: object, *, limit: int = 200) -> str:
    """Return the message of an exception as one line of at most `limit` characters."""
    text = " ".join(str(reason).split()) or type(reason).__name__
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
