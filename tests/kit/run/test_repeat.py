"""The command that repeats an experiment: the options that change results, and no others."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.options import Settings, option
from labs.kit.run.repeat import command
from tests.conftest import Clone
from tests.kit.every_finding import CHECKS, LAB, only_run, read_page, read_results

import pytest


@dataclass(frozen=True)
class Own:
    """The options of one lab."""

    tune: bool = option("", False)
    model: str | None = option("")
    bad_rows: str = option("", "stop")
    columns: tuple[str, ...] | None = option("")
    quiet: bool = option("changes no result", False, changes_results=False)


COMMAND = "invoke lab LLM90 --only first"


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (Settings(), ""),
        (Settings(seed=1, size="small"), " --size small --seed 1"),
        (Settings(precision="fp32", processes=2, online=True),
         " --precision fp32 --processes 2 --online"),
        (Settings(only="first", resume=True, tensorboard=True, outputs=Path("elsewhere")), ""),
    ],
)  # fmt: skip
def test_the_command_has_the_options_that_change_results(settings: Settings, options: str) -> None:
    assert command("LLM90", "first", settings) == COMMAND + options


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({}, ""),
        ({"bad_rows": "skip", "quiet": True}, " -- --bad-rows skip"),
        ({"tune": True, "model": "a folder"}, " -- --tune --model 'a folder'"),
        ({"columns": ("ticket", "reply")}, " -- --columns ticket,reply"),
    ],
)
def test_the_labs_own_options_follow_two_dashes(given: dict[str, Any], options: str) -> None:
    settings = Settings(own=Own(**given))
    assert command("LLM90", "first", settings) == COMMAND + options


def test_the_command_of_a_run_repeats_its_experiment(clone: Clone) -> None:
    lab = clone.kit_lab(LAB, checks=CHECKS)
    assert clone.labs(lab, "--seed", "7", "--word", "two words").code == 0
    first = only_run(clone)
    full = read_results(first)
    words = full["commands"]["chance"]
    assert words == "invoke lab LLM90 --only chance --seed 7 -- --word 'two words'"
    assert full["not_run"] == []
    assert "--only</span> chance" in read_page(first)
    assert "was run." not in read_page(first)
    repeated = (
        "--only",
        "chance",
        "--seed",
        "7",
        "--outputs",
        "again",
        "--",
        "--word",
        "two words",
    )
    ended = clone.labs(lab, *repeated)
    assert ended.code == 0, ended
    (folder,) = (clone.path / "again" / lab).iterdir()
    part = read_results(folder)
    assert part["experiments"] == [one for one in full["experiments"] if one["name"] == "chance"]
    assert part["not_run"] == ["figures"]
    page = read_page(folder)
    assert "Only <code>chance</code> was run." in page
    assert "not run in this run" in page
