"""Connect to the container engine, if one is running and this user may use it."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.cards import Card
from launcher.engine.known_errors import FROZEN_ENGINE, explain

if TYPE_CHECKING:
    from docker import DockerClient

SECONDS_TO_CONNECT = 10
SECONDS_TO_RESPOND = 60  # the removal of an image takes the longest


class NoEngine(Exception):
    """No engine responds. The message is the reason, in words that follow "because"."""


@dataclass(frozen=True)
class Engine:
    """A running container engine."""

    client: "DockerClient"
    rootless: bool
    root_dir: str
    selinux: bool = False
    podman: bool = False
    cpus: int = 0  # 0: unknown
    memory: int = 0  # bytes; 0: unknown, or the engine can't limit a container's
    first_uid: int = 0  # of a container's root on the host, if the engine remaps users


def connect() -> Engine:
    """Connect to the engine that the docker command would use.

    Raises:
        NoEngine: If no engine responds.
        Card: If the engine refuses this user, or is frozen.
    """
    import docker

    if not hasattr(docker, "from_env"):
        raise Card(
            "The Docker SDK for Python is missing.",
            "`import docker` finds this project's folder of the same name instead.",
            "pip install -e .",
        )
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=SECONDS_TO_CONNECT)
        info: dict[str, Any] = client.info()
    except (DockerException, OSError) as error:
        if re.search(FROZEN_ENGINE.pattern, str(error), re.IGNORECASE):
            raise FROZEN_ENGINE.card() from error
        if "permission denied" in str(error).lower():
            raise explain(str(error), "The container engine refuses this user.") from error
        raise NoEngine("no container engine is running") from error
    client.api.timeout = SECONDS_TO_RESPOND
    security = info.get("SecurityOptions") or []
    return Engine(
        client,
        rootless="name=rootless" in security,
        root_dir=info.get("DockerRootDir", ""),
        selinux="name=selinux" in security,
        podman="BuildahVersion" in info,
        cpus=info.get("NCPU", 0),
        memory=info.get("MemTotal", 0) if info.get("MemoryLimit") else 0,
        first_uid=_first_uid(info) if "name=userns" in security else 0,
    )


def _first_uid(info: dict[str, Any]) -> int:
    """Return the host's uid of a container's root; the engine's folder is named after it.

    https://docs.docker.com/engine/security/userns-remap/
    """
    match = re.search(r"/(\d+)\.\d+/?$", info.get("DockerRootDir", ""))
    return int(match[1]) if match else 0


def running_engine() -> Engine | None:
    """Return the running engine; None without one, or if this user can't use it."""
    try:
        return connect()
    except (NoEngine, Card):
        return None
