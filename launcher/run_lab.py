"""Run labs: print the choices and their reasons, build what is missing, run the command."""

import os
import shlex
from dataclasses import replace
from pathlib import Path

from launcher import (
    ROOT,
    build_image,
    compose,
    environment,
    orphans,
    run_container,
    select_gpus,
)
from launcher.cards import Card, print_status
from launcher.compose import Service
from launcher.container_spec import Bind, ContainerSpec
from launcher.engine import Engine
from launcher.environment import Environment
from launcher.file_owner import container_user, file_owner, make_writable_folder, run_as_owner
from launcher.image_status import why_build
from launcher.known_errors import explain_exit
from launcher.lab_command import LabCommand, labs_command
from launcher.placement import Placement, choose_placement
from launcher.runtime import choose_runtime

HUB_CACHE = "/tmp/cache/huggingface"


def run(command: LabCommand, stack: str, runtime: str, gpus: str, dry: bool) -> int:
    """Run a lab command, or print the shell commands that would run it.

    Args:
        command: The labs and their options.
        stack: The requested stack, or "auto".
        runtime: The requested runtime, or "auto".
        gpus: The requested GPUs, as in `select_gpus.select`.
        dry: Whether to print the commands only.

    Returns:
        The exit code.
    """
    chosen = choose_runtime(runtime)
    placement = choose_placement(chosen, stack, gpus)
    command = command.with_processes(len(placement.gpus))
    print_status(f"{command.name} runs on the {placement.stack} stack, because {placement.reason}.")
    print_status(f"It runs in {chosen.description}, because {chosen.reason}.")
    if chosen.engine is None:
        return _run_in_environment(command, placement, dry)
    return _run_in_container(command, placement, chosen.engine, dry)


def build(stack: str, runtime: str) -> None:
    """Build the image, even if it is current, or create the environment.

    A machine without a GPU can build for one: GPUs are only detected if the stack is unknown.
    """
    chosen = choose_runtime(runtime)
    if stack in ("cpu", "cuda") or (stack == "rocm" and os.environ.get("LABS_GFX")):
        placement = Placement(stack, (), file_owner(), "")
    else:
        placement = choose_placement(chosen, stack, "")
    if chosen.engine is None:
        required = environment.required_environment(placement.stack, placement.gfx)
        with environment.ready(required, placement.owner):
            print_status(f"{required.folder} is ready.")
        return
    service = _resolve(placement, {})
    orphans.clean_up(chosen.engine)
    reason = why_build(chosen.engine, service) or "it was asked for"
    build_image.build(chosen.engine, placement.stack, service, reason)


def _run_in_container(command: LabCommand, placement: Placement, engine: Engine, dry: bool) -> int:
    service = _resolve(placement, _variables(command, placement, engine.rootless))
    _refuse_other_target(placement, service["build"]["args"].get("GFX", ""))
    spec = _container_spec(command, service, placement, engine)
    reason = why_build(engine, service)
    if dry:
        if reason:
            variables, words = build_image.build_command(engine, placement.stack, service)
            print(f"{_shell_line(words, variables)} &&")
        _print_container(placement, spec)
        return 0
    if reason:
        build_image.build(engine, placement.stack, service, reason)
    for folder in spec.writable_folders:
        make_writable_folder(Path(folder), placement.owner)
    orphans.clean_up(engine)
    return run_container.run(engine, spec, command.name)


def _variables(command: LabCommand, placement: Placement, rootless: bool) -> dict[str, str]:
    """Return the values of compose.yaml's variables for this run."""
    user = container_user(placement.owner, rootless)
    return {
        "LABS_UID": str(user.uid),
        "LABS_GID": str(user.gid),
        "LABS_NETWORK": "bridge" if command.online else "none",
    }


def _resolve(placement: Placement, variables: dict[str, str]) -> Service:
    """Resolve the stack's service; LABS_GFX in the shell or .env overrides the GPU's target."""
    service = compose.resolve(placement.stack, variables)
    if placement.gfx and not service["build"]["args"].get("GFX"):
        service = compose.resolve(placement.stack, {**variables, "LABS_GFX": placement.gfx})
    return service


def _container_spec(
    command: LabCommand, service: Service, placement: Placement, engine: Engine
) -> ContainerSpec:
    spec = replace(compose.translate(service), command=tuple(command.words))
    if placement.gpus:
        access = os.environ.get("LABS_DEVICES", "auto")
        if engine.podman:
            access = select_gpus.podman_access(placement.stack, access)
        spec = select_gpus.attach(spec, placement.stack, placement.gpus, access)
    if engine.selinux:  # its labels would block the mounts and the device nodes
        spec = replace(spec, security_opt=(*spec.security_opt, "label=disable"))
    if not command.online:
        return spec
    cache = Path(os.environ.get("HF_HOME") or placement.owner.home / ".cache" / "huggingface")
    return spec.with_bind(Bind(str(cache), HUB_CACHE))


def _refuse_other_target(placement: Placement, gfx: str) -> None:
    """Refuse a GPU that the ROCm wheels aren't built for; HIP would fail on it.

    Raises:
        Card: If the target of a GPU differs from `gfx`.
    """
    others = [gpu.target for gpu in placement.gpus if gpu.target != gfx]
    if placement.stack == "rocm" and others and gfx != "all":
        raise Card(
            f"The ROCm stack is for {gfx}, and the GPU is a {others[0]}.",
            f"LABS_GFX names {gfx}, in the shell or in .env, and its image lacks {others[0]}.",
            f"LABS_GFX={others[0]} invoke lab …; or permanently: invoke dotenv",
        )


def _print_container(placement: Placement, spec: ContainerSpec) -> None:
    owner = placement.owner
    make_folder = ["mkdir", "-p"]
    if os.geteuid() == 0 and owner.uid != 0:
        make_folder = ["install", "-d", "-o", str(owner.uid), "-g", str(owner.gid)]
    for folder in spec.writable_folders:
        print(f"{_shell_line([*make_folder, folder])} &&")
    print(_shell_line(spec.docker_run_command()))


def _shell_line(command: list[str], variables: dict[str, str] | None = None) -> str:
    assignments = [f"{name}={shlex.quote(value)}" for name, value in (variables or {}).items()]
    return " ".join([*assignments, shlex.join(command)])


def _run_in_environment(command: LabCommand, placement: Placement, dry: bool) -> int:
    _refuse_other_target(placement, placement.gfx)
    required = environment.required_environment(placement.stack, placement.gfx)
    gpus = select_gpus.visibility_variables(placement.stack, placement.gpus)
    variables = {**required.variables, **gpus}
    words = labs_command(command.words, str(required.python))
    if dry:
        _print_environment(required, words, variables)
        return 0
    with environment.ready(required, placement.owner):
        make_writable_folder(ROOT / "outputs", placement.owner)
        code = run_as_owner(placement.owner, words, {**os.environ, **variables})
    card = explain_exit(code, command.name, out_of_memory=False)
    if card is not None:
        raise card
    return code


def _print_environment(required: Environment, words: list[str], variables: dict[str, str]) -> None:
    if not required.is_complete:
        make_folder = ["mkdir", "-p", str(required.home)]
        for step in (make_folder, *environment.steps(required)):
            print(f"{_shell_line(step)} &&")
    print(f"cd {shlex.quote(str(ROOT))} && {_shell_line(words, variables)}")
