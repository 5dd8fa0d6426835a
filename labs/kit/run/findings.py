"""Record what an experiment finds: checks, measurements, tables, figures and views."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from labs.kit.records import (
    Bound,
    Check,
    Experiment,
    Figure,
    Measurement,
    Table,
    View,
    numbers,
    show,
)
from labs.kit.report import views
from labs.kit.report.save_figure import save
from labs.kit.run import notebook_display
from labs.kit.run.console import Output
from labs.kit.run.processes import is_main

import rich.table
from rich.text import Text

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure as Drawing

Item = TypeVar("Item")
MARKS = {
    "passed": "✓",
    "failed": "✗",
    "held": "●",
    "not held": "○",
    "inconclusive": "◐",
    "shown": "·",
}
STYLES = {
    "passed": "green",
    "failed": "bold red",
    "not held": "yellow",
    "inconclusive": "yellow",
}


class Findings:
    """Print what the current experiment finds, and record it for the report.

    Args:
        output: the screen and the log.
        folder: the folder of the run.
    """

    def __init__(self, output: Output, folder: Path) -> None:
        """Start before the first experiment."""
        self.output = output
        self.folder = folder
        self.current = Experiment("before the first experiment", "")

    def check(
        self,
        name: str,
        value: Any,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        equals: Any = None,
        because: str = "",
        decides: bool = False,
    ) -> bool:
        """Check something that must hold on every correct machine; a failure gives exit code 1.

        Args:
            name: what is checked.
            value: a number or a sequence of numbers (each must hold), or anything with `equals`.
            at_most: the upper bound.
            at_least: the lower bound.
            equals: the value that is required.
            because: where the bound comes from: theory, a citation, a gap and its spread.
            decides: whether this decides the claim of the experiment.

        Returns:
            Whether it holds.

        Raises:
            TypeError: without a bound, because such a check can't fail.
        """
        if equals is not None:
            values = [value.tolist() if hasattr(value, "tolist") else value]  # JSON has no tensors
            requirement = f"must be {show(equals)}"
            passed = bool(value == equals)
        elif at_most is None and at_least is None:
            raise TypeError(f"the check {name!r} has no bound")
        else:
            bound = Bound(at_least, at_most)
            values = numbers(value)
            requirement = str(bound)
            passed = bool(values) and all(bound.holds(number) for number in values)
        check = Check(name, values, requirement, passed, because, decides)
        self._record(check, "" if passed and equals is not None else requirement)
        return passed

    def agree(
        self,
        name: str,
        difference: "torch.Tensor",
        at_most: float = 1e-12,
        because: str = "rounding of that dtype",
        decides: bool = False,
    ) -> bool:
        """Check that two computations agree: the largest |difference| is at most `at_most`.

        1e-12 suits float64 values of order 1; labs.kit.tolerance gives the bounds by dtype.
        """
        largest = difference.abs().max().item()
        return self.check(name, largest, at_most=at_most, because=because, decides=decides)

    def measure(
        self,
        name: str,
        value: Any,
        *,
        unit: str = "",
        expect_at_least: float | None = None,
        expect_at_most: float | None = None,
        expect_between: tuple[float, float] | None = None,
        because: str = "",
        timed: bool = False,
        decides: bool = False,
    ) -> str:
        """Record a number with its verdict: held, not held, inconclusive or shown.

        A measurement never fails a run.

        Args:
            name: what is measured.
            value: a number, or one for each seed or repetition.
            unit: the unit of the value.
            expect_at_least: the expected lower bound.
            expect_at_most: the expected upper bound.
            expect_between: both bounds.
            because: where the expectation comes from.
            timed: True if a second run with the same seed may give another value.
            decides: whether this decides the claim of the experiment.

        Returns:
            The verdict.
        """
        low, high = expect_between or (expect_at_least, expect_at_most)
        bound = Bound(low, high)
        measurement = Measurement(name, numbers(value), unit, bound, because, timed, decides)
        self._record(measurement, f"expected {bound}" if str(bound) else "")
        return measurement.verdict

    def _record(self, item: Check | Measurement, bound: str) -> None:
        self.current.items.append(item)
        line = f"   {MARKS[item.verdict]} {item.name}: {item.shown}"
        style = STYLES.get(item.verdict, "")
        self.output.print(Text(f"{line}  ({bound})" if bound else line, style))

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Print a table and put it into the report; numbers get three significant digits."""
        shown = Table(title, list(columns), [[show(cell) for cell in row] for row in rows])
        self.current.items.append(shown)
        drawn = rich.table.Table(title=title, title_justify="left", box=None, padding=(0, 2))
        for column in shown.columns:
            drawn.add_column(column)
        for row in shown.rows:
            drawn.add_row(*(Text(cell) for cell in row))
        self.output.print(drawn)

    def figure(self, figure: "Drawing", name: str, caption: str, *, alt: str = "") -> None:
        """Save a matplotlib figure as figures/<name>.svg, put it into the report, and close it.

        Args:
            figure: the figure.
            name: the name of its file.
            caption: what it shows, in Markdown.
            alt: what one sees in it, for readers who can't see it; by default the caption.
        """
        from matplotlib import pyplot as plt

        path = self.folder / "figures" / f"{name}.svg"
        if is_main():
            save(figure, path)
            notebook_display.show_figure(figure)
        plt.close(figure)
        self.current.items.append(Figure(name, caption, path, alt))

    def view(
        self,
        kind: str,
        name: str,
        data: Mapping[str, Any],
        caption: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
    ) -> None:
        """Save the data of an interactive view as views/<name>.json, and put it into the report.

        Args:
            kind: its script, labs/kit/report/views/<kind>.js.
            name: unique in its run: letters, digits and underscores.
            data: what the script gets; `labs.kit.pack_array` packs large arrays.
            caption: what it shows, and what is approximated.
            columns: of the table that stands in where there is no script.
            rows: of that table; numbers get three significant digits.

        Raises:
            ValueError: for a kind without a script.
        """
        if kind not in views.kinds():
            raise ValueError(f"there is no view {kind!r}, but {', '.join(views.kinds())}")
        cells = [[show(cell) for cell in row] for row in rows]
        path = self.folder / "views" / f"{name}.json"
        view = View(kind, name, caption, list(columns), cells, path)
        if is_main():
            views.write(data, path)
            notebook_display.show_view(view)
        self.current.items.append(view)

    def progress(
        self,
        items: Iterable[Item],
        label: str,
        total: int | None = None,
        note: Callable[[], str] = str,
    ) -> Iterator[Item]:
        """Yield `items` and show a progress bar; on a pipe, a line now and then.

        A range that starts above 0 is counted from its start: the steps before it are done.

        Args:
            items: what is counted.
            label: stands before the count.
            total: the number of items, if they don't have a length.
            note: returns what stands behind the count, such as "loss 2.31".
        """
        return self.output.progress(items, label, total, note)

    def say(self, text: str) -> None:
        """Print a line."""
        self.output.print(Text(f"   {text}"))
