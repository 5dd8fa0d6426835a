"""Small labs, run by `python -m labs`: what they write and print, and their exit codes."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from labs.kit.records import Experiment
from labs.kit.run import stop_request
from labs.kit.run.session import Session
from tests.conftest import Clone, Ended, _fresh_clone
from tests.kit.every_finding import (
    CHECKS,
    LAB,
    NOTHING,
    experiment_of,
    only_run,
    read_page,
    read_results,
)

import pytest


@dataclass
class OneRun:
    """A run that has ended, its folder and its results."""

    ended: Ended
    folder: Path
    results: dict[str, Any]


@pytest.fixture(scope="module")
def module_clone(snapshot: Path) -> Iterator[Clone]:
    clone = _fresh_clone(snapshot)
    yield clone
    clone.close()


@pytest.fixture(scope="module")
def runs(module_clone: Clone) -> dict[str, OneRun]:
    """Three runs of one lab in one precision: two with one seed, one with another."""
    lab = module_clone.kit_lab(LAB, checks=CHECKS)
    found = {}
    for name, seed in (("one", "1"), ("again", "1"), ("other", "2")):
        words = (lab, "--seed", seed, "--precision", "fp32", "--outputs", f"outputs/{name}")
        ended = module_clone.labs(*words, "--word", "<b>&")
        assert ended.code == 0, ended
        (folder,) = (module_clone.outputs / name / lab).iterdir()
        found[name] = OneRun(ended, folder, read_results(folder))
    return found


def test_two_runs_with_one_seed_differ_only_in_their_timings(runs: dict[str, OneRun]) -> None:
    one = dict(runs["one"].results)
    again = dict(runs["again"].results)
    assert one.pop("timings") != again.pop("timings")
    assert one == again
    assert one["experiments"][1]["measurements"][0]["values"]


def test_another_seed_gives_other_results(runs: dict[str, OneRun]) -> None:
    draws = []
    for name in ("one", "other"):
        chance = runs[name].results["experiments"][1]
        assert chance["name"] == "chance"
        draws += [m["values"] for m in chance["measurements"] if m["name"] == "first draws"]
    first, second = draws
    assert all(a != b for a, b in zip(first, second, strict=True)), (
        "torch, numpy and random are seeded"
    )


def test_the_results_name_what_they_depend_on(runs: dict[str, OneRun]) -> None:
    results = runs["one"].results
    for key in ("lab_sha256", "python", "torch", "device", "threads", "cpu_capability",
                "precision", "size", "seed"):  # fmt: skip
        assert results["environment"][key] not in ("", None), key
    assert results["environment"]["seed"] == 1
    assert results["environment"]["options"] == {"word": "<b>&"}
    assert results["passed"] is True


def test_a_timed_measurement_is_among_the_timings(runs: dict[str, OneRun]) -> None:
    results = runs["one"].results
    (timed,) = results["timings"]["experiments"]["figures"]["measurements"]
    assert timed["name"] == "elapsed"
    assert "elapsed" not in json.dumps(results["experiments"])


def test_nan_is_written_as_text(runs: dict[str, OneRun]) -> None:
    chance = runs["one"].results["experiments"][1]
    (nan,) = [one for one in chance["measurements"] if one["name"] == "not a number"]
    assert nan["values"] == ["nan"]
    assert nan["verdict"] == "not held"


def test_every_part_is_checked_before_the_experiments(runs: dict[str, OneRun]) -> None:
    first = runs["one"].results["experiments"][0]
    assert [check["name"] for check in first["checks"]] == ["add"]
    assert first["checks"][0]["passed"]
    assert first["verdict"] == "held", "the check of a part decides"


def test_the_folder_of_a_run_has_all_its_files(runs: dict[str, OneRun]) -> None:
    folder = runs["one"].folder
    names = sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())
    assert names == ["figures/dots.svg", "figures/line.svg", "log.txt", "report.html",
                     "results.json"]  # fmt: skip
    log = (folder / "log.txt").read_text("utf-8")
    assert "It was drawn." in log
    assert "\x1b" not in log


def test_the_output_on_a_pipe_is_plain(runs: dict[str, OneRun]) -> None:
    out = runs["one"].ended.out
    assert "\x1b" not in out
    lines = out.splitlines()
    assert "Chance is **seeded**." in lines, "sections have numbers, claims don't"
    assert any(line.startswith("  Chance is **seeded**.") for line in lines), "nor in the table"
    assert out.rstrip().splitlines()[-1].endswith("report.html")


# Failures


def test_a_failed_check_is_in_the_report_the_card_and_the_exit_code(clone: Clone) -> None:
    lab = clone.kit_lab(LAB.replace("return a + b\n", "return a - b\n"), checks=CHECKS)
    ended = clone.labs(lab)
    assert ended.code == 1, ended
    assert "what: 2 of LLM90's checks failed" in ended.err
    assert "did you subtract?" in ended.err
    assert read_results(only_run(clone))["passed"] is False
    page = read_page(only_run(clone))
    assert "failed" in page.split("The claims and their verdicts")[-1]
    assert "did you subtract?" in page


def test_after_a_training_that_crashed_ctrl_c_has_its_usual_effect() -> None:
    """In a notebook the process goes on."""
    usual = signal.getsignal(signal.SIGINT)

    def training(_: Any) -> str:
        stop_request.listen()
        assert signal.getsignal(signal.SIGINT) is not usual
        raise ValueError("a crash")

    crashes: list[str] = []
    session: Any = SimpleNamespace(run=None, _record_crash=lambda *_: crashes.append("one"))
    Session._call(session, Experiment("it", ""), training)
    assert crashes == ["one"]
    assert signal.getsignal(signal.SIGINT) is usual


def test_a_crash_is_printed_in_full_and_earlier_results_stay(clone: Clone) -> None:
    lab = clone.kit_lab('''
@lab.experiment
def first(run: Run):
    """The first holds."""
    run.check("saved", 1, equals=1)

@lab.experiment
def second(run: Run):
    """The second crashes."""
    raise KeyError("a missing key")

@lab.experiment
def third(run: Run):
    """The third is not reached."""
    run.say("reached")
''')
    ended = clone.labs(lab)
    assert ended.code == 1, ended
    printed = ended.out + ended.err
    assert "Traceback (most recent call last)" in printed
    assert "KeyError: 'a missing key'" in printed
    assert "LLM90 crashed in second." in ended.err
    assert "reached" not in ended.out
    results = read_results(only_run(clone))
    assert [one["name"] for one in results["experiments"]] == ["first", "second"]
    assert results["experiments"][0]["checks"][0]["passed"]
    assert "KeyError" in results["experiments"][1]["crash"]
    assert "It crashed" in read_page(only_run(clone))


def test_a_check_without_a_bound_is_an_error(clone: Clone) -> None:
    lab = clone.kit_lab('''
@lab.experiment
def nothing(run: Run):
    """A check must be able to fail."""
    run.check("whatever", 1.0)
''')
    ended = clone.labs(lab)
    assert ended.code == 1, ended
    assert "has no bound" in ended.out + ended.err


def test_fp16_on_a_cpu_is_a_card(clone: Clone) -> None:
    ended = clone.labs(clone.kit_lab(NOTHING), "--precision", "fp16", CUDA_VISIBLE_DEVICES="")
    assert ended.code == 3, ended
    assert "what: fp16 training needs a GPU." in ended.err
    assert "bf16" in ended.err
    assert not list(clone.outputs.glob("LLM90/*"))


def test_an_outputs_folder_that_is_a_file_is_a_card(clone: Clone) -> None:
    clone.outputs.write_text("")
    ended = clone.labs(clone.kit_lab(NOTHING))
    assert ended.code == 3, ended
    assert "what: The run's files can't be written" in ended.err
    assert "Traceback" not in ended.err


# Verdicts

EVIDENCE = '''
@lab.experiment
def only_shown(run: Run):
    """Nothing here decides."""
    run.check("a check", 1, equals=1)
    run.measure("a measurement", 3, expect_at_least=2)

@lab.experiment
def held(run: Run):
    """One measurement decides, another one doesn't."""
    run.measure("deciding", 3, expect_at_least=2, decides=True)
    run.measure("beside it", 1, expect_at_least=2)

@lab.experiment
def weakest(run: Run):
    """The weakest evidence decides."""
    run.agree("a check", __import__("torch").zeros(2), decides=True)
    run.measure("sure", 3, expect_at_least=2, decides=True)
    run.measure("unsure", [1, 3], expect_at_least=2, decides=True)

@lab.experiment
def by_time(run: Run):
    """A timing decides."""
    run.measure("seconds", 3, expect_at_least=2, timed=True, decides=True)
'''
FAILS = '''
@lab.experiment
def failed(run: Run):
    """A check that doesn't decide fails."""
    run.check("beside it", 1, equals=2)
    run.measure("deciding", 3, expect_at_least=2, decides=True)
'''


def test_only_deciding_evidence_makes_a_verdict(clone: Clone) -> None:
    ended = clone.labs(clone.kit_lab(EVIDENCE))
    assert ended.code == 0, ended
    results = read_results(only_run(clone))
    verdicts = {one["name"]: one["verdict"] for one in results["experiments"]}
    assert verdicts == {
        "only_shown": "shown",
        "held": "held",
        "weakest": "inconclusive",
        "by_time": "see timings",
    }
    assert results["timings"]["experiments"]["by_time"]["verdict"] == "held"
    deciding = [one["decides"] for one in experiment_of(results, "held")["measurements"]]
    assert deciding == [True, False]
    assert [one["decides"] for one in experiment_of(results, "weakest")["checks"]] == [True]
    rows = read_page(only_run(clone)).split("The claims and their verdicts")[-1].split("<tr>")[2:]
    shown = [row.split("</span>")[0].rpartition(">")[2] for row in rows[:4]]
    assert shown == ["shown", "held", "inconclusive", "held"]


def test_a_failed_check_that_does_not_decide_fails_the_claim(clone: Clone) -> None:
    ended = clone.labs(clone.kit_lab(FAILS))
    assert ended.code == 1, ended
    results = read_results(only_run(clone))
    assert experiment_of(results, "failed")["verdict"] == "failed"
    assert "1 of LLM90's checks failed" in ended.err
