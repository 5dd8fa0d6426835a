"""The hub's own container, which Docker Compose starts from compose.yaml and restarts."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common.cards import Card
from common.processes import capture
from launcher.engine import compose
from launcher.engine.client import Engine
from launcher.engine.known_errors import explain, why_no_engine
from launcher.gpu.leases import lease_folder
from launcher.hub import address as hub_address
from launcher.hub import folder as hub_folder
from launcher.hub.settings import HubSettings
from launcher.run import service as lab_service
from launcher.run.placement import Placement
from launcher.run.runtime import Runtime, choose_runtime

SOCKET = "/var/run/docker.sock"
_STEERS_A_TERMINAL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # colours, and \x1b[2K of Compose


def require_runtime() -> Runtime:
    """Return the runtime with an engine.

    Raises:
        Card: If no engine is running.
    """
    runtime = choose_runtime("auto")
    if runtime.engine is None:
        raise Card("A hub needs Docker.", *why_no_engine())
    return runtime


def compose_command() -> list[str]:
    """Return `docker compose` for the hub of this clone."""
    words = compose.compose_command("hub")
    return [*words[:2], f"--project-name={_project()}", *words[2:]]


def _project() -> str:
    return f"llm-labs-hub-{hub_folder.identity()}"


def containers(engine: Engine) -> list[Any]:
    """Return the containers of the hub of this clone; none if it doesn't run."""
    own: dict[str, Any] = {"label": f"com.docker.compose.project={_project()}"}
    return engine.client.containers.list(filters=own, ignore_removed=True)


def published_ports(engine: Engine) -> set[int]:
    """Return the ports of this machine on which the hub of this clone listens."""
    hubs = containers(engine)
    bindings = [binding for hub in hubs for ports in hub.ports.values() for binding in ports or ()]
    return {int(binding["HostPort"]) for binding in bindings}


def up_command(
    settings: HubSettings, engine: Engine, placement: Placement, image: str, config: str
) -> tuple[list[str], dict[str, str]]:
    """Return the command that starts the hub, and its variables.

    Args:
        settings: hub.toml.
        engine: The engine that starts the seats.
        placement: The owner of the files.
        image: The image of the hub and the seats.
        config: A hash of what the hub reads at its start; another one starts it again.

    Raises:
        Card: If the engine or the folder of leases can't be used.
    """
    socket = _engine_socket()
    variables = {
        **lab_service.user_variables(placement, engine.rootless),
        "LABS_HUB_IMAGE": image,
        "LABS_HUB_ADDRESS": settings.address,
        "LABS_HUB_PORT": str(settings.port),
        "LABS_HUB_CONFIG": config,
        "LABS_DOCKER_SOCKET": str(socket),
        "LABS_DOCKER_GID": str(socket.stat().st_gid),
    }
    if settings.gpus:
        variables["LABS_HUB_LEASES"] = str(lease_folder())
    return [*compose_command(), "up", "--detach", "--no-build", "hub"], variables


def copy_command() -> list[str]:
    """Return the command that makes a copy of all work in the running hub."""
    return [*compose_command(), "exec", "--no-TTY", "hub", "python", "-m", "hub.copies"]


def copy_command_without_hub(folder: Path) -> list[str]:
    """Return the command that makes a copy of all work in a folder workshop/, without a hub."""
    return [sys.executable, "-m", "hub.copies", str(folder)]


def up(command: list[str], variables: dict[str, str], settings: HubSettings) -> None:
    """Start the hub, or start it again if something has changed.

    Raises:
        Card: If the engine refuses.
    """
    result = capture(command, stderr=subprocess.PIPE, env={**os.environ, **variables})
    if result.returncode == 0:
        return
    errors = result.stderr
    if "already" in errors and ("allocated" in errors or "in use" in errors):
        raise hub_address.port_taken(settings)
    if "cannot assign requested address" in errors:
        raise hub_address.not_here(settings)
    raise explain(errors, "The engine refuses the hub.", "docker ps; then: invoke hub")


def last_line_of_log() -> str:
    """Return the last line that the hub printed."""
    command = [*compose_command(), "logs", "--no-log-prefix", "--tail=20"]
    log = _STEERS_A_TERMINAL.sub("", capture(command, stderr=subprocess.DEVNULL).stdout)
    return ([line.strip() for line in log.splitlines() if line.strip()] or ["nothing"])[-1]


def _engine_socket() -> Path:
    """Return the path of the engine's socket.

    Raises:
        Card: If the engine is on another machine.
    """
    command = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    url = os.environ.get("DOCKER_HOST") or capture(command).stdout.strip()
    parts = urlsplit(url)
    if parts.scheme != "unix":
        why = f"The engine is at {url}. The hub needs a socket of this machine."
        raise Card("The hub can't use this engine.", why, "docker context use default")
    return Path(parts.path or SOCKET).resolve()
