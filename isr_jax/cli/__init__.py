"""The `isr` command: its parser, and exit codes for what can go wrong."""

import signal
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from isr_jax import __version__
from isr_jax.cli import data, demo, evaluate, models, rerun, upscale, weights
from isr_jax.cli.options import Parser
from isr_jax.errors import UsageError, UserError, one_line, silence_libraries


class Command(NamedTuple):
    """A command: what it does in one line, and the function that adds its options."""

    summary: str
    add_options: Callable[[Parser], None]


COMMANDS = {
    "upscale": Command("upscale photos and videos", upscale.add_options),
    "models": Command("list the pretrained models", models.add_options),
    "evaluate": Command("score a model on benchmark sets", evaluate.add_options),
    "data": Command("check images before training", data.add_options),
    "rerun": Command(
        "repeat a run in a new folder, from the config and start of its last one", rerun.add_options
    ),
    "demo": Command("serve a page that upscales photos in the browser", demo.add_options),
    "import-torch": Command("make a run folder from a PyTorch generator", weights.add_import),
    "export-torch": Command("write a generator for PyTorch", weights.add_export_torch),
    "export": Command("export a generator to safetensors, ONNX or StableHLO", weights.add_export),
    "interpolate": Command("interpolate between two generators", weights.add_interpolate),
}


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(prog="isr", description="Image super-resolution: use and evaluate models.")
    parser.add_argument("--version", action="version", version=f"isr_jax {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, add_options) in COMMANDS.items():
        description = f"{summary[0].upper()}{summary[1:]}."
        add_options(commands.add_parser(name, help=summary, description=description))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `isr` command; return the exit code."""
    options = make_parser().parse_args(argv)
    silence_libraries()
    # As exceptions, so that unfinished work is cleaned up; nohup ignores a closed terminal.
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {signal.Signals[name]: signal.getsignal(signal.Signals[name]) for name in names}
    for number, action in before.items():
        if action is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        return options.run(options)
    except UsageError as error:
        print(f"isr {options.command}: {error}", file=sys.stderr)
        return 2
    except (UserError, OSError) as error:
        print(f"isr {options.command}: {one_line(error, limit=1000)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"isr {options.command}: interrupted", file=sys.stderr)
        return 130
    finally:
        for number, action in before.items():
            signal.signal(number, action)
