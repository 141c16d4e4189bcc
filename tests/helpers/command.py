"""The `isr` command, run in this process."""

from isr_jax import cli


def run(capsys, *arguments):
    """Exit code, standard output and the lines of standard error of `isr`."""
    try:
        code = cli.main([*map(str, arguments)])
    except SystemExit as stop:  # argparse's own
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err.splitlines()
