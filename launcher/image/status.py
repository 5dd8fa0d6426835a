"""Check whether the image of a stack exists and is up to date with this clone."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from common.cards import WRONG_USAGE, Card
from launcher import DOCKER_FOLDER, ROOT
from launcher.engine.client import Engine
from launcher.engine.compose import Service

INPUTS_LABEL = "llm-labs.inputs"
STACK_LABEL = "llm-labs.stack"
GFX_LABEL = "llm-labs.gfx"
NOTEBOOK_LABEL = "llm-labs.notebook"  # only on images with JupyterLab
SCRIPTS = ("assets.py", "convert_models.py", "stack.py")  # an environment needs them too
BUILD_FILES = (
    *("Dockerfile", "build.sh", *SCRIPTS),
    *("bytecode.py", "check_torch.py", "sbom.py", "torch-hashes.json", "trim.py"),
)
NOTEBOOK_FILES = ("jupyter_server_config.py", "jupyterlab_overrides.json")
LOCK = "requirements.lock"
CUDA_LOCK = "requirements-cuda.lock"
NOTEBOOK_LOCK = "requirements-notebook.lock"
NOTEBOOK_TARGET = "notebook"  # the Dockerfile's stage with JupyterLab
HUB_FILES = (
    *("proxy/install.sh", "proxy/package.json", "proxy/package-lock.json"),
    *("seat.bashrc", "seat_command.sh", "seat_config.py", "seat_notes.py", "seat_static.py"),
    *("seat_lab/package.json", "seat_lab/static/notes.js"),
)
HUB_LOCK = "requirements-hub.lock"
HUB_TARGET = "hub"  # the Dockerfile's stage with JupyterHub, on top of that with JupyterLab
_GFX_TARGET = re.compile(r"gfx[0-9a-f]+|all")
_CHANGED = {
    "files": "the files in docker/",
    "lock": "the lock",
    "base": "the base image",
    "torch": "the choice of torch",
}


def set_gfx_target(gfx: str, stack: str) -> None:
    """Set the gfx target of compose.yaml's rocm service, for this process.

    Raises:
        Card: If `gfx` isn't a target, or `stack` isn't ROCm.
    """
    if not _GFX_TARGET.fullmatch(gfx) or stack not in ("auto", "rocm"):
        raise Card(
            f"--gfx {gfx} isn't possible with --stack {stack}.",
            "It is an AMD GPU's target, gfx942 for an MI300X, or all, which is very large.",
            "invoke gpus shows the target of each GPU here",
            WRONG_USAGE,
        )
    os.environ["LABS_GFX"] = gfx


def lock_names(stack: str) -> tuple[str, ...]:
    """Return the locks that a stack's image is built from, without JupyterLab's."""
    return (LOCK, CUDA_LOCK) if stack == "cuda" else (LOCK,)


def input_hashes(service: Service) -> str:
    """Return hashes of everything that decides an image's content, as `name=hash` words.

    The package indexes aren't part of it: a mirror has the same packages.
    """
    args = service["build"]["args"]
    files = BUILD_FILES
    locks = lock_names(args["STACK"])
    target = service["build"].get("target")
    if target in (NOTEBOOK_TARGET, HUB_TARGET):
        files = (*files, *NOTEBOOK_FILES)
        locks = (*locks, NOTEBOOK_LOCK)
    if target == HUB_TARGET:
        files = (*files, *HUB_FILES)
        locks = (*locks, HUB_LOCK)
    parts = {
        "files": [(DOCKER_FOLDER / name).read_bytes() for name in files],
        "lock": [(DOCKER_FOLDER / name).read_bytes() for name in locks],
        "base": [args["BASE_IMAGE"].encode()],
        "torch": [args.get(name, "").encode() for name in ("STACK", "TORCH", "GFX")],
    }
    return " ".join(f"{name}={_short_hash(contents)}" for name, contents in parts.items())


def hash_of_files(stack: str) -> str:
    """Return a hash of the files in docker/ that decide the content of a stack's image."""
    names = (*BUILD_FILES, *lock_names(stack))
    return _short_hash([(DOCKER_FOLDER / name).read_bytes() for name in names])


def _short_hash(contents: list[bytes]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:8]


def why_stale(built_from: str, service: Service) -> str:
    """Return why an image with these input hashes is out of date, or "" if it is current."""
    current = input_hashes(service)
    if built_from == current:
        return ""
    if "lock=" not in built_from:
        return "its inputs are unknown: invoke didn't build it"
    old = set(built_from.split())
    changed = [part.partition("=")[0] for part in current.split() if part not in old]
    return f"{' and '.join(_CHANGED[name] for name in changed)} changed since it was built"


def why_build(engine: Engine, service: Service) -> str:
    """Return why the image must be built, in words that follow "because", or ""."""
    reason = _why_not(engine, service["image"], service)
    return "" if reason and _other_name(engine, service) else reason


def name_to_run(engine: Engine, service: Service) -> str:
    """Return the name of a current image, or the service's name, which a build gives to one.

    Clones share the service's name. If a clone with other inputs has built it since, this clone's
    image still has the clone's name.
    """
    name: str = service["image"]
    return (_other_name(engine, service) or name) if _why_not(engine, name, service) else name


def clone_name(image: str, clone: Path = ROOT) -> str:
    """Return the name that a build in this clone also gives to its image."""
    return f"{image}-{hashlib.sha256(str(clone).encode()).hexdigest()[:8]}"


def is_clone_name(name: str) -> bool:
    """Return whether a build in some clone gave an image this name."""
    return re.search(r"-[0-9a-f]{8}$", name) is not None


def _why_not(engine: Engine, name: str, service: Service) -> str:
    from docker.errors import ImageNotFound

    try:
        image = engine.client.images.get(name)
    except ImageNotFound:
        return "it doesn't exist yet"
    return why_stale(image.labels.get(INPUTS_LABEL, ""), service)


def _other_name(engine: Engine, service: Service) -> str:
    """Return the name that a clone with the same inputs gave to its image, or ""."""
    label = f"{INPUTS_LABEL}={input_hashes(service)}"
    images: list[Any] = engine.client.images.list(filters={"label": label})
    pattern = re.compile(rf"(.*/)?{re.escape(service['image'])}-[0-9a-f]{{8}}")
    names = [name for image in images for name in image.tags if pattern.fullmatch(name)]
    return min(names, default="")
