"""The batch script of a lab for Slurm: readable, and complete without the launcher."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.lab_service import shell_line

PREFIX = "llm-labs-"  # of the names of our jobs
_HEAD = """\
#!/bin/bash
# {title}. `invoke lab … --on slurm` wrote this. To submit it again:
#   sbatch {path}
{directives}
set -euo pipefail
"""
_RENDEZVOUS = """
# The processes meet at the address by which Slurm itself reaches the first node.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_ADDR=$(scontrol --oneliner show node "$first" | sed -E 's/.* NodeAddr=([^ ]*).*/\\1/')
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
"""
_RANK = "export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID"
# On AMD, Slurm sets three variables to the same GPUs. torch would apply one after the other.
_ONE_FILTER = "unset CUDA_VISIBLE_DEVICES HIP_VISIBLE_DEVICES GPU_DEVICE_ORDINAL"
_STEP = """
# One process for each task. If one fails, Slurm ends the others.
srun --kill-on-bad-exit=1 bash -c '
{setup}
exec "$@"' rank {command}
"""


@dataclass(frozen=True)
class SlurmOptions:
    """What a job asks of Slurm. "" is the cluster's default."""

    nodes: int = 1
    partition: str = ""
    time: str = ""
    account: str = ""
    more: tuple[str, ...] = ()  # other options of sbatch


@dataclass(frozen=True)
class BatchJob:
    """A lab as a batch job, with the environment on a file system that all nodes share.

    Attributes:
        name: the lab's name, for people.
        clone: the folder in which it runs.
        path: its script.
        log: its output; %j is the job's number.
        stack: cpu, cuda or rocm.
        processes: the number of processes on each node.
        gpus: the number of GPUs on each node.
        command: the lab's command, in the environment.
        variables: the environment variables that it needs.
        options: what it asks of Slurm.
    """

    name: str
    clone: Path
    path: Path
    log: Path
    stack: str
    processes: int
    gpus: int
    command: Sequence[str]
    variables: dict[str, str]
    options: SlurmOptions

    @property
    def job_name(self) -> str:
        """Return the name by which `invoke jobs` finds the job."""
        return PREFIX + self.name.replace(" ", "-")


def render(job: BatchJob) -> str:
    """Return the script of a job."""
    number = job.options.nodes * job.processes
    nodes = f"{job.options.nodes} node{'s' if job.options.nodes > 1 else ''}"
    title = f"{job.name} on {nodes}, {number} process{'es' if number > 1 else ''}"
    directives = "\n".join(f"#SBATCH {line}" for line in _directives(job))
    path = shlex.quote(str(job.path))
    parts = [_HEAD.format(title=title, path=path, directives=directives)]
    setup = [_ONE_FILTER] if job.stack == "rocm" else []
    if number > 1:
        parts.append(_RENDEZVOUS)
        setup.append(f"{_RANK} LOCAL_WORLD_SIZE={job.processes}")
    share = f" / {job.processes}" if job.processes > 1 else ""
    parts.append(f"\nexport OMP_NUM_THREADS=$((SLURM_CPUS_ON_NODE{share}))\n")
    parts += [f"export {name}={shlex.quote(value)}\n" for name, value in job.variables.items()]
    command = shell_line(list(job.command))
    parts.append(_STEP.format(setup="\n".join(setup), command=command))
    return "".join(parts)


def _directives(job: BatchJob) -> list[str]:
    """Return the options of sbatch, one a line."""
    options = job.options
    lines = [
        f"--job-name={job.job_name}",
        f"--chdir={_quoted(str(job.clone))}",
        f"--output={_quoted(str(job.log))}",
        # A job that Slurm preempts, or whose node fails, goes on from its checkpoints.
        "--requeue",
        "--open-mode=append",
        f"--nodes={options.nodes}",
        f"--ntasks-per-node={job.processes}",
    ]
    lines += [f"--gpus-per-node={job.gpus}"] if job.gpus else []
    named = (("partition", options.partition), ("time", options.time), ("account", options.account))
    lines += [f"--{name}={_quoted(value)}" for name, value in named if value]
    return lines + ([" ".join(map(_quoted, options.more))] if options.more else [])


def _quoted(text: str) -> str:
    """Return a word of a line with #SBATCH, which knows quotes, and no other character of a shell.

    https://slurm.schedmd.com/sbatch.html
    """
    return f'"{text}"' if " " in text or "#" in text else text
