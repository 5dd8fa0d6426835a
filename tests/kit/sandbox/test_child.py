"""The sandbox: the parent always learns how a child ended, and no process of it is left."""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from labs.kit.sandbox import child, landlock, syscalls
from labs.kit.sandbox.limits import Limits

import psutil
import pytest

LITTLE = Limits(cpu_seconds=1, seconds=20, memory=2**28, processes=8, output=2**16)


def loops() -> None:
    while True:
        pass


def sleeps() -> None:
    time.sleep(1000)


def computes_for_a_second() -> str:
    """Compute on the core that the rivals also use."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    while time.process_time() < 1:
        pass
    return "done"


def forks_without_end() -> None:
    while True:
        os.fork()


def starts_sessions_without_end() -> None:
    while True:
        if os.fork() == 0:
            os.setsid()
            time.sleep(1000)


def prints_without_end() -> None:
    while True:
        print("x" * 1000)


def crashes() -> None:
    ctypes.string_at(0)


def takes_memory() -> str:
    try:
        return str(len(bytearray(10 * 2**30)))
    except MemoryError:
        return "refused"


@pytest.mark.parametrize(
    ("task", "limits", "kind", "code"),
    [
        (loops, LITTLE, "time", signal.SIGXCPU),
        (sleeps, Limits(seconds=0.5), "time", None),
        (forks_without_end, LITTLE, "processes", None),
        (starts_sessions_without_end, LITTLE, "processes", None),
        (prints_without_end, LITTLE, "output", None),
        (crashes, LITTLE, "killed", signal.SIGSEGV),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), LITTLE, "killed", signal.SIGKILL),
        (lambda: os._exit(0), LITTLE, "exited", 0),
        (lambda: os._exit(7), LITTLE, "exited", 7),
        (lambda: sys.exit(), LITTLE, "exited", 1),
        (lambda: os.closerange(0, 1000), LITTLE, "exited", 1),
        (lambda: object(), LITTLE, "exited", 1),
    ],
)
def test_a_child_that_returns_nothing_is_reported_with_the_reason(
    task: Callable[[], Any], limits: Limits, kind: str, code: int | None
) -> None:
    outcome = child.run(task, limits)
    assert outcome.kind == kind, outcome
    assert outcome.result is None
    if code is not None:
        assert outcome.code == code
    deadline = time.monotonic() + 60
    while _forks() and time.monotonic() < deadline:
        time.sleep(0.05)  # a killed process takes a moment
    assert not _forks(), "a process was left"


def _forks() -> list[psutil.Process]:
    """Return the forks of this process that still run, also those that have lost their parent."""
    ours = psutil.Process()
    siblings = set(ours.parent().children()) - {ours}  # with -n, other processes that run tests
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            family = {process, *process.parents()}
            if process.cmdline() == ours.cmdline() and process != ours and not family & siblings:
                found.append(process)
    return found


def test_a_result_is_returned_with_the_output() -> None:
    outcome = child.run(lambda: [print("said", end=""), 1, "ä"][1:], LITTLE)
    assert (outcome.kind, outcome.result, outcome.output) == ("returned", [1, "ä"], "said")


def test_a_result_larger_than_a_pipe_is_complete() -> None:
    outcome = child.run(lambda: "x" * 300_000, Limits())
    assert outcome.result == "x" * 300_000


def test_a_child_that_is_refused_memory_goes_on() -> None:
    assert child.run(takes_memory, LITTLE).result == "refused"
    assert child.run(lambda: len(bytearray(2**26)), LITTLE).result == 2**26


def test_the_trace_shows_where_a_child_was_stopped() -> None:
    for task in (loops, sleeps):
        trace = child.run(task, Limits(cpu_seconds=1, seconds=3)).trace
        line = task.__code__.co_firstlineno
        assert f'test_child.py", line {line + 1} in {task.__name__}' in trace or (
            f'test_child.py", line {line + 2} in {task.__name__}' in trace
        ), trace


def test_a_child_has_no_terminal_no_input_and_its_own_process_group() -> None:
    def look() -> list[Any]:
        return [os.isatty(0), sys.stdin.read(), os.getpgrp() == os.getpid()]

    assert child.run(look, LITTLE).result == [False, "", True]


def test_a_child_is_ended_when_stop_says_so() -> None:
    started = time.monotonic()
    limits = Limits(seconds=1000)
    outcome = child.run(sleeps, limits, stop=lambda: time.monotonic() > started + 0.2)
    assert outcome.kind == "stopped"


def test_a_process_that_a_child_leaves_running_is_ended_with_it() -> None:
    def leaves_one() -> int:
        child = os.fork()
        if child == 0:
            time.sleep(1000)
        return child

    left = Path(f"/proc/{child.run(leaves_one, LITTLE).result}")
    deadline = time.monotonic() + 60
    while left.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left.exists()


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
def test_a_child_can_write_temporary_files_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "folder").mkdir()

    def attempt(change: Callable[[], Any]) -> str:
        try:
            change()
        except OSError as error:
            return error.strerror or ""
        return "worked"

    def attempt_all() -> list[str]:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("temporary")
        Path(os.devnull).write_text("gone")
        refused = (
            lambda: (tmp_path / "kept").unlink(),
            lambda: (tmp_path / "kept").write_text("lost"),
            lambda: os.truncate(tmp_path / "kept", 0),
            lambda: (tmp_path / "new").touch(),
            lambda: (tmp_path / "folder").rmdir(),
            lambda: (tmp_path / "kept").rename(tmp_path / "moved"),
            lambda: subprocess.run(["touch", tmp_path / "new"], check=True, capture_output=True),
        )
        found = []
        for change in refused:
            try:
                found.append(attempt(change))
            except subprocess.CalledProcessError:
                found.append("Permission denied")
        return found

    outcome = child.run(attempt_all, LITTLE)
    assert outcome.result == ["Permission denied"] * 7, outcome
    assert (tmp_path / "kept").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "kept"]
    assert child.run(lambda: tempfile.mkdtemp(), LITTLE).result.startswith(tempfile.gettempdir())


def test_the_temporary_files_of_a_child_are_removed() -> None:
    def leaves() -> str:
        folder = Path(tempfile.mkdtemp())
        (folder / "large").write_text("x" * 1000)
        return str(folder)

    assert not Path(child.run(leaves, LITTLE).result).exists()


def test_a_busy_machine_is_not_taken_for_an_endless_loop() -> None:
    """Beside four rivals on its core, a second of computing takes longer than the time limit."""
    core = min(os.sched_getaffinity(0))
    rival = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    rivals = [subprocess.Popen([sys.executable, "-c", rival]) for _ in range(4)]
    try:
        outcome = child.run(computes_for_a_second, Limits(cpu_seconds=10, seconds=1.5))
    finally:
        for process in rivals:
            process.kill()
            process.wait()
    assert outcome.result == "done", outcome


def test_a_process_adopts_no_orphans_after_the_sandbox() -> None:
    assert not syscalls.adopts_orphans()
    assert child.run(lambda: syscalls.adopts_orphans(), LITTLE).result is True
    assert not syscalls.adopts_orphans(), "an orphan would stay as a zombie"
