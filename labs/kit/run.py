"""One run of a lab, as its experiments see it: sizes, seeds, the device, and where results go."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from labs.kit.console import Output
from labs.kit.options import Settings
from labs.kit.outputs import refusal
from labs.kit.ranks import is_main
from labs.kit.records import Bound, Check, Experiment, Figure, Measurement, Table, numbers, show
from labs.kit.syllabus import Lesson

if TYPE_CHECKING:
    from labs.kit.kept import Place

    import torch
    from accelerate import Accelerator
    from matplotlib.figure import Figure as Drawing

Item = TypeVar("Item")
Value = TypeVar("Value")
MARKS: dict[str, str] = dict(
    zip(("passed", "failed", "held", "not held", "inconclusive", "told"), "✓✗●○◐·", strict=True)
)
STYLES: dict[str, str] = {
    "failed": "bold red",
    "passed": "green",
    "not held": "yellow",
    "inconclusive": "yellow",
}


class Run:
    """What an experiment is given: it asks for sizes and devices, and tells what it found."""

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
        self.places: list[Place] = []  # of checkpoints; needed until the run has come to its end
        self.logged = False

    @property
    def seed(self) -> int:
        return self.settings.seed

    @property
    def online(self) -> bool:
        return self.settings.online

    @property
    def options(self) -> argparse.Namespace:
        """The lab's own options."""
        return self.settings.own

    @cached_property
    def accelerator(self) -> "Accelerator":
        """The run's one Accelerator: it alone places models and sets the precision of training."""
        from labs.kit.device import make_accelerator

        board = self.folder if self.settings.tensorboard else None
        return make_accelerator(self.precision, self.seed, board)

    @property
    def device(self) -> "torch.device":
        return self.accelerator.device

    @cached_property
    def size(self) -> str:
        """What was asked for, or "tiny" on a CPU and "small" on a GPU."""
        return self.settings.size or ("tiny" if self.device.type == "cpu" else "small")

    def share(self, batch: "torch.Tensor") -> "torch.Tensor":
        """This process's part of a batch: N processes, each with its part, train as one with all.

        (B, …) -> (B/N, …). Every process must have made the same batch, so from the same seed.

        Raises:
            ValueError: where the processes can't share the batch equally.
        """
        n = self.accelerator.num_processes
        if batch.shape[0] % n:
            raise ValueError(f"{n} processes can't share a batch of {batch.shape[0]} equally")
        return batch.chunk(n)[self.accelerator.process_index]

    def pick(self, tiny: Value, small: Value, full: Value) -> Value:
        """The number for this run's size."""
        return {"tiny": tiny, "small": small, "full": full}[self.size]

    def seeds(self, n: int) -> list[int]:
        """`n` seeds for a claim that rests on chance: the run's own and those after it."""
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
    ) -> bool:
        """Something that must hold on every correct machine; a failure makes the exit code 1.

        Args:
            value: a number or a sequence of numbers (each must hold), or anything with `equals`.
            because: where the bound comes from: theory, a citation, a gap and its spread.

        Raises:
            TypeError: without a bound: a check that can't fail is none.
        """
        if equals is not None:
            check = Check(name, [value], f"must be {show(equals)}", bool(value == equals), because)
        elif at_most is None and at_least is None:
            raise TypeError(f"the check {name!r} has no bound")
        else:
            bound, values = Bound(at_least, at_most), numbers(value)
            passed = bool(values) and all(bound.holds(one) for one in values)
            check = Check(name, values, str(bound), passed, because)
        self._tell(check, "" if check.passed and equals is not None else check.bound)
        return check.passed

    def agree(
        self,
        name: str,
        difference: "torch.Tensor",
        at_most: float = 1e-12,
        because: str = "rounding of that dtype",
    ) -> bool:
        """Check that two computations of one thing agree: the largest |difference|.

        1e-12 suits float64 values of order one; labs.kit.tolerance gives the bounds by dtype.
        """
        return self.check(name, difference.abs().max().item(), at_most=at_most, because=because)

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
    ) -> str:
        """A number that is told, with its verdict: held, not held, inconclusive, told. Never fails.

        Args:
            value: a number, or one for each seed or repetition.
            timed: for anything that isn't the same bit for bit in a second run with the same seed.
        """
        low, high = expect_between or (expect_at_least, expect_at_most)
        measured = Measurement(name, numbers(value), unit, Bound(low, high), because, timed)
        expected = f"expected {measured.bound}" if str(measured.bound) else ""
        self._tell(measured, expected)
        return measured.verdict

    def _tell(self, item: Check | Measurement, bound: str) -> None:
        self.current.items.append(item)
        line = f"   {MARKS[item.verdict]} {item.name}: {item.shown}"
        self.output.print(_plain(f"{line}  ({bound})" if bound else line, item.verdict))

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table for the screen and the report; numbers get three significant digits."""
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
        """Save a matplotlib figure as figures/<name>.png, show it in the report, and close it."""
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
        """Iterate over `items` with a progress bar; on a pipe a plain line now and then.

        A range that begins above 0 counts from there: what came before it is done.
        """
        return self.output.progress(items, label, total)

    def log(self, values: dict[str, float], step: int) -> None:
        """Numbers of a training step, for TensorBoard, where --tensorboard asks for it.

        Args:
            values: by name; "headline/loss" puts those of several trainings apart.
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
            self.say(f"nothing more is logged to TensorBoard: {reason}")

    def say(self, text: str) -> None:
        """A line of output."""
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
