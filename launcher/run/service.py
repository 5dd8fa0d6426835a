"""A service of compose.yaml for one run: its user, image and GPUs, or the commands for --dry."""

import os
import shlex
import time
from dataclasses import replace
from pathlib import Path

from common.cards import Card
from launcher import settings
from launcher.engine import compose, orphans
from launcher.engine.client import Engine
from launcher.engine.compose import Service
from launcher.engine.container_spec import Bind, ContainerSpec
from launcher.gpu import select as select_gpus
from launcher.image import build as build_image
from launcher.image.status import name_to_run, why_build
from launcher.run import folder_problems
from launcher.run.file_owner import Owner, container_user, make_writable_folder
from launcher.run.placement import Placement

HUB_CACHE = "/tmp/cache/huggingface"


def user_variables(placement: Placement, rootless: bool) -> dict[str, str]:
    """Return compose.yaml's variables for the user of the container, and their time zone."""
    user = container_user(placement.owner, rootless)
    return {"LABS_UID": str(user.uid), "LABS_GID": str(user.gid), "LABS_TZ": local_time_zone()}


def local_time_zone() -> str:
    """Return this machine's time zone in POSIX's format: an image has no table of zones.

    https://pubs.opengroup.org/onlinepubs/9799919799/basedefs/V1_chap08.html
    """
    now = time.localtime()
    hours, seconds = divmod(abs(now.tm_gmtoff), 3600)
    if not now.tm_gmtoff:
        return "UTC0"
    sign = "-" if now.tm_gmtoff > 0 else ""  # POSIX counts to the west
    return f"<{now.tm_zone}>{sign}{hours}:{seconds // 60:02}"


def hub_cache(owner: Owner) -> Bind:
    """Return the mount of the user's Hugging Face cache, for labs that may use the network."""
    cache = Path(os.environ.get("HF_HOME") or owner.home / ".cache" / "huggingface")
    return Bind(str(cache), HUB_CACHE)


def resolve(name: str, placement: Placement, variables: dict[str, str]) -> Service:
    """Resolve a service; LABS_GFX in the shell or .env overrides the GPU's target."""
    service = compose.resolve(name, variables)
    if placement.gfx and not service["build"]["args"].get("GFX"):
        service = compose.resolve(name, {**variables, "LABS_GFX": placement.gfx})
    return service


def container_spec(service: Service, placement: Placement, engine: Engine) -> ContainerSpec:
    """Translate a service, and attach the GPUs of the run.

    Raises:
        Card: If a GPU can't be attached, or the image isn't for its target.
    """
    refuse_other_target(placement, service["build"]["args"].get("GFX", ""))
    spec = replace(compose.translate(service), image=name_to_run(engine, service))
    if placement.gpus:
        access = gpu_access(placement.stack, engine)
        spec = select_gpus.attach(spec, placement.stack, placement.gpus, access)
    if not spec.mem_limit:
        memory = default_memory(engine)
        spec = replace(spec, mem_limit=memory, memswap_limit=memory)
    if engine.selinux:  # its labels would block the mounts and the device nodes
        spec = replace(spec, security_opt=(*spec.security_opt, "label=disable"))
    return spec


def gpu_access(stack: str, engine: Engine) -> str:
    """Return how a GPU enters a container, as in `select_gpus.attach`.

    Raises:
        Card: If the engine can't do what the site asks for.
    """
    access = os.environ.get("LABS_DEVICES", "auto")
    return select_gpus.podman_access(stack, access) if engine.podman else access


def default_memory(engine: Engine) -> int:
    """Return the bytes that a container may use if the site sets no limit; 0 for all.

    A lab that needs too much memory then ends by itself, and not the server's other work.
    """
    if settings.find("LABS_MEMORY") is not None:
        return 0
    return share_of_memory(engine)


def share_of_memory(engine: Engine) -> int:
    """Return four fifths of the bytes of the engine's machine; 0 if it can't limit memory."""
    return engine.memory * 4 // 5


def refuse_other_target(placement: Placement, gfx: str) -> None:
    """Refuse a GPU that the ROCm wheels aren't built for; HIP would fail on it.

    Raises:
        Card: If the target of a GPU differs from `gfx`.
    """
    others = [gpu.target for gpu in placement.gpus if gpu.target != gfx]
    if placement.stack == "rocm" and others and gfx != "all":
        raise Card(
            f"The ROCm stack is for {gfx}, and the GPU is a {others[0]}.",
            f"LABS_GFX names {gfx}, in the shell or in .env, and its image lacks {others[0]}.",
            f"LABS_GFX={others[0]} invoke lab …; or permanently: invoke dotenv",
        )


def commands(
    engine: Engine, name: str, service: Service, spec: ContainerSpec, owner: Owner
) -> list[str]:
    """Return the shell commands that do what `prepare` does, and run the container."""
    lines = build_lines(engine, name, service)
    make_folder = ["mkdir", "-p"]
    if os.geteuid() == 0 and owner.uid != 0:
        make_folder = ["install", "-d", "-o", str(owner.uid), "-g", str(owner.gid)]
    lines += [shell_line([*make_folder, folder]) for folder in spec.writable_folders]
    return [*lines, shell_line(spec.docker_run_command())]


def build_lines(engine: Engine, name: str, service: Service) -> list[str]:
    """Return the shell command that builds the image, or nothing if the image is current."""
    if not why_build(engine, service):
        return []
    variables, words = build_image.build_command(engine, name, service)
    return [shell_line(words, variables)]


def shell_line(command: list[str], variables: dict[str, str] | None = None) -> str:
    """Return a command as a line for a shell."""
    assignments = [f"{name}={shlex.quote(value)}" for name, value in (variables or {}).items()]
    return " ".join([*assignments, shlex.join(command)])


def prepare(engine: Engine, name: str, service: Service, spec: ContainerSpec, owner: Owner) -> None:
    """Create the folders that the container writes to, and build a missing or stale image.

    Raises:
        Card: If the engine or a folder doesn't allow what the container needs, or the build fails.
    """
    settings.refuse_invalid_cpus(engine.cpus)
    for folder in map(Path, spec.writable_folders):
        make_writable_folder(folder, owner)
        if engine.first_uid:
            uid = int(spec.user.partition(":")[0])
            folder_problems.refuse_remapped_user(folder, uid, engine.first_uid)
    orphans.clean_up(engine)
    if reason := why_build(engine, service):
        build_image.build(engine, name, service, reason)
