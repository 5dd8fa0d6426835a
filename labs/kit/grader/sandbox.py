"""Run untrusted code in a sandboxed child process, with limits, watched by its parent."""

import faulthandler
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from labs.kit.grader import landlock, proc

POLL_SECONDS = 0.02
WRITABLE = (Path("/dev/null"), Path("/dev/shm"))  # shm: tensors shared by processes
# Variables that name the folders of libraries' caches.
CACHES = ("TMPDIR", "HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")


@dataclass(frozen=True)
class Limits:
    """What a child may use. A check of one part takes far less of each.

    Attributes:
        cpu_seconds: seconds of computing.
        seconds: seconds in total, without those in which other processes had the cores.
        memory: bytes beyond those of its parent.
        processes: child processes.
        output: printed bytes.
    """

    cpu_seconds: int = 10
    seconds: float = 30.0
    memory: int = 2 * 2**30
    processes: int = 16
    output: int = 2**20


@dataclass(frozen=True)
class Outcome:
    """How a child ended.

    Attributes:
        kind: returned, exited, killed, time, processes, output or stopped.
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
    task: Callable[[], Any], limits: Limits, stop: Callable[[], bool] = lambda: False
) -> Outcome:
    """Run `task` in a forked child and return its result, which must be JSON.

    The child has its own process group, an empty stdin and its own pipes. Processes that it leaves
    running are ended with it. If the kernel has Landlock, it can write temporary files only.
    Memory is limited by RLIMIT_DATA: CUDA reserves terabytes of addresses, which RLIMIT_AS would
    count. Processes are counted by the parent: RLIMIT_NPROC counts all processes of the user on
    the machine, including those of other containers.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryDirectory(prefix="llm-labs-", ignore_cleanup_errors=True) as folder:
        pipes = [os.pipe() for _ in range(3)]  # result, output, trace
        child = os.fork()
        if child == 0:
            _run_child(task, limits, [writes for _, writes in pipes], folder)
        for _, writes in pipes:
            os.close(writes)
        watched = _Watched(child, [reads for reads, _ in pipes], limits, stop)
        try:
            return watched.outcome()
        finally:
            watched.close()


def _run_child(task: Callable[[], Any], limits: Limits, pipes: list[int], folder: str) -> NoReturn:
    code = 1
    try:
        os.setsid()
        result, output, trace = pipes
        empty = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((empty, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = sys.stderr = os.fdopen(1, "w", 1, encoding="utf-8", closefd=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        faulthandler.enable(file=trace, all_threads=False)
        faulthandler.register(signal.SIGXCPU, file=trace, all_threads=False, chain=True)
        _limit(limits)
        tempfile.tempdir = folder
        os.environ.update(dict.fromkeys(CACHES, folder))
        landlock.allow_writes_only_to([Path(folder), *WRITABLE])
        content = json.dumps(task()).encode()
        sys.stdout.flush()
        _write(result, content)
        code = 0
    except BaseException:  # a fault of ours: the task catches a learner's errors
        traceback.print_exc()
    finally:
        os._exit(code)


def _write(pipe: int, content: bytes) -> None:
    """Write everything: a pipe takes less at a time."""
    while content:
        content = content[os.write(pipe, content) :]


def _limit(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
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
        self, child: int, pipes: list[int], limits: Limits, stop: Callable[[], bool]
    ) -> None:
        self.child = child
        self.pipes = pipes
        self.limits = limits
        self.stop = stop
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
        if len(proc.descendants(self.child)) > self.limits.processes:
            return "processes"
        return ""

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
        result, output, trace = (
            self.received[pipe].decode(errors="replace") for pipe in self.pipes
        )
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
