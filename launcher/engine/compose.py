"""Translate compose.yaml, the only description of a container, into a container spec.

`docker compose config` resolves the file, together with a site's compose.override.yaml. A key that
this module doesn't know is refused, so that no setting is dropped silently.
"""

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from common.cards import Card
from common.processes import capture
from launcher import ROOT, settings
from launcher.engine.container_spec import Bind, ContainerSpec, GpuRequest, Port
from launcher.engine.known_errors import explain

Service = dict[str, Any]
OVERRIDES = ("compose.override.yml", "compose.override.yaml")  # in Compose's order
_CDI_NAME = re.compile(r"[\w.-]+/[\w.-]+=\S+")
# These keys are about building or choosing the service; they don't affect its container.
_IGNORED_KEYS = {"build", "profiles", "pull_policy"}


def compose_command(name: str) -> list[str]:
    """Return `docker compose` with the options for this project's files and one service."""
    files = [f"--file={path}" for path in _files()]
    return ["docker", "compose", *files, "--profile", name]


def _files() -> list[Path]:
    """Return compose.yaml, and the override that Compose alone would read, if there is one."""
    overrides = (ROOT / name for name in OVERRIDES)
    return [ROOT / "compose.yaml", *[path for path in overrides if path.is_file()][:1]]


def notebook_service(stack: str) -> str:
    """Return the name of the service that is JupyterLab on a stack."""
    return "notebook" if stack == "cpu" else f"notebook-{stack}"


def seat_service(stack: str) -> str:
    """Return the name of the service that is a learner's container under `invoke hub`."""
    return "seat" if stack == "cpu" else f"seat-{stack}"


def resolve(name: str, variables: dict[str, str]) -> Service:
    """Resolve a service: every variable and path, the files of its secrets, and its network.

    Raises:
        Card: If Compose is missing or refuses the file, or a limit is invalid.
    """
    settings.refuse_invalid_sizes()
    settings.refuse_invalid_cpus()
    command = [*compose_command(name), "config", "--format", "json"]
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
        raise _unreadable(result.stderr)
    project = json.loads(result.stdout)
    service = project["services"][name]
    for secret in service["build"].get("secrets", ()):
        secret["file"] = project["secrets"][secret["source"]]["file"]
    if networks := service.get("networks"):
        service["networks"] = {network: project["networks"][network] for network in networks}
    return service


def translate(service: Service) -> ContainerSpec:
    """Translate a resolved service into a container spec.

    Raises:
        Card: For a key that this module doesn't know.
    """
    keys = {key: value for key, value in service.items() if value is not None}
    for key in _IGNORED_KEYS:
        keys.pop(key, None)
    devices: list[dict[str, str]] = keys.pop("devices", [])
    spec = ContainerSpec(
        image=keys.pop("image"),
        user=keys.pop("user", ""),
        command=_words(keys.pop("command", ())),
        network_mode=keys.pop("network_mode", ""),
        network_options=_network_options(keys.pop("networks", {})),
        ports=tuple(_port(port) for port in keys.pop("ports", ())),
        dns=tuple(keys.pop("dns", ())),
        init=keys.pop("init", False),
        read_only=keys.pop("read_only", False),
        cap_drop=tuple(keys.pop("cap_drop", ())),
        security_opt=tuple(keys.pop("security_opt", ())),
        tmpfs=tuple(keys.pop("tmpfs", ())),
        shm_size=int(keys.pop("shm_size", 0)),
        pids_limit=int(keys.pop("pids_limit", 0)),
        mem_limit=int(keys.pop("mem_limit", 0)),
        memswap_limit=int(keys.pop("memswap_limit", 0)),
        cpus=float(keys.pop("cpus", 0)),
        cpuset=keys.pop("cpuset", ""),
        cgroup_parent=keys.pop("cgroup_parent", ""),
        ulimits=tuple(_ulimit(*item) for item in keys.pop("ulimits", {}).items()),
        binds=tuple(_bind(volume) for volume in keys.pop("volumes", ())),
        devices=_nodes(devices),
        groups=tuple(keys.pop("group_add", ())),
        requests=(*_reservations(keys.pop("deploy", {})), *_cdi_requests(devices)),
        environment=_environment(keys.pop("environment", {})),
    )
    if keys:
        _refuse(min(keys))
    return spec


def _refuse(key: str, why: str = "the launcher doesn't know this key") -> NoReturn:
    """Refuse a key of the service, or of a part of it.

    Raises:
        Card: Always, with the file that has the key.
    """
    word = re.compile(rf"\b{key.rpartition('.')[2]}\b")
    path = next((path for path in reversed(_files()) if word.search(_text(path))), _files()[0])
    raise Card(
        f"{path} sets {key!r}, which `invoke lab` can't apply.",
        f"It would be dropped silently: {why}.",
        "remove it; or start the lab with Docker Compose alone: docker compose run --rm cpu LLM06",
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _unreadable(errors: str) -> Card:
    """Return the card for files that Compose refuses, with all of its lines."""
    known = explain(errors, "")
    if known.what:
        return known
    lines = " ".join(line.strip() for line in errors.splitlines() if line.strip())
    names = " with ".join(path.name for path in _files())
    return Card(
        f"{names} can't be read.",
        lines or "docker compose config printed nothing.",
        f"correct it, or the variable that it names, in {ROOT} (.env, too): docker compose config",
    )


def _ulimit(name: str, limit: int | dict[str, int]) -> tuple[str, int, int]:
    """Return a limit's name, and its soft and hard value."""
    if isinstance(limit, int):
        return name, limit, limit
    single = limit.get("single", 0)
    return name, limit.get("soft", single), limit.get("hard", single)


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
    if deploy:
        _refuse(f"deploy.{min(deploy)}")
    if resources or reservations:
        _refuse(f"deploy.resources.{min(resources or reservations)}")
    if unknown:
        extra = set(unknown[0]) - known or {"devices"}
        why = f"it knows GPUs by {', '.join(sorted(known))}"
        _refuse(f"deploy.resources.reservations.devices.{min(extra)}", why)
    return tuple(GpuRequest(device["driver"], tuple(device["device_ids"])) for device in reserved)


def _environment(variables: dict[str, str | None]) -> dict[str, str]:
    """Undo the JSON's doubled $, and drop variables that the host doesn't set (null)."""
    return {
        name: value.replace("$$", "$") for name, value in variables.items() if value is not None
    }


def _words(command: Sequence[str]) -> tuple[str, ...]:
    return tuple(word.replace("$$", "$") for word in command)


def _network_options(networks: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the driver's options of the one network that a service has."""
    described = [{key: value for key, value in one.items() if value} for one in networks.values()]
    if len(described) > 1 or any(set(one) - {"name", "driver_opts"} for one in described):
        _refuse("networks", "it knows one network, with driver_opts")
    return described[0].get("driver_opts", {}) if described else {}


def _port(port: dict[str, Any]) -> Port:
    usual = {"mode": "ingress", "protocol": "tcp"}
    rest = {key: value for key, value in port.items() if usual.get(key) != value}
    if set(rest) != {"host_ip", "target", "published"}:
        _refuse("ports", "it knows a TCP port on one address of this machine")
    return Port(port["host_ip"], int(port["published"]), port["target"])


def _bind(volume: dict[str, Any]) -> Bind:
    expected: dict[str, Any] = {"type": "bind", "bind": {}}
    differs = any(volume[key] != value for key, value in expected.items() if key in volume)
    if differs or set(volume) - {"type", "bind", "source", "target", "read_only"}:
        why = f"of volumes it knows binds of existing folders, not {json.dumps(volume)}"
        _refuse("volumes", why)
    return Bind(volume["source"], volume["target"], volume.get("read_only", False))
