"""The image of a stack: is it here, is it the one that this clone describes, else build it."""

import hashlib
import os
import shutil
import tomllib
from contextlib import suppress
from pathlib import Path

from launcher import ROOT
from launcher.cards import Card, say
from launcher.compose import Service, file_arguments
from launcher.engine import Engine
from launcher.errors import explain
from launcher.processes import show_and_keep

DOCKER = ROOT / "docker"
INPUTS_LABEL = "llm-labs.inputs"
# Measured for the CPU image: what a first build downloads, and what the engine's disk must hold.
DOWNLOAD_MB = 420
NEEDED_GB = 6


def inputs(base_image: str) -> str:
    """A hash of all that decides what is in the image: the files in docker/ and the base."""
    digest = hashlib.sha256(base_image.encode())
    for path in sorted(DOCKER.iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def missing(engine: Engine, service: Service) -> str:
    """Why the image has to be built, in words that follow "because"; empty where it needn't."""
    from docker.errors import ImageNotFound

    name = service["image"]
    try:
        image = engine.client.images.get(name)
    except ImageNotFound:
        return "it isn't here"
    wanted = inputs(service["build"]["args"]["BASE_IMAGE"])
    if image.labels.get(INPUTS_LABEL) == wanted:
        return ""
    return "the one here was made from other files than docker/ holds now"


def build_command(stack: str, service: Service) -> tuple[dict[str, str], list[str]]:
    """The variables that say what went in, and the command that builds the image."""
    wanted = inputs(service["build"]["args"]["BASE_IMAGE"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    variables = {"LABS_INPUTS": wanted, "LABS_VERSION": project["version"]}
    return variables, [*file_arguments(stack), "build", stack]


def build(engine: Engine, stack: str, service: Service, reason: str) -> None:
    """Build the image by BuildKit, on the user's screen.

    Raises:
        Card: no disk space, no network, a wrong hash, or whatever else BuildKit ends with.
    """
    say(f"Building {service['image']}, because {reason}.")
    say(
        f"A first build downloads about {DOWNLOAD_MB} MB, needs {NEEDED_GB} GB of disk meanwhile, "
        "and takes some minutes."
    )
    _refuse_a_full_disk(engine)
    before = _identity(engine, service["image"])
    variables, command = build_command(stack, service)
    code, printed = show_and_keep(command, {**os.environ, **variables})
    if code != 0:
        raise explain(printed, f"The {stack} image couldn't be built.")
    if before and before != _identity(engine, service["image"]):
        _remove(engine, before)


def _identity(engine: Engine, name: str) -> str:
    from docker.errors import ImageNotFound

    try:
        return str(engine.client.images.get(name).id)
    except ImageNotFound:
        return ""


def _remove(engine: Engine, identity: str) -> None:
    """Remove the image that a new one took the name of, unless something still uses it."""
    from docker.errors import APIError

    with suppress(APIError):
        engine.client.images.remove(identity)


def _refuse_a_full_disk(engine: Engine) -> None:
    """The engine's disk is looked at where it is this machine's."""
    if not engine.root_dir or not Path(engine.root_dir).exists():
        return
    free = shutil.disk_usage(engine.root_dir).free / 1e9
    if free < NEEDED_GB:
        raise Card(
            "There isn't enough disk space for the image.",
            f"{engine.root_dir} has {free:.1f} GB free; building needs about {NEEDED_GB} GB.",
            "docker system df, then for example: docker system prune",
        )
