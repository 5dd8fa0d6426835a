"""Run a lab's experiments on a learner's sheet, in a process that can only change outputs/.

The process that starts it runs no line of the sheet, so it can record the progress. It reads the
numbers from results.json, which the sheet's process wrote: they can be forged, and nothing but the
display depends on them.
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from common import progress, sheets, workbook
from common.cards import INTERRUPTED, Card
from common.options import SHARED, Settings
from common.syllabus import Lesson, find
from common.terminal import line
from labs.kit.run import plain_output
from labs.kit.run.filled_sheet import written_parts
from labs.kit.run.processes import is_main, leave
from labs.kit.run.run_folder import writing_to
from labs.kit.sandbox import child, files, landlock, proc, seccomp, syscalls

INSIDE = "LABS_SHEET_PROCESS"  # set in the sheet's process, and in those that it starts
SECRETS = re.compile("TOKEN|SECRET|PASSWORD|CREDENTIAL|_KEY$|AUTH", re.IGNORECASE)
SECONDS_TO_END = 10
POLL_SECONDS = 0.1
LARGEST_RESULTS = 2**26  # bytes
UNRESTRICTED = (
    "This kernel has no Landlock (Linux 5.13 or newer): outside of a container, the code of this "
    "sheet can read and change all files that you can."
)
RESOLVER = Path("/run/systemd/resolve")  # of host names, with --online


def is_inside() -> bool:
    """Return whether this process may run a sheet: it is restricted."""
    return INSIDE in os.environ


def never() -> bool:
    """Return False: nobody stops the experiments."""
    return False


def run(
    lesson: Lesson,
    settings: Settings,
    words: list[str],
    seconds: float = math.inf,
    stop: Callable[[], bool] = never,
) -> int:
    """Run the experiments on the sheet that the settings name; record the progress.

    Args:
        lesson: the lab.
        settings: the options of the run.
        words: the lab's own options, as on the command line.
        seconds: a limit of time.
        stop: asked ten times a second whether to interrupt the run, as Ctrl-C does.

    Returns:
        The exit code; negative if a signal ended the process.

    Raises:
        Card: if the outputs folder can't be written.
        KeyboardInterrupt: on Ctrl-C, or if `stop` says so; the process has ended then.
        TimeoutExpired: if the time is over; the process is ended then.
    """
    assert settings.sheet is not None
    text = workbook.read(settings.sheet)
    with writing_to(settings.outputs):
        settings.outputs.mkdir(parents=True, exist_ok=True)
    if not landlock.version():
        line(UNRESTRICTED)
    before = _runs(lesson, settings)
    with (
        child.protected_parent(),
        tempfile.TemporaryDirectory(prefix="llm-labs-", ignore_cleanup_errors=True) as folder,
    ):
        known = set(proc.descendants(os.getpid()))
        try:
            command = [sys.executable, "-m", "labs.kit.run.sheet_process", lesson.name]
            command += [*_common_words(settings), *words]
            process = subprocess.Popen(command, env=_variables(folder, settings))
            code = _wait_for(process, seconds, stop)
        finally:
            proc.end_orphans(known)
    if is_main() and not settings.only:
        _record_progress(lesson, settings.sheet, text, _runs(lesson, settings) - before)
    return code


def _common_words(settings: Settings) -> list[str]:
    """Return the options that every lab has, as on the command line."""
    words: list[str] = []
    for option in SHARED:
        value = getattr(settings, option.name)
        if value is True:
            words.append(f"--{option.name}")
        elif value != option.default:
            words.append(f"--{option.name}={value}")
    return words


def _wait_for(process: "subprocess.Popen[bytes]", seconds: float, stop: Callable[[], bool]) -> int:
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(POLL_SECONDS)
            if stop():
                process.send_signal(signal.SIGINT)
                raise KeyboardInterrupt
        raise subprocess.TimeoutExpired(process.args, seconds)
    except KeyboardInterrupt:  # both processes get Ctrl-C
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
        raise
    finally:
        process.kill()
        process.wait()


def _variables(folder: str, settings: Settings) -> dict[str, str]:
    """Return the environment variables of the sheet's process: no secrets, all caches in a folder.

    With --online, the hub's cache stays where it is; it may contain a token.
    """
    kept = {name: value for name, value in os.environ.items() if not SECRETS.search(name)}
    if settings.online:
        kept.setdefault("HF_HOME", str(Path.home() / ".cache" / "huggingface"))
    return {**kept, **dict.fromkeys(files.CACHES, folder), INSIDE: "1"}


def _runs(lesson: Lesson, settings: Settings) -> set[Path]:
    return set((settings.outputs / lesson.name).glob("*/results.json"))


def _record_progress(lesson: Lesson, sheet: Path, text: str, new: set[Path]) -> None:
    """Record the result of a run on a learner's sheet, if it has written one."""
    for path in sorted(new)[-1:]:
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            if path.stat().st_size > LARGEST_RESULTS:
                return
            data: Any = json.loads(path.read_text("utf-8"))
            checks = [bool(one["passed"]) for part in data["experiments"] for one in part["checks"]]
            run: dict[str, Any] = {
                "text": sheets.digest(text),
                "yours": len(written_parts(lesson, sheet, text)),
                "passed": sum(checks),
                "of": len(checks),
                "whole": bool(data["passed"]),  # nothing failed, nothing crashed
                "seconds": round(float(data["timings"]["seconds"]), 1),
                "report": str(path.with_name("report.html")),
                "when": progress.now(),
            }
            with progress.changing(lesson.name) as record:
                record.add_run(run)


def restrict(settings: Settings) -> None:
    """Restrict this process to what a lab reads, the outputs folder and temporary files."""
    readable = [*files.readable(), *_named_files(settings)]
    writable = [settings.outputs, Path(tempfile.gettempdir()), Path(os.devnull)]
    writable += files.gpu_devices()
    if settings.online:
        readable.append(RESOLVER)
        writable.append(Path(os.environ["HF_HOME"]))
    landlock.restrict_files(readable, writable)
    # NVIDIA's library connects the processes of several GPUs by sockets.
    seccomp.restrict_calls(as_check=False, unix_sockets=files.has_gpu())


def _named_files(settings: Settings) -> list[Path]:
    """Return the files and folders that the options name: the sheet, a model, a data set."""
    values = [settings.sheet, *vars(settings.own).values()]
    named = [Path(value) for value in values if isinstance(value, str | Path) and value]
    return [path for path in named if path.exists()]


def main() -> int:
    """Run the lab that the command line names; return the exit code."""
    syscalls.set_attribute(syscalls.PR_SET_PDEATHSIG, 9)
    if os.getppid() == 1:
        return INTERRUPTED
    name, *words = sys.argv[1:]
    return call(lambda: _run_restricted(name, words))


def _run_restricted(name: str, words: list[str]) -> int:
    lab = import_module(find(name)[0].module).lab
    settings = lab.parse(words)
    restrict(settings)
    return lab.run_with(settings)


def call(function: Callable[[], int]) -> int:
    """Call a function that runs a lab; show a card that it raises, and return the exit code."""
    if is_inside():
        plain_output.protect_terminal()
    try:
        return function()
    except Card as card:
        card.show()
        return card.code
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    leave(main())
