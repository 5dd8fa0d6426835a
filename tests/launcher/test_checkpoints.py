"""The last words of an interrupted run: whether it saved a checkpoint, and how to go on."""

import os
import signal
import time
from pathlib import Path

from launcher.run import checkpoints
from tests.conftest import Clone

import pytest

COMMAND = "invoke lab LLM08 -- --dataset work/faq.csv"


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoints, "outputs_folders", lambda: [tmp_path])
    return tmp_path


def save(outputs: Path, lab: str, name: str, seconds_ago: float) -> None:
    folder = outputs / lab / "checkpoints" / "smollm2-1" / name
    folder.mkdir(parents=True)
    then = time.time() - seconds_ago
    os.utime(folder, (then, then))


def words(started: float) -> str:
    return checkpoints.last_words(("LLM08",), started, COMMAND)


def test_a_new_checkpoint_is_named_with_the_command_that_goes_on(outputs: Path) -> None:
    save(outputs, "LLM08", "step-00000017", seconds_ago=5000)
    save(outputs, "LLM08", "step-00001024", seconds_ago=1)
    expected = f"A checkpoint of step 1,024 was saved. This goes on from it:\n  {COMMAND}"
    assert words(time.time() - 60) == expected


def test_an_older_checkpoint_is_not_called_new(outputs: Path) -> None:
    save(outputs, "LLM08", "step-00000017", seconds_ago=5000)
    said = words(time.time() - 60)
    assert said.startswith("No checkpoint was saved. An earlier one, of step 17, is from 20")
    assert said.endswith(COMMAND)


def test_without_a_checkpoint_the_command_starts_over(outputs: Path) -> None:
    save(outputs, "LLM10", "step-00000017", seconds_ago=1)
    save(outputs, "LLM08", "step-part", seconds_ago=1)
    assert words(0) == f"No checkpoint was saved. This starts over:\n  {COMMAND}"


SAVES = """
print("begun")
def save(*_):
    import sys
    OUTPUTS.joinpath("LLM91/checkpoints/it/step-00000024").mkdir(parents=True)
    sys.exit(130)
signal.signal(signal.{number}, save)
signal.signal(signal.{other}, signal.SIG_IGN)
wait_for("never")
"""


@pytest.mark.usefixtures("lab_environment")
def test_ctrl_c_on_a_terminal_ends_with_the_command_that_was_typed(shared_clone: Clone) -> None:
    """The lab obeys Ctrl-C alone, not the TERM that the launcher would send."""
    lab = shared_clone.bare_lab(SAVES.format(number="SIGINT", other="SIGTERM"))
    typed = ("lab", lab, "--runtime", "venv", "--", "--word", "my words")
    running = shared_clone.start_invoke(*typed, terminal=(24, 100))
    running.wait_for("begun")
    running.type(b"\x03")
    assert running.ended().code == 130, running.text
    last = running.text.splitlines()[-2:]
    assert last[0] == "A checkpoint of step 24 was saved. This goes on from it:"
    assert last[1] == f"  invoke lab {lab} --runtime venv -- --word 'my words'"


@pytest.mark.engine
def test_an_interrupted_container_ends_with_the_command_that_was_typed(clone: Clone) -> None:
    lab = clone.bare_lab(SAVES.format(number="SIGTERM", other="SIGINT"))
    running = clone.start_invoke("lab", lab, "--runtime", "docker")
    running.wait_for("begun")
    running.send(signal.SIGINT)
    ended = running.ended()
    assert ended.code == 130, ended
    assert "A training saves a checkpoint first." in ended.err
    assert ended.err.endswith(f"it:\n  invoke lab {lab} --runtime docker\n")


def test_a_job_s_checkpoint_is_one_that_it_used_last(outputs: Path) -> None:
    save(outputs, "LLM10", "step-00001373", seconds_ago=1)
    folder = outputs / "LLM10" / "checkpoints" / "smollm2-1"
    for note in ("process 7 on n1\n", "process 7 on n1\nsbatch /other.sbatch", "\xff"):
        (folder / ".lock").write_text(note, encoding="latin-1")
        assert checkpoints.newest_step_of_job("sbatch /mine.sbatch") is None
    (folder / ".lock").write_text("process 7 on n1\nsbatch /mine.sbatch")
    assert checkpoints.newest_step_of_job("sbatch /mine.sbatch") == 1373


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ("sbatch /other.sbatch", "No checkpoint was saved. This starts over:"),
        ("sbatch /mine.sbatch", "The last checkpoint is of step 17. This goes on from it:"),
    ],
)
def test_an_interrupted_job_does_not_claim_the_checkpoint_of_another(
    outputs: Path, job: str, says: str
) -> None:
    save(outputs, "LLM08", "step-00000017", seconds_ago=1)
    lock = outputs / "LLM08" / "checkpoints" / "smollm2-1" / ".lock"
    lock.write_text(f"process 7 on n1\n{job}")
    last = checkpoints.last_words_in_job("sbatch /mine.sbatch")
    assert last == f"{says}\n  sbatch /mine.sbatch"
