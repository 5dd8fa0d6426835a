"""What hostile code tries in the sandbox: each attempt is real, and its victim is unharmed."""

import ctypes
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from labs.kit.sandbox import child, landlock
from labs.kit.sandbox.limits import Limits

import pytest

LITTLE = Limits(cpu_seconds=5, seconds=20, memory=2**27, processes=8, output=2**16, disk=2**22)
PATIENT = replace(LITTLE, seconds=300)  # a busy machine is slow to fill memory
LANDLOCK = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
SCOPES = pytest.mark.skipif(landlock.version() < 6, reason="this kernel has no Landlock scopes")
_libc = ctypes.CDLL(None, use_errno=True)


def attempt(action: Callable[[], Any]) -> str:
    """Return "worked", or the name of the error."""
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "worked"


def refused(action: Callable[[], Any]) -> bool:
    return child.run(lambda: attempt(action), LITTLE).result == "PermissionError"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home with a secret and a file that every login runs."""
    (tmp_path / "key").write_text("secret")
    (tmp_path / ".bashrc").write_text("# mine\n")
    return tmp_path


@LANDLOCK
def test_the_home_can_be_neither_read_nor_listed(home: Path) -> None:
    assert refused(lambda: (home / "key").read_text())
    assert refused(lambda: list(home.iterdir()))
    real = Path.home()
    assert refused(lambda: list(real.iterdir()))


@LANDLOCK
def test_a_link_does_not_lead_out(home: Path) -> None:
    def follow() -> None:
        link = Path(tempfile.mkdtemp()) / "link"
        link.symlink_to(home / "key")
        link.read_text()

    assert refused(follow)
    hard = child.run(
        lambda: attempt(lambda: os.link(home / "key", f"{tempfile.gettempdir()}/key")), LITTLE
    )
    assert hard.result == "OSError"  # it is refused as a link between two disks


@LANDLOCK
def test_the_labs_and_the_progress_cannot_be_changed() -> None:
    clone = Path(__file__).parents[3]
    assert refused(lambda: (clone / "labs" / "kit" / "compare.py").open("a"))
    assert refused(lambda: (clone / "labs" / "forged").touch())
    assert not (clone / "labs" / "forged").exists()


def test_modes_owners_and_times_cannot_be_changed(home: Path) -> None:
    before = (home / ".bashrc").stat()
    assert refused(lambda: (home / ".bashrc").chmod(0o777))
    assert refused(lambda: os.chown(home / ".bashrc", 1, 1))
    assert refused(lambda: os.utime(home / ".bashrc", (0, 0)))
    assert (home / ".bashrc").stat() == before


def test_sockets_are_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        assert refused(lambda: socket.create_connection(address))
    assert refused(lambda: socket.socket(socket.AF_UNIX))
    assert refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(1000)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_other_processes_cannot_be_signalled(victim: "subprocess.Popen[bytes]") -> None:
    parent = os.getpid()
    assert refused(lambda: os.kill(parent, signal.SIGKILL))
    assert refused(lambda: os.kill(-1, signal.SIGKILL))
    assert refused(lambda: os.killpg(0, signal.SIGKILL))
    assert refused(lambda: os.kill(victim.pid, signal.SIGKILL))
    pidfd = os.pidfd_open(victim.pid)
    try:
        assert refused(lambda: signal.pidfd_send_signal(os.pidfd_open(victim.pid), 9))
    finally:
        os.close(pidfd)
    assert victim.poll() is None


def test_the_parent_cannot_be_traced() -> None:
    parent = os.getpid()

    def trace() -> None:
        attach = 16
        if _libc.ptrace(attach, parent, None, None) < 0:
            raise OSError(ctypes.get_errno(), "ptrace")

    assert refused(trace)
    if landlock.version():
        assert refused(lambda: Path(f"/proc/{parent}/mem").read_bytes())
    if os.geteuid() != 0:  # root may read the variables of every process
        assert refused(lambda: Path(f"/proc/{parent}/environ").read_bytes())


def test_a_daemon_in_a_session_of_its_own_ends_with_the_check() -> None:
    def daemon() -> int:
        reads, writes = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                os.write(writes, str(os.getpid()).encode())
                time.sleep(1000)
            os._exit(0)
        os.wait()
        return int(os.read(reads, 20))

    outcome = child.run(daemon, LITTLE)
    assert outcome.kind == "returned", outcome
    assert not Path(f"/proc/{outcome.result}").exists()


def test_a_daemon_whose_parents_are_killed_ends_with_the_check() -> None:
    """Its session leader ends the check at once: nothing is left to find it by."""

    def daemon() -> None:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(98765)"])
        os._exit(0)

    assert child.run(daemon, LITTLE).kind == "exited"
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert b"98765" not in path.read_bytes()
        except OSError:
            continue


@pytest.mark.parametrize("seconds", [0, 2], ids=["at work", "just forked"])
def test_a_check_ends_with_its_killed_grader(seconds: int) -> None:
    code = """
import os, sys, time
from pathlib import Path
from labs.kit.sandbox import child
os.register_at_fork(after_in_child=lambda: time.sleep(int(sys.argv[1])))
def sleep():
    time.sleep(1000)
def stop():
    for process in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        print(process, flush=True)
    return False
child.run(sleep, child.Limits(seconds=1000), stop)
"""
    command = [sys.executable, "-c", code, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as grader:
        assert grader.stdout is not None
        check = int(grader.stdout.readline())
        assert runs(check)
        grader.kill()
    deadline = time.monotonic() + 60
    while runs(check) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not runs(check)


def runs(process: int) -> bool:
    """Return whether a process runs; one that waits to be reaped doesn't."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_only_an_answer_with_the_seal_counts() -> None:
    """A forged result on every open pipe isn't taken for that of the check."""

    def forge() -> None:
        for descriptor in range(3, 4096):
            attempt(lambda number=descriptor: os.write(number, b'{"right": true}'))
        os._exit(0)

    outcome = child.run(forge, LITTLE)
    assert (outcome.kind, outcome.result) == ("exited", None)


def test_an_answer_before_the_check_s_own_spoils_it() -> None:
    def forge() -> dict[str, bool]:
        for descriptor in range(3, 4096):
            attempt(lambda number=descriptor: os.write(number, b'{"right": true}'))
        return {"right": False}

    outcome = child.run(forge, LITTLE)
    assert (outcome.kind, outcome.result) == ("exited", None)


@LANDLOCK
def test_shared_memory_has_no_files() -> None:
    assert refused(lambda: Path("/dev/shm/filled").write_bytes(bytes(10)))
    assert refused(lambda: os.memfd_create("filled"))


def test_a_large_file_is_cut_off() -> None:
    def fill() -> None:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(LITTLE.disk + 1))

    assert child.run(lambda: attempt(fill), LITTLE).result == "OSError"


@pytest.mark.parametrize("deleted", [False, True])
def test_many_files_end_the_check(deleted: bool) -> None:
    def fill() -> None:
        folder = Path(tempfile.mkdtemp())
        kept = []
        for number in range(8):
            file = (folder / str(number)).open("wb")
            kept.append(file)
            file.write(bytes(2**20))
            file.flush()
            if deleted:
                (folder / str(number)).unlink()
        time.sleep(1000)

    assert child.run(fill, LITTLE).kind == "disk"


def test_shared_memory_counts_towards_the_limit() -> None:
    def fill() -> None:
        shared = mmap.mmap(-1, 2**28)
        for start in range(0, 2**28, 4096):
            shared[start] = 1
        time.sleep(1000)

    assert child.run(fill, PATIENT).kind == "memory"


def test_the_memory_of_several_processes_is_added() -> None:
    def fill() -> None:
        for _ in range(4):
            if os.fork() == 0:
                # new pages: malloc may return memory that this process has filled before
                kept = mmap.mmap(-1, LITTLE.memory // 2, flags=mmap.MAP_PRIVATE)
                for start in range(0, len(kept), 4096):
                    kept[start] = 1
                time.sleep(1000)
        time.sleep(1000)

    assert child.run(fill, PATIENT).kind == "memory"


@SCOPES
def test_a_landlocked_process_signals_its_own_children_only() -> None:
    """An experiment's processes may end each other, and nobody else."""
    code = """
import os, signal, subprocess, sys
from pathlib import Path
from labs.kit.sandbox import files, landlock
landlock.restrict_files(files.readable(), [Path("/dev/null")])
mine = subprocess.Popen(["sleep", "1000"])
mine.kill()
try:
    os.kill(os.getppid(), 0)
    print("reached", mine.wait())
except PermissionError:
    print("refused", mine.wait())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "refused -9\n", done.stderr


def test_without_landlock_seccomp_still_refuses_calls(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    parent = os.getpid()
    assert child.run(lambda: (home / "key").read_text(), LITTLE).result == "secret"
    assert refused(lambda: os.kill(parent, signal.SIGKILL))
    assert refused(lambda: (home / ".bashrc").chmod(0o777))
    assert refused(lambda: socket.socket())


def test_a_result_is_still_plain_data() -> None:
    outcome = child.run(lambda: json.loads('{"a": [1, 2.5, "ä"]}'), LITTLE)
    assert outcome.result == {"a": [1, 2.5, "ä"]}
