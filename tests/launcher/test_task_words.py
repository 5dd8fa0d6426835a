"""Words that Invoke refuses in its own words are a card with the right command."""

import subprocess

from common.cards import Card
from launcher.run.lab_command import flags_of
from launcher.task_words import KnownTask, wrong_words
from tests.conftest import BIN, REPO

import pytest

LAB = {"--size": True, "--only": True, "--processes": True, "--slurm-options": True, "--on": True}
TASKS = {
    "lab": KnownTask({**LAB, "--resume": False, "-h": False}, places=1),
    "manifest": KnownTask({"--size": True}, places=1),
    "check": KnownTask({"--hint": False}, places=1),
    "build": KnownTask({"--gfx": True}),
    "hub": KnownTask({"--stop": False, "--purge": False}),
    "bundle": KnownTask({"--size": True, "--dry": False}),
}
OWN = ["--dataset", "--columns", "--steps", "--only"]


def card_of(words: str) -> Card | None:
    return wrong_words(words.split(), TASKS, lambda lab: OWN if lab == "8" else None)


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("lab 8 --dataset f.csv", "lab 8 -- --dataset f.csv"),
        ("lab 8 --dataset=f.csv --size tiny", "lab 8 --size tiny -- --dataset=f.csv"),
        ("lab 8 --columns a,b --only x -- --steps 3", "lab 8 --only x -- --columns a,b --steps 3"),
        ("lab 8 --sise tiny", "lab 8 --size tiny"),
        ("lab 8 --sise=tiny -- --steps 3", "lab 8 --size=tiny -- --steps 3"),
        ("lab 9 --unheard 1", "lab 9 -- --unheard 1"),
        ("lab 8 --datasett f.csv", "lab 8 -- --dataset f.csv"),
        ("lab 8 --ntasks 2 --size tiny", "lab 8 --size tiny --processes 2"),
        ("manifest 8 --only x", "manifest 8 -- --only x"),
        ("bundle --sise tiny", "bundle --size tiny"),
        ("bundle --on slurm", "bundle --help"),
        ("lab 8 --size tiny --size full -- --steps 3", "lab 8 --size full -- --steps 3"),
        ("lab 8 --size=tiny --size full", "lab 8 --size full"),
        ("lab 8 --slurm-options", "lab --help"),
        ("bundlex --size tiny", "bundle --size tiny"),
        ("zzz", "--list"),
        ("lab 8 --size tiny 9 -- --steps 3", "lab 8,9 --size tiny -- --steps 3"),
        ("manifest 8 8 --size tiny", "manifest 8 --size tiny"),
        ("bundle now --dry", "bundle --dry"),
        ("build now", "build"),
        ("build gfx gfx942", "build --help"),
        ("hub stop", "hub --stop"),
        ("hub stop purge", "hub --help"),
    ],
)
def test_the_fix_is_the_right_command(words: str, fix: str) -> None:
    card = card_of(words)
    assert card is not None
    assert card.fix == f"invoke {fix}"
    assert card.code == 2


def test_an_option_that_no_lab_has_is_not_advised_to_stand_behind_the_dashes() -> None:
    card = card_of("lab 8 --on slurm --mem=3G --size tiny")
    assert card is not None
    assert card.what == "Neither invoke lab nor 8 has an option --mem."
    fixed = "invoke lab 8 --on slurm --size tiny --slurm-options --mem=3G"
    assert card.fix == f"if it is one of sbatch: {fixed}"
    card = card_of("manifest 8 --nodes 2")
    assert card is not None and "--nodes 2" not in card.fix
    assert card.what == "Neither invoke manifest nor 8 has an option --nodes."


@pytest.mark.parametrize(
    "words",
    [
        "lab 8 --size tiny --resume -- --dataset f.csv",
        "lab 8 --slurm-options --mem=3G",
        "lab 8 -h",
        "lab --resume 8",
        "check 8 --hint forward",
        "lab 8 build --gfx gfx942",
        "lab 8 --size tiny bundle --size full --dry",
    ],
)
def test_a_right_command_is_no_card(words: str) -> None:
    assert card_of(words) is None


def test_the_options_of_a_lab_are_known_without_it() -> None:
    assert {"--corpus", "--only", "--help"} <= (flags_of("10") or set())
    assert flags_of("LLM77") is None


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


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("jbos 12", "invoke jobs 12"),
        ("lab LLM10 --stack cpu --stack cuda", "invoke lab LLM10 --stack cuda"),
        ("bundle --on slurm", "invoke bundle --help"),
        ("lab LLM10 --slurm-options", "invoke lab --help"),
        ("manifest LLM10 -- --nodes 2", "invoke lab LLM10 -- --help lists them"),
        ("lab LLM10 --on slurm -- --unheard 2", "invoke lab LLM10 -- --help lists them"),
        ("lab LLM10 --on slurm --wait -- --steps 2", "invoke lab LLM10 --on slurm -- --steps 2"),
    ],
)
def test_invoke_s_own_words_are_not_seen(words: str, fix: str) -> None:
    command = [str(BIN / "invoke"), *words.split()]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended
    assert ended.stderr.startswith("what: ") and ended.stderr.endswith(f"fix: {fix}\n"), ended
    assert ended.stdout == ""


def test_the_help_after_other_options_has_texts() -> None:
    command = [str(BIN / "invoke"), "lab", "LLM10", "--on", "slurm", "--help"]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and "with --on slurm: the partition" in ended.stdout, ended


def test_the_help_of_one_lab_is_printed_by_the_launcher_s_python_alone() -> None:
    command = [str(BIN / "invoke"), "lab", "LLM10", "--on", "slurm", "--", "--help"]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and "--corpus FILE" in ended.stdout, ended
    assert ended.stderr == ""
