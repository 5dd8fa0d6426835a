"""An option of a lab before --, or a misspelt one, is a card with the right command."""

import subprocess

from launcher.task_words import misplaced_option
from tests.conftest import BIN, REPO

import pytest

FLAGS = {"--size": True, "--only": True, "--slurm-options": True, "--resume": False, "-h": False}


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("lab 8 --dataset f.csv", "lab 8 -- --dataset f.csv"),
        ("lab 8 --dataset=f.csv --size tiny", "lab 8 --size tiny -- --dataset=f.csv"),
        ("lab 8 --columns a,b --only x -- --steps 3", "lab 8 --only x -- --columns a,b --steps 3"),
        ("lab 8 --sise tiny", "lab 8 --size tiny"),
        ("lab 8 --sise=tiny -- --steps 3", "lab 8 --size=tiny -- --steps 3"),
    ],
)
def test_the_fix_is_the_command_with_the_option_in_its_place(words: str, fix: str) -> None:
    card = misplaced_option(words.split(), FLAGS)
    assert card is not None
    assert card.fix == f"invoke {fix}"
    assert card.code == 2


@pytest.mark.parametrize(
    "words",
    [
        "lab 8 --size tiny --resume -- --dataset f.csv",
        "lab 8 --slurm-options --mem=3G",
        "lab 8 -h",
        "lab 8 build --gfx gfx942",
    ],
)
def test_a_right_command_is_no_card(words: str) -> None:
    assert misplaced_option(words.split(), FLAGS) is None


@pytest.mark.parametrize("verb", ["lab", "manifest"])
def test_invoke_prints_the_card_and_runs_nothing(verb: str) -> None:
    command = [str(BIN / "invoke"), verb, "LLM08", "--dataset", "my data.csv", "--size=tiny"]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended
    fix = f"fix: invoke {verb} LLM08 --size=tiny -- --dataset 'my data.csv'"
    assert fix in ended.stderr
    assert ended.stdout == ""


def test_the_help_of_lab_names_the_help_of_one_lab() -> None:
    command = [str(BIN / "invoke"), "lab", "LLM08", "--help"]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert "`invoke lab LLM08 -- --help` lists them" in ended.stdout
