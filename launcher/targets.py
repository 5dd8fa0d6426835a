"""Where a run goes: which runtime, which stack, which GPUs, and whose files it writes; and why."""

import os
from dataclasses import dataclass

from launcher import devices, owners, stacks
from launcher.cards import Card, unknown_value
from launcher.engine import Engine, NoEngine, connect
from launcher.gpus import Gpu, User, detect
from launcher.owners import Owner

RUNTIMES = ("auto", "docker", "venv")


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


@dataclass(frozen=True)
class Target:
    """Where a run goes: its stack, the GPUs of it, and whose files it writes."""

    stack: str
    gpus: tuple[Gpu, ...]
    owner: Owner
    reason: str

    @property
    def gfx(self) -> str:
        """The target of an AMD image or environment; a person's choice comes first."""
        if self.stack != "rocm":
            return ""
        return os.environ.get("LABS_GFX") or (self.gpus[0].target if self.gpus else "")


def choose_target(where: Where, stack: str, gpus: str) -> Target:
    """The stack, and which of its GPUs, for whoever is going to open their nodes.

    Raises:
        Card: where what was asked for can't be had here.
    """
    owner = owners.of_the_files()
    if gpus == "none":
        if stack not in ("auto", "cpu"):
            raise Card(
                f"--stack {stack} needs a GPU.", "--gpus none leaves it none.", "--stack cpu"
            )
        return Target("cpu", (), owner, "no GPU was asked for")
    choice = stacks.choose(stack, detect(user=_who_opens(where, owner), ask=False))
    if choice.stack == "cpu":
        if gpus:
            raise Card(f"--gpus {gpus} can't be had.", f"{choice.reason}.", "invoke gpus")
        return Target("cpu", (), owner, choice.reason)
    chosen = devices.select(gpus, choice.stack, choice.gpus, os.environ)
    reason = f"{choice.reason}; {chosen.note}" if chosen.note else choice.reason
    return Target(choice.stack, chosen.gpus, owner, reason)


def _who_opens(where: Where, owner: Owner) -> User:
    """A container's user is given the nodes' groups; anyone else has to be in them already."""
    if where.engine is not None:
        return in_a_container(where.engine.rootless, owner)
    if os.geteuid() == 0 and owner.uid != 0:
        return User.of(owner.uid, owner.gid)
    return User.caller()


def in_a_container(rootless: bool, owner: Owner) -> User:
    """Who opens the nodes there."""
    if rootless:
        return User.behind_a_rootless_engine(os.geteuid())
    return User.contained(owner.uid, owner.gid)
