"""`isr rerun`."""

import argparse
import json
import sys

from isr_jax.cli.options import Parser
from isr_jax.errors import UserError
from isr_jax.files import expanded


def add_options(parser: Parser) -> None:
    """Add the options of `isr rerun`."""
    parser.description = (
        "Repeat a run in a new folder, from the config.json and start.json of its last start. On "
        "the same machine with the same versions, the numbers are the same to the last bit; what "
        "differs from that start is said first. A folder of images is found relative to where "
        "you are."
    )
    parser.add_argument("run_folder", metavar="RUN", help="a run folder")
    parser.add_argument("out", metavar="OUT", help="the new run folder; rerunning resumes it")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train; return the exit code, 75 where a signal stopped it."""
    from isr_jax.config import from_saved
    from isr_jax.training.loaders import fingerprints
    from isr_jax.training.loop import train
    from isr_jax.training.run_folder import differences

    folder = expanded(options.run_folder)
    try:
        saved = json.loads((folder / "config.json").read_text())
        start = json.loads((folder / "start.json").read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder} does not say how it was started ({error})") from error
    if not isinstance(saved, dict) or not isinstance(start, dict):
        raise UserError(f"{folder} does not say how it was started (it holds other JSON)")
    if expanded(options.out).resolve() == folder.resolve():
        raise UserError(f"{options.out} is the run itself; name a new folder")
    config = from_saved(saved)
    for line in differences(start, data=fingerprints(config)):
        print(f"isr rerun: {line}", file=sys.stderr)
    result = train(config, options.out)
    return 0 if result.step >= config.train.steps else 75
