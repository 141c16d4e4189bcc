"""`isr models`."""

import argparse
import json

from isr_jax.errors import printable
from isr_jax.pretrained import PRETRAINED, Model


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `isr models`."""
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="pretrained models, or files written by isr export; default: all pretrained models",
    )
    parser.add_argument("--json", action="store_true", help="print whole model cards as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print a table, or the cards as JSON; return the exit code."""
    from isr_jax.pretrained import describe

    models = [describe(name) for name in options.models or PRETRAINED]
    if options.json:
        print(json.dumps([model._asdict() for model in models], indent=2))
        return 0

    from isr_jax.console import make_console, print_table

    print_table(make_console(), _table(models))
    return 0


def _table(models: list[Model]):  # noqa: ANN202 - rich is imported where it is used
    """Return a row per model; sets that have a score are columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table(caption="PSNR-Y of test sets in dB, by the vdsr protocol")
    table.add_column("model", no_wrap=True)
    for title in ("scale", "parameters", "MB"):
        table.add_column(title, justify="right", no_wrap=True)
    sets = list(dict.fromkeys(name for model in models for name in model.card.get("scores", {})))
    for name in sets:
        table.add_column(Text(printable(name)), justify="right", no_wrap=True)
    table.add_column("for")
    for model in models:
        scores = model.card.get("scores", {})
        table.add_row(
            Text(printable(model.name)),
            f"x{model.scale}",
            f"{model.parameters:,}",
            f"{model.size / 1e6:.1f}",
            *(f"{scores[name][0]:.2f}" if name in scores else "" for name in sets),
            Text(printable(model.card.get("purpose", ""))),
        )
    return table
