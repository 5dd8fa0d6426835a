"""The findings of an experiment as plain data: checks, measurements, tables, figures, views."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, cast

Number = int | float
PARTS = "parts"  # the experiment that checks the exercises
SHOWN = "shown"  # the verdict of an experiment without deciding evidence


def show(value: Any) -> str:
    """Format a value for a reader: three significant digits, thousands separated."""
    if isinstance(value, bool) or not isinstance(value, Number):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def show_values(values: list[Any]) -> str:
    """Format one value, or the median and the range of several."""
    if not values:
        return "nothing"
    if len(values) == 1 or not all(isinstance(value, Number) for value in values):
        return ", ".join(show(value) for value in values)
    return f"{show(median(values))} [{show(min(values))}, {show(max(values))}]"


def numbers(value: Any) -> list[float]:
    """Return `value` as a list of floats: a number, a 0-d tensor, or a sequence of either."""
    if isinstance(value, list | tuple):
        return [_number(member) for member in cast(Sequence[Any], value)]
    return [_number(value)]


def _number(value: Any) -> float:
    return float(value.detach() if hasattr(value, "detach") else value)


@dataclass(frozen=True)
class Bound:
    """The range that a number must be in: from `low` to `high`, each if given."""

    low: float | None = None
    high: float | None = None

    def holds(self, value: float) -> bool:
        """Return whether `value` is in the range; NaN never is."""
        above = self.low is None or value >= self.low
        below = self.high is None or value <= self.high
        return above and below and not math.isnan(value)

    def __str__(self) -> str:
        """Return the range in words; empty without an end."""
        if self.low is None and self.high is None:
            return ""
        if self.high is None:
            return f"at least {self.low:.3g}"
        if self.low is None:
            return f"at most {self.high:.3g}"
        return f"{self.low:.3g} to {self.high:.3g}"


@dataclass(frozen=True)
class Check:
    """Something that must hold on every correct machine.

    Attributes:
        name: what is checked.
        values: the values that were found.
        bound: the bound, in words.
        passed: whether all values meet it.
        because: where the bound comes from.
        decides: whether it decides the claim of its experiment.
    """

    name: str
    values: list[Any]
    bound: str
    passed: bool
    because: str = ""
    decides: bool = False

    @property
    def shown(self) -> str:
        """The values, formatted."""
        return show_values(self.values)

    @property
    def verdict(self) -> str:
        """Either "passed" or "failed"."""
        return "passed" if self.passed else "failed"


@dataclass(frozen=True)
class Measurement:
    """A number with what was expected of it; it never fails a run.

    Attributes:
        name: what is measured.
        values: one value, or one for each seed or repetition.
        unit: the unit of the values.
        bound: what was expected; empty if nothing was.
        because: where the expectation comes from.
        timed: whether a second run with the same seed may give other values.
        decides: whether it decides the claim of its experiment.
    """

    name: str
    values: list[float]
    unit: str
    bound: Bound
    because: str = ""
    timed: bool = False
    decides: bool = False

    @property
    def shown(self) -> str:
        """The values with their unit, formatted."""
        return f"{show_values(self.values)} {self.unit}".strip()

    @property
    def verdict(self) -> str:
        """Held, not held, inconclusive (some values meet the bound), or shown (no bound)."""
        if not str(self.bound):
            return SHOWN
        held = [self.bound.holds(value) for value in self.values]
        return "held" if held and all(held) else "inconclusive" if any(held) else "not held"


@dataclass(frozen=True)
class Table:
    """A table of formatted cells."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Figure:
    """A figure that was saved as SVG.

    Attributes:
        name: the name of its file.
        caption: what it shows, in Markdown.
        path: the file.
        alt: what one sees in it; empty if the caption says it.
    """

    name: str
    caption: str
    path: Path
    alt: str = ""


@dataclass(frozen=True)
class View:
    """An interactive view, whose data was saved to `path`.

    Attributes:
        kind: its script, labs/kit/report/views/<kind>.js.
        name: unique in its run.
        caption: what it shows.
        columns: of the table that stands in where there is no script.
        rows: the formatted cells of that table.
        path: the data, as JSON.
    """

    kind: str
    name: str
    caption: str
    columns: list[str]
    rows: list[list[str]]
    path: Path


@dataclass
class Experiment:
    """One claim and everything that was found about it, in the order it was found.

    Attributes:
        name: the name of its function.
        claim: the first paragraph of its docstring.
        details: the rest of the docstring.
        items: checks, measurements, tables, figures and views.
        conclusion: the sentence that the function returned.
        guess: the learner's prediction.
        seconds: how long it took.
        crash: its traceback, if it crashed.
    """

    name: str
    claim: str
    details: str = ""
    items: list[Check | Measurement | Table | Figure | View] = field(
        default_factory=list[Check | Measurement | Table | Figure | View]
    )
    conclusion: str = ""
    guess: str = ""
    seconds: float = 0.0
    crash: str = ""

    @property
    def checks(self) -> list[Check]:
        """Its checks."""
        return [item for item in self.items if isinstance(item, Check)]

    @property
    def measurements(self) -> list[Measurement]:
        """Its measurements."""
        return [item for item in self.items if isinstance(item, Measurement)]

    @property
    def deciding(self) -> list[Check | Measurement]:
        """The evidence that decides the claim, in the order in which it was found."""
        evidence = [item for item in self.items if isinstance(item, Check | Measurement)]
        return [item for item in evidence if item.decides]

    @property
    def passed(self) -> bool:
        """Whether it ran to its end and all its checks passed."""
        return not self.crash and all(check.passed for check in self.checks)

    @property
    def passed_of_all(self) -> str:
        """The number of checks that passed, "2 of 2"; a dash without checks."""
        passed = sum(check.passed for check in self.checks)
        return f"{passed} of {len(self.checks)}" if self.checks else "–"

    @property
    def decided_by_time(self) -> bool:
        """Whether a second run with the same seed may give another verdict."""
        return self.passed and any(one.timed and one.decides for one in self.measurements)

    @property
    def verdict(self) -> str:
        """The verdict on the claim.

        A crash or a failed check comes first. Else the evidence marked `decides` alone counts, the
        weakest of it. An experiment without deciding evidence is "shown".
        """
        if self.crash:
            return "crashed"
        if not self.passed:
            return "failed"
        deciding = {one.verdict for one in self.measurements if one.decides}
        deciding |= {"held" for check in self.checks if check.decides}
        for verdict in ("not held", "inconclusive", "held"):
            if verdict in deciding:
                return verdict
        return SHOWN
