"""A request to stop (USR1) waits until a training listens, and ends nothing before."""

import subprocess
import sys

from tests.conftest import REPO

HOLDS = """
import os, signal, subprocess
from labs.kit.run import stop_request

stop_request.hold()
os.kill(os.getpid(), signal.SIGUSR1)
child = subprocess.run(["sh", "-c", "kill -USR1 $$; echo the child goes on"])
assert not stop_request.arrived()
stop_request.{then}
print("arrived", stop_request.arrived())
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
        assert run(f"pass_on_to([{other.pid}])") == "the child goes on\narrived False\n"
        assert other.wait(60) == -10, "it ended by USR1"
    finally:
        other.kill()
        other.wait()
