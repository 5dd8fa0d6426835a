"""`invoke dotenv`: write a file .env with this host's and user's values for Compose alone."""

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.cards import Card, print_status
from launcher import ROOT
from launcher.engine.client import Engine, running_engine
from launcher.gpu.detect import Machine, detect
from launcher.gpu.model import AMD, NVIDIA, Gpu
from launcher.gpu.visible import SEATS, visible_gpus
from launcher.run.file_owner import Owner, container_user, file_owner, give_to, make_folder
from launcher.run.placement import container_device_user
from launcher.run.service import local_time_zone, share_of_memory

MARK = "# Written by `invoke dotenv`"
USER_SECTION = "# ---- Lines below are yours. They override the lines above. ----"
_ANY_USER_SECTION = re.compile(r"^# ---- .* ----\n", re.MULTILINE)  # the wording may change
HEADER = f"""{MARK} on {{host}}. Run it again after a change of GPUs, driver or user.
# Docker Compose reads this file in the folder of compose.yaml. A variable in the shell overrides
# it. If several users share one clone, each writes a separate file and names it:
#   invoke dotenv --file ~/llm-labs.env && docker compose --env-file ~/llm-labs.env run --rm …
"""
VIDEO_GID = 44  # compose.yaml's default: Debian's and Ubuntu's number for the group "video"
NOBODY_GID = 65534


@dataclass(frozen=True)
class Line:
    """A variable of the file, its value, and the comment above it."""

    name: str
    value: str
    comment: str

    def __str__(self) -> str:
        """Return the lines of the file."""
        comment = "".join(f"# {text}\n" for text in self.comment.splitlines())
        return f"{comment}{self.name}={self.value}\n"


def write(file: str = "") -> None:
    """Write or update `file`, by default .env beside compose.yaml.

    Raises:
        Card: If another program wrote the file, or it can't be written.
    """
    path = Path(file).expanduser() if file else ROOT / ".env"
    user_section = _user_section(path)
    owner = file_owner()
    engine = running_engine()
    rootless = engine is not None and engine.rootless
    machine = detect(user=container_device_user(rootless, owner))
    lines = user_lines(owner, rootless, ROOT) + limit_lines(engine) + gpu_lines(machine, owner)
    text = HEADER.format(host=socket.gethostname()) + "\n" + "\n".join(map(str, lines))
    try:
        _replace(path, f"{text}\n{USER_SECTION}\n{user_section}", owner)
    except OSError as error:
        raise Card(f"{path} can't be written.", str(error), f"ls -ld {path.parent}") from error
    for line in lines:
        print(f"{line.name}={line.value}")
    print_status(f"Wrote these lines to {path}, each with a comment.")


def _user_section(path: Path) -> str:
    """Return the lines that a user added to the file; none if it doesn't exist."""
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8")
    if not text.startswith(MARK):
        raise Card(
            f"{path} exists, and `invoke dotenv` didn't write it.",
            "This command would overwrite it. You can append its lines to the new file.",
            f"mv {path} {path}.mine && invoke dotenv && cat {path}.mine >> {path}",
        )
    sections = _ANY_USER_SECTION.split(text, maxsplit=1)
    return sections[1] if len(sections) == 2 else ""


def user_lines(owner: Owner, rootless: bool, clone: Path) -> list[Line]:
    """Return the lines about the user and the output folder."""
    inside = container_user(owner, rootless)
    comment = "This user owns the files in outputs/: `id -u` and `id -g`."
    if rootless:
        comment = "The engine is rootless: its root is you, and you own the files in outputs/."
    project = "A project for each user: `docker compose down` doesn't stop other users' labs."
    lines = [
        Line("COMPOSE_PROJECT_NAME", f"llm-labs-{owner.uid}", project),
        Line("LABS_UID", str(inside.uid), comment),
        Line("LABS_GID", str(inside.gid), "The group of those files."),
        Line("LABS_TZ", local_time_zone(), "The time zone, which names the folders of runs."),
    ]
    if not os.access(clone, os.W_OK):
        outputs = owner.home / "llm-labs-outputs"
        make_folder(outputs, owner)
        lines.append(Line("LABS_OUTPUTS", str(outputs), "You can't write to the clone."))
    return lines


def limit_lines(engine: Engine | None) -> list[Line]:
    """Return the line about memory, if the engine can limit a container's."""
    memory = share_of_memory(engine) if engine is not None else 0
    comment = "The bytes that a container may use: four fifths of the machine's. 0 means no limit."
    return [Line("LABS_MEMORY", str(memory), comment)] if memory else []


def gpu_lines(machine: Machine, owner: Owner) -> list[Line]:
    """Return the lines about the GPUs, if there are any.

    They give no GPU that a batch system, the user or the site denies to this shell.
    """
    amd = _permitted("rocm", machine.usable(AMD) or machine.of(AMD))
    nvidia = _permitted("cuda", machine.of(NVIDIA))
    lines = _amd_lines(amd, owner, len(amd) == len(machine.of(AMD))) if amd else []
    if nvidia:
        comment = f'{_description(nvidia)}\nall, or a number or UUID; "0,2" for several.'
        names = ",".join(gpu.uuid or str(gpu.index) for gpu in nvidia)
        everything = len(nvidia) == len(machine.of(NVIDIA))
        lines.append(Line("LABS_GPUS", "all" if everything else names, comment))
    return lines


def _permitted(stack: str, gpus: Sequence[Gpu]) -> list[Gpu]:
    seat = os.environ.get(SEATS[stack][0], "")
    return visible_gpus(stack, gpus, os.environ, seat)[0] if gpus else []


def _amd_lines(gpus: list[Gpu], owner: Owner, everything: bool) -> list[Line]:
    """Return AMD's lines; `everything` is whether these are all GPUs of the machine."""
    first = gpus[0]
    others = sorted({gpu.target for gpu in gpus} - {first.target})
    target = f"The gfx target of the image, llm-labs:rocm-{first.target}."
    if others:
        target += f"\nGPUs with another target ({', '.join(others)}) can't run it."
    nodes = (
        f"{_description(gpus)}\nThe node of one GPU, or /dev/dri for all; for several, see "
        "compose.yaml. invoke uses no other GPUs either."
    )
    use_all = everything and len(gpus) > 1 and not others
    groups = _two_groups(gpus, owner)
    comment = "The groups of /dev/kfd and the render nodes, as `stat -c %g` prints them."
    return [
        Line("LABS_GFX", first.target, target),
        Line("LABS_RENDER_NODES", "/dev/dri" if use_all else first.node, nodes),
        Line("LABS_RENDER_GID", str(groups[0]), comment),
        Line("LABS_VIDEO_GID", str(groups[1]), "The second group, or one without effect."),
    ]


def _two_groups(gpus: list[Gpu], owner: Owner) -> list[int]:
    """Return the nodes' groups, filled up to the two different ones that Compose needs."""
    groups = [*dict.fromkeys(gid for gpu in gpus for gid in gpu.gids)]
    fillers = (VIDEO_GID, owner.gid, NOBODY_GID)
    return groups + [gid for gid in fillers if gid not in groups]


def _description(gpus: Sequence[Gpu]) -> str:
    """Return a line for each GPU, with its problem if there is one."""
    return "\n".join(
        f"{gpu.index}: {gpu.name}, {gpu.target}, {gpu.node} {gpu.unusable}".rstrip() for gpu in gpus
    )


def _replace(path: Path, text: str, owner: Owner) -> None:
    """Replace the file atomically, and give it to `owner`."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o644)
        give_to(owner, [temporary])
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
