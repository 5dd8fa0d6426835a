"""Tables: aligned on a terminal, tab-separated lines on a pipe."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], console: Console | None = None
) -> None:
    """Print rows of text below their columns."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        for row in (columns, *rows):
            print("\t".join(row), file=console.file)  # rich would turn tabs into spaces
        return
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table, soft_wrap=False)
