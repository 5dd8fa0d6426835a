"""A lab's container on one node of a Slurm job: the job's limits, and the other nodes.

The engine is outside of the job's cgroup, so Slurm's limits don't hold for its containers.
"""

import os
from dataclasses import replace

from launcher import settings
from launcher.engine.container_spec import ContainerSpec

# How torch's processes find and reach each other; a site may set any of the last two.
_RENDEZVOUS = ("LABS_NODE", "LABS_NODES", "MASTER_ADDR", "MASTER_PORT")
_PREFIXES = ("GLOO_", "NCCL_")


def compose_variables(engine_cpus: int) -> dict[str, str]:
    """Return compose.yaml's limits as the job has them, unless the site sets its own.

    Args:
        engine_cpus: The engine's number of CPUs, the most that it accepts; 0 if unknown.
    """
    cpus = _number("SLURM_CPUS_ON_NODE")
    if not cpus:
        return {}
    megabytes = _number("SLURM_MEM_PER_NODE") or cpus * _number("SLURM_MEM_PER_CPU")
    limits = {"LABS_CPUS": str(min(cpus, engine_cpus or cpus))}
    if megabytes:
        limits["LABS_MEMORY"] = f"{megabytes}m"
    return {name: value for name, value in limits.items() if settings.find(name) is None}


def spans_nodes() -> bool:
    """Return whether the lab runs on several nodes, so that its container needs the network."""
    return os.environ.get("LABS_NODES", "1") != "1"


def with_job(spec: ContainerSpec) -> ContainerSpec:
    """Return the spec with what the lab needs to know of its job."""
    names = ["LABS_CONTINUE"]
    if spans_nodes():
        names += [*_RENDEZVOUS, *(name for name in os.environ if name.startswith(_PREFIXES))]
    known = {name: os.environ[name] for name in names if name in os.environ}
    return replace(spec, environment={**spec.environment, **known})


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else 0
