"""Run labs: print the choices and their reasons, build what is missing, run the command."""

import os
import shlex
import sys
import time
from contextlib import nullcontext
from dataclasses import replace

from common.cards import print_status
from common.interrupts import Interrupted, leave_ctrl_c_to_child
from launcher import ROOT
from launcher.cluster import node as slurm_node
from launcher.engine import container as run_container
from launcher.engine import orphans, terminal
from launcher.engine.client import Engine
from launcher.engine.compose import notebook_service
from launcher.engine.container_spec import ContainerSpec
from launcher.engine.known_errors import explain_exit
from launcher.environment import make as environment
from launcher.environment.make import Environment
from launcher.gpu import select as select_gpus
from launcher.gpu.lease import RunLease, run_lease
from launcher.image import build as build_image
from launcher.image.status import why_build
from launcher.notebook import environment as notebook_environment
from launcher.run import checkpoints, data_files
from launcher.run import service as lab_service
from launcher.run.file_owner import make_writable_folder, run_as_owner
from launcher.run.lab_command import LabCommand, labs_command
from launcher.run.placement import Placement, choose_placement, placement_to_build
from launcher.run.runtime import Runtime, choose_runtime
from launcher.run.service import shell_line
from launcher.task_words import typed_command


def run(
    command: LabCommand,
    stack: str,
    runtime: str,
    gpus: str,
    dry: bool,
    wait: bool = False,
    announce: bool = True,
) -> int:
    """Run a lab command, or print the shell commands that would run it.

    Args:
        command: The labs and their options.
        stack: The requested stack, or "auto".
        runtime: The requested runtime, or "auto".
        gpus: The requested GPUs, as in `select_gpus.select`.
        dry: Whether to print the commands only.
        wait: Whether to wait while other users hold the GPUs.
        announce: Whether to print the choices and their reasons.

    Returns:
        The exit code.
    """
    chosen = choose_runtime(runtime)
    started = time.time()
    try:
        return _run(command, chosen, stack, gpus, dry, wait, announce)
    except Interrupted as interrupted:
        if not command.verb:
            interrupted.add_note(_last_words(command, started))
        raise


def _last_words(command: LabCommand, started: float) -> str:
    """Return whether an interrupted run saved a checkpoint, and the command that goes on."""
    if again := os.environ.get("LABS_CONTINUE"):  # in a job of Slurm
        return checkpoints.last_words_in_job(again)
    return checkpoints.last_words(command.labs, started, typed_command(sys.argv[1:]))


def announce_choices(name: str, placement: Placement, chosen: Runtime) -> None:
    """Print where a lab runs, and why."""
    print_status(f"{name} runs on the {placement.stack} stack, because {placement.reason}.")
    print_status(f"It runs in {chosen.description}, because {chosen.reason}.")
    if chosen.engine and (memory := lab_service.default_memory(chosen.engine)):
        print_status(f"It may use {memory / 2**30:.0f} GiB of memory; LABS_MEMORY changes that.")


def _run(
    command: LabCommand,
    chosen: Runtime,
    stack: str,
    gpus: str,
    dry: bool,
    wait: bool,
    announce: bool,
) -> int:
    with run_lease(command.name, wait, dry) as lease:
        placement = choose_placement(chosen, stack, gpus, lease.take)
        command = command.with_processes(len(placement.gpus))
        if announce:
            announce_choices(command.name, placement, chosen)
        if chosen.engine is None:
            return _run_in_environment(command, placement, lease, dry)
        return _run_in_container(command, placement, chosen.engine, dry)


def build(stack: str, runtime: str, jupyterlab: bool = False) -> None:
    """Build the image, even if it is current, or create the environment.

    Args:
        stack: The requested stack, or "auto".
        runtime: The requested runtime, or "auto".
        jupyterlab: Whether to build what `invoke notebook` needs.
    """
    chosen = choose_runtime(runtime)
    placement = placement_to_build(chosen, stack)
    if chosen.engine is None:
        required = environment.required_environment(placement.stack, placement.gfx)
        with environment.ready(required, placement.owner):
            if jupyterlab:
                notebook = notebook_environment.required(required)
                notebook_environment.install(notebook, placement.owner)
            print_status(f"{required.folder} is ready.")
        return
    name = notebook_service(placement.stack) if jupyterlab else placement.stack
    service = lab_service.resolve(name, placement, {})
    orphans.clean_up(chosen.engine)
    reason = why_build(chosen.engine, service) or "it was asked for"
    build_image.build(chosen.engine, name, service, reason)


def _run_in_container(command: LabCommand, placement: Placement, engine: Engine, dry: bool) -> int:
    network = "host" if slurm_node.spans_nodes() else "bridge" if command.online else "none"
    variables = {
        **lab_service.user_variables(placement, engine.rootless),
        **slurm_node.compose_variables(engine.cpus),
        "LABS_NETWORK": network,
    }
    name = placement.stack
    service = lab_service.resolve(name, placement, variables)
    spec = slurm_node.with_job(lab_service.container_spec(service, placement, engine))
    spec = _with_command(spec, command, placement)
    if dry:
        print(" &&\n".join(lab_service.commands(engine, name, service, spec, placement.owner)))
        return 0
    data_files.refuse_missing(command, spec.binds)
    lab_service.prepare(engine, name, service, spec, placement.owner)
    return run_container.run(engine, spec, command.name)


def _with_command(spec: ContainerSpec, command: LabCommand, placement: Placement) -> ContainerSpec:
    """Return the spec with the lab's command, and with the hub's cache if it may be used."""
    spec = replace(spec, command=tuple(command.words), reads_input=command.is_chat)
    if not command.online:
        return spec
    return spec.with_bind(lab_service.hub_cache(placement.owner))


def _run_in_environment(
    command: LabCommand, placement: Placement, lease: RunLease, dry: bool
) -> int:
    lab_service.refuse_other_target(placement, placement.gfx)
    required = environment.required_environment(placement.stack, placement.gfx)
    gpus = select_gpus.visibility_variables(placement.stack, placement.gpus)
    variables = {**required.variables, **gpus}
    words = labs_command(command.words, str(required.python))
    if dry:
        _print_environment(required, words, variables)
        return 0
    data_files.refuse_missing(command)
    chatting = command.is_chat and terminal.is_interactive()
    ctrl_c = leave_ctrl_c_to_child() if chatting else nullcontext()
    with environment.ready(required, placement.owner), ctrl_c:
        make_writable_folder(ROOT / "outputs", placement.owner)
        variables = {**os.environ, **variables}
        code = run_as_owner(placement.owner, words, variables, lease.inherited)
    card = explain_exit(code, command.name, out_of_memory=False)
    if card is not None:
        raise card
    return code


def _print_environment(required: Environment, words: list[str], variables: dict[str, str]) -> None:
    if not required.is_complete:
        make_folder = ["mkdir", "-p", str(required.home)]
        for step in (make_folder, *environment.steps(required)):
            print(f"{shell_line(step)} &&")
    print(f"cd {shlex.quote(str(ROOT))} && {shell_line(words, variables)}")
