"""The output of a job of Slurm: one file for all of its starts."""

from pathlib import Path

from launcher import slurm_script

PREEMPTED = "DUE TO PREEMPTION"  # slurmstepd writes it


def since_last_start(log: Path) -> str:
    """Return the output since the job's last start, or "" if it can't be read."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(slurm_script.AGAIN)[2]


def is_missing(log: Path) -> bool:
    """Return whether a log isn't in its folder, and the folder can be read."""
    try:
        # NFS remembers for a while that a file was missing. It asks again for a list.
        return log.name not in {path.name for path in log.parent.iterdir()}
    except OSError:
        return False
