"""The output of a run: rich on a terminal, plain lines on a pipe, the same lines in log.txt."""

import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TextIO, TypeVar

from labs.course.terminal import WIDTH

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 5.0


class Output:
    """Print to the screen and to the log, and draw progress.

    Args:
        log: the open file of the log.
        silent: print to the log alone.
    """

    def __init__(self, log: TextIO, silent: bool = False) -> None:
        """Find out whether the screen is a terminal or a pipe."""
        # In Jupyter, rich would ignore the file, and give each line a separate display.
        console = partial(Console, highlight=False, force_jupyter=False)
        self.screen = console(quiet=silent)
        if not self.screen.is_terminal:
            self.screen = console(width=WIDTH, quiet=silent)
        self._log = console(file=log, width=WIDTH, color_system=None)

    def print(self, line: RenderableType = "", *, wrap: bool = True) -> None:
        """Print a line; text is wrapped between words on a terminal, unless `wrap` is False."""
        is_text = isinstance(line, Text)
        on_pipe = not self.screen.is_terminal
        self.screen.print(line, soft_wrap=not wrap or (is_text and on_pipe))
        self._log.print(line, soft_wrap=not wrap or is_text)

    def progress(self, items: Iterable[Item], label: str, total: int | None) -> Iterator[Item]:
        """Yield `items` and show the progress: a bar, or on a pipe a line now and then."""
        done = _done_before(items)
        if total is None and hasattr(items, "__len__"):
            total = done + len(items)  # pyright: ignore[reportArgumentType]
        if done and total == done:
            return  # nothing is left to do
        if self.screen.is_terminal:
            yield from self._bar(items, label, total, done)
        else:
            yield from self._lines(items, label, total, done)

    def _bar(
        self, items: Iterable[Item], label: str, total: int | None, done: int
    ) -> Iterator[Item]:
        columns = [TextColumn("   {task.description}"), BarColumn(), MofNCompleteColumn()]
        bar = Progress(*columns, TimeRemainingColumn(), console=self.screen, transient=True)
        with bar:  # rich's own track() would stop at the number of these items
            task = bar.add_task(label, total=total, completed=done)
            for item in items:
                yield item
                bar.advance(task)

    def _lines(
        self, items: Iterable[Item], label: str, total: int | None, done: int
    ) -> Iterator[Item]:
        self.print(f"   {label} …")
        last_line = time.monotonic()
        for number, item in enumerate(items, done):
            if time.monotonic() - last_line >= SECONDS_BETWEEN_LINES:
                self.print(f"   {label}: {number} of {total or '?'}")
                last_line = time.monotonic()
            yield item


def _done_before(items: Iterable[object]) -> int:
    """Return the start of a range: a resumed training has done that many steps."""
    return items.start if isinstance(items, range) else 0
