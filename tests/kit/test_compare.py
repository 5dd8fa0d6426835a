"""The comparison with a reference: every wrong result is a Mistake, and never a traceback."""

from types import SimpleNamespace
from typing import Any

from labs.kit.compare import Checks, Mistake, check_part, expect_close, name_mistake
from tests.conftest import Clone

import pytest
import torch

WANT = torch.tensor([[1.0, 2.0], [3.0, 4.0]])

WRONG = [
    (None, "nothing"),
    ([1.0], "got a list"),
    (WANT[0], r"expected shape \(2, 2\), got \(2,\)"),
    (WANT.double(), "dtype"),
    (WANT.to_sparse(), "layout torch.strided, got torch.sparse_coo"),
    (WANT.to("meta"), "device cpu, got meta"),
    (WANT.cfloat(), "dtype"),
    (WANT * float("nan"), "NaN"),
    (WANT + 1, "4 of 4 values are wrong, off by up to 1 .*; the likely one"),
]


@pytest.mark.parametrize(("got", "message"), WRONG)
def test_a_wrong_result_is_a_mistake_that_says_what_differs(got: Any, message: str) -> None:
    name_mistake(got, {"never": lambda: WANT * 2})
    with pytest.raises(Mistake, match=message):
        expect_close(got, WANT, "the likely one")


def test_a_right_result_passes_and_a_known_mistake_is_named() -> None:
    expect_close(WANT + 1e-6, WANT, "")
    with pytest.raises(Mistake, match="twice as large"):
        name_mistake(WANT * 2, {"twice as large": lambda: WANT * 2})


def test_nan_equals_only_nan() -> None:
    holes = torch.tensor([1.0, float("nan")])
    expect_close(holes, holes, "")
    with pytest.raises(Mistake, match="1 of 2 values are wrong, with NaN in place"):
        expect_close(torch.tensor([1.0, 2.0]), holes, "")


@pytest.mark.parametrize("want", [torch.tensor([True, False]), torch.tensor([7, 8])])
def test_integers_and_booleans_must_be_equal(want: torch.Tensor) -> None:
    expect_close(want.clone(), want, "")
    got = want.clone()
    got[0] = 0
    with pytest.raises(Mistake, match="1 of 2 values are wrong; the likely one"):
        expect_close(got, want, "the likely one")


def test_a_check_may_allow_another_tolerance() -> None:
    expect_close(WANT + 0.1, WANT, "", tolerance=0.2)
    with pytest.raises(Mistake, match=r"off by up to 0\.1"):
        expect_close(WANT + 0.1, WANT, "", tolerance=0.05)


def test_a_check_gets_the_module_of_the_implementation() -> None:
    checks = Checks()
    seen: list[Any] = []
    checks.proves("Counter.count")(seen.append)
    module = SimpleNamespace()
    checks.check("Counter.count", module)
    assert seen == [module]


def test_the_parts_of_checks_are_in_the_order_of_registration() -> None:
    checks = Checks()
    for part in ("second", "first", "Class.method"):
        checks.proves(part)(print)
    assert checks.parts == ["second", "first", "Class.method"]


def test_registering_a_check_leaves_the_function_unchanged() -> None:
    def check(_: Any) -> None:
        raise Mistake("wrong")

    checks = Checks()
    assert checks.proves("add")(check) is check
    with pytest.raises(Mistake, match="wrong"):
        checks.check("add", SimpleNamespace())


def test_a_part_has_one_check() -> None:
    checks = Checks()
    checks.proves("add")(print)
    with pytest.raises(ValueError, match="'add' has two checks"):
        checks.proves("add")(print)


def test_a_part_without_a_check_is_an_error_that_names_it() -> None:
    with pytest.raises(LookupError, match="'subtract' has no check"):
        Checks().check("subtract", SimpleNamespace())


def test_a_mistake_has_the_details_that_replace_a_comparison() -> None:
    mistake = Mistake("biased", expected="about 0.5", got="0.9")
    assert str(mistake) == "biased"
    assert mistake.details == {"expected": "about 0.5", "got": "0.9"}


def test_a_lesson_s_part_is_checked_by_the_checks_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks = Checks()
    seen: list[Any] = []
    checks.proves("add")(seen.append)
    lesson = SimpleNamespace(checks_module="labs.llm90_small.checks")
    module = SimpleNamespace()
    monkeypatch.setattr(
        "labs.kit.compare.import_module",
        {"labs.llm90_small.checks": SimpleNamespace(checks=checks)}.__getitem__,
    )
    check_part(lesson, "add", module)  # type: ignore[arg-type]
    assert seen == [module]


def test_a_lab_with_an_unchecked_exercise_fails_and_names_it(school: Clone) -> None:
    checks = school.lab_folder("LLM90") / "checks.py"
    checks.write_text(checks.read_text().replace('proves("add")', 'proves("subtract")'))
    ended = school.labs("LLM90")
    assert ended.code == 1, ended
    assert "✗ add: it raised LookupError: 'add' has no check" in ended.out
    assert "✓ Counter.count: right" in ended.out
