"""A run, as an experiment sees it: sizes, seeds, checks and measurements."""

import io
import json
from pathlib import Path
from typing import Any

from common.options import Settings
from labs.kit.run.console import Output
from labs.kit.run.run import Run

import pytest
import torch


def a_run(**settings: Any) -> Run:
    return Run(Settings(**settings), "fp32", Output(io.StringIO()), Path("nowhere"))


@pytest.mark.parametrize(("size", "number"), [("tiny", 1), ("small", 2), ("full", 3)])
def test_the_size_chooses_a_number(size: str, number: int) -> None:
    assert a_run(size=size).pick(tiny=1, small=2, full=3) == number


def test_seeds_start_at_the_seed_of_the_run_and_wrap_around() -> None:
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
def test_a_check_holds_or_fails(value: object, bounds: dict[str, Any], passed: bool) -> None:
    run = a_run()
    assert run.check("it", value, **bounds) is passed
    assert run.current.passed is passed


def test_a_check_without_a_bound_is_an_error() -> None:
    with pytest.raises(TypeError, match="no bound"):
        a_run().check("it", 1.0)


def test_an_equal_tensor_is_recorded_as_a_number_that_json_can_hold() -> None:
    run = a_run()
    assert run.check("a count", torch.tensor([True, False]).sum(), equals=1)
    assert json.dumps(run.current.checks[0].values) == "[1]"


def test_a_measurement_never_fails_a_run() -> None:
    run = a_run()
    assert run.measure("it", 1.0, expect_at_least=2) == "not held"
    assert run.measure("it", [1.0, 3.0], expect_between=(2, 4)) == "inconclusive"
    assert run.measure("it", 1.0) == "shown"
    assert run.current.passed


def test_evidence_is_recorded_as_deciding_only_if_it_is_marked() -> None:
    run = a_run()
    run.check("a check", 1, equals=1)
    run.measure("a measurement", 1, expect_at_least=2)
    assert run.current.verdict == "shown"
    run.agree("another check", torch.zeros(2), decides=True)
    assert run.current.verdict == "held"
    run.measure("another measurement", [1, 3], expect_at_least=2, decides=True)
    assert run.current.verdict == "inconclusive"
    run.check("a failing check", 1, equals=2)
    assert run.current.verdict == "failed"
    assert [one.decides for one in run.current.checks] == [False, True, False]
    assert [one.decides for one in run.current.measurements] == [False, True]
