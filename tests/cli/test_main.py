"""`python -m labs`: list, select and plan experiments, and parse options once."""

import json
import sys
from pathlib import Path
from typing import Any

from tests.conftest import Clone, Ended
from tests.small_lab import CHECKS, LAB

import pytest

# Write a line for each call of an option's type function and of a hook.
DECLARES = """
import os
from dataclasses import dataclass

from common.options import option


def record(event):
    with open(os.environ.get("EVENTS", "events.txt"), "a") as file:
        file.write(f"{event} {os.environ.get('RANK', 'alone')}\\n")


def corpus(text):
    record(f"parse {text}")
    return text.upper()


@dataclass(frozen=True)
class LessonOptions:
    word: str = option("an option of its own", "none")
    corpus: str = option("the text to train on", "plays", type=corpus)
"""
RECORDS = '''
from labs.kit import Card
from labs.{name}_small import record


def require_corpus(settings):
    record(f"hook {settings.own.corpus} {settings.size}")
    if settings.own.corpus == "MISSING":
        raise Card("There is no corpus.", "It is missing.", "choose another one", 2)


lab.before_run(require_corpus)


@lab.experiment
def first(run: Run):
    """The first claim."""
    run.check("corpus", run.options.corpus, equals="PLAYS", decides=True)


@lab.experiment
def second(run: Run):
    """The second claim."""
    run.check("word", run.options.word, equals="none", decides=True)


@lab.closing
def closing(results):
    return f"It is {results.verdict('first')} and {results.verdict('second')}."
'''


@pytest.fixture
def recording(clone: Clone) -> Clone:
    """A clone with a lab, LLM90, that records its parsing and its hooks."""
    recording_lab(clone)
    return clone


def recording_lab(clone: Clone, name: str = "LLM90", more: str = "", checks: str = "") -> None:
    """Write a lab that records the parsing of its options and its hooks."""
    clone.kit_lab(RECORDS.replace("{name}", name.lower()) + more, name, checks)
    (clone.lab_folder(name) / "__init__.py").write_text(DECLARES)


def events(clone: Clone, name: str = "events.txt") -> list[str]:
    """Return what the lab has recorded, and forget it."""
    path = clone.path / name
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def results(clone: Clone, lab: str = "LLM90") -> dict[str, Any]:
    """Return the results of the last run."""
    folders = sorted((clone.outputs / lab).iterdir())
    return json.loads((folders[-1] / "results.json").read_text())


def names(clone: Clone) -> list[str]:
    return [experiment["name"] for experiment in results(clone)["experiments"]]


@pytest.mark.parametrize("words", [(), ("--list",)])
def test_without_a_lab_the_syllabus_is_printed(deeper: Clone, words: tuple[str, ...]) -> None:
    ended = deeper.labs(*words)
    assert ended.code == 0, ended
    rows = [line.split(maxsplit=1)[0] for line in ended.out.splitlines() if line.strip()]
    assert rows == ["lab", "LLM90", "LLM90+"]


def test_list_prints_the_name_and_the_claim_of_each_experiment(recording: Clone) -> None:
    ended = recording.labs("90", "--list")
    assert ended.code == 0, ended
    rows = [line.split(maxsplit=1) for line in ended.out.splitlines()]
    assert [[word.strip() for word in row] for row in rows] == [
        ["LLM90", "claim"],
        ["first", "The first claim."],
        ["second", "The second claim."],
    ]
    assert events(recording) == []
    assert not recording.outputs.exists()


def test_list_takes_several_labs(deeper: Clone) -> None:
    ended = deeper.labs("all+", "--list")
    assert ended.code == 0, ended
    assert "counting_adds" in ended.out
    assert "seven_times_six" in ended.out
    assert "LLM90+" in ended.out


def test_list_needs_no_torch(deeper: Clone) -> None:
    (deeper.path / "torch.py").write_text("raise ImportError('no torch here')\n")
    assert deeper.labs("all+", "--list").code == 0


def test_only_runs_one_experiment_without_parts_and_closing(recording: Clone) -> None:
    ended = recording.labs("LLM90", "--only", "second")
    assert ended.code == 0, ended
    assert names(recording) == ["second"]
    assert results(recording)["closing"] == ""
    assert "It is" not in ended.out
    full = recording.labs("LLM90")
    assert full.code == 0, full
    assert names(recording) == ["first", "second"]
    assert results(recording)["closing"] == "It is held and held."
    assert "It is held and held." in full.out


def test_only_with_an_unknown_name_is_a_card_with_the_nearest_names(recording: Clone) -> None:
    ended = recording.labs("LLM90", "--only", "sec")
    assert ended.code == 2, ended
    assert "what: LLM90 has no experiment 'sec'." in ended.err
    assert "why: Nearest: second." in ended.err
    assert "fix: invoke lab LLM90 --list" in ended.err
    assert ended.out == ""
    assert events(recording) == []


def test_only_takes_one_lab(deeper: Clone) -> None:
    ended = deeper.labs("all+", "--only", "counting_adds")
    assert ended.code == 2, ended
    assert "what: --only needs one lab." in ended.err
    assert "fix: invoke lab LLM90 --only counting_adds" in ended.err


def test_only_in_the_lab_s_own_words_is_checked_too(recording: Clone) -> None:
    ended = recording.labs("LLM90", "--", "--only", "sec")
    assert ended.code == 2, ended
    assert "why: Nearest: second." in ended.err
    assert not recording.outputs.exists()


@pytest.mark.parametrize("words", [("LLM17",), ("90", "--size", "huge"), ("90", "--seed=-1")])
def test_a_wrong_command_line_is_a_card(school: Clone, words: tuple[str, ...]) -> None:
    ended = school.labs(*words)
    assert ended.code == 2, ended
    assert ended.err.startswith("what: ")
    assert ended.out == ""


def test_an_option_is_parsed_once_and_a_hook_called_once(recording: Clone) -> None:
    ended = recording.labs("LLM90", "--corpus", "poems", "--size", "small")
    assert ended.code == 1, ended
    assert events(recording) == ["parse poems alone", "hook POEMS small alone"]
    assert "✗ corpus: POEMS" in ended.out
    behind_dashes = recording.labs("LLM90", "--size", "small", "--", "--corpus", "poems")
    assert behind_dashes.code == 1, behind_dashes
    assert events(recording) == ["parse poems alone", "hook POEMS small alone"]


def test_a_default_is_parsed_once(recording: Clone) -> None:
    assert recording.labs("LLM90", "--only", "first").code == 0
    assert events(recording) == ["parse plays alone", "hook PLAYS None alone"]


def test_of_two_processes_each_gets_the_options_that_were_parsed_once(recording: Clone) -> None:
    ended = recording.labs("LLM90", "--processes", "2", "--corpus", "poems")
    assert ended.code == 1, ended
    assert events(recording) == ["parse poems alone", "hook POEMS None alone"]
    assert "✗ corpus: POEMS" in ended.out
    assert results(recording)["environment"]["processes"] == 2


def test_each_of_several_labs_parses_its_options_once(recording: Clone) -> None:
    recording_lab(recording, "LLM91")
    ended = recording.labs("90,91", "--corpus", "plays", "--seed", "3")
    assert ended.code == 0, ended
    assert events(recording) == ["parse plays alone", "hook PLAYS None alone"] * 2
    assert results(recording, "LLM91")["environment"]["seed"] == 3


def test_with_a_sheet_both_processes_parse_the_options_and_one_calls_the_hooks(
    school: Clone,
) -> None:
    recording_lab(school, more=LAB, checks=CHECKS)
    assert school.labs("learn", "LLM90").code == 0
    assert events(school) == []
    school.outputs.mkdir()
    file = "outputs/events.txt"  # a sheet's experiments can't write anywhere else
    words = ("LLM90", "--sheet", "work/llm90_small.py", "--only", "first")
    ended = school.labs(*words, EVENTS=file)
    assert ended.code == 0, ended
    parsed = "parse plays alone"
    assert events(school, file) == [parsed, parsed, "hook PLAYS None alone"]


def test_a_card_of_a_hook_ends_the_run_before_it_starts(recording: Clone) -> None:
    for words in ((), ("--processes", "2")):
        ended = recording.labs("LLM90", "--corpus", "missing", *words)
        assert ended.code == 2, ended
        assert ended.err == (
            "what: There is no corpus.\nwhy: It is missing.\nfix: choose another one\n"
        )
        assert not recording.outputs.exists()


@pytest.mark.parametrize("words", [("--color", "red"), ("--", "--color", "red"), ("--wor", "x")])
def test_an_unknown_option_of_a_lab_is_a_card(recording: Clone, words: tuple[str, ...]) -> None:
    ended = recording.labs("LLM90", *words)
    assert ended.code == 2, ended
    assert f"what: LLM90 has no option {words[-2]}." in ended.err
    assert "--word" in ended.err
    assert "fix: invoke lab LLM90 -- --help lists them" in ended.err
    assert not [event for event in events(recording) if event.startswith("hook")]
    assert not recording.outputs.exists()


def test_an_unknown_option_fails_each_of_several_labs(recording: Clone) -> None:
    recording.kit_lab("", "LLM91")
    ended = recording.labs("91,90", "--corpus", "plays", "--only", "first")
    assert ended.code == 2, ended
    ended = recording.labs("91,90", "--corpus", "plays")
    assert ended.code == 2, ended
    assert "fix: invoke lab LLM91 -- --help" in ended.err
    assert table(ended) == {"LLM91": "exit code 2", "LLM90": ""}


def table(ended: Ended) -> dict[str, str]:
    """Return the last column of the table of several labs."""
    lines = ended.out.split("memory")[-1].splitlines()[1:]
    rows = {line.split()[0]: line.rpartition("MiB")[2].rpartition("–")[2] for line in lines}
    return {name: note.strip() for name, note in rows.items()}


def test_the_help_of_a_lab_shows_shared_and_own_options(recording: Clone) -> None:
    ended = recording.labs("LLM90", "--", "--help")
    assert ended.code == 0, ended
    for option in ("--seed", "--size", "--only", "--processes", "--word", "--corpus"):
        assert option in ended.out
    assert "the text to train on" in ended.out
    assert "an option of its own" in ended.out
    assert "Measures next to nothing." in ended.out, "the lab's own line"
    assert events(recording) == []


def test_the_help_of_the_command_shows_shared_options_and_where_own_ones_are(
    recording: Clone,
) -> None:
    ended = recording.labs("--help")
    assert ended.code == 0, ended
    for option in ("--seed", "--size", "--only", "--processes", "--list"):
        assert option in ended.out
    assert "--corpus" not in ended.out
    assert "-- --help" in " ".join(ended.out.split())


def test_a_lab_runs_as_a_module(recording: Clone) -> None:
    home = {"PYTHONPATH": str(recording.path)}
    command = (sys.executable, "-m", "labs.llm90_small.lesson")
    ended = recording.run(*command, "--only", "first", "--seed", "3", **home)
    assert ended.code == 0, ended
    assert events(recording) == ["parse plays alone", "hook PLAYS None alone"]
    assert results(recording)["environment"]["seed"] == 3
    wrong = recording.run(*command, "--color", "red", **home)
    assert wrong.code == 2, wrong


def test_a_python_without_the_labs_packages_is_a_card(school: Clone) -> None:
    (school.path / "torch.py").write_text("import no_such_package\n")
    ended = school.labs("LLM90")
    assert ended.code == 3, ended
    assert "what: LLM90 can't run in this Python." in ended.err
    assert "fix: invoke lab LLM90" in ended.err


def test_a_deeper_part_runs_with_its_own_results(deeper: Clone) -> None:
    ended = deeper.labs("LLM90+")
    assert ended.code == 0, ended
    assert names_of(deeper.outputs / "LLM90+") == ["parts", "seven_times_six"]
    assert not (deeper.outputs / "LLM90").exists()


def test_all_plus_runs_both_sittings(deeper: Clone) -> None:
    ended = deeper.labs("all+")
    assert ended.code == 0, ended
    assert table(ended) == {"LLM90": "", "LLM90+": ""}
    assert names_of(deeper.outputs / "LLM90") == ["parts", "counting_adds"]
    assert names_of(deeper.outputs / "LLM90+") == ["parts", "seven_times_six"]


def names_of(folder: Path) -> list[str]:
    """Return the experiments of the only run below a folder."""
    (path,) = folder.glob("*/results.json")
    return [experiment["name"] for experiment in json.loads(path.read_text())["experiments"]]
