"""Run the steps of a build, and write their output to a log.

A terminal shows a bar, a pipe a line for each step.
"""

import os
import re
import shlex
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from common.cards import Card, print_status
from common.processes import stream_output
from launcher.engine.known_errors import explain
from launcher.environment.install_meter import Meter
from launcher.run.file_owner import Owner, give_to, make_folder

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

TAIL_BYTES = 16_384  # known errors are looked for in this much output
LAST_LINES = 6  # in a card
_PASSWORD = re.compile(r"//[^/@\s]+@")
_LINE_ENDS = re.compile(rb"[\r\n]+")


def _no_meter(_: str) -> None:
    return None


@dataclass(frozen=True)
class Step:
    """A command of a build.

    Attributes:
        title: What it makes, for people; "" for a step that takes no time.
        command: Its words.
        seconds: How long it takes on two cores with a fast network: its share of the bar.
        variables: Its additional environment variables.
        meter: Reads its output for progress.
    """

    title: str
    command: list[str]
    seconds: float = 1
    variables: dict[str, str] = field(default_factory=dict[str, str])
    meter: Meter = field(default=_no_meter, compare=False)

    @property
    def words(self) -> list[str]:
        """Return the command with its variables, for people: without passwords in URLs."""
        variables = [f"{name}={value}" for name, value in self.variables.items()]
        words = ["env", *variables, *self.command] if variables else self.command
        return [_PASSWORD.sub("//…@", word) for word in words]


def run_build(log: Path, owner: Owner, failure: str, steps: Sequence[Step]) -> None:
    """Run the steps of a build.

    Args:
        log: The file for their output.
        owner: The user that it belongs to.
        failure: What couldn't be made, as a sentence, for a step that fails in an unknown way.
        steps: The steps.

    Raises:
        Card: If a step fails; the card has its last lines and the path of the log.
    """
    with suppress(OSError):  # a read-only clone: then there is no log
        make_folder(log.parent, owner)
    build = _Build(log, failure)
    try:
        with build.running(steps):
            for step in steps:
                build.run(step)
    finally:
        give_to(owner, [log])


class _Build:
    """A running build: its log and what it shows."""

    def __init__(self, log: Path, failure: str) -> None:
        self.log = log  # where the output goes
        self.failure = failure  # what couldn't be made
        self._file: IO[bytes] | None = None
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._done = 0.0

    @contextmanager
    def running(self, steps: Sequence[Step]) -> Generator[None]:
        console = Console(stderr=True)
        start = time.monotonic()
        with suppress(OSError):  # a full or read-only disk: the build itself reports it
            self._file = self.log.open("wb", buffering=0)
        try:
            if sys.stderr.isatty() and "CI" not in os.environ:
                bar = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
                with Progress(*bar, console=console, transient=True) as progress:
                    self._progress = progress
                    self._task = progress.add_task("", total=sum(step.seconds for step in steps))
                    yield
            else:
                yield
            log = f" The log is {self.log}." if self._file else ""
            print_status(f"Done in {time.monotonic() - start:.0f} s.{log}")
        finally:
            self._progress = None
            if self._file is not None:
                self._file.close()

    def run(self, step: Step) -> None:
        if step.title:
            self._show(step.title)
        self._write(f"\n$ {shlex.join(step.words)}\n".encode())
        output = _Output()

        def receive(chunk: bytes) -> None:
            self._write(chunk)
            for line in output.add(chunk):
                self._show_progress(step, step.meter(line))

        variables = {**os.environ, "PYTHONNOUSERSITE": "1", **step.variables}
        if stream_output(step.command, variables, receive):
            raise self._card(output.tail.decode(errors="replace"))
        self._done += step.seconds
        self._advance_to(self._done)

    def _show_progress(self, step: Step, progress: float | str | None) -> None:
        if isinstance(progress, str):
            self._show(progress)
        elif progress is not None:
            self._advance_to(self._done + step.seconds * min(progress, 1))

    def _show(self, title: str) -> None:
        if self._progress is None:
            print_status(f"  {title}")
        else:
            self._progress.update(self._task, description=title)

    def _advance_to(self, seconds: float) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=seconds)

    def _write(self, output: bytes) -> None:
        if self._file is not None:
            with suppress(OSError):  # a full disk: the build itself reports it
                self._file.write(output)

    def _card(self, output: str) -> Card:
        card = explain(output, self.failure)
        lines = [line for line in map(_last_version, output.split("\n")) if line.strip()]
        last = "\n".join(f"  {line}" for line in lines[-LAST_LINES:])
        of_log = f" of {self.log}" if self._file else ""
        why = f"{card.why}\nThe last lines{of_log}:\n{last}"
        return Card(card.what, why, card.fix, card.code)


class _Output:
    """The output of a step: its end, and its lines as they come."""

    def __init__(self) -> None:
        self.tail = b""
        self._rest = b""

    def add(self, chunk: bytes) -> list[str]:
        """Return the lines that this chunk completes."""
        self.tail = (self.tail + chunk)[-TAIL_BYTES:]
        *lines, self._rest = _LINE_ENDS.split(self._rest + chunk)
        return [line.decode(errors="replace") for line in lines]


def _last_version(line: str) -> str:
    """Return what is left of a line that overwrote itself, as progress bars do."""
    return line.rstrip().rpartition("\r")[2]
