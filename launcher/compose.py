"""Translate compose.yaml, the only description of a container, into a container spec.

`docker compose config` resolves the file. A key that this module doesn't know is an error, so
that no setting is dropped silently.
"""

import json
import os
import re
import subprocess
from typing import Any

from launcher import ROOT
from launcher.cards import Card
from launcher.container_spec import Bind, ContainerSpec, GpuRequest
from launcher.known_errors import explain
from launcher.processes import capture

Service = dict[str, Any]
_CDI_NAME = re.compile(r"[\w.-]+/[\w.-]+=\S+")
# These keys are about building or choosing the service; they don't affect its container.
_IGNORED_KEYS = {"build", "profiles", "pull_policy"}


def compose_command(stack: str) -> list[str]:
    """Return `docker compose` with the options for this project's file and one stack."""
    return ["docker", "compose", "--file", str(ROOT / "compose.yaml"), "--profile", stack]


def resolve(stack: str, variables: dict[str, str]) -> Service:
    """Resolve a stack's service: every variable and path, and the files of its secrets.

    Raises:
        Card: If Compose is missing or refuses the file.
    """
    command = [*compose_command(stack), "config", "--format", "json"]
    environment = {**os.environ, **variables}
    try:
        result = capture(command, stderr=subprocess.PIPE, env=environment)
    except FileNotFoundError as error:
        raise Card(
            "The docker command is missing.",
            "The launcher reads compose.yaml with `docker compose`.",
            "install Docker's command line with its compose plugin, or: --runtime venv",
        ) from error
    if result.returncode != 0:
        raise explain(result.stderr, "compose.yaml can't be read.")
    project = json.loads(result.stdout)
    service = project["services"][stack]
    for secret in service["build"].get("secrets", ()):
        secret["file"] = project["secrets"][secret["source"]]["file"]
    return service


def translate(service: Service) -> ContainerSpec:
    """Translate a resolved service into a container spec.

    Raises:
        ValueError: For a key of compose.yaml that this module doesn't know.
    """
    keys = {key: value for key, value in service.items() if value is not None}
    for key in _IGNORED_KEYS:
        keys.pop(key, None)
    devices: list[dict[str, str]] = keys.pop("devices", [])
    spec = ContainerSpec(
        image=keys.pop("image"),
        user=keys.pop("user", ""),
        network_mode=keys.pop("network_mode", ""),
        init=keys.pop("init", False),
        read_only=keys.pop("read_only", False),
        cap_drop=tuple(keys.pop("cap_drop", ())),
        security_opt=tuple(keys.pop("security_opt", ())),
        tmpfs=tuple(keys.pop("tmpfs", ())),
        shm_size=int(keys.pop("shm_size", 0)),
        pids_limit=int(keys.pop("pids_limit", 0)),
        mem_limit=int(keys.pop("mem_limit", 0)),
        cpus=float(keys.pop("cpus", 0)),
        ulimits=tuple(keys.pop("ulimits", {}).items()),
        binds=tuple(_bind(volume) for volume in keys.pop("volumes", ())),
        devices=_nodes(devices),
        groups=tuple(keys.pop("group_add", ())),
        requests=(*_reservations(keys.pop("deploy", {})), *_cdi_requests(devices)),
        environment=_environment(keys.pop("environment", {})),
    )
    if keys:
        raise ValueError(f"compose.yaml has keys that the launcher doesn't know: {sorted(keys)}")
    return spec


def _nodes(devices: list[dict[str, str]]) -> tuple[str, ...]:
    sources = (device["source"] for device in devices)
    return tuple(source for source in sources if not _CDI_NAME.fullmatch(source))


def _cdi_requests(devices: list[dict[str, str]]) -> tuple[GpuRequest, ...]:
    sources = (device["source"] for device in devices)
    names = tuple(source for source in sources if _CDI_NAME.fullmatch(source))
    return (GpuRequest("cdi", names),) if names else ()


def _reservations(deploy: dict[str, Any]) -> tuple[GpuRequest, ...]:
    """Translate the GPUs that compose.yaml reserves; each by a driver and names only."""
    deploy = {key: value for key, value in deploy.items() if value}  # drop an empty placement
    resources: dict[str, Any] = deploy.pop("resources", {})
    reservations: dict[str, Any] = resources.pop("reservations", {})
    reserved: list[dict[str, Any]] = reservations.pop("devices", [])
    known = {"capabilities", "driver", "device_ids"}
    unknown = [device for device in reserved if set(device) != known]
    if rest := deploy or resources or reservations or unknown:
        raise ValueError(f"compose.yaml's deploy has what the launcher doesn't know: {rest}")
    return tuple(GpuRequest(device["driver"], tuple(device["device_ids"])) for device in reserved)


def _environment(variables: dict[str, str | None]) -> dict[str, str]:
    """Undo the JSON's doubled $, and drop variables that the host doesn't set (null)."""
    return {
        name: value.replace("$$", "$") for name, value in variables.items() if value is not None
    }


def _bind(volume: dict[str, Any]) -> Bind:
    expected: dict[str, Any] = {"type": "bind", "bind": {}}
    differs = any(volume[key] != value for key, value in expected.items() if key in volume)
    if differs or set(volume) - {"type", "bind", "source", "target", "read_only"}:
        raise ValueError(f"compose.yaml has a volume that the launcher doesn't know: {volume}")
    return Bind(volume["source"], volume["target"], volume.get("read_only", False))
