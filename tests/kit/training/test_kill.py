"""A training that is killed again and again ends with the weights of an uninterrupted one."""

import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import Clone
from tests.kit.training.trainings import (
    DAMAGES,
    OPTIONS,
    TRAINS,
    Finished,
    Training,
    damage,
    first_step,
)

import pytest

DISK = 4 * 2**20  # bytes


@pytest.fixture
def training(clone: Clone) -> Training:
    clone.kit_lab(TRAINS, options=OPTIONS)
    return Training(clone)


@pytest.fixture
def small_disk(clone: Clone, root: None) -> Iterator[Path]:  # noqa: ARG001
    """Mount a disk of 4 MiB as outputs/."""
    clone.outputs.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(clone.outputs)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield clone.outputs
    subprocess.run(["umount", "--lazy", str(clone.outputs)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Fill a disk, leaving some bytes; an unfinished checkpoint is removed first."""
    for part in disk.glob("*/checkpoints/*/.part"):
        shutil.rmtree(part)
    room = shutil.disk_usage(disk).free
    (disk / "filler").write_bytes(bytes(room - leave))
    return disk / "filler"


def run_uninterrupted(training: Training) -> Finished:
    """Run the same training in another folder, from start to end."""
    ended = training.run("--outputs", "uninterrupted")
    assert ended.code == 0, ended
    finished = Training(training.clone, folder="uninterrupted").finished()
    assert not list(finished.runs.glob("checkpoints")), "the end removes them"
    return finished


def assert_same(training: Training, uninterrupted: Finished) -> None:
    finished = training.finished()
    assert finished.experiments == uninterrupted.experiments, "each loss, each learning rate"
    assert finished.weights == uninterrupted.weights, "each bit"
    assert not (training.runs / "checkpoints").exists()


# Slurm's tests stop and resume a training of two processes; here it is killed by hand.
@pytest.mark.parametrize(
    "words", [("--loader",), pytest.param(("--processes", "2"), marks=pytest.mark.slow)]
)
def test_killed_twice_it_ends_with_the_same_bits(
    training: Training, words: tuple[str, ...]
) -> None:
    training.words = words
    uninterrupted = run_uninterrupted(training)
    dice = random.Random(str(words))
    starts = [first_step(training.kill_at_random(dice, 3, 7)) for _ in range(2)]
    ended = training.run()
    assert ended.code == 0, ended
    starts.append(first_step(ended.out))
    assert starts == sorted(starts), starts
    assert starts[0] == 0 < starts[-1], starts
    assert_same(training, uninterrupted)


def test_a_full_disk_is_reported_and_loses_nothing(training: Training, small_disk: Path) -> None:
    training.words = ("--steps", "200", "--width", "64")
    uninterrupted = run_uninterrupted(training)
    training.kill_at(10)
    before = [one.name for one in training.snapshots]
    steps = [int(name.removeprefix("step-")) for name in before]
    last = steps[-1]
    assert len(steps) >= 2
    assert last >= 9, "9 or later: the training continues until the signal arrives"
    # Enough for neither the weights nor the optimizer; enough for the weights alone.
    for leave in (50_000, 300_000):
        filler = fill(small_disk, leave)
        running = training.start()
        running.wait_for("The disk is full. The training continues.")
        running.wait_for(f"the last checkpoint is of step {last}")
        running.wait_for(f"step {last + 5}\n")
        os.kill(running.process.pid, signal.SIGKILL)
        assert f"resumes after step {last}," in running.text
        running.ended()
        assert [one.name for one in training.snapshots] == before, leave
        filler.unlink()
    filler = fill(small_disk, 50_000)
    running = training.start()
    running.wait_for("The disk is full.")
    filler.unlink()
    assert running.ended().code == 0, running.text
    assert_same(training, uninterrupted)


@pytest.mark.slow
def test_killed_twenty_times_it_ends_with_the_same_bits(
    training: Training, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training.words = ("--loader", "--steps", "400", "--width", "64")
    dice = random.Random(0)
    log = []
    uninterrupted = run_uninterrupted(training)
    for kill in range(1, 21):
        happened = ""
        filler = None
        if kill % 7 == 0:
            filler = fill(small_disk, 50_000)
            happened = "the disk was full"
        elif kill % 4 == 0 and training.snapshots:
            how = DAMAGES[kill // 4 - 1]
            damage(training.snapshots[-1], how)
            happened = f"its newest checkpoint had {how}"
        text = training.kill_at_random(dice, 5 if filler else 1, 15)
        assert ("The disk is full." in text) == (filler is not None), text
        assert ("is damaged" in text) == happened.startswith("its"), text
        if filler:
            filler.unlink()
        last = re.findall(r"^step (\d+)$", text, re.MULTILINE)[-1]
        line = (
            f"kill {kill:2}: started at step {first_step(text):3}, killed in step {int(last) + 1:3}"
        )
        log.append(f"{line}; {happened}".rstrip("; "))
    ended = training.run()
    log.append(
        f"then it started at step {first_step(ended.out)} and ended with exit code {ended.code}"
    )
    with capsys.disabled():
        print("", *log, sep="\n")
    assert ended.code == 0, ended
    assert_same(training, uninterrupted)
