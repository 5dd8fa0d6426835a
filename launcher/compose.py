"""compose.yaml is the one description of a container; here it becomes one that can be run.

`docker compose config` resolves the file; this module alone translates what it says, for the
Docker SDK and for a `docker run` line. A key that it doesn't know is an error: nothing is dropped.
"""

import json
import os
import subprocess
from dataclasses import dataclass, field, replace
from typing import Any

from launcher import ROOT
from launcher.cards import Card
from launcher.errors import explain

Service = dict[str, Any]
# What belongs to building or choosing the service, and not to a container of it.
_NOT_THE_CONTAINERS = {"build", "profiles", "pull_policy"}


def file_arguments(stack: str) -> list[str]:
    """`docker compose` for this project's file and one stack."""
    return ["docker", "compose", "--file", str(ROOT / "compose.yaml"), "--profile", stack]


def resolve(stack: str, variables: dict[str, str]) -> Service:
    """The service of one stack, every variable and path in it resolved.

    Raises:
        Card: where compose is missing or refuses the file.
    """
    command = [*file_arguments(stack), "config", "--format", "json"]
    environment = {**os.environ, **variables}
    try:
        asked = subprocess.run(command, capture_output=True, text=True, env=environment)
    except FileNotFoundError as error:
        raise Card(
            "The docker command isn't here.",
            "compose.yaml describes the container, and `docker compose` reads it.",
            "install Docker's command line with its compose plugin, or: --runtime venv",
        ) from error
    if asked.returncode != 0:
        raise explain(asked.stderr, "compose.yaml can't be read.")
    return json.loads(asked.stdout)["services"][stack]


@dataclass(frozen=True)
class Bind:
    """A folder of the host in the container."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Container:
    """A container as both the SDK and `docker run` are told of it."""

    image: str
    user: str = ""
    network_mode: str = ""
    init: bool = False
    read_only: bool = False
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    shm_size: int = 0
    pids_limit: int = 0
    mem_limit: int = 0
    binds: tuple[Bind, ...] = ()
    labels: dict[str, str] = field(default_factory=dict[str, str])
    command: tuple[str, ...] = ()

    def with_bind(self, bind: Bind) -> "Container":
        return replace(self, binds=(*self.binds, bind))

    def for_the_sdk(self) -> dict[str, Any]:
        """Arguments of `client.containers.create`."""
        from docker.types import Mount

        binds = [
            Mount(one.target, one.source, type="bind", read_only=one.read_only)
            for one in self.binds
        ]
        return {
            "image": self.image,
            "command": list(self.command),
            "user": self.user,
            "network_mode": self.network_mode,
            "init": self.init,
            "read_only": self.read_only,
            "cap_drop": list(self.cap_drop),
            "security_opt": list(self.security_opt),
            "tmpfs": {path: how for path, _, how in (one.partition(":") for one in self.tmpfs)},
            "shm_size": self.shm_size or None,
            "pids_limit": self.pids_limit or None,
            "mem_limit": self.mem_limit or None,
            "mounts": binds,
            "labels": self.labels,
        }

    def as_docker_run(self) -> list[str]:
        """The same container as a command that can be pasted."""
        words = ["docker", "run", "--rm"]
        words += ["--user", self.user, "--network", self.network_mode]
        words += ["--init"] if self.init else []
        words += ["--read-only"] if self.read_only else []
        words += [f"--cap-drop={one}" for one in self.cap_drop]
        words += [f"--security-opt={one}" for one in self.security_opt]
        words += [f"--tmpfs={one}" for one in self.tmpfs]
        limits = (("shm-size", self.shm_size), ("pids-limit", self.pids_limit))
        limits += (("memory", self.mem_limit),)
        words += [f"--{name}={limit}" for name, limit in limits if limit]
        for one in self.binds:
            mode = ",readonly" if one.read_only else ""
            words += ["--mount", f"type=bind,source={one.source},target={one.target}{mode}"]
        words += [f"--label={name}={value}" for name, value in self.labels.items()]
        return [*words, self.image, *self.command]


def translate(service: Service) -> Container:
    """A resolved service as a container.

    Raises:
        ValueError: for a key that isn't translated: compose.yaml says more than would be done.
    """
    left = {key: value for key, value in service.items() if value is not None}
    for key in _NOT_THE_CONTAINERS:
        left.pop(key, None)
    container = Container(
        image=left.pop("image"),
        user=left.pop("user", ""),
        network_mode=left.pop("network_mode", ""),
        init=left.pop("init", False),
        read_only=left.pop("read_only", False),
        cap_drop=tuple(left.pop("cap_drop", ())),
        security_opt=tuple(left.pop("security_opt", ())),
        tmpfs=tuple(left.pop("tmpfs", ())),
        shm_size=int(left.pop("shm_size", 0)),
        pids_limit=int(left.pop("pids_limit", 0)),
        mem_limit=int(left.pop("mem_limit", 0)),
        binds=tuple(_bind(volume) for volume in left.pop("volumes", ())),
    )
    if left:
        raise ValueError(f"compose.yaml has keys that aren't translated here: {sorted(left)}")
    return container


def _bind(volume: dict[str, Any]) -> Bind:
    known: dict[str, Any] = {"type": "bind", "bind": {}}
    odd = {key: value for key, value in volume.items() if key in known and value != known[key]}
    if odd or set(volume) - {"type", "bind", "source", "target", "read_only"}:
        raise ValueError(f"compose.yaml has a volume that isn't translated here: {volume}")
    return Bind(volume["source"], volume["target"], volume.get("read_only", False))
