"""How a job of Slurm ended: its exit code as a shell would report it, or a card."""

import shlex
import shutil

from common.cards import WRONG_ENVIRONMENT, Card
from launcher.cluster import jobs as slurm_jobs
from launcher.cluster import log as slurm_log
from launcher.cluster.jobs import Job
from launcher.run import checkpoints

KILLED_BY_LIMIT = 15  # TERM, the signal that Slurm reports for a job that reached its limit
FULL = 2**20  # bytes: with less free space, the end of an output can be missing
_CONTINUE = "{again}, which {how}"
_MORE_MEMORY = f"{_CONTINUE}; {{more_memory}}"
_ENDS = {
    "TIMEOUT": ("reached its time limit", f"{_CONTINUE}; with more time: {{with_time}}"),
    "CANCELLED": ("was cancelled", _CONTINUE),
    "PREEMPTED": ("made room for a job of higher priority", _CONTINUE),
    "NODE_FAIL": ("lost a node", f"{_CONTINUE}; sinfo -R shows why the node is down"),
    "OUT_OF_MEMORY": ("needed more memory than it had", _MORE_MEMORY),
}


def exit_code(job: Job) -> int:
    """Return the exit code of a job that has ended.

    Raises:
        Card: If Slurm ended the job, or it couldn't start, or the lab couldn't say why it failed.
    """
    if job.has_started and slurm_log.is_missing(job.log):
        raise _no_output(job)
    if job.state == "COMPLETED":
        return 0
    code = 128 + job.signal if job.signal else job.exit_status
    if job.state == "FAILED" and job.exit_status:
        if card := _full_disk(job) or _failed_launch(job) or _killed_task(job):
            raise card
        return job.code_of_first_failure
    why, fix = _ENDS.get(job.state, ("couldn't run", "scontrol show job {number}"))
    output = f"; its output: {job.log}" if job.has_started else ""
    raise Card(
        f"Job {job.number} {why}.",
        f"Slurm reports {job.state}, exit code {job.exit_status}, signal {job.signal}.",
        _fix(fix, job) + output,
        code or 128 + KILLED_BY_LIMIT,
    )


def _fix(template: str, job: Job) -> str:
    """Return what to do, with the commands and figures of this job."""
    return template.format(
        number=job.number,
        again=job.again,
        how=how_it_goes_on(job),
        more_memory=_more_memory(job) if "{more_memory}" in template else "",
        with_time=job.again_with("--time=MINUTES"),
    )


def _more_memory(job: Job) -> str:
    """Return how a job gets more memory."""
    megabytes = slurm_jobs.memory_of(job.nodes)
    size = f" ({megabytes:,} MB)" if megabytes else ""
    if job.memory in ("0", f"{megabytes}M", f"{megabytes / 1024:g}G"):
        return f"it had all memory of its nodes{size}: use more --nodes, or a smaller --size"
    return f"with all memory of its nodes{size}: {job.again_with('--mem=0')}"


def _no_output(job: Job) -> Card:
    """Return the card for a job that ran and whose output isn't where Slurm should write it."""
    return Card(
        f"Job {job.number} ended and wrote no output here.",
        f"Its node {job.nodes} doesn't see {job.log.parent}: the clone isn't on a file system "
        "that the nodes share.",
        "clone into a folder that they share, then submit again",
        job.exit_status or WRONG_ENVIRONMENT,
    )


def how_it_goes_on(job: Job) -> str:
    """Return from where a job that is submitted again goes on."""
    step = checkpoints.newest_step_of_job(job.again)
    if step is None:
        return "starts from the beginning: this job saved no checkpoint"
    return f"goes on from the checkpoint of step {step:,}"


def _full_disk(job: Job) -> Card | None:
    """Return the card for an output that may lack its end, and with it the lab's own card."""
    folder = job.log.parent
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return None
    if free >= FULL:
        return None
    return Card(
        f"Job {job.number} failed, and the disk of its output is full.",
        f"{free:,} bytes are free in {folder}; the end of {job.log.name} may be missing.",
        f"free space (df -h {shlex.quote(str(folder))}), then {job.again}",
        job.exit_status,
    )


def _failed_launch(job: Job) -> Card | None:
    """Return the card for a node that didn't start its processes; Slurm ended those of others."""
    found = slurm_log.failed_launch(job.log)
    if found is None:
        return None
    node, reason = found
    return Card(
        f"Job {job.number} failed: Slurm couldn't start its processes on {node}.",
        f"Slurm reports: {reason}.",
        f"sinfo -N shows the node's state. Without that node: "
        f"{job.again_with(f'--exclude={node}')}",
        job.exit_status,
    )


def _killed_task(job: Job) -> Card | None:
    """Return the card if a signal ended the first task that ended, so that it printed nothing."""
    failure = slurm_log.first_failure(job.log)
    if failure is None or failure.exit_code:
        return None
    killed = "Most often the kernel does that, when memory runs out."
    reports = f"Slurm reports {failure.end!r} for {failure.tasks} on {failure.node}."
    why = killed if failure.end.startswith("Killed") else "Native code probably crashed."
    return Card(
        f"Job {job.number} failed. {reports}",
        f"{why} Slurm then ended the other tasks." if job.tasks > 1 else why,
        _fix(_MORE_MEMORY, job),
        job.exit_status,
    )
