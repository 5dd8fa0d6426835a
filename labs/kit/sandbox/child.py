"""Run untrusted code in a sandboxed child process, with limits."""

import faulthandler
import json
import os
import resource
import secrets
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from labs.kit.sandbox import files, landlock, proc, seccomp, syscalls
from labs.kit.sandbox.limits import Limits, Outcome
from labs.kit.sandbox.watch_child import WatchedChild


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
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            writes = [writes for _, writes in pipes]
            _run_child(task, limits, writes, folder, seal, readable, parent)
        for _, writes in pipes:
            os.close(writes)
        reads = [reads for reads, _ in pipes]
        watched = WatchedChild(child, reads, limits, stop, Path(folder), seal)
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
    parent: int,
) -> NoReturn:
    code = 1
    try:
        os.setsid()
        syscalls.set_attribute(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the request
            os._exit(code)
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
