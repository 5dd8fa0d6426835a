"""Turn error messages of Docker, pip and others into cards; no other module parses them."""

import os
import re
import signal
from dataclasses import dataclass

from common.cards import Card


@dataclass(frozen=True)
class KnownError:
    """A pattern of error messages, and the card for them."""

    pattern: str
    what: str
    why: str
    fix: str

    def card(self) -> Card:
        """Return the card for this error."""
        return Card(self.what, self.why, self.fix)


DEFAULT_ENGINE = "unix:///var/run/docker.sock"
TRY_AGAIN = "read the lines above; invoke build tries again"
WITHOUT_IMAGE = " Or, without an image: --runtime venv"
NO_ENGINE = KnownError(
    r"cannot connect to the docker daemon|error while fetching server"
    r"|docker\.sock.*no such file",
    "No container engine is running.",
    "The engine is stopped, or DOCKER_HOST points elsewhere.",
    "sudo systemctl start docker; or, without a container: --runtime venv",
)
FROZEN_ENGINE = KnownError(
    r"timed out|deadline exceeded",
    "The container engine doesn't respond.",
    "It accepts connections and doesn't respond: it is overloaded, stopped or frozen.",
    "docker info, to see when it responds again; sudo systemctl restart docker; or, without a "
    "container: --runtime venv",
)
# The first match wins, so specific patterns come before general ones.
KNOWN_ERRORS = (
    KnownError(
        r"permission denied.*docker( daemon|\.sock| API)"
        r"|fetching server API version.*PermissionError",
        "This user may not use the container engine.",
        "The user isn't in the group that owns the engine's socket. That group is as powerful as "
        "root: its members can read and change every file of this machine.",
        "without that group: --runtime venv, or a rootless engine (dockerd-rootless-setuptool.sh "
        'install, or Podman); if you may have root\'s rights: sudo usermod -aG docker "$USER"',
    ),
    KnownError(
        r"'compose' is not a docker command|unknown (shorthand )?flag"
        r"|unknown command: docker compose",
        "Docker's compose plugin is missing.",
        "The launcher reads compose.yaml with `docker compose`.",
        "sudo apt-get install docker-compose-v2 (elsewhere docker-compose-plugin, docker-compose); "
        "or, without a container: --runtime venv",
    ),
    KnownError(
        r"'buildx' is not a docker command|requires? (the )?buildx|buildx.*(not found|is missing)",
        "Docker's buildx plugin is missing.",
        "BuildKit builds the image, and `docker buildx` controls BuildKit.",
        "sudo apt-get install docker-buildx (elsewhere docker-buildx-plugin)",
    ),
    KnownError(
        r"no space left on device|disk quota exceeded",
        "The disk is full.",
        "The lines above name the file that didn't fit.",
        "df -h; for the engine's own disk space: docker system df, then docker builder prune",
    ),
    KnownError(
        r"DO NOT MATCH THE HASHES|Hash mismatch for",
        "A package differs from the one in the lock.",
        "Its hash is wrong: the download is damaged or was tampered with. It wasn't installed.",
        "invoke build, for an image after docker builder prune; if it fails again, check the index",
    ),
    KnownError(
        r"check_torch: the file isn't the one that was tested",
        "torch's wheel differs from the one that was tested.",
        "It has the same name and another SHA-256 than docker/torch-hashes.json.",
        "docker builder prune, invoke build; if it fails again, check LABS_WHEELS or the index",
    ),
    KnownError(
        r"ensurepip is not available",
        "This Python can't make virtual environments.",
        "Debian and Ubuntu have the venv module in a separate package.",
        "sudo apt-get install python3-venv",
    ),
    NO_ENGINE,
    KnownError(
        r"could not select device driver",
        "The engine can't give a container an NVIDIA GPU.",
        "The NVIDIA Container Toolkit isn't installed, or isn't configured for this engine.",
        "install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure "
        "--runtime=docker && sudo systemctl restart docker",
    ),
    KnownError(
        r"unknown or invalid runtime name|unknown runtime specified",
        "The engine doesn't know the requested runtime.",
        "LABS_DEVICES=runtime needs AMD's container toolkit, configured for this engine.",
        "sudo amd-ctk runtime configure && sudo systemctl restart docker; or LABS_DEVICES=nodes",
    ),
    KnownError(
        r"error gathering device information",
        "A GPU's device node doesn't exist.",
        "The driver may not be loaded on the machine of the engine.",
        "invoke gpus shows what this machine has; sudo modprobe amdgpu loads AMD's driver",
    ),
    KnownError(
        r"(unresolvable CDI devices|CDI device injection failed)[^\n]*nvidia\.com",
        "The engine knows no CDI device of an NVIDIA GPU.",
        "The NVIDIA Container Toolkit isn't installed, or /etc/cdi has no specification by it.",
        "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml; or, without a container: "
        "--runtime venv",
    ),
    KnownError(
        r"unresolvable CDI devices|CDI device injection failed",
        "The engine knows no CDI device of that name.",
        "CDI is disabled, or no specification in /etc/cdi names the device.",
        "sudo amd-ctk cdi generate; or LABS_DEVICES=nodes",
    ),
    KnownError(
        r"unable to find group",
        "The image has no group of that name.",
        "The engine looks up group names in the image, so compose.yaml needs numbers.",
        "invoke dotenv writes the numbers of this host's nodes into .env",
    ),
    KnownError(
        r"bind source path does not exist|invalid mount config",
        "A folder that the container needs doesn't exist.",
        "Somebody removed it, or the engine is on another machine.",
        "run the command again; docker context show names the engine in use",
    ),
    KnownError(
        r"Conflict\. The container name",
        "A container of that name exists already.",
        "Another launch chose the same name.",
        "run the command again: it chooses a new name",
    ),
    KnownError(
        r"port is already allocated|address already in use",
        "The port of the notebook is taken.",
        "Another program has begun to listen on it in the last seconds.",
        "run the command again: it chooses a free port; or name one with --port",
    ),
    KnownError(
        r"manifest unknown|pull access denied",
        "The base image isn't available.",
        "The registry doesn't have it, or denies you access.",
        "name another base image: LABS_BASE_IMAGE=… invoke build",
    ),
    KnownError(
        r"no such host|dial tcp|name resolution|network is unreachable|could not resolve"
        r"|failed to establish a new connection|max retries exceeded|could not find a version"
        r"|no solution found when resolving|failed to fetch|error sending request"
        r"|certificate verify failed|i/o timeout|TLS handshake|no torch.* in the folder of wheels",
        "A download for the build failed.",
        "This machine can't reach the server that the lines above name.",
        "invoke build, with a network. For a base image on disk: LABS_BASE_IMAGE=… invoke build. "
        "For a mirror or wheels on disk, see docs/administrators.md, “Without the internet”."
        f"{WITHOUT_IMAGE}",
    ),
)


def no_engine() -> Card:
    """Return the card for an engine that doesn't respond, with its address."""
    why, fix = why_no_engine()
    return Card(NO_ENGINE.what, why, f"{fix}; or, without a container: --runtime venv")


def why_no_engine() -> tuple[str, str]:
    """Return where no engine responds, as a sentence, and what fixes that."""
    if host := os.environ.get("DOCKER_HOST"):
        why = f"DOCKER_HOST is {host}, and no engine responds there."
        return why, "start that engine, or: unset DOCKER_HOST"
    return f"No engine responds at {DEFAULT_ENGINE}.", "sudo systemctl start docker"


def explain(text: str, otherwise: str, fix: str = TRY_AGAIN) -> Card:
    """Return the card for an error message.

    Args:
        text: The output that ends with the error.
        otherwise: What happened, for a message that no pattern matches; its card quotes the
            last line.
        fix: The fix for such a message.
    """
    for known in KNOWN_ERRORS:
        if re.search(known.pattern, text, re.IGNORECASE | re.DOTALL):
            return known.card()
    lines = [line for line in text.strip().splitlines() if line.strip()] or ["It printed nothing."]
    return Card(otherwise, lines[-1].strip(), fix)


def explain_exit(code: int, name: str, out_of_memory: bool) -> Card | None:
    """Return the card for an exit code that the lab didn't choose, or None for its own codes."""
    if code == 128 + signal.SIGKILL:
        return _explain_kill(code, name, out_of_memory)
    if code > 128 and code != 128 + signal.SIGINT:
        return Card(
            f"{name} was ended by signal {code - 128}.",
            "Native code probably crashed; see the lab's own output above.",
            f"invoke lab {name} -- …; if it happens again, try --precision fp32",
            code,
        )
    return None


def _explain_kill(code: int, name: str, out_of_memory: bool) -> Card:
    why = "A process sent it KILL; most often the kernel does, when memory runs out."
    if out_of_memory:
        why = "It needed more memory than the limit allows."
    fix = "--size tiny, or more memory: LABS_MEMORY sets the container's limit, 0 means no limit"
    return Card(f"{name} was killed ({code}).", why, fix, code)
