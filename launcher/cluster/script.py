"""The batch script of a lab for Slurm: readable, and complete without the launcher."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.cluster.runtime import Shape, Start

PREFIX = "llm-labs-"  # of the names of our jobs
AGAIN = "Slurm starts this job again."  # in the output, after that of an earlier start
_WRITTEN_BY = "# Written by: "
_HEAD = """\
#!/bin/bash
# {title}. {how}
{written_by}{typed}
{directives}
set -euo pipefail
# A training shows this when Slurm asks it to stop before the time limit.
LABS_CONTINUE={again}
export LABS_CONTINUE
# A node without this file doesn't see the clone, or sees another one.
export LABS_MARKER={marker}
# srun doesn't take it from sbatch. https://slurm.schedmd.com/srun.html#OPT_cpus-per-task
if [ -n "${{SLURM_CPUS_PER_TASK:-}}" ]; then
    export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
fi
if [ "${{SLURM_RESTART_COUNT:-0}}" != 0 ]; then
    echo "{started_again}"
fi
# With others, several processes would train alone, or wait for processes that don't exist.
if [ "$SLURM_JOB_NUM_NODES ${{SLURM_NTASKS:-{tasks}}}" != "{nodes} {tasks}" ]; then
    echo "what: This script is for nodes={nodes}, ntasks={tasks}." >&2
    echo "why: Slurm gave it nodes=$SLURM_JOB_NUM_NODES, ntasks=${{SLURM_NTASKS:-{tasks}}}." >&2
    echo "fix: write another script: invoke lab ... --on slurm --nodes $SLURM_JOB_NUM_NODES" >&2
    exit 3
fi
"""
# A printed script, or a copy of one, doesn't know its name. Slurm knows which file was submitted.
_ITS_FILE = """scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=//p'"""
# NFS may show a new file some seconds late.
_SEES_CLONE = """\
for _ in 1 2 3 4; do
    if [ -e "$LABS_MARKER" ]; then break; fi
    sleep 5
done
if [ ! -e "$LABS_MARKER" ]; then
    echo "what: The node $SLURMD_NODENAME does not see the clone." >&2
    echo "why: It has no file $LABS_MARKER." >&2
    echo "fix: clone into a folder that all nodes share, then submit again" >&2
    exit 3
fi"""
_RENDEZVOUS = """
# The processes meet at the address by which Slurm itself reaches the first node.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_ADDR=$(scontrol --oneliner show node "$first" | sed -E 's/.* NodeAddr=([^ ]*).*/\\1/')
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
"""
# USR1 would end a process that doesn't handle it.
_STEP = """
# If a task fails, Slurm ends the others.
srun --kill-on-bad-exit=1 {options}bash -c '
{setup}
exec "$@"' task {command}
"""
_IGNORE = 'trap "" USR1'
WIDTH = 96  # of a command
SECONDS_TO_STOP = 60  # Slurm may send the signal up to a minute earlier


@dataclass(frozen=True)
class SlurmOptions:
    """What a job asks of Slurm. "" is the cluster's default."""

    partition: str = ""
    time: str = ""
    account: str = ""
    more: tuple[str, ...] = ()  # other options of sbatch


@dataclass(frozen=True)
class BatchJob:
    """A lab as a batch job, in a clone on a file system that all nodes share.

    Attributes:
        name: the lab's name, for people.
        clone: the folder in which it runs.
        path: its script; None if it is only printed.
        log: its output; %j is the job's number.
        shape: nodes, processes and GPUs.
        start: how its processes start.
        options: what it asks of Slurm.
        typed: the command that the user typed.
    """

    name: str
    clone: Path
    path: Path | None
    log: Path
    shape: Shape
    start: Start
    options: SlurmOptions
    typed: str = ""

    @property
    def job_name(self) -> str:
        """Return the name by which `invoke jobs` finds the job."""
        return PREFIX + self.name.replace(" ", "-")


def render(job: BatchJob) -> str:
    """Return the script of a job."""
    number = job.shape.total
    nodes = f"{job.shape.nodes} node{'s' if job.shape.nodes > 1 else ''}"
    title = f"{job.name} on {nodes}, {number} process{'es' if number > 1 else ''}"
    directives = "\n".join(f"#SBATCH {line}" for line in _directives(job))
    how, again = _how_to_submit(job)
    # The launcher has just written the script, so another copy of the clone doesn't have it.
    marker = shlex.quote(str(job.path or job.clone / "tasks.py"))
    typed = " ".join(job.typed.split())  # a line break would end the comment
    texts = {"how": how, "marker": marker, "again": again, "typed": typed}
    texts["written_by"] = _WRITTEN_BY
    tasks = job.shape.nodes * job.start.tasks
    numbers = {"nodes": job.shape.nodes, "tasks": tasks}
    fixed = {"title": title, "directives": directives, "started_again": AGAIN}
    parts = [_HEAD.format(**fixed, **numbers, **texts)]
    if tasks > 1:
        parts.append(_RENDEZVOUS)
    if job.start.exports:
        parts += ["\n", *(f"{line}\n" for line in job.start.exports)]
    setup = "\n".join([_IGNORE, _SEES_CLONE, *job.start.setup])
    options = "".join(f"{shlex.quote(option)} \\\n    " for option in job.start.options)
    command = _wrapped(job.start.command)
    parts.append(_STEP.format(setup=setup, command=command, options=options))
    return "".join(parts)


def command_of(script: Path) -> str:
    """Return the command that wrote a script, or "" if it can't be read."""
    try:
        lines = script.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    found = (line for line in lines if line.startswith(_WRITTEN_BY))
    return next(found, "").removeprefix(_WRITTEN_BY)


def _how_to_submit(job: BatchJob) -> tuple[str, str]:
    """Return a comment on how to submit the script, and the command as a word of a shell."""
    if job.path is None:
        folder = shlex.quote(str(job.log.parent))
        return f"Save it, then:\n#   mkdir -p {folder} && sbatch FILE", f'"sbatch $({_ITS_FILE})"'
    path = shlex.quote(str(job.path))
    how = f"To submit it again:\n#   sbatch {path}"
    if path != str(job.path):  # in the script's own words it would need another pair of quotes
        return how, shlex.quote(f"sbatch {path}")
    return how, f'"sbatch $({_ITS_FILE} || echo {path})"'


def _directives(job: BatchJob) -> list[str]:
    """Return the options of sbatch, one a line."""
    options = job.options
    shape = job.shape
    lines = [
        f"--job-name={job.job_name}",
        f"--chdir={_quoted(str(job.clone))}",
        f"--output={_quoted(str(job.log))}",
        # A job that Slurm preempts, or whose node fails, goes on from its checkpoints.
        "--requeue",
        "--open-mode=append",
        # Asks a training for its last checkpoint.
        f"--signal=USR1@{SECONDS_TO_STOP}",
        f"--nodes={shape.nodes}",
        f"--ntasks-per-node={job.start.tasks}",
    ]
    if job.start.tasks < shape.processes:
        lines.append(f"--cpus-per-task={shape.processes}")
    lines += [f"--gpus-per-node={shape.gpus}"] if shape.gpus else []
    named = (("partition", options.partition), ("time", options.time), ("account", options.account))
    lines += [f"--{name}={_quoted(value)}" for name, value in named if value]
    return lines + ([" ".join(map(_quoted, options.more))] if options.more else [])


def _wrapped(command: Sequence[str]) -> str:
    """Return a command as lines for a shell, broken between words."""
    lines: list[str] = []
    for word in map(shlex.quote, command):
        if lines and len(lines[-1]) + len(word) < WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return " \\\n    ".join(lines)


def _quoted(text: str) -> str:
    """Return a word of a line with #SBATCH, which knows quotes, and no other character of a shell.

    https://slurm.schedmd.com/sbatch.html
    """
    return f'"{text}"' if " " in text or "#" in text else text
