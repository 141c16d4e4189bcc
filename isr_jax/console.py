"""Tables on a terminal of any width: text folds, and no digit is lost."""

import os
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table

# Of a column of text and of a word of a heading, where there is no room for it all.
_LEAST, _LEAST_HEADING = 8, 12
_BORDER = 3  # of each column: its padding and a line


def make_console(*, stderr: bool = False) -> Console:
    """Return a console; what is no terminal and has no COLUMNS is as wide as a table needs."""
    console = Console(stderr=stderr)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = 10**4
    return console


def print_table(console: Console, table: Table) -> None:
    """Print a table with all digits of its numbers, which are what is aligned to the right.

    Where it is too wide, headings and text are folded. Where that is not enough, columns are left
    out, the last ones first, and named below the table.
    """
    fitted, left_out = fit_table(table, console.width)
    needed = sum(column.width or 0 for column in fitted.columns) + _room(fitted.columns)
    console.print(fitted, width=max(needed, console.width), crop=False)
    if left_out:
        line = f"not shown, for lack of width: {', '.join(left_out)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def fit_table(table: Table, width: int) -> tuple[Table, list[str]]:
    """Return a table that fits, and the headings of the columns that were left out for it.

    Args:
        table: its cells are text.
        width: of the terminal, characters. The first two columns stay, whatever it is.
    """
    columns = list(table.columns)
    while len(columns) > 2 and sum(map(_least, columns)) + _room(columns) > width:
        columns.pop()
    widths = _widths(columns, width - _room(columns))
    fitted = Table(title=table.title, caption=table.caption)
    for column, own in zip(columns, widths, strict=True):
        justify, style = column.justify, column.style
        fitted.add_column(column.header, justify=justify, style=style, overflow="fold", width=own)
    for row, *cells in zip(table.rows, *(column.cells for column in columns), strict=True):
        fitted.add_row(*cells, style=row.style, end_section=row.end_section)
    return fitted, [str(column.header) for column in table.columns[len(columns) :]]


def _room(columns: Sequence[Column]) -> int:
    """Return what the borders take."""
    return _BORDER * len(columns) + 1


def _least(column: Column) -> int:
    """Return the width below which a column loses digits, or is hard to read."""
    cells = _widest(map(str, column.cells))
    heading = min(_widest(str(column.header).split()), _LEAST_HEADING)
    return max(heading, cells if column.justify == "right" else min(cells, _LEAST))


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    """Return widths between what columns need and what they would take, up to a sum."""
    widths = [_least(column) for column in columns]
    most = [_widest([str(column.header), *map(str, column.cells)]) for column in columns]
    spare = width - sum(widths)
    while spare > 0 and widths != most:
        wanting = [i for i, own in enumerate(widths) if own < most[i]]
        for i in wanting:
            more = min(most[i] - widths[i], max(1, spare // len(wanting)), spare)
            widths[i] += more
            spare -= more
    return widths


def _widest(texts: "Sequence[str] | map[str]") -> int:
    return max((cell_len(line) for text in texts for line in text.splitlines()), default=1)
