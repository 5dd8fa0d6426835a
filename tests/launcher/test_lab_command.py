"""The command line of the labs, and the names made from it."""

import re
from pathlib import Path

from common.cards import Card
from launcher.engine import container as run_container
from launcher.run import lab_command
from launcher.run.lab_command import LabCommand

import pytest


def test_the_command_has_the_names_of_the_labs_and_the_options_that_are_given() -> None:
    options = {"size": "tiny", "only": "", "resume": True, "online": False}
    command = lab_command.plan_run("10,10+", options, ["--corpus", "a b"])
    assert command.words == [
        "LLM10,LLM10+",
        *("--size", "tiny", "--resume"),
        *("--", "--corpus", "a b"),
    ]
    assert not command.online


@pytest.mark.parametrize(
    ("labs", "options", "words", "what"),
    [
        ("LLM17", {}, [], "There is no lab called 'LLM17'."),
        ("6", {"seed": "-1"}, [], "--seed can't be '-1'."),
        ("6", {"only": "nothing"}, [], "LLM06 has no experiment 'nothing'."),
        ("6,7", {"only": "nothing"}, [], "--only needs one lab."),
        ("6", {}, ["--corpus", "x"], "LLM06 has no option --corpus."),
    ],
)
def test_a_wrong_command_is_refused_before_anything_starts(
    labs: str, options: dict[str, str], words: list[str], what: str
) -> None:
    with pytest.raises(Card) as raised:
        lab_command.plan_run(labs, options, words)
    assert (raised.value.what, raised.value.code) == (what, 2)


def test_a_check_is_planned_with_its_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_command, "ROOT", tmp_path)
    with pytest.raises(Card, match="no sheet"):
        lab_command.plan_check("6", {})
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "llm06_attention.py").touch()
    command = lab_command.plan_check("6", {"all": True, "hint": True, "solution": None})
    assert command.words == ["check", "LLM06", "--all", "--hint"]
    with pytest.raises(Card, match="has no exercise 'sofmax'"):
        lab_command.plan_check("6", {"hint": "sofmax"})


@pytest.mark.parametrize(
    ("options", "lab_options", "words"),
    [
        ((), (), ["LLM06", "--processes", "2"]),
        (("--processes", "3"), (), ["LLM06", "--processes", "3"]),
        ((), ("--processes",), ["LLM06", "--processes", "2", "--", "--processes"]),
    ],
)
def test_each_gpu_gets_a_process_unless_the_user_sets_a_number(
    options: tuple[str, ...], lab_options: tuple[str, ...], words: list[str]
) -> None:
    command = LabCommand(("LLM06",), options, lab_options)
    assert command.with_processes(1) is command
    assert command.with_processes(2).words == words


@pytest.mark.parametrize(
    ("labs", "name", "container"),
    [
        (("LLM06",), "LLM06", "llm-labs-llm06-"),
        (("LLM06+",), "LLM06+", "llm-labs-llm06-plus-"),
        (("LLM01", "LLM01+", "LLM02"), "LLM01 and 2 more", "llm-labs-llm01-and-2-more-"),
    ],
)
def test_every_name_of_labs_gives_a_legal_container_name(
    labs: tuple[str, ...], name: str, container: str
) -> None:
    assert LabCommand(labs).name == name
    assert re.fullmatch(rf"{container}[0-9a-f]{{6}}", run_container.container_name(name))
