"""Follow a job of Slurm: its state in the queue, its output, and its exit code."""

import signal
import sys
import time
from pathlib import Path

from launcher import slurm_jobs
from launcher.cards import Card, print_status
from launcher.interrupts import Interrupted
from launcher.slurm_jobs import Job, NoController

SECONDS_BETWEEN_LOOKS = 1
KILLED_BY_LIMIT = 15  # TERM, the signal that Slurm reports for a job that reached its limit
_ENDS = {
    "TIMEOUT": ("reached its time limit", "--time with more minutes, such as --time 120"),
    "CANCELLED": ("was cancelled", "invoke lab … again"),
    "PREEMPTED": ("made room for a job of higher priority", "invoke lab … again"),
    "NODE_FAIL": ("lost a node", "sinfo -R shows why; then invoke lab … again"),
    "OUT_OF_MEMORY": ("needed more memory than it had", '--slurm-options "--mem=32G"'),
}


def follow(number: str) -> int:
    """Show a job's state and output until it ends; return its exit code.

    On Ctrl-C, ask whether to cancel the job or to leave it running. Without a terminal, or on
    another signal, leave it.

    Raises:
        Card: If Slurm ended the job, or forgot it.
        Interrupted: After Ctrl-C.
    """
    try:
        return _exit_code(_watch(number))
    except Interrupted as interrupted:  # as long as it lives, no other is raised
        by_key = interrupted.args == (signal.SIGINT,)
        if by_key and sys.stdin.isatty() and sys.stderr.isatty():
            _cancel_or_leave(number)
        else:
            _say_how_to_go_on(number)
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
        if description != shown:
            print_status(f"Job {number} {description}.")
            shown = description
        if job is not None:
            read = _show_output(job.log, read)
            if job.has_ended:
                return job
        time.sleep(SECONDS_BETWEEN_LOOKS)


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


def _exit_code(job: Job) -> int:
    """Return the exit code of a job that has ended, as a shell would report it.

    Raises:
        Card: If Slurm ended it, or it couldn't start.
    """
    if job.state == "COMPLETED":
        return 0
    code = 128 + job.signal if job.signal else job.exit_status
    if job.state == "FAILED" and job.exit_status:
        return job.exit_status
    why, fix = _ENDS.get(job.state, ("couldn't run", f"scontrol show job {job.number}"))
    raise Card(
        f"Job {job.number} {why}.",
        f"Slurm reports {job.state}, exit code {job.exit_status}, signal {job.signal}.",
        f"{fix}; its output: {job.log}",
        code or 128 + KILLED_BY_LIMIT,
    )


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
