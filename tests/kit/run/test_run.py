"""What an experiment is given: sizes, seeds, checks that can fail."""

import io
from pathlib import Path

from labs.course.options import Settings
from labs.kit.run.console import Output
from labs.kit.run.run import Run

import pytest


def a_run(**settings) -> Run:
    return Run(Settings(**settings), "fp32", Output(io.StringIO()), Path("nowhere"))


@pytest.mark.parametrize(("size", "number"), [("tiny", 1), ("small", 2), ("full", 3)])
def test_a_size_picks_a_number(size: str, number: int) -> None:
    assert a_run(size=size).pick(tiny=1, small=2, full=3) == number


def test_seeds_begin_with_the_run_s_own_and_wrap_around() -> None:
    assert a_run(seed=7).seeds(3) == [7, 8, 9]
    assert a_run(seed=2**32 - 1).seeds(2) == [2**32 - 1, 0]


@pytest.mark.parametrize(
    ("value", "bounds", "passed"),
    [
        (1.0, {"at_most": 1}, True),
        (1.1, {"at_most": 1}, False),
        ([0.5, 1.1], {"at_most": 1}, False),
        ([], {"at_most": 1}, False),
        (float("nan"), {"at_most": 1}, False),
        (float("nan"), {"at_least": 1}, False),
        (3, {"at_least": 1, "at_most": 2}, False),
        ("right", {"equals": "right"}, True),
        (False, {"equals": True}, False),
        (0, {"equals": 0}, True),
        ([1, 2], {"equals": [1, 2]}, True),
    ],
)
def test_a_check_holds_or_fails(value: object, bounds: dict, passed: bool) -> None:
    run = a_run()
    assert run.check("it", value, **bounds) is passed
    assert run.current.passed is passed


def test_a_check_without_a_bound_is_an_error() -> None:
    with pytest.raises(TypeError, match="no bound"):
        a_run().check("it", 1.0)


def test_a_measurement_never_fails_a_run() -> None:
    run = a_run()
    assert run.measure("it", 1.0, expect_at_least=2) == "not held"
    assert run.measure("it", [1.0, 3.0], expect_between=(2, 4)) == "inconclusive"
    assert run.measure("it", 1.0) == "told"
    assert run.current.passed


def test_progress_passes_everything_through() -> None:
    assert list(a_run().progress(iter("abc"), "letters")) == ["a", "b", "c"]
    assert list(a_run().progress([], "nothing")) == []


def test_progress_of_what_goes_on_counts_from_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labs.kit.run.console.SECONDS_BETWEEN_LINES", 0.0)
    log = io.StringIO()
    run = Run(Settings(), "fp32", Output(log), Path("nowhere"))
    assert list(run.progress(range(3, 5), "steps")) == [3, 4]
    assert log.getvalue() == "   steps …\n   steps: 3 of 5\n   steps: 4 of 5\n"
    assert list(run.progress(range(5, 5), "no steps")) == []
    assert "no steps" not in log.getvalue()
