"""The fence: whatever a child does, its parent learns how it ended, and nothing of it is left."""

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

from labs.kit.grader import landlock, sandbox
from labs.kit.grader.sandbox import Limits

import pytest

LITTLE = Limits(cpu_seconds=1, seconds=20, memory=2**28, processes=8, output=2**16)


def loops() -> None:
    while True:
        pass


def sleeps() -> None:
    time.sleep(1000)


def computes_for_a_second() -> str:
    """On the core on which its rivals compute, too."""
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
    ("work", "limits", "how", "code"),
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
def test_a_child_that_does_not_answer_is_told_from_one_that_does(
    work: Callable[[], Any], limits: Limits, how: str, code: int | None
) -> None:
    ended = sandbox.run(work, limits)
    assert ended.how == how, ended
    assert ended.answer is None
    if code is not None:
        assert ended.code == code
    deadline = time.monotonic() + 60
    while _left() and time.monotonic() < deadline:
        time.sleep(0.05)  # a killed process takes a moment
    assert not _left(), "a process was left"


def _left() -> list[str]:
    """Other processes of this very program and its arguments: forks of it that still run."""
    ours, found = Path("/proc/self/cmdline").read_bytes(), []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if process.name != str(os.getpid()) and (process / "cmdline").read_bytes() == ours:
                found.append(process.name)
    return found


def test_an_answer_comes_back_with_what_was_printed() -> None:
    ended = sandbox.run(lambda: [print("said", end=""), 1, "ä"][1:], LITTLE)
    assert (ended.how, ended.answer, ended.output) == ("answered", [1, "ä"], "said")


def test_an_answer_longer_than_a_pipe_comes_whole() -> None:
    ended = sandbox.run(lambda: "x" * 300_000, Limits())
    assert ended.answer == "x" * 300_000


def test_memory_is_refused_and_the_child_lives_on() -> None:
    assert sandbox.run(takes_memory, LITTLE).answer == "refused"
    assert sandbox.run(lambda: len(bytearray(2**26)), LITTLE).answer == 2**26


def test_where_it_was_when_it_was_stopped_is_known() -> None:
    for work in (loops, sleeps):
        ended = sandbox.run(work, Limits(cpu_seconds=1, seconds=3))
        line = work.__code__.co_firstlineno
        assert f'test_fence.py", line {line + 1} in {work.__name__}' in ended.trace or (
            f'test_fence.py", line {line + 2} in {work.__name__}' in ended.trace
        ), ended.trace


def test_the_child_has_no_terminal_no_input_and_no_signals_of_its_parent_s() -> None:
    def look() -> list[Any]:
        return [os.isatty(0), sys.stdin.read(), os.getpgrp() == os.getpid()]

    assert sandbox.run(look, LITTLE).answer == [False, "", True]


def test_a_child_is_given_up_when_it_is_no_longer_wanted() -> None:
    started = time.monotonic()
    ended = sandbox.run(sleeps, Limits(seconds=1000), stop=lambda: time.monotonic() > started + 0.2)
    assert ended.how == "stopped"


def test_a_process_that_it_leaves_running_is_ended_with_it() -> None:
    def leaves_one() -> int:
        child = os.fork()
        if child == 0:
            time.sleep(1000)
        return child

    ended = sandbox.run(leaves_one, LITTLE)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{ended.answer}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{ended.answer}").exists()


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
def test_it_may_write_temporary_files_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "folder").mkdir()

    def tried(work: Callable[[], Any]) -> str:
        try:
            work()
        except OSError as error:
            return error.strerror or ""
        return "worked"

    def tries() -> list[str]:
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
        for work in refused:
            try:
                found.append(tried(work))
            except subprocess.CalledProcessError:
                found.append("Permission denied")
        return [*found, (tmp_path / "kept").read_text()]

    ended = sandbox.run(tries, LITTLE)
    assert ended.answer == ["Permission denied"] * 7 + ["kept"], ended
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder", "kept"]
    assert sandbox.run(lambda: tempfile.mkdtemp(), LITTLE).answer.startswith(tempfile.gettempdir())


def test_its_temporary_files_go_with_it() -> None:
    def leaves() -> str:
        folder = Path(tempfile.mkdtemp())
        (folder / "large").write_text("x" * 1000)
        return str(folder)

    assert not Path(sandbox.run(leaves, LITTLE).answer).exists()


def test_a_busy_machine_is_no_endless_loop() -> None:
    """A second of computing takes two and more, beside others on its core: they don't count."""
    core = min(os.sched_getaffinity(0))
    rival = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    rivals = [subprocess.Popen([sys.executable, "-c", rival]) for _ in range(4)]
    try:
        ended = sandbox.run(computes_for_a_second, Limits(cpu_seconds=10, seconds=1.5))
    finally:
        for one in rivals:
            one.kill()
            one.wait()
    assert ended.answer == "done", ended
