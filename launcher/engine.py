"""The container engine: is there one, may we use it, what is it like."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from launcher.cards import Card
from launcher.errors import explain

if TYPE_CHECKING:
    from docker import DockerClient

SECONDS_TO_ANSWER = 10
NO_LIMIT: Any = None


class NoEngine(Exception):
    """Nothing answers. The message is the reason, in words that follow "because"."""


@dataclass(frozen=True)
class Engine:
    """A container engine that answers."""

    client: "DockerClient"
    rootless: bool
    root_dir: str
    selinux: bool = False
    podman: bool = False


def connect() -> Engine:
    """The engine that the docker command would use.

    Raises:
        NoEngine: where none answers.
        Card: where one is there and refuses this user.
    """
    import docker

    if not hasattr(docker, "from_env"):
        raise Card(
            "The Docker SDK for Python is missing.",
            "`import docker` finds only this project's folder of that name.",
            "pip install -e .",
        )
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=SECONDS_TO_ANSWER)
        info: dict[str, Any] = client.info()
    except (DockerException, OSError) as error:
        if "permission denied" in str(error).lower():
            raise explain(str(error), "The container engine refuses.") from error
        raise NoEngine("no container engine answers") from error
    client.api.timeout = NO_LIMIT  # a lab may be silent for as long as it likes
    security = info.get("SecurityOptions") or []
    return Engine(
        client,
        rootless="name=rootless" in security,
        root_dir=info.get("DockerRootDir", ""),
        selinux="name=selinux" in security,
        podman="BuildahVersion" in info,
    )


def is_rootless() -> bool:
    """Whether the engine that answers is rootless; no where none does, or none that we may use."""
    try:
        return connect().rootless
    except (NoEngine, Card):
        return False
