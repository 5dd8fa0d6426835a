"""compose.yaml is the one description of a container; here it becomes one that can be run.

`docker compose config` resolves the file; this module alone translates what it says, for the
Docker SDK and for a `docker run` line. A key that it doesn't know is an error: nothing is dropped.
"""

import json
import os
import re
import subprocess
from dataclasses import dataclass, field, replace
from typing import Any

from launcher import ROOT
from launcher.cards import Card
from launcher.errors import explain
from launcher.processes import answer

Service = dict[str, Any]
_CDI = re.compile(r"[\w.-]+/[\w.-]+=\S+")
# What belongs to building or choosing the service, and not to a container of it.
_NOT_THE_CONTAINERS = {"build", "profiles", "pull_policy"}


def file_arguments(stack: str) -> list[str]:
    """`docker compose` for this project's file and one stack."""
    return ["docker", "compose", "--file", str(ROOT / "compose.yaml"), "--profile", stack]


def resolve(stack: str, variables: dict[str, str]) -> Service:
    """The service of one stack, every variable and path in it resolved, its secrets' files too.

    Raises:
        Card: where compose is missing or refuses the file.
    """
    command = [*file_arguments(stack), "config", "--format", "json"]
    environment = {**os.environ, **variables}
    try:
        asked = answer(command, stderr=subprocess.PIPE, env=environment)
    except FileNotFoundError as error:
        raise Card(
            "The docker command isn't here.",
            "compose.yaml describes the container, and `docker compose` reads it.",
            "install Docker's command line with its compose plugin, or: --runtime venv",
        ) from error
    if asked.returncode != 0:
        raise explain(asked.stderr, "compose.yaml can't be read.")
    whole = json.loads(asked.stdout)
    service = whole["services"][stack]
    for secret in service["build"].get("secrets", ()):
        secret["file"] = whole["secrets"][secret["source"]]["file"]
    return service


@dataclass(frozen=True)
class Bind:
    """A folder of the host in the container."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Request:
    """GPUs by name: of a driver ("nvidia") or by CDI ("cdi", "amd.com/gpu=0")."""

    driver: str
    names: tuple[str, ...]

    def as_docker_run(self) -> list[str]:
        if self.driver == "cdi":
            return [f"--device={name}" for name in self.names]
        return ["--gpus", f'driver={self.driver},"device={",".join(self.names)}"']


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
    cpus: float = 0
    ulimits: tuple[tuple[str, int], ...] = ()
    binds: tuple[Bind, ...] = ()
    devices: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    requests: tuple[Request, ...] = ()
    runtime: str = ""
    environment: dict[str, str] = field(default_factory=dict[str, str])
    labels: dict[str, str] = field(default_factory=dict[str, str])
    command: tuple[str, ...] = ()

    def with_bind(self, bind: Bind) -> "Container":
        return replace(self, binds=(*self.binds, bind))

    def for_the_sdk(self) -> dict[str, Any]:
        """Arguments of `client.containers.create`."""
        from docker.types import DeviceRequest, Mount, Ulimit

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
            "nano_cpus": round(self.cpus * 1e9) or None,
            "ulimits": [Ulimit(name=name, soft=most, hard=most) for name, most in self.ulimits],
            "mounts": binds,
            "devices": [f"{node}:{node}:rwm" for node in self.devices],
            "group_add": list(self.groups),
            "device_requests": [
                DeviceRequest(driver=one.driver, device_ids=list(one.names), capabilities=[["gpu"]])
                if one.driver != "cdi"
                else DeviceRequest(driver="cdi", device_ids=list(one.names))
                for one in self.requests
            ],
            "runtime": self.runtime or None,
            "environment": self.environment,
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
        words += [f"--cpus={self.cpus:g}"] if self.cpus else []
        words += [f"--ulimit={name}={most}:{most}" for name, most in self.ulimits]
        words += [f"--device={node}" for node in self.devices]
        words += [f"--group-add={gid}" for gid in self.groups]
        words += [word for one in self.requests for word in one.as_docker_run()]
        words += [f"--runtime={self.runtime}"] if self.runtime else []
        words += [f"--env={name}={value}" for name, value in self.environment.items()]
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
    devices: list[dict[str, str]] = left.pop("devices", [])
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
        cpus=float(left.pop("cpus", 0)),
        ulimits=tuple(left.pop("ulimits", {}).items()),
        binds=tuple(_bind(volume) for volume in left.pop("volumes", ())),
        devices=tuple(one["source"] for one in devices if not _CDI.fullmatch(one["source"])),
        groups=tuple(left.pop("group_add", ())),
        requests=(*_requests(left.pop("deploy", {})), *_by_cdi(devices)),
        environment=_environment(left.pop("environment", {})),
    )
    if left:
        raise ValueError(f"compose.yaml has keys that aren't translated here: {sorted(left)}")
    return container


def _by_cdi(devices: list[dict[str, str]]) -> tuple[Request, ...]:
    names = tuple(one["source"] for one in devices if _CDI.fullmatch(one["source"]))
    return (Request("cdi", names),) if names else ()


def _requests(deploy: dict[str, Any]) -> tuple[Request, ...]:
    """GPUs that compose.yaml reserves: by driver and names, nothing else."""
    deploy = {key: value for key, value in deploy.items() if value}  # an empty placement is none
    resources: dict[str, Any] = deploy.pop("resources", {})
    reservations: dict[str, Any] = resources.pop("reservations", {})
    reserved: list[dict[str, Any]] = reservations.pop("devices", [])
    odd = [one for one in reserved if set(one) != {"capabilities", "driver", "device_ids"}]
    if left := deploy or resources or reservations or odd:
        raise ValueError(f"compose.yaml's deploy says what isn't translated here: {left}")
    return tuple(Request(one["driver"], tuple(one["device_ids"])) for one in reserved)


def _environment(variables: dict[str, str | None]) -> dict[str, str]:
    """Resolved JSON doubles each $, and gives null for a variable that the host doesn't set."""
    return {
        name: value.replace("$$", "$") for name, value in variables.items() if value is not None
    }


def _bind(volume: dict[str, Any]) -> Bind:
    known: dict[str, Any] = {"type": "bind", "bind": {}}
    odd = {key: value for key, value in volume.items() if key in known and value != known[key]}
    if odd or set(volume) - {"type", "bind", "source", "target", "read_only"}:
        raise ValueError(f"compose.yaml has a volume that isn't translated here: {volume}")
    return Bind(volume["source"], volume["target"], volume.get("read_only", False))
