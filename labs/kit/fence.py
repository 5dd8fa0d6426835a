"""Run somebody's code where it can't hurt: in a forked child with limits, watched from outside."""

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

from labs.kit import landlock

SECONDS_BETWEEN_LOOKS = 0.02
WRITABLE = (Path("/dev/null"), Path("/dev/shm"))  # shm: tensors that processes share
# What names the folders in which libraries keep what they make on the way.
CACHES = ("TMPDIR", "HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")


@dataclass(frozen=True)
class Limits:
    """What a child may use: a check of one part takes far less of each."""

    cpu_seconds: int = 10
    seconds: float = 30.0  # in all, without those in which others had the cores
    memory: int = 2 * 2**30  # beyond what its parent had
    processes: int = 16
    output: int = 2**20


@dataclass(frozen=True)
class Ended:
    """How a child ended: with its work's `answer`, or by something that `how` names."""

    how: str  # answered, exited, killed, time, processes, output, stopped
    answer: Any = None
    code: int = 0  # its exit code, or the signal that killed it
    output: str = ""  # what it printed
    trace: str = ""  # where it was when it was killed, as faulthandler tells it


def run(work: Callable[[], Any], limits: Limits, stop: Callable[[], bool] = lambda: False) -> Ended:
    """Do `work` in a forked child and give its answer, which must be JSON.

    The child has a process group, an empty stdin and pipes of its own; whatever it leaves running
    is ended with it. It may write temporary files and no others, where the kernel has Landlock.
    Memory is limited by RLIMIT_DATA: CUDA reserves terabytes of addresses, which RLIMIT_AS would
    count. Processes are counted from here: RLIMIT_NPROC counts all that a user has on the machine,
    other containers' too.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryDirectory(prefix="llm-labs-", ignore_cleanup_errors=True) as folder:
        pipes = [os.pipe() for _ in range(3)]  # the answer, what is printed, where it was
        child = os.fork()
        if child == 0:
            _be_the_child(work, limits, [writes for _, writes in pipes], folder)
        for _, writes in pipes:
            os.close(writes)
        watched = _Watched(child, [reads for reads, _ in pipes], limits, stop)
        try:
            return watched.ended()
        finally:
            watched.close()


def _be_the_child(
    work: Callable[[], Any], limits: Limits, pipes: list[int], folder: str
) -> NoReturn:
    code = 1
    try:
        os.setsid()
        answer, printed, trace = pipes
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (printed, 1), (printed, 2)):
            os.dup2(source, target)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = sys.stderr = os.fdopen(1, "w", 1, encoding="utf-8", closefd=False)
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_DFL)
        faulthandler.enable(file=trace, all_threads=False)
        faulthandler.register(signal.SIGXCPU, file=trace, all_threads=False, chain=True)
        _limit(limits)
        tempfile.tempdir = folder
        os.environ.update(dict.fromkeys(CACHES, folder))
        landlock.only_writes_to([Path(folder), *WRITABLE])
        told = json.dumps(work()).encode()
        sys.stdout.flush()
        _write(answer, told)
        code = 0
    except BaseException:  # the work's own errors are part of its answer: this is one of ours
        traceback.print_exc()
    finally:
        os._exit(code)


def _write(pipe: int, content: bytes) -> None:
    """All of it: a pipe takes less at a time."""
    while content:
        content = content[os.write(pipe, content) :]


def _limit(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    spent = resource.getrusage(resource.RUSAGE_SELF)
    cpu = int(spent.ru_utime + spent.ru_stime) + limits.cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 2))
    most = _data_bytes() + limits.memory
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _data_bytes() -> int:
    """What this process has allocated for itself."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


class _Watched:
    """A child as its parent sees it."""

    def __init__(
        self, child: int, pipes: list[int], limits: Limits, stop: Callable[[], bool]
    ) -> None:
        self.child, self.pipes, self.limits, self.stop = child, pipes, limits, stop
        self.kept = dict.fromkeys(pipes, b"")
        self.deadline = time.monotonic() + limits.seconds
        self.status: int | None = None

    def ended(self) -> Ended:
        how = ""
        while not how and self.status is None:
            self._read(SECONDS_BETWEEN_LOOKS)
            self._look()
            how = self._exceeded() if self.status is None else ""
        if how == "time":
            self._ask_where()
        self._end()
        self._read(0)
        return self._told(how)

    def _look(self) -> None:
        if self.status is None:
            found, status = os.waitpid(self.child, os.WNOHANG)
            if found:
                self.status = status

    def _exceeded(self) -> str:
        if self.stop():
            return "stopped"
        if time.monotonic() > self.deadline + _waited(self.child):
            return "time"
        if len(self.kept[self.pipes[1]]) > self.limits.output:
            return "output"
        if len(_below(self.child)) > self.limits.processes:
            return "processes"
        return ""

    def _ask_where(self) -> None:
        """Let it say where it is: faulthandler does, and the signal ends it."""
        with suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGXCPU)
        for _ in range(50):
            self._read(SECONDS_BETWEEN_LOOKS)
            self._look()
            if self.status is not None:
                return

    def _end(self) -> None:
        """End the child and all that it started, those in sessions of their own too."""
        others = _below(self.child)
        with suppress(ProcessLookupError):
            os.killpg(self.child, signal.SIGKILL)
        if self.status is None:
            others.append(self.child)  # which may not have had the time to make its group
        for one in others:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        if self.status is None:
            self.status = os.waitpid(self.child, 0)[1]

    def _read(self, seconds: float) -> None:
        """Keep what the pipes have, up to the limit and one reading more."""
        open_ones = [pipe for pipe in self.pipes if pipe in self.kept]
        ready = select.select(open_ones, [], [], seconds)[0]
        for pipe in ready:
            chunk = os.read(pipe, 65_536)
            if len(self.kept[pipe]) <= self.limits.output:
                self.kept[pipe] += chunk
        if ready and not any(self.kept[pipe] for pipe in ready):
            time.sleep(seconds)  # closed by the child, which lives on

    def _told(self, how: str) -> Ended:
        answer, printed, trace = (self.kept[pipe].decode(errors="replace") for pipe in self.pipes)
        status = self.status or 0
        if not how and os.WIFSIGNALED(status):
            xcpu = os.WTERMSIG(status) in (signal.SIGXCPU,)
            how = "time" if xcpu else "killed"
            return Ended(how, None, os.WTERMSIG(status), printed, trace)
        if not how and answer:
            with suppress(ValueError):
                return Ended("answered", json.loads(answer), 0, printed)
        return Ended(how or "exited", None, os.WEXITSTATUS(status), printed, trace)

    def close(self) -> None:
        if self.status is None:
            self._end()
        for pipe in self.pipes:
            os.close(pipe)


def _waited(process: int) -> float:
    """Seconds for which it was ready to run and others had the cores: a busy machine is no loop.

    The second number of /proc/PID/schedstat (proc(5)); 0 where the kernel doesn't count it.
    """
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def _below(process: int) -> list[int]:
    """The processes that `process` started, and those that they did."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            children = (task / "children").read_text().split()
            for child in map(int, children):
                found += [child, *_below(child)]
    return found
