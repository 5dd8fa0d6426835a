"""The command line of the labs, and the names made from it."""

import json
import re
import subprocess

from launcher.engine import container as run_container
from launcher.run import lab_command
from launcher.run.lab_command import LabCommand

import pytest


@pytest.fixture
def planned_words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Plan without the labs: every plan gives LLM06 and LLM06+. Return the words of the plan."""
    words: list[str] = []

    def capture(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        words[:] = command[command.index("labs") + 1 :]
        return subprocess.CompletedProcess(command, 0, json.dumps({"labs": ["LLM06", "LLM06+"]}))

    monkeypatch.setattr(lab_command, "capture", capture)
    return words


def test_the_command_is_the_planned_command_with_the_names_of_the_labs(
    planned_words: list[str],
) -> None:
    options = {"size": "tiny", "only": "", "resume": True, "online": False}
    command = lab_command.plan_run("6,6+", options, ["--word", "a b"])
    assert planned_words == ["6,6+", "--size", "tiny", "--resume", "--plan", "--", "--word", "a b"]
    assert command.words == [
        "LLM06,LLM06+",
        *("--size", "tiny", "--resume"),
        *("--", "--word", "a b"),
    ]
    assert not command.online


def test_a_check_is_planned_with_its_flags(planned_words: list[str]) -> None:
    command = lab_command.plan_check("6", {"all": True, "hint": "softmax", "solution": None})
    assert planned_words == ["check", "6", "--all", "--hint", "softmax", "--plan"]
    assert command.words == ["check", "LLM06,LLM06+", "--all", "--hint", "softmax"]


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
