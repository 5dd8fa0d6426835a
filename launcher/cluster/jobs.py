"""Slurm's jobs: submit, ask for the state, cancel, list. Through Slurm's own commands."""

import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.cards import Card
from common.interrupts import INTERRUPTED
from common.processes import capture
from launcher import ROOT
from launcher.cluster import log as slurm_log
from launcher.cluster import reasons as slurm_reasons
from launcher.cluster import refusals as slurm_refusals
from launcher.cluster.log import PREEMPTED, first_failure, since_last_start
from launcher.cluster.refusals import NO_CLUSTER, UNREACHABLE
from launcher.cluster.script import PREFIX, SlurmOptions

WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT")
_AGAIN = "; Slurm starts it again in about two minutes"
_FIELD = re.compile(r"([\w:/.]+)=(.*?)(?=\s[\w:/.]+=|\s*$)")


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
    restarts: int = 0
    tasks: int = 1
    time: str = ""  # that it has run, as squeue shows it
    memory: str = ""  # of each node, such as 500M; 0 is all
    time_limit: str = ""

    @property
    def has_ended(self) -> bool:
        """Return whether it neither waits nor runs."""
        return self.state not in (*WAITING, *RUNNING)

    @property
    def again(self) -> str:
        """Return the command that submits it again."""
        return self.again_with()

    def again_with(self, *options: str) -> str:
        """Return the command that submits it again with these options, which win over its own."""
        return shlex.join(["sbatch", *options, str(self.script)])

    @property
    def has_started(self) -> bool:
        """Return whether Slurm has given it nodes."""
        return self.nodes not in ("", "(null)")

    @property
    def is_waiting(self) -> bool:
        """Return whether it waits in the queue."""
        return self.state in WAITING

    @property
    def was_refused(self) -> bool:
        """Return whether sbatch refused it; Slurm lists it for some minutes."""
        return self.state == "FAILED" and not self.has_started

    @property
    def code_of_first_failure(self) -> int:
        """Return the exit code of the first task that failed.

        The job's own exit code is the highest of its tasks. That of a task that Slurm ended,
        because another one failed, is 143.
        """
        failure = first_failure(self.log)
        return (failure and failure.exit_code) or self.exit_status

    @property
    def stopped_as_asked(self) -> bool:
        """Return whether its training stopped at Slurm's signal, with a checkpoint."""
        return self.state == "FAILED" and self.code_of_first_failure == INTERRUPTED

    @property
    def is_preempted(self) -> bool:
        """Return whether Slurm took its nodes for another job, and starts it again."""
        begins_later = self.is_waiting and self.reason == "BeginTime"
        if not self.restarts or not (begins_later or self.state == "COMPLETING"):
            return False
        return PREEMPTED in since_last_start(self.log)

    @property
    def description(self) -> str:
        """Return its state in words that follow "job 12"."""
        if self.is_preempted:
            return f"was preempted and waits in the queue{_AGAIN}"
        if self.is_waiting:
            again = _AGAIN if self.restarts and self.reason == "BeginTime" else ""
            return f"waits in the queue{slurm_reasons.in_words(self.reason)}{again}"
        if self.stopped_as_asked:
            return f"stopped as asked; to continue: {self.again}"
        if self.state == "RUNNING":
            return f"runs on {self.nodes}"
        if self.state == "COMPLETING":
            return f"is ending; Slurm waits for {self.nodes} (sinfo marks a silent node with *)"
        return self.state.lower() if self.state in RUNNING else f"ended: {self.state}"


def refuse_impossible(script: Path, options: SlurmOptions) -> None:
    """Refuse a job that Slurm would refuse, before something takes long for it.

    While a node is drained or down, `--test-only` also refuses what Slurm would queue.

    Raises:
        Card: If Slurm isn't here, or refuses.
    """
    code, _, errors = _slurm(["sbatch", "--test-only", str(script)])
    if code == 0:
        return
    states = set(_ask(["sinfo", "--noheader", "--format=%t"]).split())
    if states <= {"idle", "mix", "alloc", "comp"}:
        raise slurm_refusals.card(errors, options, _ask)


def memory_of(nodes: str) -> int:
    """Return the memory of the smallest of these nodes in MB; 0 if it isn't known."""
    sizes = _ask(["sinfo", "--noheader", f"--nodes={nodes}", "--format=%m"]).split()
    return min((int(size) for size in sizes if size.isdecimal()), default=0)


def time_limits(job: Job) -> str:
    """Return the time that a job asks for and that each partition allows; "" if it isn't known."""
    rows = [row.split() for row in _ask(["sinfo", "-h", "-o", "%R %l"]).splitlines()]
    limits = ", ".join(f"{row[0]} {row[1]}" for row in rows if len(row) == 2)
    zero = " (a time of 0 is no limit)" if job.time_limit == "UNLIMITED" else ""
    asked = f"The job asks for {job.time_limit}{zero}. The partitions allow: {limits}."
    return asked if limits else ""


def submit(script: Path, options: SlurmOptions) -> str:
    """Submit a script with these options; return the number of its job.

    Raises:
        Card: If Slurm isn't here, or refuses.
    """
    code, out, errors = _slurm(["sbatch", "--parsable", str(script)])
    if code != 0:
        problem = errors or f"sbatch ended with code {code}."
        raise slurm_refusals.card(problem, options, _ask)
    return out.strip().partition(";")[0]  # with several clusters, a name follows


def find(number: str) -> Job:
    """Return a job that waits, runs or ended a few minutes ago.

    Raises:
        NoController: If the controller doesn't respond.
        Card: If Slurm doesn't know the job.
    """
    code, out, errors = _slurm(["scontrol", "--oneliner", "show", "job", number])
    if code != 0 and UNREACHABLE.search(errors):
        raise NoController(errors)
    if code != 0 or not out.strip():
        raise _unknown(number, errors or "scontrol printed nothing")
    return parse(out)


def _unknown(number: str, problem: str) -> Card:
    """Return the card for a job that Slurm doesn't know; its output may still be here."""
    forgets = "Slurm forgets a job minutes after its end"
    log = slurm_log.FOLDER / f"{number}.log"
    if log.is_file():
        shown = shlex.quote(str(log.relative_to(ROOT)))
        fix = f"to read its output: less {shown}"
        return Card(f"Slurm has forgotten job {number}.", f"{forgets}.", fix)
    why = f"{problem}. {forgets}."
    return Card(f"Slurm doesn't know job {number}.", why, "invoke jobs lists the jobs it knows")


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
        int(fields.get("Restarts", "0")),
        int(fields.get("NumTasks", "1")),
        memory=fields.get("MinMemoryNode", ""),
        time_limit=fields.get("TimeLimit", ""),
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
    names = ("JobID", "Name", "State", "Reason", "NodeList", "exit_code", "TimeUsed", "Command")
    form = ",".join(f"{name}:500|" for name in names)  # by default, 20 characters of each
    command = ["squeue", "--me", "--states=all", "--noheader", f"--Format={form}"]
    code, out, errors = _slurm(command)
    if code != 0:
        raise Card("Slurm doesn't list the jobs.", errors or f"code {code}", "sinfo")
    rows = [[cell.strip() for cell in line.split("|")[:-1]] for line in out.splitlines()]
    jobs = [_row(row) for row in rows if len(row) == len(names)]
    listed = [job for job in jobs if job.name.startswith(PREFIX) and not job.was_refused]
    return sorted(listed, key=lambda job: int(job.number.partition("_")[0]))


def _row(values: list[str]) -> Job:
    number, name, state, reason, nodes, status, time, script = values
    exit_status = int(status.partition(":")[0])
    return Job(number, name, state, reason, nodes, exit_status, script=Path(script), time=time)


def _ask(command: list[str]) -> str:
    """Return the output of one of Slurm's commands, or "" after an error."""
    try:
        return _slurm(command)[1]
    except Card:
        return ""


def _slurm(command: list[str]) -> tuple[int, str, str]:
    """Run one of Slurm's commands; return its exit code, its output and its errors.

    Raises:
        Card: If it isn't installed, or finds no cluster.
    """
    try:
        result = capture(command, stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise Card(
            f"Slurm's command {command[0]} isn't here.",
            "Jobs are submitted from a machine of the cluster, such as its login node.",
            "ssh to the login node; or without Slurm: invoke lab … without --on",
        ) from error
    errors = result.stderr.strip()
    if result.returncode and NO_CLUSTER.search(errors):
        raise slurm_refusals.no_cluster(errors)
    return result.returncode, result.stdout, errors
