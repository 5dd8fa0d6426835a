"""The output of a run: rich on a terminal, plain lines on a pipe, the same lines in log.txt."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TextIO, TypeVar

from common.terminal import WIDTH

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

    def progress(
        self,
        items: Iterable[Item],
        label: str,
        total: int | None,
        note: Callable[[], str] = str,
    ) -> Iterator[Item]:
        """Yield `items` and show the progress: a bar, or on a pipe a line now and then.

        Args:
            items: what is counted.
            label: stands before the count.
            total: the number of items, if they don't have a length.
            note: returns what stands behind the count, such as "loss 2.31".
        """
        done = _done_before(items)
        if total is None and hasattr(items, "__len__"):
            total = done + len(items)  # pyright: ignore[reportArgumentType]
        if done and total == done:
            return  # nothing is left to do
        show = self._bar if self.screen.is_terminal else self._lines
        yield from show(items, Count(label, done, total, note))

    def _bar(self, items: Iterable[Item], count: "Count") -> Iterator[Item]:
        columns = [TextColumn("   {task.description}"), BarColumn(), MofNCompleteColumn()]
        columns += [TextColumn("{task.fields[note]}"), TimeRemainingColumn()]
        bar = Progress(*columns, console=self.screen, transient=True)
        with bar:  # rich's own track() would stop at the number of these items
            task = bar.add_task(
                count.label, total=count.total, completed=count.done, note=count.note()
            )
            for item in items:
                yield item
                bar.update(task, advance=1, note=count.note())

    def _lines(self, items: Iterable[Item], count: "Count") -> Iterator[Item]:
        self.print(f"   {count.label} …")
        start = last_line = time.monotonic()
        for number, item in enumerate(items, count.done):
            now = time.monotonic()
            if now - last_line >= SECONDS_BETWEEN_LINES:
                self.print(count.line(number, now - start))
                last_line = now
            yield item


@dataclass(frozen=True)
class Count:
    """What a progress counts.

    Attributes:
        label: stands before the count.
        done: items that were done before.
        total: all items, those before included; None if nobody knows.
        note: returns what stands behind the count.
    """

    label: str
    done: int
    total: int | None
    note: Callable[[], str]

    def line(self, number: int, seconds: float) -> str:
        """Return the progress after `number` items, `seconds` after the first of this run."""
        remaining = None if self.total is None else self.total - number
        left = time_left(seconds, number - self.done, remaining)
        parts = [f"   {self.label}: {number} of {self.total or '?'}", self.note(), left]
        return ", ".join(part for part in parts if part)


def _done_before(items: Iterable[object]) -> int:
    """Return the start of a range: a resumed training has done that many steps."""
    return items.start if isinstance(items, range) else 0


def time_left(seconds: float, done: int, remaining: int | None) -> str:
    """Return the time that the remaining items take at the speed of those done; empty if unknown.

    Args:
        seconds: that the items done have taken.
        done: their number.
        remaining: the number of items that are left, if it is known.
    """
    if not done or remaining is None:
        return ""
    left = seconds / done * remaining
    if left < 60:
        return f"{left:.0f} s left"
    hours, minutes = divmod(round(left / 60), 60)
    return f"{hours} h {minutes} min left" if hours else f"{minutes} min left"
