"""Slurm's jobs: submit, ask for the state, cancel, list. Through Slurm's own commands."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.cards import Card
from launcher.processes import capture
from launcher.slurm_script import PREFIX

WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT")
_FIELD = re.compile(r"([\w:/.]+)=(.*?)(?=\s[\w:/.]+=|\s*$)")
_UNREACHABLE = re.compile("unable to contact slurm controller|timed out|connect", re.IGNORECASE)


class NoController(Exception):
    """Slurm's controller doesn't respond; it may be starting again."""


@dataclass(frozen=True)
class Job:
    """A job as Slurm describes it."""

    number: str
    name: str
    state: str
    reason: str = ""
    nodes: str = ""
    exit_status: int = 0
    signal: int = 0
    log: Path = Path()
    script: Path = Path()

    @property
    def has_ended(self) -> bool:
        """Return whether it neither waits nor runs."""
        return self.state not in (*WAITING, *RUNNING)

    @property
    def description(self) -> str:
        """Return its state in words that follow "job 12"."""
        if self.state in WAITING:
            return "waits in the queue" + _why_it_waits(self.reason)
        if self.state == "RUNNING":
            return f"runs on {self.nodes}"
        if self.state == "COMPLETING":
            return f"is ending; Slurm waits for {self.nodes} (sinfo marks a silent node with *)"
        return self.state.lower() if self.state in RUNNING else f"ended: {self.state}"


def _why_it_waits(reason: str) -> str:
    if reason in ("", "None"):
        return ""
    reason = reason.replace("_", " ")  # scontrol writes a sentence so
    down = "DOWN" in reason or "ReqNodeNotAvail" in reason
    hint = "; sinfo -R lists the nodes that are down or drained" if down else ""
    return f" ({reason}){hint}"


def submit(script: Path) -> str:
    """Submit a script; return the number of its job.

    Raises:
        Card: If Slurm isn't here, or refuses.
    """
    code, out, errors = _slurm(["sbatch", "--parsable", str(script)])
    if code != 0:
        raise Card(
            "Slurm refuses the job.",
            errors or f"sbatch ended with code {code}.",
            f"sinfo shows what the cluster has; the script is {script}",
        )
    return out.strip().partition(";")[0]  # with several clusters, a name follows


def find(number: str) -> Job:
    """Return a job that waits, runs or ended a few minutes ago.

    Raises:
        NoController: If the controller doesn't respond.
        Card: If Slurm doesn't know the job.
    """
    code, out, errors = _slurm(["scontrol", "--oneliner", "show", "job", number])
    if code != 0 and _UNREACHABLE.search(errors):
        raise NoController(errors)
    if code != 0 or not out.strip():
        raise Card(
            f"Slurm doesn't know job {number}.",
            f"{errors or 'scontrol printed nothing.'} Slurm forgets a job minutes after its end.",
            "invoke jobs",
        )
    return parse(out)


def parse(line: str) -> Job:
    """Return the job that a line of `scontrol show job` describes."""
    fields: Mapping[str, str] = dict(_FIELD.findall(line.splitlines()[0]))
    status, _, number = fields.get("ExitCode", "0:0").partition(":")
    return Job(
        fields["JobId"],
        fields.get("JobName", ""),
        fields.get("JobState", ""),
        fields.get("Reason", ""),
        fields.get("NodeList", ""),
        int(status),
        int(number or 0),
        Path(fields.get("StdOut", "")),
        Path(fields.get("Command", "")),
    )


def cancel(number: str) -> None:
    """Cancel a job.

    Raises:
        Card: If Slurm refuses.
    """
    code, _, errors = _slurm(["scancel", number])
    if code != 0:
        raise Card(f"Job {number} can't be cancelled.", errors, f"scancel {number}")


def ours() -> list[Job]:
    """Return this user's jobs of llm-labs: waiting, running, and those that ended recently.

    Raises:
        Card: If Slurm isn't here, or doesn't respond.
    """
    form = "%i|%j|%T|%r|%N"
    command = ["squeue", "--me", "--states=all", "--noheader", f"--format={form}"]
    code, out, errors = _slurm(command)
    if code != 0:
        raise Card("Slurm doesn't list the jobs.", errors or f"code {code}", "sinfo")
    rows = [line.split("|", 4) for line in out.splitlines() if line.count("|") >= 4]
    jobs = [Job(number, name, state, reason, nodes) for number, name, state, reason, nodes in rows]
    return [job for job in jobs if job.name.startswith(PREFIX)]


def _slurm(command: list[str]) -> tuple[int, str, str]:
    """Run one of Slurm's commands; return its exit code, its output and its errors.

    Raises:
        Card: If it isn't installed.
    """
    try:
        result = capture(command, stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise Card(
            f"Slurm's command {command[0]} isn't here.",
            "Jobs are submitted from a machine of the cluster, such as its login node.",
            "ssh to the login node; or without Slurm: invoke lab … without --on",
        ) from error
    return result.returncode, result.stdout, " ".join(result.stderr.split())
