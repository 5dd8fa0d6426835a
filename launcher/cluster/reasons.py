"""Why a job of Slurm waits, and whether it can start at all.

https://slurm.schedmd.com/job_reason_codes.html
"""

import re

from common.cards import Card

_LIMIT = (
    "It asks for more, or less, than a job of yours may have.",
    "the same command with less of it; sacctmgr show qos lists the limits",
)
TOO_LONG = "PartitionTimeLimit"
# Reasons that don't end by themselves: why, and what to change.
_NEVER = {
    TOO_LONG: (
        "The partition allows less time.",
        "the same command with a --time up to the partition's; sinfo -o '%R %l' lists them",
    ),
    "PartitionNodeLimit": (
        "The partition has fewer nodes, or allows fewer for a job.",
        "the same command with fewer --nodes; sinfo -o '%R %D %s' lists them",
    ),
    "BadConstraints": (
        "No node has what the job asks for.",
        "the same command with other --slurm-options; sinfo -o '%R %c %m %f %G' lists the nodes",
    ),
    "DependencyNeverSatisfied": (
        "It waits for a job that failed.",
        "the same command without that dependency",
    ),
    "InvalidAccount": (
        "The account doesn't exist, or you can't charge it.",
        "the same command with another --account; sacctmgr show associations lists yours",
    ),
    "InvalidQOS": (
        "The quality of service doesn't exist, or you can't use it.",
        "the same command with another --qos in --slurm-options; sacctmgr show qos lists them",
    ),
}
_HELD = {
    "JobHeldUser": "scontrol release {number}",
    "JobHeldAdmin": "ask the cluster's administrators, who hold it",
}
# A limit for one job, such as QOSMaxCpuPerJobLimit. A limit for all jobs of a group, such as
# AssocGrpCpuLimit, can be free again when others end.
_LIMIT_OF_A_JOB = re.compile(r"(Assoc|QOS)Max\w*Per(Job|Node)\w*|(Assoc|QOS)MaxWall\w*|QOSMin\w+")


def in_words(reason: str) -> str:
    """Return the reason for which a job waits, in words that follow "waits in the queue"."""
    if reason in ("", "None"):
        return ""
    reason = reason.replace("_", " ")  # scontrol writes sentences with underscores
    down = "DOWN" in reason or "ReqNodeNotAvail" in reason
    hint = "; sinfo -R lists the nodes that are down or drained" if down else ""
    return f" ({reason}){hint}"


def why_never(number: str, reason: str, details: str = "") -> Card | None:
    """Return the card for a waiting job that nothing but a change can start, or None.

    Args:
        number: The job's number.
        reason: Slurm's reason.
        details: What the job asks for and what there is, as sentences, if it is known.
    """
    if reason in _HELD:
        fix = f"{_HELD[reason].format(number=number)}, then invoke jobs {number}"
        why = f"Slurm reports {reason}. A job that is held doesn't start until it is released."
        return Card(f"Job {number} is held.", why, f"{fix}; or scancel {number}")
    known = _NEVER.get(reason) or (_LIMIT if _LIMIT_OF_A_JOB.fullmatch(reason) else None)
    if known is None:
        return None
    why, change = known
    return Card(
        f"Job {number} can't start: {reason}.",
        f"{details or why} The job stays in the queue.",
        f"scancel {number}, then {change}",
    )
