"""The image of a stack: is it here, and is it the one that this clone describes?"""

import hashlib
import os
import re
from dataclasses import dataclass

from launcher import ROOT
from launcher.cards import WRONG_USAGE, Card
from launcher.compose import Service
from launcher.engine import Engine

DOCKER = ROOT / "docker"
INPUTS_LABEL, STACK_LABEL, GFX_LABEL = "llm-labs.inputs", "llm-labs.stack", "llm-labs.gfx"
# What goes into an image, by the name that a difference in it is told under.
FILES = ("Dockerfile", "assets.py", "build.sh", "stack.py")
LOCKS = {"cuda": ("requirements.lock", "requirements-cuda.lock")}
GFX = re.compile(r"gfx[0-9a-f]+|all")


@dataclass(frozen=True)
class Size:
    """What a first build downloads, and what the engine's disk must hold meanwhile."""

    download: str
    needed_gb: int


# Those of cpu and cuda were measured, on Linux for x86-64; of rocm's wheels AMD gives the size.
SIZES = {
    "cpu": Size("490 MB", 4),
    "cuda": Size("2.9 GB", 10),
    "rocm": Size("1.6 GB", 12),
    "rocm-all": Size("more than 20 GB", 80),
}


def size(stack: str, service: Service) -> Size:
    """The sizes of a stack's image; every gfx target at once is another matter than one."""
    everything = service["build"]["args"].get("GFX") == "all"
    return SIZES[f"{stack}-all" if everything else stack]


def aim_at(gfx: str, stack: str) -> None:
    """Let compose.yaml's rocm service be for this gfx target, in this process.

    Raises:
        Card: for what is no target, or beside another stack.
    """
    if not GFX.fullmatch(gfx) or stack not in ("auto", "rocm"):
        raise Card(
            f"--gfx {gfx} can't be, with --stack {stack}.",
            "It is an AMD card's target, gfx942 for an MI300X, or all, which is very large.",
            "invoke gpus shows the target of each card here",
            WRONG_USAGE,
        )
    os.environ["LABS_GFX"] = gfx


def inputs(service: Service) -> str:
    """What decides what is in the image, as `name=hash`: the files, the lock, the base, the torch.

    Of the network's indices nothing is in it: from a mirror comes the same.
    """
    args = service["build"]["args"]
    stack = args["STACK"]
    parts = {
        "files": [(DOCKER / name).read_bytes() for name in FILES],
        "lock": [(DOCKER / name).read_bytes() for name in locks(stack)],
        "base": [args["BASE_IMAGE"].encode()],
        "torch": [args.get(name, "").encode() for name in ("STACK", "TORCH", "GFX")],
    }
    return " ".join(f"{name}={_short(contents)}" for name, contents in parts.items())


def locks(stack: str) -> tuple[str, ...]:
    """The locks that a stack's image is made from."""
    return LOCKS.get(stack, ("requirements.lock",))


def _short(contents: list[bytes]) -> str:
    digest = hashlib.sha256()
    for one in contents:
        digest.update(hashlib.sha256(one).digest())
    return digest.hexdigest()[:8]


DIFFERS = {
    "files": "docker/'s files",
    "lock": "the lock",
    "base": "the base image",
    "torch": "the choice of torch",
}


def stale(made_from: str, service: Service) -> str:
    """Why an image isn't what this clone describes; empty where it is."""
    wanted = inputs(service)
    if made_from == wanted:
        return ""
    if "lock=" not in made_from:
        return "what it was made from isn't known: it wasn't built by invoke"
    had = set(made_from.split())
    other = [part.partition("=")[0] for part in wanted.split() if part not in had]
    return f"{' and '.join(DIFFERS[one] for one in other)} changed since it was built"


def missing(engine: Engine, service: Service) -> str:
    """Why the image has to be built, in words that follow "because"; empty where it needn't."""
    from docker.errors import ImageNotFound

    try:
        image = engine.client.images.get(service["image"])
    except ImageNotFound:
        return "it isn't here"
    return stale(image.labels.get(INPUTS_LABEL, ""), service)
