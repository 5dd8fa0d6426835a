"""One run of a lab, as its experiments see it: sizes, seeds, the device, and where results go."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from labs.course.options import Settings
from labs.course.syllabus import Lesson
from labs.kit.records import Bound, Check, Experiment, Figure, Measurement, Table, numbers, show
from labs.kit.run.console import Output
from labs.kit.run.outputs import refusal
from labs.kit.run.processes import is_main

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from matplotlib.figure import Figure as Drawing

Item = TypeVar("Item")
Value = TypeVar("Value")
MARKS = {
    "passed": "✓",
    "failed": "✗",
    "held": "●",
    "not held": "○",
    "inconclusive": "◐",
    "shown": "·",
}
STYLES: dict[str, str] = {
    "failed": "bold red",
    "passed": "green",
    "not held": "yellow",
    "inconclusive": "yellow",
}


class CheckpointFolder(Protocol):
    """A folder of checkpoints that is needed until the run has ended."""

    def release(self) -> None:
        """Leave it to the next run."""
        ...

    def remove(self) -> None:
        """Remove it with its checkpoints."""
        ...


class Run:
    """What an experiment gets: sizes, seeds, the device, and methods to record its findings."""

    def __init__(
        self,
        settings: Settings,
        precision: str,
        output: Output,
        folder: Path,
        lesson: Lesson | None = None,
    ) -> None:
        self.settings = settings
        self.lesson = lesson
        self.precision = precision
        self.output = output
        self.folder = folder
        self.current = Experiment("before the first experiment", "")
        self.checkpoint_folders: list[CheckpointFolder] = []
        self.logged = False

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.settings.seed

    @property
    def online(self) -> bool:
        """Whether the run may use the Hugging Face hub."""
        return self.settings.online

    @property
    def options(self) -> argparse.Namespace:
        """The options that this lab alone has."""
        return self.settings.own

    @cached_property
    def accelerator(self) -> "Accelerator":
        """The run's one Accelerator; it places models and sets the precision of training."""
        from labs.kit.run.devices import make_accelerator

        board = self.folder if self.settings.tensorboard else None
        return make_accelerator(self.precision, self.seed, board)

    @property
    def device(self) -> "torch.device":
        """The device of the run's models."""
        return self.accelerator.device

    @cached_property
    def size(self) -> str:
        """The size that was requested; by default "tiny" on a CPU and "small" on a GPU."""
        return self.settings.size or ("tiny" if self.device.type == "cpu" else "small")

    def share(self, batch: "torch.Tensor") -> "torch.Tensor":
        """Return this process's part of a batch, (B, …) -> (B/N, …).

        N processes with a part each train as one process with the entire batch. Every process must
        have made the same batch, from the same seed.

        Raises:
            ValueError: if N doesn't divide B.
        """
        n = self.accelerator.num_processes
        if batch.shape[0] % n:
            raise ValueError(f"{n} processes can't share a batch of {batch.shape[0]} equally")
        return batch.chunk(n)[self.accelerator.process_index]

    def pick(self, tiny: Value, small: Value, full: Value) -> Value:
        """Return the value for this run's size."""
        return {"tiny": tiny, "small": small, "full": full}[self.size]

    def seeds(self, n: int) -> list[int]:
        """Return `n` seeds, for a claim that depends on chance: the run's own and the next ones."""
        return [(self.seed + i) % 2**32 for i in range(n)]

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
            values = [value]
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
        """Record a number with its verdict: held, not held, inconclusive or shown. Never fails.

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
        self.output.print(_plain(f"{line}  ({bound})" if bound else line, item.verdict))

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Print a table and put it into the report; numbers get three significant digits."""
        import rich.table

        shown = Table(title, list(columns), [[show(cell) for cell in row] for row in rows])
        self.current.items.append(shown)
        drawn = rich.table.Table(title=title, title_justify="left", box=None, padding=(0, 2))
        for column in shown.columns:
            drawn.add_column(column)
        for row in shown.rows:
            drawn.add_row(*(_plain(cell) for cell in row))
        self.output.print(drawn)

    def figure(self, figure: "Drawing", name: str, caption: str) -> None:
        """Save a matplotlib figure as figures/<name>.png, put it into the report, and close it."""
        from matplotlib import pyplot as plt

        path = self.folder / "figures" / f"{name}.png"
        if is_main():
            figure.savefig(path)
            _display(figure)
        plt.close(figure)
        self.current.items.append(Figure(name, caption, path))

    def progress(
        self, items: Iterable[Item], label: str, total: int | None = None
    ) -> Iterator[Item]:
        """Yield `items` and show a progress bar; on a pipe, a line now and then.

        A range that starts above 0 is counted from its start: the steps before it are done.
        """
        return self.output.progress(items, label, total)

    def log(self, values: dict[str, float], step: int) -> None:
        """Log numbers of a training step for TensorBoard, if --tensorboard is given.

        Args:
            values: by name; "headline/loss" keeps the numbers of several trainings apart.
            step: the step.
        """
        if not self.settings.tensorboard:
            return
        try:
            self.accelerator.log(values, step)
            self.logged = True
        except OSError as error:
            reason = refusal(error, self.folder)
            if not reason:
                raise
            self.accelerator.trackers.clear()
            self.say(f"logging to TensorBoard stopped: {reason}")

    def say(self, text: str) -> None:
        """Print a line."""
        self.output.print(_plain(f"   {text}"))


def _plain(text: str, verdict: str = "") -> Any:
    from rich.text import Text

    return Text(text, style=STYLES.get(verdict, ""))


def _display(figure: "Drawing") -> None:
    """Show the figure in a notebook."""
    import sys

    if "IPython" in sys.modules:
        from IPython.core.getipython import get_ipython
        from IPython.display import display

        if get_ipython() is not None:
            display(figure)
