"""Run labs: choose the stack and the runtime, say why, and hand over."""

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from launcher import ROOT, compose, containers, environments, images, owners, stacks
from launcher.cards import Card, say, unknown_value
from launcher.engine import Engine, NoEngine, connect
from launcher.errors import explain_exit
from launcher.interrupts import Interrupts
from launcher.owners import Owner
from launcher.plan import Plan
from launcher.processes import started

RUNTIMES = ("auto", "docker", "venv")
OUTPUTS = "/lab/outputs"
HUB_CACHE = "/tmp/cache/huggingface"


@dataclass(frozen=True)
class Where:
    """The runtime: a container of this engine, or without one an environment; and why."""

    engine: Engine | None
    reason: str


def choose_runtime(asked: str) -> Where:
    """Docker where an engine answers, else an environment.

    Raises:
        Card: for an unknown runtime, or where docker was asked for and no engine answers.
    """
    if asked not in RUNTIMES:
        unknown_value("--runtime", asked, RUNTIMES)
    if asked == "venv":
        return Where(None, "it was asked for")
    try:
        engine = connect()
    except NoEngine as error:
        if asked == "auto":
            return Where(None, str(error))
        raise Card(
            "No container engine answers.",
            "It isn't running, or DOCKER_HOST points elsewhere.",
            "sudo systemctl start docker; or, without a container: --runtime venv",
        ) from error
    return Where(engine, "it was asked for" if asked == "docker" else "a container engine answers")


def run(plan: Plan, stack: str, runtime: str, dry: bool, interrupts: Interrupts) -> int:
    """Run what `plan` says, or print the commands that would; the exit code."""
    choice = stacks.choose(stack)
    where = choose_runtime(runtime)
    kind = "container" if where.engine else "environment"
    say(f"{plan.name} on the {choice.stack} stack, because {choice.reason}; in {_article(kind)},")
    say(f"because {where.reason}.")
    if where.engine is None:
        return _in_environment(plan, choice.stack, dry)
    return _in_container(plan, choice.stack, where.engine, dry, interrupts)


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def build(stack: str, runtime: str) -> None:
    """Make the image or the environment, whether or not it is there."""
    choice, where = stacks.choose(stack), choose_runtime(runtime)
    if where.engine is None:
        with environments.ready(choice.stack, owners.of_the_files()) as environment:
            say(f"{environment.folder} is ready.")
    else:
        service = compose.resolve(choice.stack, {})
        reason = images.missing(where.engine, service) or "it was asked for"
        images.build(where.engine, choice.stack, service, reason)


def _in_container(plan: Plan, stack: str, engine: Engine, dry: bool, interrupts: Interrupts) -> int:
    owner = owners.of_the_files()
    service = compose.resolve(stack, _variables(plan, owner, engine.rootless))
    container = _container(plan, service, owner)
    reason = images.missing(engine, service)
    if dry:
        _print_dry(stack, service, container, bool(reason))
        return 0
    if reason:
        images.build(engine, stack, service, reason)
    for bind in container.binds:
        if not bind.read_only:
            _make_writable(Path(bind.source), owner)
    return containers.run(engine, container, plan.name, interrupts)


def _variables(plan: Plan, owner: Owner, rootless: bool) -> dict[str, str]:
    """What compose.yaml leaves open and this run decides."""
    inside = owners.in_the_container(owner, rootless)
    return {
        "LABS_UID": str(inside.uid),
        "LABS_GID": str(inside.gid),
        "LABS_NETWORK": "bridge" if plan.online else "none",
    }


def _container(plan: Plan, service: compose.Service, owner: Owner) -> compose.Container:
    container = replace(compose.translate(service), command=tuple(plan.command))
    if not plan.online:
        return container
    hub = Path(os.environ.get("HF_HOME") or owner.home / ".cache" / "huggingface")
    return container.with_bind(compose.Bind(str(hub), HUB_CACHE))


def _make_writable(folder: Path, owner: Owner) -> None:
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
    stack: str, service: compose.Service, container: compose.Container, build_first: bool
) -> None:
    if build_first:
        variables, command = images.build_command(stack, service)
        print(_line(command, variables))
    owner = owners.of_the_files()
    make = ["mkdir", "-p"]
    if os.geteuid() == 0 and owner.uid != 0:
        make = ["install", "-d", "-o", str(owner.uid), "-g", str(owner.gid)]
    for bind in container.binds:
        if not bind.read_only:
            print(_line([*make, bind.source]))
    print(_line(container.as_docker_run()))


def _line(command: list[str], variables: dict[str, str] | None = None) -> str:
    assignments = [f"{name}={shlex.quote(value)}" for name, value in (variables or {}).items()]
    return " ".join([*assignments, shlex.join(command)])


def _in_environment(plan: Plan, stack: str, dry: bool) -> int:
    owner = owners.of_the_files()
    if dry:
        _print_dry_environment(plan, stack)
        return 0
    with environments.ready(stack, owner) as environment:
        _make_writable(ROOT / "outputs", owner)
        command = [str(environment.python), "-m", "labs", *plan.command]
        variables = {**os.environ, **environment.variables}
        code = _run_as(owner, command, variables)
    card = explain_exit(code, plan.name, out_of_memory=False)
    if card is not None:
        raise card
    return code


def _run_as(owner: Owner, command: list[str], variables: dict[str, str]) -> int:
    """Run a command in the clone, as the owner of its files where root calls."""
    if os.geteuid() == 0 and owner.uid != 0:
        variables = {**variables, "HOME": str(owner.home)}
        who = {"user": owner.uid, "group": owner.gid, "extra_groups": list[int]()}
    else:
        who = {}
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


def _print_dry_environment(plan: Plan, stack: str) -> None:
    environment = environments.wanted(stack)
    if not environment.complete:
        print(_line(["mkdir", "-p", str(environment.home)]))
        for command in environments.steps(environment, stack, environments.torch_source()):
            print(_line(command))
    command = [str(environment.python), "-m", "labs", *plan.command]
    print(f"cd {shlex.quote(str(ROOT))} && {_line(command, environment.variables)}")
