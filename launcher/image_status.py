"""Check whether the image of a stack exists and is up to date with this clone."""

import hashlib
import os
import re

from launcher import DOCKER_FOLDER
from launcher.cards import WRONG_USAGE, Card
from launcher.compose import Service
from launcher.engine import Engine

INPUTS_LABEL = "llm-labs.inputs"
STACK_LABEL = "llm-labs.stack"
GFX_LABEL = "llm-labs.gfx"
SCRIPTS = ("assets.py", "convert_models.py", "stack.py")  # an environment needs them too
BUILD_FILES = ("Dockerfile", "build.sh", *SCRIPTS)
NOTEBOOK_FILES = ("jupyter_server_config.py", "jupyterlab_overrides.json")
LOCK = "requirements.lock"
CUDA_LOCK = "requirements-cuda.lock"
NOTEBOOK_LOCK = "requirements-notebook.lock"
NOTEBOOK_TARGET = "notebook"  # the Dockerfile's stage with JupyterLab
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
    if service["build"].get("target") == NOTEBOOK_TARGET:
        files = (*files, *NOTEBOOK_FILES)
        locks = (*locks, NOTEBOOK_LOCK)
    parts = {
        "files": [(DOCKER_FOLDER / name).read_bytes() for name in files],
        "lock": [(DOCKER_FOLDER / name).read_bytes() for name in locks],
        "base": [args["BASE_IMAGE"].encode()],
        "torch": [args.get(name, "").encode() for name in ("STACK", "TORCH", "GFX")],
    }
    return " ".join(f"{name}={_short_hash(contents)}" for name, contents in parts.items())


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
    from docker.errors import ImageNotFound

    try:
        image = engine.client.images.get(service["image"])
    except ImageNotFound:
        return "it doesn't exist yet"
    return why_stale(image.labels.get(INPUTS_LABEL, ""), service)
