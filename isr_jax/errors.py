"""The one exception whose message is meant for the person at the command line."""


class UserError(ValueError):
    """Something the user can put right: one line that names it and says what to do.

    `run.py` prints the message to standard error and exits with 1; any other exception is a bug
    and keeps its traceback.
    """
