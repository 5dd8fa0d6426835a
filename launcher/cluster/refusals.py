"""Why sbatch refuses a job, and what to change."""

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise

from common.cards import WRONG_USAGE, Card
from launcher.cluster.script import SlurmOptions
from launcher.task_words import typed_command

UNREACHABLE = re.compile("unable to contact slurm controller|timed out|connect", re.IGNORECASE)
TIME = re.compile(r"(\d+-)?\d+(:\d+){0,2}|unlimited|infinite", re.IGNORECASE)
NO_CLUSTER = re.compile("configuration source|unable to process configuration file", re.IGNORECASE)
_PREFIX = re.compile(r"^(\w+: (error|fatal)|allocation failure): ", re.MULTILINE)
# Options of sbatch that invoke writes into the script, and what to do instead.
_OURS = {
    "--nodes": "--nodes {number}",
    "--ntasks": "--processes {number}",
    "--ntasks-per-node": "--processes, with the number on all nodes together",
    "--gpus-per-node": "--gpus {number}",
    "--array": "leave it out, and submit a job for each --seed",
    "--job-name": "leave it out; by this name, invoke jobs finds the job",
}
_SHORT = {"-N": "--nodes", "-n": "--ntasks", "-a": "--array", "-J": "--job-name"}
Ask = Callable[[list[str]], str]


def refuse_time(time: str) -> None:
    """Refuse a time limit that Slurm can't read; without one, the partition's holds.

    Raises:
        Card: If it can't be read.
    """
    if time and not TIME.fullmatch(time):
        why = "A time limit is 30 (minutes), 2:00:00 (hours) or 1-12:00:00 (days and hours)."
        raise Card(f"--time can't be {time!r}.", why, "--time 2:00:00", WRONG_USAGE)


def refuse_options(words: Sequence[str]) -> None:
    """Refuse options of sbatch that belong to invoke, and a first word that isn't an option.

    Raises:
        Card: If there is one.
    """
    if words and not words[0].startswith("-"):
        why = f"It isn't an option: sbatch would take {words[0]!r} for the name of a script."
        fix = f'--slurm-options "--{shlex.join(words)}"'
        raise Card(f"--slurm-options can't be {shlex.join(words)!r}.", why, fix, WRONG_USAGE)
    for word, following in pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if word[:2] in _SHORT:
            name, equals, value = _SHORT[word[:2]], word[2:], word[2:].removeprefix("=")
        if name in _OURS:
            number = value if equals else following
            fix = _OURS[name].format(number=number if number.isdecimal() else "NUMBER")
            why = f"{name} belongs to invoke: the script and its processes depend on it."
            raise Card(f"--slurm-options can't have {word}.", why, fix, WRONG_USAGE)


def no_cluster(errors: str) -> Card:
    """Return the card for a machine from which Slurm's commands find no cluster."""
    return Card(
        "Slurm can't be reached from here.",
        f"Its commands find no settings of a cluster: {_PREFIX.sub('', errors.splitlines()[-1])}.",
        "use the cluster's login node; or set SLURM_CONF to its slurm.conf",
    )


def card(errors: str, options: SlurmOptions, ask: Ask) -> Card:
    """Return the card for what sbatch printed.

    Args:
        errors: The lines that sbatch printed.
        options: The options of the job.
        ask: Runs a command of Slurm, and returns its output, or "".
    """
    why = _PREFIX.sub("", errors)
    if UNREACHABLE.search(why):
        again = typed_command(sys.argv[1:])
        return Card("Slurm doesn't respond.", why, f"scontrol ping; when it is up: {again}")
    return Card("Slurm refuses the job.", why, _fix(why, options, ask))


def _fix(why: str, options: SlurmOptions, ask: Ask) -> str:
    why = why.lower()
    if "partition name" in why or "invalid partition" in why:
        names = sorted(set(ask(["sinfo", "-h", "-o", "%R"]).split()))
        return f"--partition with one of: {', '.join(names)}"
    if "account" in why:
        return "--account with one of: sacctmgr show associations user=$USER format=account"
    if "gres" in why:
        return "without --gpus; sinfo -o '%R %G' lists the GPUs of each partition"
    if "node configuration" in why or "node count" in why or "memory" in why:
        return _what_there_is(options, ask)
    if options.more:
        typed = shlex.quote(shlex.join(options.more))
        return f"change --slurm-options {typed}; sbatch --help lists its options"
    return "sinfo shows what the cluster has; invoke lab --help lists the options"


def _what_there_is(options: SlurmOptions, ask: Ask) -> str:
    """Return what the partition's nodes have."""
    chosen = ["-p", options.partition] if options.partition else []
    command = ["sinfo", "-h", "-o", "%R|%D|%c|%m|%G", *chosen]
    rows = [row.split("|") for row in ask(command).splitlines() if row.count("|") == 4]
    if not rows:
        return f"{shlex.join(command)} shows what the cluster has"
    have = "; ".join(
        f"partition {name}: {nodes} nodes with {cpus} CPUs, {memory} MB and {gres}"
        for name, nodes, cpus, memory, gres in rows
    ).replace(" and (null)", " and no GPU")
    return f"ask for what there is: {have}"
