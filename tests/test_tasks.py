"""The tasks of `invoke`, and the README's commands, which CI runs."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import tasks
from common.options import common_parser
from tests.conftest import BIN, Clone

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
DOCUMENTATION = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
LESSON = (ROOT / "labs" / "llm06_attention" / "lesson.py").read_text(encoding="utf-8")
EXPERIMENTS = re.findall(r"^@lab\.experiment.*\n(?:@.*\n)*def (\w+)\(", LESSON, re.MULTILINE)
AWKWARD = ["--word", "a 'b' \"c\"", "$HOME", "*", "", "é", "a\\b"]


def invoke(*words: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "invoke"), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_task_is_listed_with_a_description() -> None:
    listed = invoke("--list")
    assert listed.returncode == 0, listed
    verbs = dict(re.findall(r"^  (\w+)\s+(\S.*)$", listed.stdout, re.MULTILINE))
    for_learners = {"chat", "check", "lab", "labs", "learn", "notebook", "open", "progress"}
    assert set(verbs) == for_learners | {
        "audit",
        "build",
        "bundle",
        "dotenv",
        "gpus",
        "hub",
        "images",
        "jobs",
        "lock",
        "manifest",
        "preflight",
        "test",
    }


@pytest.mark.parametrize("words", [("lab", "--help"), ("--help", "lab"), ("lab", "-h")])
def test_help_shows_the_options_of_a_lab(words: tuple[str, ...]) -> None:
    helped = invoke(*words)
    assert helped.returncode == 0, helped
    for option in ("--stack", "--runtime", "--size", "--precision", "--seed", "--online"):
        assert option in helped.stdout
    assert "There is no lab" not in helped.stderr


@pytest.mark.parametrize(("verb", "option"), [("check", "--watch"), ("learn", "--reset")])
def test_help_in_the_place_of_a_name_is_that_of_the_verb(verb: str, option: str) -> None:
    helped = invoke(verb, "--help")
    assert helped.returncode == 0, helped
    assert f"Usage: inv[oke] [--core-opts] {verb}" in helped.stdout
    assert option in helped.stdout


@pytest.mark.parametrize("verb", ["lab", "learn", "check", "notebook", "progress"])
def test_no_option_has_a_short_form_or_hides_an_option_of_invoke(verb: str) -> None:
    helped = invoke("--help", verb).stdout
    assert not re.findall(r"^\s+(-\w)\b", helped, re.MULTILINE)
    # Invoke's own --list can't be used after a task, so `invoke lab LLM06 --list` may be the lab's.
    core = {"--dry", "--echo", "--pty", "--config", "--debug", "--hide", "--help"}
    assert not core & set(re.findall(r"--\w+", helped.split("Options:")[1]))


@pytest.mark.parametrize("words", [("lab",), ("--dry", "lab"), ("lab", "--list")])
def test_a_lab_must_be_named(words: tuple[str, ...]) -> None:
    ended = invoke(*words)
    assert ended.returncode == 2, ended
    assert "what: Which lab?" in ended.stderr
    assert "invoke labs" in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize("words", [("bundle",), ("bundle", "--stack", "cpu")])
def test_a_bundle_needs_a_folder(words: tuple[str, ...]) -> None:
    ended = invoke(*words)
    assert ended.returncode == 2, ended
    assert "what: Which folder?" in ended.stderr


def test_a_lab_must_be_named_with_options_too() -> None:
    ended = invoke("lab", "--stack", "cpu")
    assert ended.returncode == 1, ended  # Invoke's own complaint
    assert "did not receive required positional arguments: 'labs'" in ended.stderr


def test_the_syllabus_lists_every_lab() -> None:
    ended = invoke("labs")
    assert ended.returncode == 0, ended
    folders = list((ROOT / "labs").glob("llm*_*/"))
    assert len(folders) >= 11
    for folder in folders:
        number = re.sub(r"llm(\d\d[a-z]?)_.*", r"LLM\1", folder.name)
        assert number in ended.stdout


@pytest.mark.parametrize(
    "words", [("LLM06", "--list"), ("--list", "6"), ("LLM06", "--list", "--seed=1")]
)
def test_the_experiments_of_a_lab_are_listed_without_a_stack(words: tuple[str, ...]) -> None:
    ended = invoke("lab", *words)
    assert ended.returncode == 0, ended
    assert len(EXPERIMENTS) >= 6
    assert [name for name in EXPERIMENTS if name not in ended.stdout] == []
    assert "stack" not in ended.stderr


def test_listing_an_unknown_lab_returns_the_exit_code_of_the_labs() -> None:
    ended = invoke("lab", "LLM77", "--list")
    assert ended.returncode == 2, ended
    assert "what: There is no lab" in ended.stderr


def test_only_selects_one_experiment(clone: Clone) -> None:
    words = ("--dry", "lab", "6", "--runtime", "venv", "--only")
    planned = clone.invoke(*words, EXPERIMENTS[0])
    assert planned.code == 0, planned
    assert planned.out.rstrip().endswith(f"-m labs LLM06 --only {EXPERIMENTS[0]}")
    assert clone.invoke(*words, "no_such_experiment").code == 2


def test_every_option_that_the_launcher_does_not_handle_reaches_the_labs() -> None:
    """A new option of the labs only needs the signature and the help of `lab`."""
    names = set(inspect.signature(tasks.lab.body).parameters)
    parsed = common_parser("test").parse_args([])
    assert names - set(tasks.LAUNCHER_OPTIONS) <= set(vars(parsed))
    assert set(tasks.lab.help) == names - {"c"}


@pytest.mark.usefixtures("lab_environment")
def test_words_after_the_dashes_reach_the_lab_unchanged(shared_clone: Clone) -> None:
    lab = shared_clone.bare_lab("print(json.dumps([arguments, common.seed]))", "LLM94")
    ended = shared_clone.invoke("lab", lab, "--runtime", "venv", "--seed", "5", "--", *AWKWARD)
    assert ended.code == 0, ended
    assert ended.out.startswith("["), ended
    arguments, seed = json.loads(ended.out)
    assert arguments == AWKWARD
    assert seed == 5


@pytest.mark.engine
def test_words_after_the_dashes_reach_a_lab_in_a_container_unchanged(clone: Clone) -> None:
    lab = clone.bare_lab("print(json.dumps(arguments))")
    ended = clone.invoke("lab", lab, "--runtime", "docker", "--", *AWKWARD)
    assert ended.code == 0, ended
    assert ended.out.startswith("["), ended
    assert json.loads(ended.out)[-len(AWKWARD) :] == AWKWARD


def test_tasks_work_from_a_subfolder(clone: Clone) -> None:
    (clone.path / "below").mkdir()
    lab = clone.bare_lab("pass")
    words = f"cd below && '{BIN / 'invoke'}' --dry lab {lab} --runtime venv"
    ended = clone.run("bash", "-c", words)
    assert ended.code == 0, ended
    assert f"cd {clone.path} &&" in ended.out


def test_invoke_test_returns_the_exit_code_of_pytest(clone: Clone) -> None:
    (clone.path / "tests").mkdir()
    (clone.path / "tests" / "test_one.py").write_text("def test_one():\n    assert 1 == 2\n")
    ended = clone.invoke("test", "--", "-q", "-k", "one")
    assert ended.code == 1, ended
    assert "1 failed" in ended.out
    assert clone.invoke("test", "--", "-k", "nosuchtest").code == 5


# The README and the pages in docs/


def commands(part: str) -> list[str]:
    """Return the lines of the README's shell blocks below a heading."""
    text = README.read_text(encoding="utf-8").split(f"\n## {part}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_ci_runs_exactly_the_test_command_of_the_readme() -> None:
    command = commands("Tests")[0]
    assert "invoke test" in command
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.rstrip().splitlines()[-1] == command


def test_the_first_command_of_the_readme_creates_an_environment_and_runs_a_lab() -> None:
    (command,) = commands("Your first lab")
    made, installed, ran = command.split(" && ")
    assert made == "python3 -m venv .venv"
    assert installed == ".venv/bin/pip install -e ."
    assert ran == ".venv/bin/invoke lab LLM06"


def test_every_lab_command_of_the_documentation_is_valid(clone: Clone) -> None:
    """Run the commands of the tables with --dry."""
    shown = re.findall(r"^\| `invoke (lab [^`]*)` \|", DOCUMENTATION, re.MULTILINE)
    assert len(shown) >= 3
    for line in shown:
        words = [word for word in line.split() if word != "…"]
        ended = clone.invoke("--dry", *words, DOCKER_HOST="unix:///nonexistent")
        assert ended.code == 0, (line, ended)


def test_every_exercise_command_of_the_documentation_is_valid(clone: Clone) -> None:
    """Run the commands of learn and progress, and those of check with --dry."""
    pattern = r"^\| `invoke ((?:learn|check|progress)[^`]*)` \|"
    shown = re.findall(pattern, DOCUMENTATION, re.MULTILINE)
    assert {line.split()[0] for line in shown} == {"learn", "check", "progress"}
    (clone.path / "class" / "ada" / "work" / "progress").mkdir(parents=True)
    for line in sorted(shown, key=lambda line: "learn" not in line):
        dry = ["--dry"] if line.startswith("check") else []
        ended = clone.invoke(*dry, *line.split(), DOCKER_HOST="unix:///nonexistent")
        assert ended.code == 0, (line, ended)


def test_every_variable_of_the_documentation_is_used() -> None:
    named = set(re.findall(r"LABS_[A-Z_]+", DOCUMENTATION))
    read = "".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "compose.yaml", *(ROOT / "launcher").rglob("*.py"),
                     *(ROOT / "labs").rglob("*.py"))
    )  # fmt: skip
    assert named
    assert not {name for name in named if name not in read}


def test_shellcheck_passes_for_the_ci_script() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    checker = BIN / "shellcheck"
    checked = subprocess.run([str(checker), str(script)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_the_lock_supports_this_python() -> None:
    assert (3, 11) <= sys.version_info[:2] <= (3, 13)
