"""The description of the workshop that `invoke hub` wrote for the hub."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.engine.container_spec import Bind, ContainerSpec, GpuRequest
from launcher.gpu.model import Gpu
from launcher.hub.folder import DESCRIPTION, STATE
from launcher.hub.gpus import HubGpus
from launcher.hub.settings import HubSettings

WORKSHOP = Path("/lab/workshop")  # in the hub's container


@dataclass(frozen=True)
class Workshop:
    """What the hub needs to know.

    Attributes:
        settings: hub.toml, checked.
        users: names and passwords of a course; empty in a room with a shared password.
        seat: the container of a seat, without what differs between learners.
        gpus: the GPUs of seats; None for seats on the CPU.
        host_folder: the path of workshop/ on the host, for mounts.
        ident: distinguishes the hubs of several clones on one engine.
    """

    settings: HubSettings
    users: dict[str, str]
    seat: ContainerSpec
    gpus: HubGpus | None
    host_folder: str
    ident: str


def load(folder: Path = WORKSHOP) -> Workshop:
    """Return the description that the launcher wrote into workshop/state/."""
    data: dict[str, Any] = json.loads((folder / STATE / DESCRIPTION).read_text(encoding="utf-8"))
    return Workshop(
        settings=HubSettings(**data["settings"]),
        users=data["users"],
        seat=_container_spec(data["seat"]),
        gpus=_gpus(data["gpus"]) if data["gpus"] else None,
        host_folder=data["host_folder"],
        ident=data["ident"],
    )


def _gpus(data: dict[str, Any]) -> HubGpus:
    """Rebuild the description of GPUs from JSON, which has lists in place of tuples."""
    gpus = [Gpu(**gpu) for gpu in data["gpus"]]
    same = (replace(gpu, devices=tuple(gpu.devices), gids=tuple(gpu.gids)) for gpu in gpus)
    return replace(HubGpus(**data), gpus=tuple(same))


def _container_spec(data: dict[str, Any]) -> ContainerSpec:
    """Rebuild a container spec from JSON, which has lists in place of tuples."""
    lists = {name for name, value in data.items() if isinstance(value, list)}
    values: dict[str, Any] = {
        name: tuple(data[name]) if name in lists else data[name] for name in data
    }
    values["binds"] = tuple(Bind(**bind) for bind in data["binds"])
    values["requests"] = tuple(
        GpuRequest(request["driver"], tuple(request["names"])) for request in data["requests"]
    )
    values["ulimits"] = tuple(tuple(limit) for limit in data["ulimits"])
    values["ports"] = ()
    return ContainerSpec(**values)
