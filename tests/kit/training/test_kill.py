"""The kill test: a training that is killed again and again ends as the one that never was."""

import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import Clone
from tests.kit.trainings import DAMAGES, TRAINS, Training, began, damage

import pytest

ROOM = 4 * 2**20  # bytes of the disk that is filled


@pytest.fixture
def training(clone: Clone) -> Training:
    clone.kit_lab(TRAINS)
    return Training(clone)


@pytest.fixture
def small_disk(clone: Clone, root: None) -> Iterator[Path]:  # noqa: ARG001
    """outputs/ on a disk of its own, of 4 MiB."""
    clone.outputs.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(clone.outputs)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield clone.outputs
    subprocess.run(["umount", "--lazy", str(clone.outputs)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Fill a disk, but for so many bytes; what was being written when it was killed makes room."""
    for part in disk.glob("*/checkpoints/*/.part"):
        shutil.rmtree(part)
    room = shutil.disk_usage(disk).free
    (disk / "filler").write_bytes(bytes(room - leave))
    return disk / "filler"


def never_killed(training: Training, *more: str) -> tuple[bytes, list[dict]]:
    """The same training elsewhere, from beginning to end."""
    ended = training.run("--outputs", "whole", *more)
    assert ended.code == 0, ended
    whole = Training(training.clone, folder="whole").found()
    assert not list(whole[2].glob("checkpoints")), "what nobody needs any more is gone"
    return whole[0], whole[1]


def assert_same(training: Training, whole: tuple[bytes, list[dict]]) -> None:
    weights, experiments, _ = training.found()
    assert experiments == whole[1], "each loss, each learning rate"
    assert weights == whole[0], "each bit"
    assert not (training.runs / "checkpoints").exists()


@pytest.mark.parametrize("words", [("--loader",), ("--processes", "2")])
def test_killed_three_times_it_ends_with_the_same_bits(
    training: Training, words: tuple[str, ...]
) -> None:
    training.words = words
    whole, dice = never_killed(training), random.Random(str(words))
    begun = [began(training.kill_at_random(dice, 3, 7)) for _ in range(3)]
    ended = training.run()
    assert ended.code == 0, ended
    begun.append(began(ended.out))
    assert begun == sorted(begun) and begun[0] == 0 < begun[-1], begun
    assert_same(training, whole)


def test_a_full_disk_is_told_and_loses_nothing(training: Training, small_disk: Path) -> None:
    training.words = ("--steps", "200", "--width", "64")
    whole = never_killed(training)
    training.kill_at(10)
    before = [one.name for one in training.snapshots]
    steps = [int(name.removeprefix("step-")) for name in before]
    last = steps[-1]
    assert len(steps) >= 2 and last >= 9, "9, or later: it goes on while it is being killed"
    for leave in (50_000, 300_000):  # not the weights' bytes; those, but not the optimizer's
        filler = fill(small_disk, leave)
        running = training.start()
        running.wait_for("No space is left there. The training goes on.")
        running.wait_for(f"the last checkpoint is of step {last}")
        running.wait_for(f"step {last + 5}\n")
        os.kill(running.process.pid, signal.SIGKILL)
        assert f"goes on after step {last}," in running.text
        running.ended()
        assert [one.name for one in training.snapshots] == before, leave
        filler.unlink()
    filler = fill(small_disk, 50_000)
    running = training.start()
    running.wait_for("No space is left there")
    filler.unlink()
    assert running.ended().code == 0, running.text
    assert_same(training, whole)


@pytest.mark.slow
def test_killed_twenty_times_it_ends_with_the_same_bits(
    training: Training, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training.words = ("--loader", "--steps", "400", "--width", "64")
    dice, log = random.Random(0), []
    whole = never_killed(training)
    for kill in range(1, 21):
        happened, filler = "", None
        if kill % 7 == 0:
            filler, happened = fill(small_disk, 50_000), "the disk was full"
        elif kill % 4 == 0 and training.snapshots:
            how = DAMAGES[kill // 4 - 1]
            damage(training.snapshots[-1], how)
            happened = f"its newest checkpoint had {how}"
        text = training.kill_at_random(dice, 5 if filler else 1, 15)
        assert ("No space is left there" in text) == (filler is not None), text
        assert ("is damaged" in text) == happened.startswith("its"), text
        if filler:
            filler.unlink()
        last = re.findall(r"^step (\d+)$", text, re.MULTILINE)[-1]
        line = f"kill {kill:2}: began at step {began(text):3}, killed in step {int(last) + 1:3}"
        log.append(f"{line}; {happened}".rstrip("; "))
    ended = training.run()
    log.append(f"then it began at step {began(ended.out)}, and came to its end with {ended.code}")
    with capsys.disabled():
        print("", *log, sep="\n")
    assert ended.code == 0, ended
    assert_same(training, whole)
