"""The images of a bundle: which it takes, and how they are saved and loaded."""

import gzip
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from common.cards import Card, print_status
from common.processes import child_process
from launcher.bundle.folder import CHUNK_BYTES, IMAGES, PartsWriter, cannot_write, read_parts
from launcher.engine.client import Engine
from launcher.engine.compose import notebook_service, seat_service
from launcher.engine.known_errors import explain
from launcher.image import build as build_image
from launcher.image.status import INPUTS_LABEL, clone_name, name_to_run, why_build
from launcher.run import service as lab_service
from launcher.run.placement import Placement

GZIP_LEVEL = 1  # 1.61 GB become 0.70 GB
COMPRESSED = 0.5  # the share of an image's size that a bundle needs, with a margin


@dataclass(frozen=True)
class BundledImage:
    """An image of a bundle.

    Attributes:
        name: The name that compose.yaml gives to it.
        saved_as: The name that it is saved with: this clone's, if another clone has the first.
        size: Its size on disk, in bytes; layers that images share are counted in each.
        inputs: Its label with the hashes of what it was built from.
    """

    name: str
    saved_as: str
    size: int
    inputs: str


def optional_images(stack: str) -> list[tuple[str, str]]:
    """Return the services whose images a bundle takes if they exist, and what builds them."""
    services = [(notebook_service(stack), f"invoke build --notebook --stack {stack}")]
    if stack == "cpu":  # of seats
        services.append((seat_service(stack), "invoke hub"))
    return services


def choose_images(engine: Engine, placement: Placement) -> list[BundledImage]:
    """Return the images of a stack; build that of the labs if it is missing or out of date.

    Raises:
        Card: If the image can't be built.
    """
    stack = placement.stack
    service = lab_service.resolve(stack, placement, {})
    if reason := why_build(engine, service):
        build_image.build(engine, stack, service, reason)
    images = [_describe(engine, service)]
    for optional, command in optional_images(stack):
        service = lab_service.resolve(optional, placement, {})
        if reason := why_build(engine, service):
            name = service["image"]
            print_status(f"{name} isn't in the bundle, because {reason}. To add it: {command}")
        else:
            images.append(_describe(engine, service))
    return images


def _describe(engine: Engine, service: dict[str, Any]) -> BundledImage:
    saved_as = name_to_run(engine, service)
    image: Any = engine.client.images.get(saved_as)
    inputs = image.labels.get(INPUTS_LABEL, "")
    return BundledImage(service["image"], saved_as, int(image.attrs["Size"]), inputs)


def save(folder: Path, images: Iterable[BundledImage]) -> int:
    """Save images into the folder of a bundle; return the bytes that the engine sent.

    One stream has all of them, so that it contains the layers that they share once.

    Raises:
        Card: If the engine refuses, or the disk is full.
    """
    names = [image.saved_as for image in images]
    command = ["docker", "save", *names]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    parts = PartsWriter(folder / IMAGES)
    try:
        with child_process(command, **pipes) as child:
            assert child.stdout and child.stderr
            sent = _compress(child.stdout, parts)
            errors = child.stderr.read().decode(errors="replace")
            code = child.wait()
        parts.close()
    except OSError as error:
        raise cannot_write(folder, error) from error
    if code:
        raise explain(errors, "The engine can't save the images.", "docker system df; docker info")
    return sent


def _compress(stream: IO[bytes], parts: PartsWriter) -> int:
    sent = 0
    with gzip.GzipFile(filename="", mode="wb", fileobj=parts, compresslevel=GZIP_LEVEL) as archive:
        while chunk := stream.read(CHUNK_BYTES):
            archive.write(chunk)
            sent += len(chunk)
    return sent


def are_loaded(engine: Engine, images: Iterable[BundledImage]) -> bool:
    """Return whether this clone has all images already, built from the same inputs."""
    from docker.errors import ImageNotFound

    for image in images:
        try:
            loaded: Any = engine.client.images.get(clone_name(image.name))
        except ImageNotFound:
            return False
        if loaded.labels.get(INPUTS_LABEL, "") != image.inputs:
            return False
    return True


def load(engine: Engine, folder: Path, images: Iterable[BundledImage]) -> None:
    """Load the images of a bundle into the engine, and give them this clone's names, too.

    Raises:
        Card: If the engine refuses.
    """
    before = _names(engine)
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with child_process(["docker", "load", "--quiet"], **pipes) as child:
        assert child.stdin
        with suppress(BrokenPipeError):  # it has ended with an error
            for chunk in read_parts(folder, IMAGES):
                child.stdin.write(chunk)
        _, errors = child.communicate()
    if child.returncode:
        text = errors.decode(errors="replace")
        raise explain(text, "The engine can't load the images.", "docker info; then setup again")
    for image in images:
        _name(engine, image, before)


def _names(engine: Engine) -> set[str]:
    images: list[Any] = engine.client.images.list()
    return {name for image in images for name in image.tags}


def _name(engine: Engine, image: BundledImage, before: set[str]) -> None:
    """Give a loaded image the names that a build gives it, and remove another clone's."""
    from docker.errors import ImageNotFound

    try:
        loaded = engine.client.images.get(image.saved_as)
    except ImageNotFound as error:
        why = f"The engine accepted the archive, and doesn't have {image.saved_as}."
        raise Card("An image is missing in the bundle.", why, "make the bundle again") from error
    names = (image.name, clone_name(image.name))
    for name in names:
        repository, _, tag = name.rpartition(":")
        loaded.tag(repository, tag)
    if image.saved_as not in (*names, *before):
        engine.client.images.remove(image.saved_as)


def as_json(images: Iterable[BundledImage]) -> list[dict[str, Any]]:
    """Return images for a manifest."""
    return [asdict(image) for image in images]


def from_json(images: Iterable[dict[str, Any]]) -> list[BundledImage]:
    """Return the images of a manifest."""
    return [BundledImage(**image) for image in images]
