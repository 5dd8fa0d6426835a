"""Build a stack's image: print the reason and the sizes, ask before large downloads."""

import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

from common.cards import WRONG_USAGE, Card, print_status
from common.processes import capture
from launcher import ROOT
from launcher.engine.client import Engine
from launcher.engine.compose import Service, compose_command
from launcher.image.build_steps import Step, run_build
from launcher.image.disk_space import Sizes, refuse_full_disk, sizes_of
from launcher.image.meter import image_meter
from launcher.image.status import clone_name, input_hashes
from launcher.run.file_owner import file_owner

from rich.console import Console
from rich.prompt import Confirm


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
    variables = {**variables, "BUILDKIT_PROGRESS": "plain"}
    step = Step("", command, variables=variables, meter=image_meter())
    log = ROOT / ".lab-env" / f"image-{name}.log"
    try:
        run_build(log, file_owner(), f"The {stack} image couldn't be built.", [step])
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
