"""Run untrusted code in a sandboxed child process, with limits, watched by its parent."""

import faulthandler
import json
import os
import resource
import secrets
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from labs.kit.sandbox import files, landlock, proc, seccomp, syscalls

POLL_SECONDS = 0.02
POLLS_BETWEEN_DISK_CHECKS = 5
MOST_FILES = 10_000


@dataclass(frozen=True)
class Limits:
    """What a child may use. A check of one part takes far less of each.

    Attributes:
        cpu_seconds: seconds of computing.
        seconds: seconds in total, without those in which other processes had the cores.
        memory: bytes beyond those of its parent, of all its processes.
        processes: child processes.
        output: printed bytes.
        disk: bytes in temporary files.
    """

    cpu_seconds: int = 10
    seconds: float = 30.0
    memory: int = 2 * 2**30
    processes: int = 16
    output: int = 2**20
    disk: int = 2**28


@dataclass(frozen=True)
class Outcome:
    """How a child ended.

    Attributes:
        kind: returned, exited, killed, time, processes, memory, output, disk or stopped.
        result: what its task returned.
        code: its exit code, or the signal that killed it.
        output: what it printed.
        trace: where it was when it was killed, by faulthandler.
    """

    kind: str
    result: Any = None
    code: int = 0
    output: str = ""
    trace: str = ""


def run(
    task: Callable[[], Any],
    limits: Limits,
    stop: Callable[[], bool] = lambda: False,
    readable: Sequence[Path] = (),
) -> Outcome:
    """Run `task` in a forked child and return its result, which must be JSON.

    The child has its own session, an empty stdin and its own pipes. Processes that it leaves
    running are ended with it, also in sessions of their own. Where the kernel has Landlock, it
    reads the labs' files and `readable`, and changes temporary files only. It has no sockets. It
    can't trace or signal other processes.

    RLIMIT_DATA limits its private memory: CUDA reserves terabytes of addresses, which RLIMIT_AS
    would count. The parent watches what that leaves out: shared memory, and the sum over processes.
    It counts processes too: RLIMIT_NPROC counts all processes of the user on the machine, including
    those of other containers.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with (
        protected_parent(),
        tempfile.TemporaryDirectory(prefix="llm-labs-", ignore_cleanup_errors=True) as folder,
    ):
        known = set(proc.descendants(os.getpid()))
        pipes = [os.pipe() for _ in range(3)]  # result, output, trace
        seal = secrets.token_bytes(16)
        child = os.fork()
        if child == 0:
            writes = [writes for _, writes in pipes]
            _run_child(task, limits, writes, folder, seal, readable)
        for _, writes in pipes:
            os.close(writes)
        reads = [reads for reads, _ in pipes]
        watched = _Watched(child, reads, limits, stop, Path(folder), seal)
        try:
            return watched.outcome()
        finally:
            watched.close()
            proc.end_orphans(known)


@contextmanager
def protected_parent() -> Generator[None]:
    """Make orphans of a child this process's own, and keep the child from tracing it.

    Later it adopts none: one that nobody waits for would stay as a zombie.
    """
    before = syscalls.adopts_orphans()
    if not before:
        syscalls.set_attribute(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    syscalls.set_attribute(syscalls.PR_SET_DUMPABLE, 0)
    try:
        yield
    finally:
        if not before:
            syscalls.set_attribute(syscalls.PR_SET_CHILD_SUBREAPER, 0)


def _run_child(
    task: Callable[[], Any],
    limits: Limits,
    pipes: list[int],
    folder: str,
    seal: bytes,
    readable: Sequence[Path],
) -> NoReturn:
    code = 1
    try:
        os.setsid()
        syscalls.set_attribute(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent finds orphans among the child's own children, and reads the list of open files.
        with suppress(PermissionError):  # in a sandbox already: the process outside adopts them
            syscalls.set_attribute(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        syscalls.set_attribute(syscalls.PR_SET_DUMPABLE, 1)
        result, output, trace = pipes
        empty = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((empty, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = sys.stderr = os.fdopen(1, "w", 1, encoding="utf-8", closefd=False)
        _close_others((0, 1, 2, result, trace))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        faulthandler.enable(file=trace, all_threads=False)
        faulthandler.register(signal.SIGXCPU, file=trace, all_threads=False, chain=True)
        _limit(limits)
        tempfile.tempdir = folder
        os.environ.update(dict.fromkeys(files.CACHES, folder))
        writable = [Path(folder), Path(os.devnull)]
        landlock.restrict_files([*files.readable(), *readable], writable)
        seccomp.restrict_calls(as_check=True)
        content = json.dumps(task()).encode()
        sys.stdout.flush()
        _write(result, seal + content)
        code = 0
    except BaseException:  # a fault of ours: the task catches a learner's errors
        traceback.print_exc()
    finally:
        os._exit(code)


def _write(pipe: int, content: bytes) -> None:
    """Write everything: a pipe takes less at a time."""
    while content:
        content = content[os.write(pipe, content) :]


def _close_others(keep: tuple[int, ...]) -> None:
    """Close what the parent had open: its terminal, its log, the pipes of others."""
    for path in Path("/proc/self/fd").iterdir():
        if int(path.name) not in keep:
            with suppress(OSError):  # the descriptor of this listing is closed already
                os.close(int(path.name))


def _limit(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.disk, limits.disk))
    spent = resource.getrusage(resource.RUSAGE_SELF)
    cpu = int(spent.ru_utime + spent.ru_stime) + limits.cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 2))
    soft = proc.data_bytes() + limits.memory
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


class _Watched:
    """A child process, watched by its parent."""

    def __init__(
        self,
        child: int,
        pipes: list[int],
        limits: Limits,
        stop: Callable[[], bool],
        folder: Path,
        seal: bytes,
    ) -> None:
        self.child = child
        self.pipes = pipes
        self.limits = limits
        self.stop = stop
        self.folder = folder
        self.seal = seal  # without it, a result isn't the child's own
        self.resident = proc.resident_bytes("self")
        self.polls = 0
        self.received = dict.fromkeys(pipes, b"")
        self.deadline = time.monotonic() + limits.seconds
        self.status: int | None = None

    def outcome(self) -> Outcome:
        """Wait until the child ends or exceeds a limit; return how it ended."""
        exceeded = ""
        while not exceeded and self.status is None:
            self._read(POLL_SECONDS)
            self._poll()
            exceeded = self._exceeded_limit() if self.status is None else ""
        if exceeded == "time":
            self._request_trace()
        self._end()
        self._read(0)
        return self._describe(exceeded)

    def _poll(self) -> None:
        if self.status is None:
            ended, status = os.waitpid(self.child, os.WNOHANG)
            if ended:
                self.status = status

    def _exceeded_limit(self) -> str:
        if self.stop():
            return "stopped"
        if time.monotonic() > self.deadline + proc.seconds_waiting(self.child):
            return "time"
        if len(self.received[self.pipes[1]]) > self.limits.output:
            return "output"
        children = proc.descendants(self.child)
        if len(children) > self.limits.processes:
            return "processes"
        if self._memory([self.child, *children]) > self.limits.memory:
            return "memory"
        self.polls += 1
        checked = self.polls % POLLS_BETWEEN_DISK_CHECKS == 0
        return "disk" if checked and self._fills_disk([self.child, *children]) else ""

    def _memory(self, processes: list[int]) -> int:
        """Return the bytes that the processes fill beyond those that they share with this one."""
        return sum(max(0, proc.resident_bytes(one) - self.resident) for one in processes)

    def _fills_disk(self, processes: list[int]) -> bool:
        size = sum(map(proc.deleted_file_bytes, processes))
        count = 0
        for parent, folders, names in os.walk(self.folder):
            count += len(folders) + len(names)
            for name in names:
                with suppress(OSError):
                    size += Path(parent, name).lstat().st_blocks * 512
            if size > self.limits.disk or count > MOST_FILES:
                return True
        return size > self.limits.disk

    def _request_trace(self) -> None:
        """Make faulthandler write a trace; the signal then ends the child."""
        with suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGXCPU)
        for _ in range(50):
            self._read(POLL_SECONDS)
            self._poll()
            if self.status is not None:
                return

    def _end(self) -> None:
        """End the child and all its descendants, including those in separate sessions."""
        others = proc.descendants(self.child)
        with suppress(ProcessLookupError):
            os.killpg(self.child, signal.SIGKILL)
        if self.status is None:
            others.append(self.child)  # it may have had no time to make its group
        for process in others:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        if self.status is None:
            self.status = os.waitpid(self.child, 0)[1]

    def _read(self, seconds: float) -> None:
        """Read the pipes, up to the limit and one read beyond it."""
        open_pipes = [pipe for pipe in self.pipes if pipe in self.received]
        ready = select.select(open_pipes, [], [], seconds)[0]
        for pipe in ready:
            chunk = os.read(pipe, 65_536)
            if len(self.received[pipe]) <= self.limits.output:
                self.received[pipe] += chunk
        if ready and not any(self.received[pipe] for pipe in ready):
            time.sleep(seconds)  # the child closed its pipes and still runs

    def _describe(self, exceeded: str) -> Outcome:
        answer = self.received[self.pipes[0]]
        result = answer.removeprefix(self.seal) if answer.startswith(self.seal) else b""
        output, trace = (self.received[pipe].decode(errors="replace") for pipe in self.pipes[1:])
        status = self.status or 0
        if not exceeded and os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            kind = "time" if number == signal.SIGXCPU else "killed"
            return Outcome(kind, None, number, output, trace)
        if not exceeded and result:
            with suppress(ValueError):
                return Outcome("returned", json.loads(result), 0, output)
        return Outcome(exceeded or "exited", None, os.WEXITSTATUS(status), output, trace)

    def close(self) -> None:
        """End the child if it still runs, and close the pipes."""
        if self.status is None:
            self._end()
        for pipe in self.pipes:
            os.close(pipe)
