"""`invoke lab … --on slurm`: write the script, submit it and follow the job. `invoke jobs`."""

import os
import secrets
import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NoReturn

from common.cards import WRONG_USAGE, Card, print_status, refuse_value
from common.table import print_table
from launcher import ROOT
from launcher.cluster import containers as slurm_containers
from launcher.cluster import jobs as slurm_jobs
from launcher.cluster import refusals as slurm_refusals
from launcher.cluster import runtime as slurm_runtime
from launcher.cluster.follow import follow
from launcher.cluster.jobs import Job
from launcher.cluster.log import FOLDER
from launcher.cluster.runtime import Shape, Start
from launcher.cluster.script import BatchJob, SlurmOptions, command_of, render
from launcher.environment import make as environment
from launcher.environment.stack import VENDORS, choose_stack, refuse_gpus_of_cpu
from launcher.gpu.detect import detect
from launcher.run import data_files, folder_problems, runtime
from launcher.run.file_owner import file_owner, give_to, make_writable_folder
from launcher.run.lab_command import LabCommand
from launcher.task_words import typed_command, typed_with

COLUMNS = ("job", "name", "time", "state", "command")
OF_A_JOB = ("nodes", "partition", "time", "account", "slurm_options")  # Request's, for a job alone


@dataclass(frozen=True)
class Request:
    """The options of `invoke lab` for a job of Slurm, as the user wrote them."""

    on: str
    stack: str
    runtime: str
    gpus: str
    nodes: str = "1"
    partition: str = ""
    time: str = ""
    account: str = ""
    slurm_options: str = ""


def run(command: LabCommand, request: Request, detach: bool, dry: bool) -> int:
    """Run labs as a job of Slurm, or print its script.

    Args:
        command: The labs and their options.
        request: The options of `invoke lab`.
        detach: Whether to return once the job is submitted.
        dry: Whether to print the script only.

    Returns:
        The exit code of the job; 0 if it wasn't followed.

    Raises:
        Card: If the request is invalid, Slurm refuses it, or ends the job.
    """
    if not request.on:
        raise _without_slurm(request)
    if request.on != "slurm":
        refuse_value("--on", request.on, ("slurm",))
    runtimes = (*runtime.CHOICES, *runtime.IN_JOBS)
    if request.runtime not in runtimes:
        refuse_value("--runtime", request.runtime, runtimes)
    gpus = _number("--gpus", request.gpus) if request.gpus not in ("", "none") else 0
    job = _job(command, request, gpus)
    if dry:
        print(render(replace(job, path=None)), end="")
        return 0
    in_container = request.runtime in (*runtime.IN_JOBS, "docker")
    binds = slurm_containers.binds(command.online) if in_container else None
    data_files.refuse_missing(command, binds)
    number = _prepare_and_submit(job, request.runtime, command.online)
    print_status(f"Submitted {job.path} as job {number}.")
    if detach:
        print_status(f"Follow it: invoke jobs {number}. Cancel it: scancel {number}.")
        return 0
    return follow(number)


def _prepare_and_submit(job: BatchJob, asked: str, online: bool) -> str:
    """Make what the job needs on the shared file system, submit it and return its number."""
    if asked in runtime.IN_JOBS:
        slurm_containers.prepare(asked, job.shape, online)
        return _submit(job)
    if asked == "docker":  # the nodes have the image, or build it
        return _submit(job)
    required = environment.required_environment(job.shape.stack, job.shape.gfx)
    if not required.is_complete:
        _refuse_impossible(job)
    with environment.ready(required, file_owner()):
        return _submit(job)


def jobs(number: str) -> int:
    """List the jobs of this user, or follow one; return the exit code."""
    if number:
        if not number.isdecimal():
            why = "invoke jobs follows a job by its number."
            raise Card(f"The job can't be {number!r}.", why, "invoke jobs lists them", WRONG_USAGE)
        return follow(number)
    found = slurm_jobs.ours()
    if found:
        print_table(COLUMNS, [_row(job) for job in found])
        print_status(f"The output of a job is in {FOLDER.relative_to(ROOT)}/NUMBER.log.")
    else:
        print_status("No job of llm-labs waits, runs or ended a few minutes ago.")
    return 0


def _row(job: Job) -> tuple[str, ...]:
    command = command_of(job.script)
    return job.number, job.name, job.time, job.description, command


def refuse_wait() -> NoReturn:
    """Refuse --wait together with --on slurm.

    Raises:
        Card: Always.
    """
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    words = [word for word in sys.argv[1:end] if word != "--wait"]
    why = "Slurm queues a job until its GPUs are free."
    fix = typed_command([*words, *sys.argv[end:]])
    raise Card("--wait is for the GPUs of this machine.", why, fix, WRONG_USAGE)


def _without_slurm(request: Request) -> Card:
    """Return the card for an option of a job without --on."""
    options = [one for one in fields(request) if one.name in OF_A_JOB]
    names = [one.name for one in options if getattr(request, one.name) != one.default]
    option = f"--{names[0].replace('_', '-')}" if names else "--detach"
    why = "It is an option of a job. Without --on, the lab runs on this machine."
    fix = typed_with(sys.argv[1:], "--on", "slurm")
    return Card(f"{option} needs --on slurm.", why, fix, WRONG_USAGE)


def _job(command: LabCommand, request: Request, gpus: int) -> BatchJob:
    nodes = _number("--nodes", request.nodes)
    stack, gfx = _stack(request.stack, gpus)
    processes, command = _processes(command, nodes, gpus)
    shape = Shape(nodes, processes, gpus, stack, gfx)
    slurm_refusals.refuse_time(request.time)
    more = _words("--slurm-options", request.slurm_options)
    slurm_refusals.refuse_options(more)
    options = SlurmOptions(
        _line("--partition", request.partition),
        _line("--time", request.time),
        _line("--account", request.account),
        more,
    )
    path = FOLDER / f"{command.name.replace(' ', '-')}-{secrets.token_hex(3)}.sbatch"
    start = _start(request.runtime, command, shape)
    typed = typed_command(sys.argv[1:])
    return BatchJob(command.name, ROOT, path, FOLDER / "%j.log", shape, start, options, typed)


def _start(asked: str, command: LabCommand, shape: Shape) -> Start:
    if asked in runtime.IN_JOBS:
        return slurm_containers.start(asked, command, shape)
    if asked == "docker":
        return slurm_runtime.in_engine(command, shape)
    return slurm_runtime.in_environment(command, shape)


def _processes(command: LabCommand, nodes: int, gpus: int) -> tuple[int, LabCommand]:
    """Return the processes on each node, and the command without --processes: Slurm starts them.

    Raises:
        Card: If the number of processes isn't a multiple of the nodes, or of the GPUs.
    """
    options = list(command.options)
    if "--processes" not in options:
        return gpus or 1, command
    place = options.index("--processes")
    total = _number("--processes", options[place + 1])
    if total % nodes or (gpus and total != nodes * gpus):
        why = f"{total} processes can't be spread evenly over {nodes} nodes."
        if gpus:
            why = f"Each of the {nodes} × {gpus} GPUs gets one process."
        raise Card(f"--processes can't be {total}.", why, "leave --processes out", WRONG_USAGE)
    del options[place : place + 2]
    changed = LabCommand(command.labs, tuple(options), command.lab_options, command.verb)
    return total // nodes, changed


def _stack(asked: str, gpus: int) -> tuple[str, str]:
    """Return the stack and the target of the nodes. This machine may have no GPU, or another one.

    Raises:
        Card: If the stack isn't known.
    """
    gfx = os.environ.get("LABS_GFX", "")
    stack = asked
    if stack == "auto":
        choice = choose_stack("auto", detect(ask_nvidia_smi=False)) if gpus and not gfx else None
        stack = choice.stack if choice else "rocm" if gfx and gpus else "cpu"
        gfx = gfx or (choice.gpus[0].target if choice and choice.gpus else "")
    if stack not in ("cpu", *VENDORS):
        refuse_value("--stack", stack, ("auto", "cpu", *VENDORS))
    if asked == "cpu" and gpus:
        refuse_gpus_of_cpu()
    if stack == "rocm" and not gfx:
        raise Card(
            "The target of the nodes' AMD GPUs isn't known.",
            "The ROCm stack is for one kind of GPU, and LABS_GFX isn't set.",
            f"LABS_GFX=gfx942 {typed_command(sys.argv[1:])}, with the nodes' target",
        )
    if gpus and stack == "cpu":
        raise Card(
            "The stack of the nodes' GPUs isn't known.",
            "This machine has none of them, so it can't be detected here.",
            "--stack cuda; or LABS_GFX=gfx942 invoke lab … --stack rocm, with the nodes' target",
        )
    return stack, gfx if stack == "rocm" else ""


def _submit(job: BatchJob) -> str:
    """Write the script of a job, submit it and return the job's number."""
    with _script(job) as path:
        return slurm_jobs.submit(path, job.options)


def _refuse_impossible(job: BatchJob) -> None:
    """Refuse a job that Slurm would refuse, before its environment is downloaded."""
    with _script(job) as path:
        slurm_jobs.refuse_impossible(path, job.options)
        path.unlink()


@contextmanager
def _script(job: BatchJob) -> Generator[Path]:
    """Write the script of a job; remove it if this block refuses the job."""
    owner = file_owner()
    make_writable_folder(FOLDER, owner)
    assert job.path is not None  # only a script that is printed has no file
    try:
        job.path.write_text(render(job), encoding="utf-8")
    except OSError as error:
        job.path.unlink(missing_ok=True)
        raise folder_problems.cannot_create(job.path, error) from error
    give_to(owner, [job.path])
    try:
        yield job.path
    except Card:
        job.path.unlink(missing_ok=True)
        raise


def _line(option: str, text: str) -> str:
    if not text.isprintable() or '"' in text:
        why = "It becomes a line of the script, between quotes."
        raise Card(f"{option} can't be {text!r}.", why, "invoke lab --help", WRONG_USAGE)
    return text


def _words(option: str, text: str) -> tuple[str, ...]:
    try:
        return tuple(_line(option, word) for word in shlex.split(text))
    except ValueError as error:
        why = f"It can't be read as words of a shell: {error}."
        raise Card(f"{option} can't be {text!r}.", why, "invoke lab --help", WRONG_USAGE) from error


def _number(option: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        why = f"{option} is a positive integer with Slurm."
        raise Card(f"{option} can't be {text!r}.", why, "invoke lab --help", WRONG_USAGE)
    return int(text)
