"""Build a stack's image: print the reason and the sizes, ask before large downloads."""

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from common.cards import WRONG_USAGE, Card, print_status
from common.processes import capture, show_output
from launcher import ROOT
from launcher.engine.client import Engine
from launcher.engine.compose import Service, compose_command
from launcher.engine.known_errors import explain
from launcher.image.status import clone_name, input_hashes

from rich.console import Console
from rich.prompt import Confirm

_PASSWORD = re.compile(r"//[^/@\s]+@")
_COLORS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Step:
    """A command of a build.

    Attributes:
        title: What it makes, for people; "" for a step that takes no time.
        command: Its words.
        variables: Its additional environment variables.
    """

    title: str
    command: list[str]
    variables: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def words(self) -> list[str]:
        """Return the command with its variables, for people: without passwords in URLs."""
        variables = [f"{name}={value}" for name, value in self.variables.items()]
        words = ["env", *variables, *self.command] if variables else self.command
        return [_PASSWORD.sub("//…@", word) for word in words]


def run_build(failure: str, steps: Sequence[Step]) -> None:
    """Run the steps of a build, and show their output.

    Args:
        failure: What couldn't be made, as a sentence, for a step that fails in an unknown way.
        steps: The steps.

    Raises:
        Card: If a step fails.
    """
    start = time.monotonic()
    for step in steps:
        if step.title:
            print_status(f"  {step.title}")
        variables = {**os.environ, "PYTHONNOUSERSITE": "1", **step.variables}
        code, output = show_output(step.command, variables)
        if code:
            raise explain(_COLORS.sub("", output), failure)
    print_status(f"Done in {time.monotonic() - start:.0f} s.")


@dataclass(frozen=True)
class Sizes:
    """What a first build downloads, and the disk space it needs, in GB."""

    download: str
    image_gb: int
    environment_gb: int


# Measured on Linux x86-64 for cpu and cuda; for rocm, AMD publishes the size of its wheels.
SIZES = {
    "cpu": Sizes("490 MB", image_gb=3, environment_gb=3),
    "cuda": Sizes("2.9 GB", image_gb=10, environment_gb=8),
    "rocm": Sizes("1.6 GB", image_gb=12, environment_gb=8),
}
ALL_GFX_TARGETS = Sizes("more than 20 GB", image_gb=80, environment_gb=80)


def sizes_of(stack: str, gfx: str = "") -> Sizes:
    """Return the sizes of a stack; `gfx` is "all" for every gfx target at once."""
    return ALL_GFX_TARGETS if gfx == "all" else SIZES[stack]


def refuse_full_disk(folder: Path, needed_gb: float, purpose: str, fix: str) -> None:
    """Check the free space of a folder's disk.

    Raises:
        Card: If fewer than `needed_gb` gigabytes are free.
    """
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < needed_gb:
        raise Card(
            f"There isn't enough disk space for {purpose}.",
            f"{folder} has {free_gb:.1f} GB free; {purpose} needs about {needed_gb:.2g} GB.",
            fix,
        )


def build_command(engine: Engine, name: str, service: Service) -> tuple[dict[str, str], list[str]]:
    """Return the environment variables and the command that build the image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    labels = {"INPUTS": input_hashes(service), "VERSION": project["version"]}
    labels["REVISION"] = _commit()
    if engine.podman:
        return {}, _podman_command(service, labels)
    variables = {f"LABS_{name}": value for name, value in labels.items()}
    if gfx := service["build"]["args"].get("GFX"):
        variables["LABS_GFX"] = gfx
    return variables, [*compose_command(name), "build", name]


def _commit() -> str:
    """Return the clone's commit; "" without git or a repository."""
    try:
        command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        return capture(command, stderr=subprocess.DEVNULL).stdout.strip()
    except OSError:
        return ""


def _podman_command(service: Service, labels: dict[str, str]) -> list[str]:
    """Translate the build section of compose.yaml for `podman build`.

    Podman's socket has no BuildKit, but Podman itself can build this Dockerfile. The Docker format
    is needed for SHELL, which the OCI format drops.
    """
    build = service["build"]
    contexts: dict[str, str] = build.get("additional_contexts", {})
    args = {**build["args"], **labels}
    words = ["podman", "--remote", "--url", _engine_url(), "build", "--format=docker"]
    words += [f"--build-context={name}={path}" for name, path in contexts.items()]
    words += [f"--secret=id={secret['source']},src={secret['file']}" for secret in build["secrets"]]
    words += [f"--build-arg={name}={value}" for name, value in args.items() if value]
    words += [f"--target={build['target']}"] if "target" in build else []
    return [*words, f"--tag={service['image']}", build["context"]]


def _engine_url() -> str:
    """Return the URL of the docker command's engine, from DOCKER_HOST or its context."""
    command = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    return capture(command).stdout.strip()


def build(engine: Engine, name: str, service: Service, reason: str) -> None:
    """Build the image of a service, and show the output of the build.

    Raises:
        Card: If there is no disk space or network, a hash is wrong, or the build fails.
    """
    gfx = service["build"]["args"].get("GFX")
    _refuse_no_target(gfx)
    stack = service["build"]["args"]["STACK"]
    sizes = sizes_of(stack, gfx or "")
    print_status(f"Building {service['image']}, because {reason}.")
    print_status(
        f"A first build downloads about {sizes.download}, needs {sizes.image_gb} GB of disk space "
        "and takes several minutes."
    )
    _check_disk_space(engine, sizes.image_gb)
    _confirm_download(sizes)
    names = (service["image"], clone_name(service["image"]))
    before = {_image_id(engine, image) for image in names} - {""}
    variables, command = build_command(engine, name, service)
    try:
        run_build(f"The {stack} image couldn't be built.", [Step("", command, variables)])
    except FileNotFoundError as error:
        why = "The engine is Podman, and only the podman command can build with it."
        fix = "install podman's command line, or: --runtime venv"
        raise Card(f"The {command[0]} command is missing.", why, fix) from error
    repository, _, tag = names[1].rpartition(":")
    engine.client.images.get(names[0]).tag(repository, tag)
    for image in before:
        _remove_if_unused(engine, image)


def _confirm_download(sizes: Sizes) -> None:
    """Ask before a download of gigabytes, if there is a terminal: the connection may be metered.

    Raises:
        Card: If the user declines.
    """
    if not sizes.download.endswith("GB") or not sys.stdin.isatty():
        return
    question = f"Download about {sizes.download}?"
    if not Confirm.ask(question, default=True, console=Console(stderr=True)):
        raise Card(
            "Nothing was downloaded.",
            f"The image needs about {sizes.download}, and you declined.",
            "invoke build, on a suitable connection; or --stack cpu, which needs less",
        )


def _refuse_no_target(gfx: str | None) -> None:
    """Refuse to guess the gfx target of a ROCm image; other stacks have None.

    Raises:
        Card: If the target is "".
    """
    if gfx == "":
        raise Card(
            "Which gfx target should the ROCm image be for?",
            "This machine has no AMD GPU to detect it from, and LABS_GFX isn't set.",
            "invoke build --stack rocm --gfx gfx942 (an MI300X; `invoke gpus` on its own machine)",
            WRONG_USAGE,
        )


def _image_id(engine: Engine, name: str) -> str:
    from docker.errors import ImageNotFound

    try:
        return str(engine.client.images.get(name).id)
    except ImageNotFound:
        return ""


def _remove_if_unused(engine: Engine, image_id: str) -> None:
    """Remove an image that has no name any more, unless a container still uses it."""
    with suppress(OSError):  # includes the SDK's errors
        if not engine.client.images.get(image_id).tags:
            engine.client.images.remove(image_id)


def _check_disk_space(engine: Engine, needed_gb: int) -> None:
    """Check the engine's disk if it is on this machine."""
    if engine.root_dir and Path(engine.root_dir).exists():
        fix = "docker system df, then for example: docker system prune"
        refuse_full_disk(Path(engine.root_dir), needed_gb, "the image", fix)
