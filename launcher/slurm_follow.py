"""Follow a job of Slurm: its state in the queue, its output, and its exit code."""

import signal
import sys
import time
from pathlib import Path

from launcher import slurm_jobs, slurm_reasons
from launcher.cards import print_status
from launcher.interrupts import Interrupted
from launcher.slurm_ends import exit_code
from launcher.slurm_jobs import Job, NoController

SECONDS_BETWEEN_LOOKS = 1


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
    card = slurm_reasons.why_never(job.number, job.reason)
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
    """Ask on a terminal whether to cancel a job."""
    print(
        f"\nCancel job {number}, or leave it running? [c/L] ", end="", file=sys.stderr, flush=True
    )
    try:
        answer = sys.stdin.readline()
    except OSError:  # the terminal is gone
        answer = ""
    if answer.strip().lower().startswith("c"):
        slurm_jobs.cancel(number)
        print_status(f"Cancelled job {number}.")
    else:
        _say_how_to_go_on(number)


def _say_how_to_go_on(number: str) -> None:
    print_status(
        f"Job {number} goes on. Follow it again: invoke jobs {number}. Cancel it: scancel {number}"
    )
