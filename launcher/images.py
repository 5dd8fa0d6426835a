"""The image of a stack: is it here, is it the one that this clone describes, else build it."""

import hashlib
import json
import os
import re
import shutil
import sys
import tomllib
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launcher import ROOT
from launcher.cards import WRONG_USAGE, Card, say
from launcher.compose import Service, file_arguments, resolve
from launcher.engine import Engine, NoEngine, connect
from launcher.errors import explain
from launcher.processes import show_and_keep

from rich.console import Console
from rich.prompt import Confirm
from rich.table import Table

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
    "cpu": Size("420 MB", 4),
    "cuda": Size("2.8 GB", 10),
    "rocm": Size("1.5 GB", 12),
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


def build_command(stack: str, service: Service) -> tuple[dict[str, str], list[str]]:
    """The variables that say what went in, and the command that builds the image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    variables = {"LABS_INPUTS": inputs(service), "LABS_VERSION": project["version"]}
    if gfx := service["build"]["args"].get("GFX"):
        variables["LABS_GFX"] = gfx
    return variables, [*file_arguments(stack), "build", stack]


def build(engine: Engine, stack: str, service: Service, reason: str) -> None:
    """Build the image by BuildKit, on the user's screen.

    Raises:
        Card: no disk space, no network, a wrong hash, or whatever else BuildKit ends with.
    """
    _refuse_no_target(service)
    needs = size(stack, service)
    say(f"Building {service['image']}, because {reason}.")
    say(
        f"A first build downloads about {needs.download}, needs {needs.needed_gb} GB of disk "
        "meanwhile, and takes some minutes."
    )
    _refuse_a_full_disk(engine, needs.needed_gb)
    _ask_about_gigabytes(needs)
    before = _identity(engine, service["image"])
    variables, command = build_command(stack, service)
    code, printed = show_and_keep(command, {**os.environ, **variables})
    if code != 0:
        raise explain(printed, f"The {stack} image couldn't be built.")
    if before and before != _identity(engine, service["image"]):
        _remove(engine, before)


def _ask_about_gigabytes(needs: Size) -> None:
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


@dataclass(frozen=True)
class Row:
    """An image of ours that the engine has; or, without a size, a stack that it has none of."""

    name: str
    stack: str
    gfx: str
    lock: str
    state: str
    size_bytes: int = 0
    created: str = ""


def here(engine: Engine) -> list[Row]:
    """Every image of ours, and a row for each stack without one."""
    rows = [
        _row(name, image)
        for image in engine.client.images.list(filters={"label": STACK_LABEL})
        for name in image.tags or [image.short_id]
    ]
    rows.sort(key=lambda row: row.name)
    for stack in ("cpu", "cuda", "rocm"):
        if not any(row.stack == stack for row in rows):
            state = f"not here; about {SIZES[stack].download} to download"
            rows.append(Row(f"llm-labs:{stack}", stack, "", "", state))
    return rows


def _row(name: str, image: Any) -> Row:
    stack, gfx = image.labels[STACK_LABEL], image.labels.get(GFX_LABEL, "")
    made_from = image.labels.get(INPUTS_LABEL, "")
    lock = next((part[5:] for part in made_from.split() if part.startswith("lock=")), "")
    state = stale(made_from, resolve(stack, {"LABS_GFX": gfx}))
    state = f"stale: {state}" if state else "current"
    created = image.attrs["Created"][:19] + "Z"
    return Row(name, stack, gfx, lock, state, int(image.attrs["Size"]), created)


def show(as_json: bool) -> None:
    """A table on a terminal, lines with tabs on a pipe, or JSON.

    Raises:
        Card: where no engine answers.
    """
    try:
        rows = here(connect())
    except NoEngine as error:
        raise explain("cannot connect to the docker daemon", str(error)) from error
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    heads = ("image", "stack", "gfx", "lock", "size", "age", "state")
    cells = [
        (row.name, row.stack, row.gfx, row.lock, _gigabytes(row), _age(row), row.state)
        for row in rows
    ]
    if not sys.stdout.isatty():
        print("\n".join("\t".join(line) for line in (heads, *cells)))
        return
    table = Table(*heads, box=None)
    for line in cells:
        table.add_row(*line)
    Console(highlight=False).print(table)


def _gigabytes(row: Row) -> str:
    return f"{row.size_bytes / 1e9:.2f} GB" if row.size_bytes else ""


def _age(row: Row) -> str:
    if not row.created:
        return ""
    passed = datetime.now(UTC) - datetime.fromisoformat(row.created)
    hours = int(passed.total_seconds() // 3600)
    return f"{hours // 24} days" if hours >= 48 else f"{hours} h" if hours else "< 1 h"
