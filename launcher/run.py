"""Run labs: say where and why, make ready what is missing, and hand over."""

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher import (
    ROOT,
    building,
    compose,
    containers,
    devices,
    environments,
    images,
    owners,
)
from launcher.cards import Card, say
from launcher.engine import Engine
from launcher.errors import explain_exit
from launcher.gpus import User
from launcher.interrupts import Interrupts
from launcher.owners import Owner
from launcher.plan import Plan
from launcher.processes import started
from launcher.targets import Target, choose_runtime, choose_target

OUTPUTS = "/lab/outputs"
HUB_CACHE = "/tmp/cache/huggingface"


def run(plan: Plan, stack: str, runtime: str, gpus: str, dry: bool, interrupts: Interrupts) -> int:
    """Run what `plan` says, or print the commands that would; the exit code."""
    where = choose_runtime(runtime)
    target = choose_target(where, stack, gpus)
    plan = plan.on(len(target.gpus))
    kind = "a container" if where.engine else "an environment"
    say(f"{plan.name} on the {target.stack} stack, because {target.reason}; in {kind},")
    say(f"because {where.reason}.")
    if where.engine is None:
        return _in_environment(plan, target, dry)
    return _in_container(plan, target, where.engine, dry, interrupts)


def build(stack: str, runtime: str) -> None:
    """Make the image or the environment, whether or not it is there.

    A machine without the GPU can build for one: only what the stack is for is looked at then.
    """
    where = choose_runtime(runtime)
    owner = owners.of_the_files()
    target = Target(stack, (), owner, "")
    if stack not in ("cpu", "cuda") and not (stack == "rocm" and os.environ.get("LABS_GFX")):
        target = choose_target(where, stack, "")
    if where.engine is None:
        environment = environments.wanted(target.stack, target.gfx)
        with environments.ready(environment, owner):
            say(f"{environment.folder} is ready.")
        return
    service = _resolve(target, {})
    reason = images.missing(where.engine, service) or "it was asked for"
    building.build(where.engine, target.stack, service, reason)


def _in_container(
    plan: Plan, target: Target, engine: Engine, dry: bool, interrupts: Interrupts
) -> int:
    service = _resolve(target, _variables(plan, target, engine.rootless))
    _refuse_another_target(target, service["build"]["args"].get("GFX", ""))
    container = _container(plan, service, target, engine)
    reason = images.missing(engine, service)
    if dry:
        _print_dry(target, service, container, engine if reason else None)
        return 0
    if reason:
        building.build(engine, target.stack, service, reason)
    for bind in container.binds:
        if not bind.read_only:
            make_writable(Path(bind.source), target.owner)
    return containers.run(engine, container, plan.name, interrupts)


def _variables(plan: Plan, target: Target, rootless: bool) -> dict[str, str]:
    """What compose.yaml leaves open and this run decides."""
    inside = owners.in_the_container(target.owner, rootless)
    return {
        "LABS_UID": str(inside.uid),
        "LABS_GID": str(inside.gid),
        "LABS_NETWORK": "bridge" if plan.online else "none",
    }


def _resolve(target: Target, variables: dict[str, str]) -> compose.Service:
    """The stack's service; for AMD's card, unless the shell or .env names another gfx target."""
    service = compose.resolve(target.stack, variables)
    if target.gfx and not service["build"]["args"].get("GFX"):
        service = compose.resolve(target.stack, {**variables, "LABS_GFX": target.gfx})
    return service


def _container(
    plan: Plan, service: compose.Service, target: Target, engine: Engine
) -> compose.Container:
    container = replace(compose.translate(service), command=tuple(plan.command))
    if target.gpus:
        access = os.environ.get("LABS_DEVICES", "auto")
        if engine.podman:
            access = devices.on_podman(target.stack, access)
        container = devices.given(container, target.stack, target.gpus, access)
    if engine.selinux:  # its labels would keep the container from the mounts and the nodes
        options = (*container.security_opt, "label=disable")
        container = replace(container, security_opt=options)
    if not plan.online:
        return container
    hub = Path(os.environ.get("HF_HOME") or target.owner.home / ".cache" / "huggingface")
    return container.with_bind(compose.Bind(str(hub), HUB_CACHE))


def _refuse_another_target(target: Target, gfx: str) -> None:
    """ROCm's wheels are for one gfx target; a card of another ends in hipErrorInvalidImage."""
    others = [one.target for one in target.gpus if one.target != gfx]
    if target.stack == "rocm" and others and gfx != "all":
        raise Card(
            f"The ROCm stack is for {gfx}, and the GPU is a {others[0]}.",
            f"LABS_GFX names {gfx}, in the shell or in .env, and its image lacks {others[0]}.",
            f"LABS_GFX={others[0]} invoke lab …; or for good: invoke dotenv",
        )


def make_writable(folder: Path, owner: Owner) -> None:
    """Make a folder that the container writes to before the engine does, as root's."""
    try:
        owners.make_folder(folder, owner)
    except OSError as error:
        raise Card(f"{folder} can't be made.", str(error), f"ls -ld {folder.parent}") from error
    if os.geteuid() == owner.uid and not os.access(folder, os.W_OK):
        raise Card(
            f"{folder} can't be written.",
            "It is read-only, or belongs to somebody else.",
            f"ls -ld {folder}; then for example: sudo chown -R $(id -u):$(id -g) {folder}",
        )


def _print_dry(
    target: Target,
    service: compose.Service,
    container: compose.Container,
    builder: Engine | None,
) -> None:
    if builder is not None:
        variables, command = building.command(builder, target.stack, service)
        print(f"{_line(command, variables)} &&")
    owner, make = target.owner, ["mkdir", "-p"]
    if os.geteuid() == 0 and owner.uid != 0:
        make = ["install", "-d", "-o", str(owner.uid), "-g", str(owner.gid)]
    for bind in container.binds:
        if not bind.read_only:
            print(f"{_line([*make, bind.source])} &&")
    print(_line(container.as_docker_run()))


def _line(command: list[str], variables: dict[str, str] | None = None) -> str:
    assignments = [f"{name}={shlex.quote(value)}" for name, value in (variables or {}).items()]
    return " ".join([*assignments, shlex.join(command)])


def _in_environment(plan: Plan, target: Target, dry: bool) -> int:
    _refuse_another_target(target, target.gfx)
    environment = environments.wanted(target.stack, target.gfx)
    visible = devices.visible(target.stack, target.gpus)
    if dry:
        _print_dry_environment(plan, environment, visible)
        return 0
    with environments.ready(environment, target.owner):
        make_writable(ROOT / "outputs", target.owner)
        command = [str(environment.python), "-m", "labs", *plan.command]
        code = run_as(target.owner, command, {**os.environ, **environment.variables, **visible})
    card = explain_exit(code, plan.name, out_of_memory=False)
    if card is not None:
        raise card
    return code


def run_as(owner: Owner, command: list[str], variables: dict[str, str]) -> int:
    """Run a command in the clone, as the owner of its files where root calls."""
    who: dict[str, Any] = {}
    if os.geteuid() == 0 and owner.uid != 0:
        variables = {**variables, "HOME": str(owner.home)}
        groups = sorted(User.of(owner.uid, owner.gid).groups)
        who = {"user": owner.uid, "group": owner.gid, "extra_groups": groups}
    try:
        with started(command, cwd=ROOT, env=variables, **who) as child:
            code = child.wait()
    except PermissionError as error:
        raise Card(
            f"The owner of this folder (uid {owner.uid}) can't run {command[0]}.",
            "The Python that made the environment is out of that user's reach.",
            "run invoke as that user, without sudo",
        ) from error
    return code if code >= 0 else 128 - code


def _print_dry_environment(
    plan: Plan, environment: environments.Environment, visible: dict[str, str]
) -> None:
    if not environment.complete:
        for command in (["mkdir", "-p", str(environment.home)], *environments.steps(environment)):
            print(f"{_line(command)} &&")
    command = [str(environment.python), "-m", "labs", *plan.command]
    variables = {**environment.variables, **visible}
    print(f"cd {shlex.quote(str(ROOT))} && {_line(command, variables)}")
