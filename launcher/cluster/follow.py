"""Follow a job of Slurm: its state in the queue, its output, and its exit code."""

import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.cards import print_status
from common.interrupts import Interrupted
from launcher.cluster import jobs as slurm_jobs
from launcher.cluster import reasons as slurm_reasons
from launcher.cluster.ends import exit_code, how_it_goes_on
from launcher.cluster.jobs import Job, NoController

SECONDS_BETWEEN_LOOKS = 1
SECONDS_TO_END = 60  # of a cancelled job; Slurm's KillWait is 30 by default


def follow(number: str) -> int:
    """Show a job's state and output until it ends; return its exit code.

    On Ctrl-C, ask whether to cancel the job or to leave it running. Without a terminal, or on
    another signal, leave it.

    Raises:
        Card: If Slurm ended the job, can't start it, or forgot it.
        Interrupted: After Ctrl-C.
    """
    try:
        return exit_code(_watch(number))
    except Interrupted as interrupted:  # as long as it lives, no other is raised
        by_key = interrupted.args == (signal.SIGINT,)
        if by_key and sys.stdin.isatty() and sys.stderr.isatty():
            _cancel_or_leave(number)
        else:
            _say_how_to_go_on(number)
        interrupted.explained = True
        raise


def _watch(number: str) -> Job:
    """Show a job's state and output until it ends."""
    shown = ""
    read = 0
    while True:
        try:
            job = slurm_jobs.find(number)
            description = job.description
        except NoController:
            job = None
            description = "is unknown: Slurm's controller doesn't respond; trying again"
        if job is not None and job.has_ended:
            _show_output(job.log, read)
            print_status(f"Job {number} {description}.")
            return job
        if job is not None and job.is_waiting:
            _refuse_endless_wait(job)
        if description != shown:
            print_status(f"Job {number} {description}.")
            shown = description
        if job is not None:
            read = _show_output(job.log, read)
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _refuse_endless_wait(job: Job) -> None:
    limits = slurm_jobs.time_limits(job) if job.reason == slurm_reasons.TOO_LONG else ""
    card = slurm_reasons.why_never(job.number, job.reason, limits)
    if card is not None:
        raise card


def _show_output(log: Path, start: int) -> int:
    """Copy a log from `start` to stdout; return where it ends. It may not exist yet."""
    try:
        with log.open("rb") as file:
            file.seek(start)
            data = file.read()
    except OSError:
        return start
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
    return start + len(data)


def _cancel_or_leave(number: str) -> None:
    """Ask on a terminal whether to cancel a job; a second Ctrl-C leaves it."""
    question = f"\nCancel job {number}, or leave it running? [c/L] "
    answer = ""
    # Suppressed: the terminal is gone, or Ctrl-C, from the moment when the question is shown.
    with _ctrl_c_again(), suppress(OSError, KeyboardInterrupt):
        print(question, end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
    if answer.strip().lower().startswith("c"):
        slurm_jobs.cancel(number)
        _report_end_of_cancelled(number)
    else:
        _say_how_to_go_on(number)


@contextmanager
def _ctrl_c_again() -> Generator[None]:
    """Let Ctrl-C raise KeyboardInterrupt in this block, although Interrupted was raised before."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _report_end_of_cancelled(number: str) -> None:
    """Wait for the end of a cancelled job; report its last checkpoint. Ctrl-C doesn't wait."""
    print_status(f"Cancelling job {number}. A training saves a checkpoint first.")
    job = None
    with _ctrl_c_again(), suppress(KeyboardInterrupt):
        job = _wait_for_end(number)
    if job is None:
        print_status(f"Cancelled job {number}, which is still ending: invoke jobs {number}.")
    else:
        print_status(f"Cancelled job {number}. To go on: {job.again}, which {how_it_goes_on(job)}.")


def _wait_for_end(number: str) -> Job | None:
    """Return a job once it has ended, or None if it takes longer than it may."""
    deadline = time.monotonic() + SECONDS_TO_END
    while time.monotonic() < deadline:
        with suppress(NoController):
            job = slurm_jobs.find(number)
            if job.has_ended:
                return job
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return None


def _say_how_to_go_on(number: str) -> None:
    print_status(
        f"Job {number} goes on. Follow it again: invoke jobs {number}. Cancel it: scancel {number}"
    )
