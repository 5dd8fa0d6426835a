"""Calls of one function in N processes: exit codes, arguments, and processes left behind."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common.options import Settings
from labs.kit.run.processes import group_size, rank, run_ranks
from tests.conftest import REPO, Running

import pytest

SECONDS_LATER = 0.3  # process 0 ends so long after process 1


def end_in_turn(folder: Path, codes: list[int]) -> int:
    """End process 1 first, process 0 shortly after it."""
    ending = folder / "ending"
    if rank() == 1:
        ending.touch()
    else:
        while not ending.exists():
            time.sleep(0.01)
        time.sleep(SECONDS_LATER)
    return codes[rank()]


def note_settings(folder: Path, settings: Settings) -> int:
    """Write the settings of this process into a file, as Python would show them."""
    (folder / str(rank())).write_text(repr(settings))
    return 0


def kill_itself(number: int) -> int:
    """End the last process by a signal; the others would wait for hours."""
    if rank() == group_size() - 1:
        os.kill(os.getpid(), number)
    time.sleep(3600)
    return 0


def raise_in_one() -> int:
    """Raise an error in process 0."""
    if rank() == 0:
        raise ValueError("an error of process 0")
    time.sleep(3600)
    return 0


def note_and_wait(folder: Path) -> int:
    """Write the number of this process into a file and wait for hours."""
    (folder / str(rank())).write_text(str(os.getpid()))
    time.sleep(3600)
    return 0


@pytest.mark.parametrize(("codes", "first"), [([9, 7], 7), ([9, 0], 9), ([0, 7], 7), ([0, 0], 0)])
def test_the_exit_code_is_that_of_the_first_process_that_fails(
    tmp_path: Path, codes: list[int], first: int
) -> None:
    assert run_ranks(2, end_in_turn, tmp_path, codes) == first


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_ended_by_a_signal_gives_128_and_the_signal(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr("labs.kit.run.processes.GRACE_SECONDS", 0.1)
    assert run_ranks(2, kill_itself, int(number)) == 128 + number
    assert multiprocessing.active_children() == []


def test_an_error_in_a_process_is_printed_and_gives_1(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("labs.kit.run.processes.GRACE_SECONDS", 0.1)
    assert run_ranks(2, raise_in_one) == 1
    assert "ValueError: an error of process 0" in capfd.readouterr().err


def test_every_process_gets_the_settings(tmp_path: Path) -> None:
    settings = Settings(size="small", seed=7, outputs=tmp_path, online=True, own=("mine",))
    assert run_ranks(3, note_settings, tmp_path, settings) == 0
    assert [(tmp_path / str(n)).read_text() for n in range(3)] == [repr(settings)] * 3


def note_group(folder: Path) -> int:
    """Write what torch reads of this process's group into a file."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    (folder / str(rank())).write_text(" ".join(os.environ[name] for name in names))
    return 0


def test_the_processes_of_a_node_join_those_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"LABS_NODE": "1", "LABS_NODES": "3", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4711"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert run_ranks(2, note_group, tmp_path) == 0
    assert (tmp_path / "2").read_text() == "2 0 6 2 10.0.0.1 4711"
    assert (tmp_path / "3").read_text() == "3 1 6 2 10.0.0.1 4711"


def test_the_environment_is_the_same_after_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = dict(os.environ)
    assert run_ranks(2, end_in_turn, tmp_path, [0, 0]) == 0
    assert dict(os.environ) == before


WAITS = """
import sys
from pathlib import Path
from labs.kit.run.processes import run_ranks
from tests.kit.run.test_run_ranks import note_and_wait

if __name__ == "__main__":
    sys.exit(run_ranks(2, note_and_wait, Path(sys.argv[1])))
"""
# The ranks import this module for some seconds before they can ask to end with their parent.
IMPORTS_SLOWLY = WAITS.replace("import sys\n", "import sys, time\ntime.sleep(1)\n", 1)


@pytest.fixture
def parent(tmp_path: Path) -> Callable[[str], Running]:
    """Return a function that starts a script which starts two ranks."""

    def start(code: str) -> Running:
        script = tmp_path / "parent.py"
        script.write_text(code)
        variables = {**os.environ, "PYTHONPATH": str(REPO)}
        return Running([sys.executable, str(script), str(tmp_path)], cwd=REPO, env=variables)

    return start


def group_of(running: Running) -> list[str]:
    """Return the command lines of the processes of a session that are alive."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (process / "stat").read_text().rpartition(")")[2].split()[:4]
            command = (process / "cmdline").read_text()
        except OSError:
            continue  # it has ended
        if int(session) == running.process.pid and state != "Z":
            found.append(command)
    return found


def wait_until_gone(running: Running) -> None:
    deadline = time.monotonic() + 60
    while (left := group_of(running)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left:
        os.killpg(running.process.pid, signal.SIGKILL)
    assert not left


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGKILL, -signal.SIGKILL),
        (signal.SIGTERM, 128 + signal.SIGTERM),  # the processes end by it, which a parent reports
        (signal.SIGINT, -signal.SIGINT),
    ],
)
def test_a_signal_that_ends_the_parent_ends_every_process(
    tmp_path: Path, parent: Callable[[str], Running], number: signal.Signals, code: int
) -> None:
    with parent(WAITS) as running:
        running.wait_for(lambda: (tmp_path / "0").exists() and (tmp_path / "1").exists())
        assert len(group_of(running)) >= 3
        running.send(number)
        ended = running.ended()
        assert ended.code == code, ended
        wait_until_gone(running)


def test_a_process_whose_parent_ended_during_its_imports_ends_too(
    tmp_path: Path, parent: Callable[[str], Running]
) -> None:
    with parent(IMPORTS_SLOWLY) as running:
        running.wait_for(lambda: sum("spawn_main" in one for one in group_of(running)) == 2)
        running.send(signal.SIGKILL)
        assert running.ended().code == -signal.SIGKILL
        wait_until_gone(running)
        assert not (tmp_path / "0").exists(), "the function isn't called"
