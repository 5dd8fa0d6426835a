"""The run's output: rich on a terminal, plain lines on a pipe, the same lines in log.txt."""

import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

Item = TypeVar("Item")
PLAIN_WIDTH = 100
SECONDS_BETWEEN_LINES = 5.0


class Output:
    """Prints to the screen and to the log; draws progress."""

    def __init__(self, log: TextIO, silent: bool = False) -> None:
        self.screen = Console(highlight=False, quiet=silent)
        if not self.screen.is_terminal:
            self.screen = Console(highlight=False, width=PLAIN_WIDTH, quiet=silent)
        self._log = Console(file=log, width=PLAIN_WIDTH, highlight=False, color_system=None)

    def print(self, line: RenderableType = "", *, whole: bool = False) -> None:
        """Print a line; text is wrapped between words on a terminal, unless it must stay whole."""
        text = isinstance(line, Text)
        self.screen.print(line, soft_wrap=whole or (text and not self.screen.is_terminal))
        self._log.print(line, soft_wrap=whole or text)

    def progress(self, items: Iterable[Item], label: str, total: int | None) -> Iterator[Item]:
        """Yield `items`, showing how far along they are: a bar, on a pipe a line now and then."""
        before = _done_before(items)
        if total is None and hasattr(items, "__len__"):
            total = before + len(items)  # pyright: ignore[reportArgumentType]
        if before and total == before:
            return  # nothing is left to do, and nothing to be told
        if self.screen.is_terminal:
            yield from self._bar(items, label, total, before)
        else:
            yield from self._lines(items, label, total, before)

    def _bar(
        self, items: Iterable[Item], label: str, total: int | None, before: int
    ) -> Iterator[Item]:
        columns = [TextColumn("   {task.description}"), BarColumn(), MofNCompleteColumn()]
        bar = Progress(*columns, TimeRemainingColumn(), console=self.screen, transient=True)
        with bar:  # its own track() would end with the count of these items alone
            task = bar.add_task(label, total=total, completed=before)
            for item in items:
                yield item
                bar.advance(task)

    def _lines(
        self, items: Iterable[Item], label: str, total: int | None, before: int
    ) -> Iterator[Item]:
        self.print(f"   {label} …")
        said = time.monotonic()
        for done, item in enumerate(items, before):
            if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
                self.print(f"   {label}: {done} of {total or '?'}")
                said = time.monotonic()
            yield item


def _done_before(items: Iterable[object]) -> int:
    """302 of range(302, 550): a training that goes on has done these."""
    return items.start if isinstance(items, range) else 0
