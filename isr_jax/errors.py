"""Messages for the person at the command line."""


class UserError(ValueError):
    """Something the user can put right: one line that names it and says what to do.

    `run.py` prints the message to standard error and exits with 1; any other exception is a bug
    and keeps its traceback.
    """


class UsageError(UserError):
    """Options that do not go together; the `isr` command exits with 2."""


def one_line(reason: object, *, limit: int = 200) -> str:
    """What an exception says, in one line of at most `limit` characters, for a message."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
