"""How many CPUs this process may use: its affinity and its cgroup's quota (LABS_CPUS, Slurm)."""

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use at once, at least 1."""
    allowed = len(os.sched_getaffinity(0))
    limit = cpu_limit()
    return allowed if limit is None else min(allowed, limit)


def cpu_limit() -> int | None:
    """Return the cgroup's limit in CPUs, rounded up; None without a limit."""
    quota = min((_quota(folder) for folder in _own_groups()), default=math.inf)
    return None if math.isinf(quota) else max(1, math.ceil(quota))


def _own_groups() -> list[Path]:
    """Return the folders of this process's cgroup and of all groups around it.

    A line of the file is "0::/path" for version 2 and "4:cpu,cpuacct:/path" for version 1.
    https://docs.kernel.org/admin-guide/cgroup-v2.html
    """
    folders: list[Path] = []
    try:
        lines = OWN_GROUP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS / controllers
        own = Path(path.lstrip("/"))
        folders += [root / parent for parent in (own, *own.parents)]
    return folders


def _quota(folder: Path) -> float:
    """Return a group's limit in CPUs, or infinity."""
    try:
        if (file := folder / "cpu.max").exists():
            quota, period = file.read_text(encoding="utf-8").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # "max", or no limit here
        return math.inf
