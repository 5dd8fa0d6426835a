"""Which checkpoint a training resumes from, and what it reports about the others."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from common.cards import Card
from tests.kit.training.trained import STEPS, Trained, all_in, steps
from tests.kit.training.trainings import DAMAGES, damage

import pytest


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_loaded(
    tmp_path: Path, uninterrupted: Trained, how: str
) -> None:
    Trained(tmp_path, 7)
    assert steps(tmp_path) == [4, 6]
    damage(all_in(tmp_path)[-1], how)
    resumed = Trained(tmp_path)
    assert resumed.done == 4
    assert "step-00000006 is damaged" in resumed.output
    assert (resumed.weights, resumed.curve) == (uninterrupted.weights, uninterrupted.curve)


def test_with_only_damaged_checkpoints_a_training_starts_over(
    tmp_path: Path, uninterrupted: Trained
) -> None:
    Trained(tmp_path, 7)
    for one in all_in(tmp_path):
        damage(one, DAMAGES[0])
    resumed = Trained(tmp_path)
    assert (resumed.done, resumed.weights) == (0, uninterrupted.weights)


def test_a_half_written_checkpoint_is_ignored_and_removed(tmp_path: Path) -> None:
    Trained(tmp_path, 5)
    newest = all_in(tmp_path)[-1]
    newest.rename(newest.parent / ".part")
    assert Trained(tmp_path).done == 2
    assert not list(tmp_path.glob("checkpoints/*/.part"))


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"depends_on": {"width": 9}}, "width was nothing and is 9"),
        ({"depends_on": {"data": "x" * 64}}, "data has changed"),
    ],
)
def test_a_training_that_depends_on_something_else_starts_over(
    tmp_path: Path, other: dict[str, Any], difference: str
) -> None:
    Trained(tmp_path, 5)
    anew = Trained(tmp_path, 3, **other)
    assert anew.done == 0
    assert difference in anew.output.replace("\n", " ")
    assert Trained(tmp_path).done == 4, "a checkpoint that doesn't fit stays"
    with pytest.raises(Card, match="don't fit") as caught:
        Trained(tmp_path, resume=True, depends_on={"width": 10})
    assert "width was" in caught.value.why


def test_checkpoints_of_another_training_are_not_mentioned(tmp_path: Path) -> None:
    Trained(tmp_path, 5, name="seed 1")
    other = Trained(tmp_path, 5, name="seed 10", resume=True)
    assert (other.done, other.output) == (0, "")


def test_checkpoints_of_another_machine_are_loaded_with_resume(tmp_path: Path) -> None:
    Trained(tmp_path, 5, depends_on={"threads": 96})
    assert Trained(tmp_path, 0, depends_on={"threads": 2}).done == 0
    resumed = Trained(tmp_path, resume=True, depends_on={"threads": 2})
    assert resumed.done == 4
    assert "not bit for bit" in resumed.output
    assert "threads was 96 and is 2" in resumed.output


def test_a_dependency_that_is_not_json_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        Trained(tmp_path, depends_on={"config": object()})


LOCKS = """
import sys, pathlib
from labs.kit.training import checkpoint_folders
place = checkpoint_folders.lock(pathlib.Path(sys.argv[1]))
assert place
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_second_run_at_the_same_time_gets_another_folder(tmp_path: Path) -> None:
    Trained(tmp_path, 5).run.checkpoint_folders[0].lock.close()
    (folder,) = tmp_path.glob("checkpoints/*")
    command = [sys.executable, "-c", LOCKS, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"locked\n"
        holder = f"process {other.pid} on {socket.gethostname()}"
        with pytest.raises(Card, match="are in use") as caught:
            Trained(tmp_path, 3, resume=True)
        assert holder in caught.value.why
        second = Trained(tmp_path, 3)
        assert second.done == 0
        assert second.run.checkpoint_folders[0].folder.name == f"{folder.name}-2"
        output = second.output.replace("\n", "")
        assert f"starts over: {holder} has locked the checkpoints in {folder}" in output
        assert other.stdin
        other.stdin.close()
    assert Trained(tmp_path).done == 4


def test_without_checkpoints_the_run_of_another_process_is_not_mentioned(tmp_path: Path) -> None:
    Trained(tmp_path, 0)
    (folder,) = tmp_path.glob("checkpoints/*")
    command = [sys.executable, "-c", LOCKS, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"locked\n"
        assert Trained(tmp_path, 3).output == ""
        assert other.stdin
        other.stdin.close()


@pytest.mark.parametrize(
    ("until", "line"), [(4, "resumes after step 4, from"), (9, "already trained, 9 steps, from")]
)
def test_a_resumed_training_reports_its_step(tmp_path: Path, until: int, line: str) -> None:
    Trained(tmp_path, until, steps=STEPS).checkpoints.save(until)
    assert f"it: {line} its checkpoint" in Trained(tmp_path, until, steps=STEPS).output
