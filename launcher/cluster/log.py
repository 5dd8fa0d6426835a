"""The output of a job of Slurm: one file for all of its starts."""

import re
from dataclasses import dataclass
from pathlib import Path

from launcher import ROOT
from launcher.cluster import script as slurm_script

FOLDER = ROOT / "outputs" / "slurm"  # scripts, and the output of their jobs
PREEMPTED = "DUE TO PREEMPTION"  # slurmstepd writes it
_NO_LAUNCH = re.compile(r"^srun: error: Task launch .* failed on node (\S+): (.+)$", re.MULTILINE)
_FAILURE = re.compile(r"^srun: error: (\S+): (tasks? [^:]+): (.+)$", re.MULTILINE)
_EXITED = "Exited with exit code "


@dataclass(frozen=True)
class Failure:
    """How a task failed, in srun's words: "srun: error: n2: task 1: Exited with exit code 7"."""

    node: str
    tasks: str
    end: str

    @property
    def exit_code(self) -> int:
        """Return its exit code; 0 if a signal ended it."""
        return int(self.end.removeprefix(_EXITED)) if self.end.startswith(_EXITED) else 0


def first_failure(log: Path) -> Failure | None:
    """Return how the first task failed that failed since the job's last start."""
    found = _FAILURE.search(since_last_start(log))
    return Failure(*found.groups()) if found else None


def since_last_start(log: Path) -> str:
    """Return the output since the job's last start, or "" if it can't be read."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(slurm_script.AGAIN)[2]


def failed_launch(log: Path) -> tuple[str, str] | None:
    """Return the node on which Slurm couldn't start the processes, and Slurm's reason."""
    found = _NO_LAUNCH.search(since_last_start(log))
    return (found[1], found[2]) if found else None


def is_missing(log: Path) -> bool:
    """Return whether a log isn't in its folder, and the folder can be read."""
    try:
        # NFS remembers for a while that a file was missing. It asks again for a list.
        return log.name not in {path.name for path in log.parent.iterdir()}
    except OSError:
        return False
