"""Foreign error texts, each turned into a card: the one place that reads them."""

import re
from dataclasses import dataclass

from launcher.cards import Card


@dataclass(frozen=True)
class Known:
    """An error known by a part of its text."""

    text: str
    what: str
    why: str
    mend: str


# The first that fits is told, so the particular stand before the general.
KNOWN = (
    Known(
        r"permission denied.*docker( daemon|\.sock| API)"
        r"|fetching server API version.*PermissionError",
        "This user may not talk to the container engine.",
        "Its socket belongs to a group that the user isn't in.",
        'sudo usermod -aG docker "$USER" and log in again; or, without a container: --runtime venv',
    ),
    Known(
        r"'compose' is not a docker command|unknown (shorthand )?flag"
        r"|unknown command: docker compose",
        "Docker's compose plugin is missing.",
        "compose.yaml describes the container, and `docker compose` reads it.",
        "sudo apt-get install docker-compose-v2 (elsewhere docker-compose-plugin, docker-compose)",
    ),
    Known(
        r"'buildx' is not a docker command|requires? (the )?buildx|buildx.*(not found|is missing)",
        "Docker's buildx plugin is missing.",
        "The image is built by BuildKit, which `docker buildx` drives.",
        "sudo apt-get install docker-buildx (elsewhere docker-buildx-plugin)",
    ),
    Known(
        r"no space left on device|disk quota exceeded",
        "The disk is full.",
        "There was no room for the next file; the lines above say where.",
        "df -h; for the engine's own: docker system df, then docker builder prune",
    ),
    Known(
        r"DO NOT MATCH THE HASHES",
        "A package isn't the one that the lock names.",
        "Its hash differs: the download is damaged, or was tampered with. It was not installed.",
        "docker builder prune, then invoke build; if it stays, look at the index you use",
    ),
    Known(
        r"ensurepip is not available",
        "This Python can't make virtual environments.",
        "Debian and Ubuntu keep that part in a package of its own.",
        "sudo apt-get install python3-venv",
    ),
    Known(
        r"cannot connect to the docker daemon|error while fetching server"
        r"|docker\.sock.*no such file",
        "No container engine answers.",
        "It isn't running, or DOCKER_HOST points elsewhere.",
        "sudo systemctl start docker; or, without a container: --runtime venv",
    ),
    Known(
        r"could not select device driver",
        "The engine can't give a container an NVIDIA GPU.",
        "The NVIDIA Container Toolkit isn't installed, or not configured for this engine.",
        "install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure "
        "--runtime=docker && sudo systemctl restart docker",
    ),
    Known(
        r"unknown or invalid runtime name|unknown runtime specified",
        "The engine doesn't know the runtime that was asked for.",
        "LABS_DEVICES=runtime needs AMD's container toolkit, configured for this engine.",
        "sudo amd-ctk runtime configure && sudo systemctl restart docker; or LABS_DEVICES=nodes",
    ),
    Known(
        r"error gathering device information",
        "A GPU's device node isn't there.",
        "The engine looked for it in vain: is the driver loaded, on the engine's machine?",
        "invoke gpus shows what this machine has; sudo modprobe amdgpu loads AMD's driver",
    ),
    Known(
        r"unresolvable CDI devices|CDI device injection failed",
        "The engine knows no CDI device of that name.",
        "CDI isn't enabled, or no specification of it stands in /etc/cdi.",
        "sudo amd-ctk cdi generate (NVIDIA: nvidia-ctk cdi generate); or LABS_DEVICES=nodes",
    ),
    Known(
        r"unable to find group",
        "The image has no group of that name.",
        "Groups have to be given as numbers: names are looked up in the image.",
        "invoke dotenv writes the numbers of this host's nodes into .env",
    ),
    Known(
        r"bind source path does not exist|invalid mount config",
        "A folder that the container needs isn't there.",
        "The engine doesn't see it: it was removed, or the engine is on another machine.",
        "the same command again; docker context show names the engine that is used",
    ),
    Known(
        r"Conflict\. The container name",
        "A container of that name is there already.",
        "Another launch took the same name.",
        "the same command again: it takes a new one",
    ),
    Known(
        r"manifest unknown|pull access denied",
        "The base image isn't where it should be.",
        "The registry doesn't have it, or not for you.",
        "name one that you can have: LABS_BASE_IMAGE=… invoke build",
    ),
    Known(
        r"no such host|dial tcp|name resolution|network is unreachable|could not resolve"
        r"|failed to establish a new connection|max retries exceeded|could not find a version"
        r"|certificate verify failed|i/o timeout|TLS handshake|no torch.* in the folder of wheels",
        "Something to build from can't be downloaded.",
        "This machine doesn't reach where it comes from; the lines above say which.",
        "invoke build, with a network. Behind a mirror, or with wheels on disk: README.md, "
        "“Without the internet”. Or, without an image: --runtime venv",
    ),
)


def explain(text: str, otherwise: str) -> Card:
    """The card for an error's text; one that says `otherwise` and quotes it where it is unknown."""
    for known in KNOWN:
        if re.search(known.text, text, re.IGNORECASE | re.DOTALL):
            return Card(known.what, known.why, known.mend)
    lines = [line for line in text.strip().splitlines() if line.strip()] or ["It said nothing."]
    return Card(otherwise, lines[-1].strip(), "read the lines above it; invoke build tries again")


def explain_exit(code: int, name: str, out_of_memory: bool) -> Card | None:
    """The card for an exit code that the lab itself didn't choose; None for those it explains."""
    if code == 137:
        why = "It needed more memory than there is" if out_of_memory else "Something sent KILL"
        hint = "" if out_of_memory else "; most often that is the kernel, out of memory"
        return Card(
            f"{name} was killed (137).",
            f"{why}{hint}.",
            "--size tiny, or more memory: LABS_MEMORY sets the container's limit, 0 is none",
            code,
        )
    if code > 128:
        return Card(
            f"{name} was ended by signal {code - 128}.",
            "A crash in native code, most likely; the lab's own output stands above.",
            f"invoke lab {name} -- …; if it happens again, try --precision fp32",
            code,
        )
    return None
