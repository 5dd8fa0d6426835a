"""What two runs of a lab can differ in, as rows of text: one list of rows for each lab.

A run's values stand in the order of its lab's rows, so that hundreds of runs fit into a page.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

from labs.kit.report import facts
from labs.kit.report.runs import Run, mapping, mappings, text

DIGITS = 6  # significant digits of a number; runs that agree in them are not marked
SHOWN_SINGLY = 4  # values; of more, the median and the range are shown
ENVIRONMENT = "The run and its environment"
VERDICTS = "Verdicts"
TIMINGS = "Timings"  # the only group that is not compared
HASH = re.compile(r"[0-9a-f]{64}")
HASH_LETTERS = 12


@dataclass(frozen=True)
class Row:
    """Something that has a value in each run.

    Attributes:
        group: the heading that it stands under.
        name: what it is.
        is_verdict: whether it is the verdict on a claim.
    """

    group: str
    name: str
    is_verdict: bool = False


def of_lab(runs: Sequence[Run]) -> tuple[list[Row], list[list[str | None]]]:
    """Return the rows of some runs of one lab, and for each run its values, None where missing.

    The order of the rows is that of the run which has most of them.
    """
    values = [dict(_values(run)) for run in runs]
    found = list(dict.fromkeys(row for one in sorted(values, key=len, reverse=True) for row in one))
    groups = list(dict.fromkeys(row.group for row in found))
    groups.sort(key=lambda group: group == TIMINGS)
    rows = [row for group in groups for row in found if row.group == group]
    return rows, [[one.get(row) for row in rows] for one in values]


def _values(run: Run) -> Iterator[tuple[Row, str]]:
    """Yield everything that can differ between this run and another one."""
    for name, value in facts.plain(run.environment):
        yield Row(ENVIRONMENT, name), value[:HASH_LETTERS] if HASH.fullmatch(value) else value
    timed = mapping(run.timings.get("experiments"))
    for experiment in run.experiments:
        name = text(experiment.get("name"))
        claim = _plain(text(experiment.get("claim"))) or name
        depends_on_time = _depends_on_time(experiment, run)
        group = TIMINGS if depends_on_time else VERDICTS
        yield Row(group, claim, is_verdict=True), experiment["verdict"]
        items = mappings(experiment.get("checks")) + mappings(experiment.get("measurements"))
        yield from _items(claim, items)
    yield Row(TIMINGS, "seconds"), _number(run.seconds)
    yield Row(TIMINGS, "peak memory (MiB)"), _number(run.timings.get("peak_memory_mib"))
    for name, measured in timed.items():
        yield Row(TIMINGS, f"{name}: seconds"), _number(mapping(measured).get("seconds"))
        items = mappings(mapping(measured).get("measurements"))
        yield from _items(TIMINGS, items, prefix=f"{name}: ")


def _depends_on_time(experiment: dict[str, Any], run: Run) -> bool:
    """Return whether results.json leaves a verdict to the timings."""
    recorded = {
        text(one.get("name")): text(one.get("verdict"))
        for one in mappings(run.results.get("experiments"))
    }
    return recorded.get(text(experiment.get("name"))) == "see timings"


def _items(
    group: str, items: Sequence[dict[str, Any]], prefix: str = ""
) -> Iterator[tuple[Row, str]]:
    """Yield checks or measurements; a second one of the same name gets a number."""
    seen: Counter[str] = Counter()
    for item in items:
        name = _plain(text(item.get("name")))
        seen[name] += 1
        number = f" ({seen[name]})" if seen[name] > 1 else ""
        yield Row(group, f"{prefix}{name}{number}"), _shown(item)


def _plain(markdown: str) -> str:
    """Return a claim or a name without the marks of code and emphasis."""
    return markdown.replace("`", "").replace("**", "")


def _shown(item: dict[str, Any]) -> str:
    """Return the values of a check or measurement with unit and verdict."""
    values = item.get("values")
    shown = _several(cast(list[Any], values) if isinstance(values, list) else [values])
    unit = text(item.get("unit"))
    passed = item.get("passed")
    verdict = text(item.get("verdict"))
    if isinstance(passed, bool):
        verdict = "passed" if passed else "failed"
    marked = f"({verdict})" if verdict and verdict != "shown" else ""
    return " ".join(part for part in (shown, unit, marked) if part)


def _several(values: list[Any]) -> str:
    if not values:
        return "nothing"
    numbers = [value for value in values if _is_number(value)]
    if len(values) <= SHOWN_SINGLY or len(numbers) < len(values):
        return ", ".join(_number(value) for value in values)
    low = _number(min(numbers))
    high = _number(max(numbers))
    return f"{_number(median(numbers))} [{low}, {high}], {len(values)} values"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> str:
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else text(value)
