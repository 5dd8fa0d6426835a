"""A closing is computed from the results of a full run."""

from labs.kit.records import Bound, Check, Experiment, Measurement
from labs.kit.run.results import Results
from tests.conftest import Clone
from tests.kit.every_finding import experiment_of, only_run, read_page, read_results

import pytest

LAB = '''
@lab.experiment
def first(run: Run):
    """The first claim."""
    run.measure("speed", [3, 1, 2], unit="tokens/s", expect_at_least=1, decides=True)

@lab.experiment
def second(run: Run):
    """The second claim."""
    if run.options.word == "crash":
        raise ValueError("a crash")
    run.measure("seconds", time.perf_counter(), timed=True, decides=True)

@lab.closing
def closing(results):
    """Say what was found."""
    speed = results.shown("first", "speed")
    return f"The speed **is** {speed}; the claim is {results.verdict('first')}."
'''
SENTENCE = "is 2 [1, 3]; the claim is held."


def test_a_full_run_shows_its_closing_on_the_screen_on_the_page_and_in_the_results(
    clone: Clone,
) -> None:
    ended = clone.labs(clone.kit_lab(LAB))
    assert ended.code == 0, ended
    assert f"The speed {SENTENCE}" in ended.out
    assert ended.out.index(SENTENCE) < ended.out.index("report:")
    assert f"<strong>is</strong> {SENTENCE[3:]}" in read_page(only_run(clone))
    assert read_results(only_run(clone))["closing"] == f"The speed **is** {SENTENCE[3:]}"


def test_a_run_that_crashes_has_no_closing(clone: Clone) -> None:
    ended = clone.labs(clone.kit_lab(LAB), "--word", "crash")
    assert ended.code == 1, ended
    assert SENTENCE not in ended.out
    assert SENTENCE[3:] not in read_page(only_run(clone))
    assert read_results(only_run(clone))["closing"] == ""


def test_a_closing_that_asks_for_a_missing_name_is_an_error_that_names_it(clone: Clone) -> None:
    error = "the run has no experiment 'frist'"
    ended = clone.labs(clone.kit_lab(LAB.replace("verdict('first')", "verdict('frist')")))
    assert ended.code == 1, ended
    assert error in ended.out
    assert "what: LLM90 crashed in closing." in ended.err
    assert error in ended.err
    results = read_results(only_run(clone))
    assert results["passed"] is False
    assert experiment_of(results, "first")["verdict"] == "held", "the results are saved"
    assert "It crashed" in read_page(only_run(clone))


def test_a_closing_that_depends_on_a_timing_is_among_the_timings(clone: Clone) -> None:
    shown = LAB.replace('results.shown("first", "speed")', 'results.shown("second", "seconds")')
    ended = clone.labs(clone.kit_lab(shown))
    assert ended.code == 0, ended
    results = read_results(only_run(clone))
    assert results["closing"] == "see timings"
    assert results["timings"]["closing"].startswith("The speed **is** ")


def test_results_return_verdicts_and_values_by_name() -> None:
    check = Check("right", ["yes"], "must be yes", True)
    speed = Measurement("speed", [3.0, 1.0, 2.0], "s", Bound(low=2), decides=True)
    seconds = Measurement("seconds", [5.0], "s", Bound(), timed=True)
    results = Results([Experiment("one", "claim", items=[check, speed, seconds])])
    assert results.verdict("one") == "inconclusive"
    assert results.values("one", "right") == ["yes"]
    assert results.value("one", "speed") == 2
    assert results.shown("one", "speed") == "2 [1, 3]"
    assert not results.timed
    assert results.value("one", "seconds") == 5
    assert results.timed
    with pytest.raises(KeyError, match="one has no check or measurement 'sped'"):
        results.shown("one", "sped")
