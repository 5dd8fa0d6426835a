"""Bounds, verdicts, and numbers as a reader wants them."""

import math

from labs.kit.records import Bound, Check, Experiment, Measurement, numbers, show, show_values

import pytest

NAN, INF = math.nan, math.inf


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
def test_nan_holds_no_bound(bound: Bound) -> None:
    assert not bound.holds(NAN)


def measured(values: list[float], bound: Bound) -> str:
    return Measurement("a name", values, "s", bound).verdict


@pytest.mark.parametrize(
    ("values", "bound", "verdict"),
    [
        ([3.0], Bound(), "told"),
        ([3.0], Bound(low=2), "held"),
        ([1.0], Bound(low=2), "not held"),
        ([3.0, 4.0], Bound(low=2), "held"),
        ([1.0, 3.0], Bound(low=2), "inconclusive"),
        ([1.0, 1.5], Bound(low=2), "not held"),
        ([NAN], Bound(low=2), "not held"),
        ([NAN, 3.0], Bound(low=2), "inconclusive"),
    ],
)
def test_a_measurement_s_verdict(values: list[float], bound: Bound, verdict: str) -> None:
    assert measured(values, bound) == verdict


def experiment(*items: Check | Measurement, crash: str = "") -> Experiment:
    return Experiment("name", "claim", items=list(items), crash=crash)


PASSED = Check("a", [1.0], "at most 2", True)
FAILED = Check("b", [3.0], "at most 2", False)
HELD = Measurement("c", [3.0], "", Bound(low=2))
NOT_HELD = Measurement("d", [1.0], "", Bound(low=2))
UNSURE = Measurement("e", [1.0, 3.0], "", Bound(low=2))
TOLD = Measurement("f", [1.0], "", Bound())


@pytest.mark.parametrize(
    ("items", "crash", "verdict", "passed"),
    [
        ((), "", "told", True),
        ((TOLD,), "", "told", True),
        ((PASSED,), "", "held", True),
        ((HELD, TOLD), "", "held", True),
        ((PASSED, HELD, UNSURE), "", "inconclusive", True),
        ((PASSED, HELD, UNSURE, NOT_HELD), "", "not held", True),
        ((PASSED, FAILED, NOT_HELD), "", "failed", False),
        ((PASSED, HELD), "Traceback", "crashed", False),
        ((FAILED,), "Traceback", "crashed", False),
    ],
)
def test_a_claim_s_verdict_is_its_weakest(items, crash: str, verdict: str, passed: bool) -> None:
    one = experiment(*items, crash=crash)
    assert (one.verdict, one.passed) == (verdict, passed)


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
def test_numbers_are_shown_for_readers(value: object, shown: str) -> None:
    assert show(value) == shown


def test_several_values_are_shown_as_median_and_range() -> None:
    assert show_values([3.0, 1.0, 2.0]) == "2 [1, 3]"
    assert show_values([4.0]) == "4"
    assert show_values(["a", "b"]) == "a, b"


def test_numbers_come_alone_or_in_a_row() -> None:
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
def test_a_bound_is_told_in_words(bound: Bound, words: str) -> None:
    assert str(bound) == words
