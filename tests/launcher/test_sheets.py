"""`invoke learn`, `check` and `progress`, in both runtimes."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from labs.kit.sandbox import landlock
from tests.conftest import BIN, SOMEBODY, Clone, as_user, containers_of

import pytest

SENTINEL = "raise NotImplementedError  # yours to write"
# Hostile bodies of functions, and the message for each.
HOSTILE = {
    '__import__("os")._exit(0)': "it ended Python itself with code 0",
    "return torch.empty(10 * 2**30, dtype=torch.uint8)": "more memory than its limit of 2 GiB",
    'while True: __import__("os").fork()': "it started more than",
    "while True: pass": "is there an endless loop?",
    '__import__("shutil").rmtree("work")': "and change temporary files",
    'while True: print("x" * 99)': "printed more than 1 MiB",
}


def with_bodies(sheet: str, bodies: list[str]) -> str:
    """Return the sheet with these bodies for its first exercises."""
    for body in bodies:
        assert SENTINEL in sheet
        sheet = sheet.replace(SENTINEL, body, 1)
    return sheet


def new_sheet(clone: Clone) -> Path:
    """Write the sheet of LLM06 and return its path."""
    ended = clone.invoke("learn", "LLM06")
    assert ended.code == 0, ended
    return clone.path / "work" / "llm06_attention.py"


@pytest.fixture
def in_the_environment(shared_clone: Clone, lab_environment: Path) -> Iterator[Clone]:
    assert lab_environment.is_dir()
    yield shared_clone
    shutil.rmtree(shared_clone.path / "work", ignore_errors=True)


def check_hostile(clone: Clone, runtime: str) -> None:
    """Check sheets with hostile bodies; a sheet has room for as many as LLM06 has exercises."""
    sheet = new_sheet(clone)
    unwritten = sheet.read_text(encoding="utf-8")
    exercises = unwritten.count(SENTINEL)
    assert exercises >= 2
    bodies = list(HOSTILE)
    for start in range(0, len(bodies), exercises):
        written = bodies[start : start + exercises]
        text = with_bodies(unwritten, written)
        sheet.write_text(text, encoding="utf-8")
        ended = clone.invoke("check", "LLM06", "--all", "--runtime", runtime)
        assert ended.code == 1, ended
        for body in written:
            assert HOSTILE[body] in ended.out, (body, ended)
        assert sheet.read_text(encoding="utf-8") == text, "the sheet is unchanged"
        assert "Traceback" not in ended.err
        progress = json.loads((clone.path / "work" / "progress" / "LLM06.json").read_text())
        tries = [part["tries"] for part in progress["parts"].values()]
        assert sum(tries) == start + len(written), "each body is one try"


@pytest.mark.engine
def test_hostile_code_is_stopped_and_explained_in_a_container(clone: Clone) -> None:
    check_hostile(clone, "docker")
    assert containers_of(clone) == []


def test_hostile_code_is_stopped_and_explained_in_an_environment(
    in_the_environment: Clone,
) -> None:
    if not landlock.version():
        pytest.skip("this kernel has no Landlock, which alone protects files here")
    check_hostile(in_the_environment, "venv")


def test_check_without_a_sheet_starts_nothing(clone: Clone) -> None:
    ended = clone.invoke("check", "LLM06")
    assert ended.code == 2, ended
    assert "There is no sheet of LLM06." in ended.err and "invoke learn LLM06" in ended.err
    assert "stack" not in ended.err
    assert not (clone.path / "outputs").exists()


def test_an_unknown_exercise_starts_nothing(clone: Clone) -> None:
    new_sheet(clone)
    ended = clone.invoke("check", "LLM06", "--solution", "forward")
    assert ended.code == 2, ended
    assert "LLM06 has no exercise 'forward'" in ended.err
    assert "fix: invoke check LLM06 --solution MultiHeadAttention.forward" in ended.err
    assert "stack" not in ended.err


def test_flags_of_check_are_passed_on_unchanged(clone: Clone) -> None:
    new_sheet(clone)
    for flags, words in (
        (("--hint",), "check LLM06 --hint"),
        (("--hint", "masked_softmax", "--all"), "check LLM06 --all --hint masked_softmax"),
        (("--watch",), "check LLM06 --watch"),
        (("--solution=masked_softmax",), "check LLM06 --solution masked_softmax"),
    ):
        ended = clone.invoke("--dry", "check", "6", *flags, "--runtime", "venv")
        assert ended.code == 0, ended
        assert ended.out.rstrip().endswith(f"-m labs {words}"), ended


def test_a_handout_is_written_relative_to_the_current_folder(clone: Clone) -> None:
    (clone.path / "below").mkdir()
    words = f"cd below && '{BIN / 'invoke'}' learn all --handout mine"
    ended = clone.run("bash", "-c", words)
    assert ended.code == 0, ended
    assert (clone.path / "below" / "mine" / "llm06_attention.py").is_file()
    assert list((clone.path / "work").iterdir()) == []


def test_progress_needs_no_container_and_no_environment(clone: Clone) -> None:
    ended = clone.invoke("progress", DOCKER_HOST="unix:///nonexistent")
    assert ended.code == 0, ended
    assert re.search(r"LLM06\b.* 0 of \d", ended.out), ended
    assert "Next: invoke learn" in ended.out


@pytest.mark.engine
def test_check_watch_in_a_container_writes_files_of_the_owner(
    clone: Clone, socket_group: int
) -> None:
    """As an ordinary user at a terminal: press a key, save, read the result, press Ctrl-C."""
    clone.give_to(SOMEBODY)
    user = as_user(SOMEBODY, socket_group)
    made = clone.invoke("learn", "LLM06", user=user, HOME=str(clone.path))
    assert made.code == 0, made
    sheet = clone.path / "work" / "llm06_attention.py"
    how = {"terminal": (40, 100), "TERM": "xterm", "user": user, "HOME": str(clone.path)}
    running = clone.start_invoke("check", "LLM06", "--watch", "--runtime", "docker", **how)
    running.wait_for("q quit")
    running.type(b"h")
    running.wait_for("hint 2")
    text = sheet.read_text(encoding="utf-8")
    sheet.write_text(text.replace(SENTINEL, "return scores.softmax(-1)", 1), encoding="utf-8")
    running.wait_for("✗ masked_softmax")
    running.wait_for(lambda: running.text.count("watching") == 2)
    shutil.copyfile(clone.path / "labs" / "llm06_attention" / "lesson.py", sheet)
    running.wait_for("All of LLM06's exercises are right")
    running.wait_for(lambda: running.text.count("watching") == 3)
    running.type(b"\x03")
    assert running.ended().code == 130, running.text
    assert {one.stat().st_uid for one in (clone.path / "work").rglob("*")} == {SOMEBODY}
    assert containers_of(clone) == []


GUESS = '''
@lab.experiment
def one(run: Run):
    """One is one.

    Predict: how much is it?
    """
    run.check("one", 1, equals=1)
'''


@pytest.mark.engine
def test_a_guess_can_be_typed_into_a_container(clone: Clone) -> None:
    lab = clone.kit_lab(GUESS)
    how = {"terminal": (40, 100), "TERM": "xterm", "CI": None}
    running = clone.start_invoke("lab", lab, "--runtime", "docker", **how)
    running.wait_for("your guess (Enter skips):")
    running.type("zwölf\n".encode())
    assert running.ended().code == 0, running.text
    (found,) = clone.outputs.glob("LLM90/*/results.json")
    assert json.loads(found.read_text())["guesses"] == {"one": "zwölf"}
    assert running.text.count("zwölf") == 2, "once as echo, once as output"


@pytest.mark.engine
def test_ctrl_c_ends_a_container_that_waits_for_a_guess(clone: Clone) -> None:
    lab = clone.kit_lab(GUESS)
    how = {"terminal": (40, 100), "TERM": "xterm", "CI": None}
    running = clone.start_invoke("lab", lab, "--runtime", "docker", **how)
    running.wait_for("your guess (Enter skips):")
    running.type(b"\x03")
    assert running.ended().code == 130, running.text
    assert containers_of(clone) == []
