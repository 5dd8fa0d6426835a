"""Build a stack's image: said first, asked about where it is large, explained where it fails."""

import os
import shutil
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

from launcher import ROOT, images
from launcher.cards import WRONG_USAGE, Card, say
from launcher.compose import Service, file_arguments
from launcher.engine import Engine
from launcher.errors import explain
from launcher.processes import answer, show_and_keep

from rich.console import Console
from rich.prompt import Confirm


def command(engine: Engine, stack: str, service: Service) -> tuple[dict[str, str], list[str]]:
    """The variables that say what went in, and the command that builds the image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    made_of = {"INPUTS": images.inputs(service), "VERSION": project["version"]}
    if engine.podman:
        return {}, _by_podman(service, made_of)
    variables = {f"LABS_{name}": value for name, value in made_of.items()}
    if gfx := service["build"]["args"].get("GFX"):
        variables["LABS_GFX"] = gfx
    return variables, [*file_arguments(stack), "build", stack]


def _by_podman(service: Service, made_of: dict[str, str]) -> list[str]:
    """What compose.yaml says of the build, in the words of `podman build`.

    Podman's socket has no BuildKit behind it, and Podman itself builds such a Dockerfile. OCI's
    format would drop SHELL.
    """
    build = service["build"]
    words = ["podman", "--remote", "--url", _address(), "build", "--format=docker"]
    contexts: dict[str, str] = build.get("additional_contexts", {})
    words += [f"--build-context={name}={place}" for name, place in contexts.items()]
    words += [f"--secret=id={one['source']},src={one['file']}" for one in build["secrets"]]
    args = {**build["args"], **made_of}
    words += [f"--build-arg={name}={value}" for name, value in args.items() if value]
    return [*words, f"--tag={service['image']}", build["context"]]


def _address() -> str:
    """Where the docker command finds its engine, by DOCKER_HOST or its context."""
    asked = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    return answer(asked).stdout.strip()


def build(engine: Engine, stack: str, service: Service, reason: str) -> None:
    """Build the image, on the user's screen.

    Raises:
        Card: no disk space, no network, a wrong hash, or whatever else the build ends with.
    """
    _refuse_no_target(service)
    needs = images.size(stack, service)
    say(f"Building {service['image']}, because {reason}.")
    say(
        f"A first build downloads about {needs.download}, needs {needs.needed_gb} GB of disk "
        "meanwhile, and takes some minutes."
    )
    _refuse_a_full_disk(engine, needs.needed_gb)
    _ask_about_gigabytes(needs)
    before = _identity(engine, service["image"])
    variables, words = command(engine, stack, service)
    try:
        code, printed = show_and_keep(words, {**os.environ, **variables})
    except FileNotFoundError as error:
        why = "Podman's socket answers, and only the podman command builds by it."
        mend = "install podman's command line, or: --runtime venv"
        raise Card(f"The {words[0]} command isn't here.", why, mend) from error
    if code != 0:
        raise explain(printed, f"The {stack} image couldn't be built.")
    if before and before != _identity(engine, service["image"]):
        _remove(engine, before)


def _ask_about_gigabytes(needs: images.Size) -> None:
    """On a terminal, ask before gigabytes are downloaded: the connection may be metered.

    Raises:
        Card: where the answer is no.
    """
    if not needs.download.endswith("GB") or not sys.stdin.isatty():
        return
    question = f"Download about {needs.download}?"
    if not Confirm.ask(question, default=True, console=Console(stderr=True)):
        raise Card(
            "Nothing was downloaded.",
            f"The image needs about {needs.download}, and the answer was no.",
            "invoke build, where the connection allows it; or --stack cpu, which needs less",
        )


def _refuse_no_target(service: Service) -> None:
    """ROCm's image is of one gfx target or of all: there is no default to be wrong."""
    if service["build"]["args"].get("GFX") == "":
        raise Card(
            "Which gfx target should the ROCm image be for?",
            "No AMD card was found here to tell, and LABS_GFX isn't set.",
            "invoke build --stack rocm --gfx gfx942 (an MI300X; `invoke gpus` on its own machine)",
            WRONG_USAGE,
        )


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


def _refuse_a_full_disk(engine: Engine, needed_gb: int) -> None:
    """The engine's disk is looked at where it is this machine's."""
    if not engine.root_dir or not Path(engine.root_dir).exists():
        return
    free = shutil.disk_usage(engine.root_dir).free / 1e9
    if free < needed_gb:
        raise Card(
            "There isn't enough disk space for the image.",
            f"{engine.root_dir} has {free:.1f} GB free; building needs about {needed_gb} GB.",
            "docker system df, then for example: docker system prune",
        )
