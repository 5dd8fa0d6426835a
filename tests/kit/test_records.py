"""Bounds, verdicts, and the format of numbers."""

import math
from dataclasses import replace

from labs.kit.records import Bound, Check, Experiment, Measurement, numbers, show, show_values

import pytest

NAN = math.nan
INF = math.inf


@pytest.mark.parametrize(
    ("bound", "value", "holds"),
    [
        (Bound(high=1), 1, True),
        (Bound(high=1), 1.0001, False),
        (Bound(low=1), 1, True),
        (Bound(low=1), 0.9999, False),
        (Bound(0, 1), 0.5, True),
        (Bound(0, 1), -0.1, False),
        (Bound(0, 1), 1.1, False),
        (Bound(low=0), INF, True),
        (Bound(high=0), INF, False),
    ],
)
def test_a_bound_includes_its_ends(bound: Bound, value: float, holds: bool) -> None:
    assert bound.holds(value) is holds


@pytest.mark.parametrize("bound", [Bound(), Bound(low=0), Bound(high=0), Bound(-INF, INF)])
def test_nan_is_outside_of_every_bound(bound: Bound) -> None:
    assert not bound.holds(NAN)


def measured(values: list[float], bound: Bound) -> str:
    return Measurement("a name", values, "s", bound).verdict


@pytest.mark.parametrize(
    ("values", "bound", "verdict"),
    [
        ([3.0], Bound(), "shown"),
        ([3.0], Bound(low=2), "held"),
        ([1.0], Bound(low=2), "not held"),
        ([3.0, 4.0], Bound(low=2), "held"),
        ([1.0, 3.0], Bound(low=2), "inconclusive"),
        ([1.0, 1.5], Bound(low=2), "not held"),
        ([NAN], Bound(low=2), "not held"),
        ([NAN, 3.0], Bound(low=2), "inconclusive"),
    ],
)
def test_the_verdict_on_a_measurement(values: list[float], bound: Bound, verdict: str) -> None:
    assert measured(values, bound) == verdict


def experiment(*items: Check | Measurement, crash: str = "") -> Experiment:
    return Experiment("name", "claim", items=list(items), crash=crash)


# Evidence that decides the claim, and evidence that doesn't.
PASSED = Check("a", [1.0], "at most 2", True, decides=True)
FAILED = Check("b", [3.0], "at most 2", False, decides=True)
HELD = Measurement("c", [3.0], "", Bound(low=2), decides=True)
NOT_HELD = Measurement("d", [1.0], "", Bound(low=2), decides=True)
UNSURE = Measurement("e", [1.0, 3.0], "", Bound(low=2), decides=True)
SHOWN = Measurement("f", [1.0], "", Bound())
TIMED = Measurement("g", [3.0], "s", Bound(low=2), timed=True, decides=True)
ALSO_PASSED = replace(PASSED, decides=False)
ALSO_FAILED = replace(FAILED, decides=False)
ALSO_HELD = replace(HELD, decides=False)
ALSO_NOT_HELD = replace(NOT_HELD, decides=False)


@pytest.mark.parametrize(
    ("items", "crash", "verdict", "passed"),
    [
        ((), "", "shown", True),
        ((SHOWN,), "", "shown", True),
        ((PASSED,), "", "held", True),
        ((HELD, SHOWN), "", "held", True),
        ((PASSED, HELD, UNSURE), "", "inconclusive", True),
        ((PASSED, HELD, UNSURE, NOT_HELD), "", "not held", True),
        ((PASSED, FAILED, NOT_HELD), "", "failed", False),
        ((PASSED, HELD), "Traceback", "crashed", False),
        ((FAILED,), "Traceback", "crashed", False),
        ((ALSO_PASSED,), "", "shown", True),
        ((ALSO_PASSED, ALSO_HELD, ALSO_NOT_HELD), "", "shown", True),
        ((HELD, ALSO_NOT_HELD), "", "held", True),
        ((NOT_HELD, ALSO_HELD, ALSO_PASSED), "", "not held", True),
        ((HELD, PASSED, ALSO_FAILED), "", "failed", False),
    ],
)
def test_the_weakest_deciding_evidence_gives_the_verdict_on_a_claim(
    items: tuple[Check | Measurement, ...], crash: str, verdict: str, passed: bool
) -> None:
    found = experiment(*items, crash=crash)
    assert found.verdict == verdict
    assert found.passed is passed


@pytest.mark.parametrize(
    ("items", "crash", "by_time"),
    [
        ((TIMED,), "", True),
        ((TIMED, PASSED), "", True),
        ((replace(TIMED, decides=False), PASSED), "", False),
        ((TIMED, ALSO_FAILED), "", False),
        ((TIMED,), "Traceback", False),
        ((HELD,), "", False),
    ],
)
def test_a_timing_decides_unless_the_experiment_failed(
    items: tuple[Check | Measurement, ...], crash: str, by_time: bool
) -> None:
    assert experiment(*items, crash=crash).decided_by_time is by_time


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (1234567, "1,234,567"),
        (1234567.8, "1,234,568"),
        (0.0001234, "0.000123"),
        (2.0, "2"),
        (-0.5, "-0.5"),
        (True, "True"),
        ("right", "right"),
        (NAN, "nan"),
        (INF, "inf"),
    ],
)
def test_numbers_are_formatted_for_a_reader(value: object, shown: str) -> None:
    assert show(value) == shown


def test_several_values_are_shown_as_median_and_range() -> None:
    assert show_values([3.0, 1.0, 2.0]) == "2 [1, 3]"
    assert show_values([4.0]) == "4"
    assert show_values(["a", "b"]) == "a, b"


def test_numbers_takes_one_value_or_several() -> None:
    assert numbers(3) == [3.0]
    assert numbers([1, 2.5]) == [1.0, 2.5]
    assert numbers((1,)) == [1.0]
    with pytest.raises((TypeError, ValueError)):
        numbers("many")


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (Bound(low=2), "at least 2"),
        (Bound(high=1e-5), "at most 1e-05"),
        (Bound(1, 2), "1 to 2"),
        (Bound(), ""),
    ],
)
def test_a_bound_is_shown_in_words(bound: Bound, words: str) -> None:
    assert str(bound) == words
