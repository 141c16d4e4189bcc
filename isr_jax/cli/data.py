"""`isr data`: look at images before training on them."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isr_jax.cli.options import Parser, integer
from isr_jax.errors import UserError, printable

if TYPE_CHECKING:
    from rich.table import Table

    from isr_jax.data.check import Duplicate, FolderSummary, Report

CROP = 96  # px; the default of config.data.crop
_MOST_ROWS = 20  # of one kind in the table


def add_options(parser: Parser) -> None:
    """Add the subcommands of `isr data`."""
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    summary = "report unreadable, duplicate, tiny and flat images"
    add_check(commands.add_parser("check", help=summary))


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the options of `isr data check`."""
    parser.description = (
        "Decode every image of a training set and report what is wrong with it: files that cannot "
        "be read, images that are smaller than a crop or have hardly any contrast (a standard "
        "deviation below 2 of 255 levels), and near-duplicates, within the training set and "
        "between it and validation or benchmark sets: copies that were resized, compressed, "
        "converted to gray, flipped or rotated by 90 degrees, by a perceptual hash. The exit code "
        "is 0 if nothing was found, and 1 otherwise."
    )
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="DIR",
        help="folder of images, of all formats that isr upscale reads, at any depth; several are "
        "taken together as one training set",
    )
    parser.add_argument(
        "--against",
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="folders of images that the training set should not hold, such as a validation set "
        "or benchmark sets, whose HR images are taken",
    )
    parser.add_argument(
        "--crop",
        type=integer(1),
        default=CROP,
        metavar="N",
        help="report images with a side of less than N pixels; default: "
        f"{CROP}, as config.data.crop",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="also write json, with every finding; - for standard output"
    )
    # The name of the command in messages.
    parser.set_defaults(run=run_check, command="data check")


def run_check(options: argparse.Namespace) -> int:
    """Check the images, print the tables and write the file; return the exit code."""
    file = options.json
    if file and file != "-" and (Path(file).is_dir() or not Path(file).absolute().parent.is_dir()):
        raise UserError(f"{file} cannot be written: name a file in an existing folder")

    from isr_jax.console import make_console, print_table
    from isr_jax.data.check import check
    from isr_jax.photo.finding import say_passed_over

    report = check(options.folders, against=options.against, crop=options.crop, progress=True)
    console = make_console(stderr=file == "-")
    print_table(console, _summary_table([*report["folders"], *report["against"]]))
    kinds = _findings(report)
    if any(kinds.values()):
        print_table(console, _findings_table(kinds))
    counts = ", ".join(f"{len(rows)} {kind}" for kind, rows in kinds.items() if rows)
    console.print(f"Found: {counts}." if counts else "Nothing found.", highlight=False)
    if file:
        # A file name that is not UTF-8 keeps its bytes.
        content = (json.dumps(report, indent=2) + "\n").encode("utf-8", "surrogateescape")
        if file == "-":
            sys.stdout.buffer.write(content)
        else:
            Path(file).write_bytes(content)
    if report["passed_over"]:
        line = say_passed_over([*map(Path, report["passed_over"])])
        print(f"isr data check: {line}", file=sys.stderr)
    for folder in report["folders"]:
        if count := folder["lr_images"]:
            images = f"{count} LR image{'s' * (count > 1)} of a benchmark set"
            print(
                f"isr data check: {printable(folder['folder'])}: left out {images}, on which "
                "data.train=folder:DIR trains too: name the folder of the HR images there",
                file=sys.stderr,
            )
    return 1 if counts else 0


def _summary_table(folders: "Sequence[FolderSummary]") -> "Table":
    """Return a column per folder."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column(no_wrap=True)
    for folder in folders:
        table.add_column(Text(printable(folder["folder"]), overflow="fold"), justify="right")
    rows = {
        "images": lambda f: f"{f['images']}",
        "unreadable": lambda f: f"{f['unreadable']}",
        "gray": lambda f: f"{f['gray']}",
        "over 8 bits": lambda f: f"{f['deep']}",
        "alpha": lambda f: f"{f['alpha']}",
        "megapixels": lambda f: f"{f['megapixels']:.2f}",
        "different sizes": lambda f: f"{f['sizes']}",
        "smallest side": lambda f: _number(f["smallest_side"]),
        "median side": lambda f: _number(f["median_side"]),
        "largest side": lambda f: _number(f["largest_side"]),
    }
    for title, cell in rows.items():
        table.add_row(title, *map(cell, folders))
    return table


def _number(value: int | float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _findings(report: "Report") -> dict[str, list[tuple[str, str]]]:
    """Return each file that something is wrong with, and a text about it, by kind."""
    from isr_jax.data.check import FLAT

    crop = report["crop"]
    return {
        "unreadable": [(found["file"], found["reason"]) for found in report["unreadable"]],
        "duplicate": [(found["file"], _of(found)) for found in report["duplicates"]],
        "tiny": [
            (found["file"], f"{found['width']}x{found['height']} is smaller than {crop}x{crop}")
            for found in report["tiny"]
        ],
        "flat": [
            (found["file"], f"contrast {found['contrast']:.2f} is less than {FLAT:g} of 255")
            for found in report["flat"]
        ],
    }


def _of(found: "Duplicate") -> str:
    """Say what an image is a near-duplicate of."""
    from isr_jax.data.duplicates import BITS

    change = f", {found['change']}" if found["change"] else ""
    others = f", and {found['others']} more" if found["others"] else ""
    return f"{found['of']}{change} ({found['distance']} of {BITS} bits differ){others}"


def _findings_table(kinds: dict[str, list[tuple[str, str]]]) -> "Table":
    """Return a row per finding, of each kind a bounded number."""
    from rich.table import Table
    from rich.text import Text

    table = Table("finding", "file", "details")
    for kind, rows in kinds.items():
        for cells in rows[:_MOST_ROWS]:
            table.add_row(kind, *(Text(printable(cell), overflow="fold") for cell in cells))
        if len(rows) > _MOST_ROWS:
            table.add_row(kind, f"and {len(rows) - _MOST_ROWS} more; --json FILE lists all", "")
    return table
