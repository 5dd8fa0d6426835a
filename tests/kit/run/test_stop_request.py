"""A request to stop waits until a training listens, and ends nothing before; Ctrl-C ends it."""

import signal
import subprocess
import sys

from tests.conftest import REPO

import pytest

HOLDS = """
import os, signal, subprocess
from labs.kit.run import stop_request

stop_request.hold()
os.kill(os.getpid(), signal.SIGUSR1)
child = subprocess.run(["sh", "-c", "kill -USR1 $$; echo the child goes on"])
assert not stop_request.arrived()
stop_request.{then}
print("arrived", stop_request.arrived() == signal.SIGUSR1)
"""


def run(then: str) -> str:
    command = [sys.executable, "-c", HOLDS.format(then=then)]
    return subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True).stdout


def test_a_request_before_the_training_is_noted_when_it_listens() -> None:
    assert run("listen()") == "the child goes on\narrived True\n"


def test_a_request_before_the_processes_start_is_passed_on_to_them() -> None:
    """The process that gets it is another one, which USR1 ends: here it has no handler."""
    other = subprocess.Popen(["sleep", "600"])
    try:
        assert (
            run(f"passed_on_to([{other.pid}]).__enter__()") == "the child goes on\narrived False\n"
        )
        assert other.wait(60) == -10, "it ended by USR1"
    finally:
        other.kill()
        other.wait()


LISTENS = """
import os, signal
from labs.kit.run import stop_request

def send(number):
    os.kill(os.getpid(), number)

stop_request.listen()
try:
    {body}
except KeyboardInterrupt:
    print("interrupted", stop_request.arrived())
"""


def listen(body: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LISTENS.format(body=body)]
    return subprocess.run(command, cwd=REPO, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_an_end_of_the_training_raises_what_arrived_in_it(number: str) -> None:
    body = f"send(signal.{number}); print(stop_request.arrived()); stop_request.end(); print('on')"
    assert listen(body).stdout == f"{int(signal.Signals[number])}\ninterrupted 0\n"


def test_a_second_ctrl_c_does_not_wait_for_a_checkpoint() -> None:
    body = "send(signal.SIGTERM); send(signal.SIGINT); print(1); send(signal.SIGINT); print(2)"
    assert listen(body).stdout == "1\ninterrupted 2\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_the_training_signals_have_their_usual_effect(number: signal.Signals) -> None:
    ended = listen(f"stop_request.end(); send({int(number)}); print('on')")
    usual = "interrupted 0\n" if number == signal.SIGINT else ""
    assert (ended.stdout, ended.returncode) == (usual, 0 if usual else -number)


def test_an_ignored_signal_stays_ignored() -> None:
    command = f"trap '' INT; exec {sys.executable} -c \"$1\""
    body = "send(signal.SIGINT); print(stop_request.arrived())"
    ended = subprocess.run(
        ["sh", "-c", command, "sh", LISTENS.format(body=body)],
        cwd=REPO,
        check=True,
        capture_output=True,
        text=True,
    )
    assert ended.stdout == "0\n"
