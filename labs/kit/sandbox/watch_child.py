"""Watch a sandboxed child: read its pipes, enforce its limits, end it with its descendants."""

import json
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from labs.kit.sandbox import proc
from labs.kit.sandbox.limits import Limits, Outcome

POLL_SECONDS = 0.02
POLLS_BETWEEN_DISK_CHECKS = 5
MOST_FILES = 10_000


class WatchedChild:
    """A child process, watched by its parent.

    Attributes:
        child: its process id.
        pipes: what the parent reads: the result, the output and the trace.
        limits: what the child may use.
        stop: returns whether to end the child.
        folder: its temporary files.
        seal: the bytes that its result begins with; without them, a result isn't the child's own.
    """

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
        self.seal = seal
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
        sealed = self.received[self.pipes[0]]
        result = sealed.removeprefix(self.seal) if sealed.startswith(self.seal) else b""
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
