"""How a job of Slurm starts a lab on its nodes: in the environment, or by an engine there."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from launcher.environment import make as environment
from launcher.run.lab_command import LabCommand, labs_command

_RANK = (
    "export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS "
    "LOCAL_RANK=$SLURM_LOCALID LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE"
)
_SHARE_OF_CPUS = "export OMP_NUM_THREADS=$((SLURM_CPUS_ON_NODE / SLURM_NTASKS_PER_NODE))"
# On AMD, Slurm sets three variables to the same GPUs. torch would apply one after the other.
ONE_FILTER = "unset CUDA_VISIBLE_DEVICES HIP_VISIBLE_DEVICES GPU_DEVICE_ORDINAL"
NODE = "export LABS_NODE=$SLURM_NODEID LABS_NODES=$SLURM_NNODES"


@dataclass(frozen=True)
class Shape:
    """The shape of a job.

    Attributes:
        nodes: the number of nodes.
        processes: the number of processes on each node.
        gpus: the number of GPUs on each node.
        stack: cpu, cuda or rocm.
        gfx: the nodes' target, for rocm.
    """

    nodes: int
    processes: int
    gpus: int
    stack: str
    gfx: str = ""

    @property
    def total(self) -> int:
        """Return the number of processes on all nodes."""
        return self.nodes * self.processes

    @property
    def threads(self) -> str:
        """Return the line of a shell that shares a node's CPUs between a container's processes."""
        share = f" / {self.processes}" if self.processes > 1 else ""
        return f"export OMP_NUM_THREADS=$((SLURM_CPUS_ON_NODE{share}))"


@dataclass(frozen=True)
class Start:
    """How srun starts a lab.

    Attributes:
        tasks: the number of Slurm's tasks on each node.
        command: what each task runs.
        setup: lines of a shell that each task runs before.
        exports: lines of the batch script before.
        options: further options of srun.
    """

    tasks: int
    command: Sequence[str]
    setup: Sequence[str] = ()
    exports: Sequence[str] = ()
    options: Sequence[str] = ()


def in_environment(command: LabCommand, shape: Shape) -> Start:
    """Start a process of the environment, on a file system that all nodes share, in each task."""
    required = environment.required_environment(shape.stack, shape.gfx)
    exports = [_SHARE_OF_CPUS]
    variables = required.variables.items()
    exports += [f"export {name}={shlex.quote(value)}" for name, value in variables]
    words = labs_command(command.words, str(required.python))
    return Start(shape.processes, words, _ranks(shape), exports)


def in_engine(command: LabCommand, shape: Shape) -> Start:
    """Start `invoke lab` once on each node: its container has all of the node's processes.

    Cards in different containers couldn't copy to each other.
    """
    gpus = ("--gpus", "all" if shape.gpus else "none")
    options = ("--runtime", "docker", "--stack", shape.stack, *gpus)
    if shape.processes > 1:
        options += ("--processes", str(shape.processes))
    there = replace(command, options=(*command.options, *options))
    words = [sys.executable, "-m", "invoke", "lab", *there.words]
    return Start(1, words, [NODE] if shape.nodes > 1 else [])


def _ranks(shape: Shape) -> list[str]:
    """Return the lines that make a task of Slurm a process of torch's group."""
    lines = [ONE_FILTER] if shape.stack == "rocm" else []
    if shape.total > 1:
        lines.append(_RANK)
    return lines
