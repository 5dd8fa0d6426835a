"""INT, TERM and HUP during a build, at the start of a container and during a lab."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from common import processes
from common.interrupts import SECONDS_BETWEEN_REMINDERS, Interrupted, Interrupts
from tests.conftest import BIN, REPO, Clone, Running, containers_of

import pytest

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


SECOND_CTRL_C = """
import os, signal
from launcher.task_exit import exit_code_of
code = exit_code_of(lambda _: os.kill(os.getpid(), signal.SIGINT))
os.kill(os.getpid(), signal.SIGINT)
raise SystemExit(code)
"""


def test_a_second_ctrl_c_while_the_command_ends_changes_nothing() -> None:
    """Without this, Invoke ends with 1, or Python with a traceback."""
    command = [sys.executable, "-c", SECOND_CTRL_C]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert ended.returncode == 130, ended
    assert ended.stderr == "\ninterrupted\n"


def is_running(*words: str) -> list[str]:
    """Return the processes on this machine whose command line contains one of these words."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(word in part for part in command for word in words):
            found.append(" ".join(command))
    return found


def gone(*words: str) -> bool:
    """Wait until no process contains these words, and return whether that happened."""
    for _ in range(600):
        if not is_running(*words):
            return True
        time.sleep(0.1)
    return False


def check_interrupted(running: Running) -> None:
    ended = running.ended()
    assert ended.code == 130, ended
    assert "interrupted" in running.text
    assert "Traceback" not in running.text


@pytest.fixture
def slow_build(clone: Clone) -> tuple[Clone, str]:
    """Return a clone whose build never ends, and a word of the build's command line."""
    word = f"987.{os.getpid()}{time.monotonic_ns() % 10**6}"
    (clone.path / "docker" / "Dockerfile").write_text(
        f"ARG BASE_IMAGE\nFROM ${{BASE_IMAGE}}\nRUN echo it has begun; sleep {word}\n"
    )
    clone.change("compose.yaml", "image: llm-labs:cpu", f"image: llm-labs:never-{word}")
    return clone, word


@pytest.mark.engine
@pytest.mark.parametrize("what", SIGNALS, ids=lambda one: one.name)
def test_a_signal_ends_a_build(slow_build: tuple[Clone, str], what: signal.Signals) -> None:
    clone, word = slow_build
    running = clone.start_invoke("lab", clone.bare_lab("pass"), "--runtime", "docker")
    running.wait_for(lambda: is_running(word))
    running.send(what)
    check_interrupted(running)
    assert gone(word, str(clone.path)), is_running(word, str(clone.path))


@pytest.mark.engine
def test_a_build_ends_with_a_killed_launcher(slow_build: tuple[Clone, str]) -> None:
    clone, word = slow_build
    running = clone.start_invoke("build", "--runtime", "docker")
    running.wait_for(lambda: is_running(word))
    running.process.kill()
    assert gone(word, str(clone.path)), is_running(word, str(clone.path))


@pytest.mark.engine
@pytest.mark.parametrize("what", SIGNALS, ids=lambda one: one.name)
def test_a_signal_at_the_start_leaves_no_container(clone: Clone, what: signal.Signals) -> None:
    lab = clone.bare_lab("wait_for('never')")
    running = clone.start_invoke("lab", lab, "--runtime", "docker")
    running.wait_for(lambda: containers_of(clone))
    running.send(what)
    check_interrupted(running)


@pytest.mark.engine
@pytest.mark.parametrize("what", SIGNALS, ids=lambda one: one.name)
def test_a_signal_during_a_lab_leaves_no_container(clone: Clone, what: signal.Signals) -> None:
    lab = clone.bare_lab("print('begun')\nwait_for('never')")
    running = clone.start_invoke("lab", lab, "--runtime", "docker")
    running.wait_for("begun")
    running.send(what)
    check_interrupted(running)


@pytest.mark.engine
@pytest.mark.parametrize("what", SIGNALS, ids=lambda one: one.name)
def test_a_signal_before_the_container_exists_ends_the_launcher(
    clone: Clone, what: signal.Signals
) -> None:
    """Send the signal while a slow docker command reads compose.yaml."""
    fake = clone.path / "fake" / "docker"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho $$ > begun\nexec sleep 600\n")
    fake.chmod(0o755)
    path = f"{fake.parent}:{os.environ['PATH']}"
    words = ("lab", clone.bare_lab("pass"), "--runtime", "docker")
    running = clone.start_invoke(*words, PATH=path)
    process = running.wait_for(
        lambda: (clone.path / "begun").exists() and (clone.path / "begun").read_text().strip()
    )
    running.send(what)
    check_interrupted(running)
    assert not Path(f"/proc/{process}").exists()


@pytest.mark.engine
def test_ctrl_c_on_a_terminal_leaves_no_container(clone: Clone) -> None:
    lab = clone.bare_lab("print('begun')\nwait_for('never')")
    running = clone.start_invoke("lab", lab, "--runtime", "docker", terminal=(24, 80))
    running.wait_for("begun")
    running.type(b"\x03")
    check_interrupted(running)


@pytest.mark.engine
def test_ctrl_c_on_a_terminal_ends_a_build(slow_build: tuple[Clone, str]) -> None:
    clone, word = slow_build
    lab = clone.bare_lab("pass")
    running = clone.start_invoke("lab", lab, "--runtime", "docker", terminal=(24, 120))
    running.wait_for(lambda: is_running(word))
    running.type(b"\x03")
    check_interrupted(running)
    assert gone(word, str(clone.path)), is_running(word, str(clone.path))


@pytest.mark.engine
def test_a_lab_that_ignores_the_signal_is_killed(clone: Clone) -> None:
    lab = clone.bare_lab(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('begun')\nwait_for('never')"
    )
    running = clone.start_invoke("lab", lab, "--runtime", "docker")
    running.wait_for("begun")
    running.send(signal.SIGTERM)
    check_interrupted(running)


@pytest.mark.engine
def test_a_second_signal_does_not_disturb_the_clean_up(clone: Clone) -> None:
    lab = clone.bare_lab(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('begun')\nwait_for('never')"
    )
    running = clone.start_invoke("lab", lab, "--runtime", "docker")
    running.wait_for("begun")
    for _ in range(5):
        running.send(signal.SIGINT)
        time.sleep(0.1)
    check_interrupted(running)


@pytest.mark.engine
def test_a_lab_under_nohup_survives_a_hangup(clone: Clone) -> None:
    lab = clone.bare_lab("print('begun')\nwait_for('go')\nprint('ended well')")

    running = clone.start("nohup", str(BIN / "invoke"), "lab", lab, "--runtime", "docker")
    running.wait_for("begun")
    running.send(signal.SIGHUP)
    time.sleep(0.3)
    (clone.outputs / "go").touch()
    ended = running.ended()
    assert ended.code == 0, ended
    assert "ended well" in ended.out


# Tests in this process


@pytest.mark.parametrize("what", SIGNALS, ids=lambda one: one.name)
def test_a_signal_raises_once(what: signal.Signals) -> None:
    before = signal.getsignal(what)
    with Interrupts():
        with pytest.raises(Interrupted) as raised:
            os.kill(os.getpid(), what)
            time.sleep(5)
        os.kill(os.getpid(), what)
        time.sleep(3 * SECONDS_BETWEEN_REMINDERS)
        assert raised.value, "an exception that still exists is not raised again"
    assert signal.getsignal(what) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


class Finalized(io.RawIOBase):
    """A file that gets a signal while Python finalizes it, as a response of the engine can."""

    def close(self) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        super().close()


def test_an_exception_that_python_drops_is_raised_again() -> None:
    with Interrupts(), pytest.raises(Interrupted):
        Finalized()
        time.sleep(60)


def test_a_deferred_signal_raises_after_the_block() -> None:
    made = []
    with Interrupts() as interrupts, pytest.raises(Interrupted), interrupts.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        made.append("a container")
    assert made == ["a container"]


def test_a_signal_during_the_start_of_a_child_process_ends_the_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Send the signal after the child starts and before Popen returns."""
    born: list[int] = []

    class Slow(subprocess.Popen):
        def __init__(self, *words: object, **how: object) -> None:
            super().__init__(*words, **how)
            born.append(self.pid)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    monkeypatch.setattr(processes.subprocess, "Popen", Slow)
    with Interrupts(), pytest.raises(Interrupted), processes.child_process(["sleep", "600"]):
        pass
    (child,) = born
    assert not Path(f"/proc/{child}").exists()
