"""The `isr` command."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from isr_jax import report
from isr_jax.errors import UserError, one_line
from isr_jax.evaluate import Evaluation, evaluate
from isr_jax.lpips import NETWORKS
from isr_jax.metrics import PROTOCOLS
from isr_jax.resize import METHODS

DATA = "ISR_DATA"
FORMATS: dict[str, Callable[[Evaluation], str]] = {
    "json": lambda result: json.dumps(result, indent=2) + "\n",
    "csv": report.evaluation_csv,
    "markdown": report.evaluation_markdown,
}


class UsageError(Exception):
    """Options that do not go together."""


class Parser(argparse.ArgumentParser):
    """argparse, with wrong usage told in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def factor(text: str) -> int:
    """A scale on the command line: an integer of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no factor of enlargement, such as 4")
    return int(text)


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="isr", description="Image super-resolution: measure models.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_evaluate(commands.add_parser("evaluate", help="score a model over benchmark sets"))
    return parser


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """The options of `isr evaluate`."""
    parser.description = (
        "Score a model over every benchmark set below a folder: per image and mean, PSNR, SSIM and "
        "MS-SSIM, with SCALE pixels cropped from each side. LR images are read where there are "
        "any, and are the exact bicubic of the HR images otherwise. A file that cannot be scored "
        "is named on standard error, and the exit code is then 1."
    )
    parser.add_argument(
        "--model",
        required=True,
        help=f"a run folder, one of its checkpoints/STEP, or {', '.join(METHODS)}",
    )
    default = os.environ.get(DATA)
    parser.add_argument(
        "--data",
        required=default is None,
        default=default and os.path.join(default, "benchmarks"),
        metavar="DIR",
        help="a set, hr/NAME.png with lr/NAME.png, or a tree of sets; also EDSR's and BasicSR's "
        f"folders; ${DATA}/benchmarks where that is set",
    )
    parser.add_argument(
        "--scale",
        type=factor,
        nargs="+",
        default=(),
        metavar="S",
        help="one or more; a generator's own, or all those of the LR images, by default",
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="vdsr",
        help="vdsr: luma rounded to 8 bits (default); basicsr: luma not rounded; rgb",
    )
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema", help="default: ema")
    parser.add_argument(
        "--lpips", choices=NETWORKS, help="measure LPIPS too, by the published weights"
    )
    parser.add_argument(
        "--lpips-folder", metavar="DIR", help="where to look for them first; then in $ISR_WEIGHTS"
    )
    for kind in FORMATS:
        parser.add_argument(
            f"--{kind}", metavar="FILE", help=f"write {kind} too; - for standard output"
        )
    parser.add_argument("--save", metavar="DIR", help="a new folder for the enlarged images")
    parser.set_defaults(run=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> int:
    """Evaluate, print the tables, write the files; returns the exit code."""
    files = {kind: file for kind in FORMATS if (file := getattr(options, kind))}
    if list(files.values()).count("-") > 1:
        raise UsageError("only one of --json, --csv and --markdown can be -")
    for file in files.values():
        if file != "-" and (Path(file).is_dir() or not Path(file).absolute().parent.is_dir()):
            raise UserError(f"{file} cannot be written: name a file in a folder that exists")
    result = evaluate(
        options.model,
        options.data,
        scale=options.scale,
        protocol=options.protocol,
        weights=options.weights,
        lpips=options.lpips,
        lpips_folder=options.lpips_folder,
        save=options.save,
        progress=True,
    )
    console = Console(stderr="-" in files.values())
    for title, table in report.evaluation_tables(result).items() if result["sets"] else ():
        console.print(title, style="bold", highlight=False, soft_wrap=True)
        console.print(table)
    for kind, file in files.items():
        text = FORMATS[kind](result)
        if file == "-":
            sys.stdout.write(text)
        else:
            Path(file).write_text(text)
    for line in result["failed"]:
        print(f"isr evaluate: {line}", file=sys.stderr)
    return 1 if result["failed"] else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `isr` command; returns the exit code."""
    parser = make_parser()
    options = parser.parse_args(argv)
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
