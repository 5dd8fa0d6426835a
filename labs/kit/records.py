"""What an experiment leaves behind: checks, measurements, tables and figures, as plain data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, cast

Number = int | float
MOST_BESIDE_A_GUESS = 3


def show(value: Any) -> str:
    """A value as a reader wants it: three significant digits, thousands apart."""
    if isinstance(value, bool) or not isinstance(value, Number):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def numbers(value: Any) -> list[float]:
    """`value` as a list of floats: a number, a 0-d tensor, or a sequence of either."""
    if isinstance(value, list | tuple):
        return [_number(one) for one in cast(Sequence[Any], value)]
    return [_number(value)]


def _number(value: Any) -> float:
    return float(value.detach() if hasattr(value, "detach") else value)


@dataclass(frozen=True)
class Bound:
    """What a number has to be: between `low` and `high`, each where given."""

    low: float | None = None
    high: float | None = None

    def holds(self, value: float) -> bool:
        """NaN holds no bound."""
        above = self.low is None or value >= self.low
        below = self.high is None or value <= self.high
        return above and below and not math.isnan(value)

    def __str__(self) -> str:
        if self.low is None and self.high is None:
            return ""
        if self.high is None:
            return f"at least {self.low:.3g}"
        if self.low is None:
            return f"at most {self.high:.3g}"
        return f"{self.low:.3g} to {self.high:.3g}"


@dataclass(frozen=True)
class Check:
    """Something that must hold on every correct machine."""

    name: str
    values: list[Any]
    bound: str
    passed: bool
    because: str = ""

    @property
    def shown(self) -> str:
        return show_values(self.values)

    @property
    def verdict(self) -> str:
        return "passed" if self.passed else "failed"


@dataclass(frozen=True)
class Measurement:
    """A number that is told, with what was expected of it; it never fails a run."""

    name: str
    values: list[float]
    unit: str
    bound: Bound
    because: str = ""
    timed: bool = False

    @property
    def shown(self) -> str:
        return f"{show_values(self.values)} {self.unit}".strip()

    @property
    def verdict(self) -> str:
        """`told` without an expectation; `inconclusive` where only some values meet it."""
        if not str(self.bound):
            return "told"
        held = [self.bound.holds(value) for value in self.values]
        return "held" if held and all(held) else "inconclusive" if any(held) else "not held"


def show_values(values: list[Any]) -> str:
    """One value, or the median and the range of several."""
    if not values:
        return "nothing"
    if len(values) == 1 or not all(isinstance(value, Number) for value in values):
        return ", ".join(show(value) for value in values)
    return f"{show(median(values))} [{show(min(values))}, {show(max(values))}]"


@dataclass(frozen=True)
class Table:
    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Figure:
    name: str
    caption: str
    path: Path


@dataclass
class Experiment:
    """One claim and everything that was found out about it, in the order it was found."""

    name: str
    claim: str
    details: str = ""
    items: list[Check | Measurement | Table | Figure] = field(
        default_factory=list[Check | Measurement | Table | Figure]
    )
    conclusion: str = ""
    guess: str = ""  # the learner's, before it was measured
    seconds: float = 0.0
    crash: str = ""

    @property
    def checks(self) -> list[Check]:
        return [item for item in self.items if isinstance(item, Check)]

    @property
    def measurements(self) -> list[Measurement]:
        return [item for item in self.items if isinstance(item, Measurement)]

    @property
    def outcome(self) -> str:
        """What came, to be set beside a guess: the conclusion, or else the first numbers."""
        shown = [f"{one.name}: {one.shown}" for one in (*self.measurements, *self.checks)]
        return self.conclusion or "; ".join(shown[:MOST_BESIDE_A_GUESS])

    @property
    def passed(self) -> bool:
        return not self.crash and all(check.passed for check in self.checks)

    @property
    def passed_of_all(self) -> str:
        """How many checks passed, "2 of 2"; a dash where there are none."""
        passed = sum(check.passed for check in self.checks)
        return f"{passed} of {len(self.checks)}" if self.checks else "–"

    @property
    def verdict(self) -> str:
        """The claim's verdict: `failed` first, then the weakest of its measurements."""
        if self.crash:
            return "crashed"
        if not self.passed:
            return "failed"
        verdicts = {measurement.verdict for measurement in self.measurements}
        for weakest in ("not held", "inconclusive"):
            if weakest in verdicts:
                return weakest
        return "held" if self.checks or "held" in verdicts else "told"
