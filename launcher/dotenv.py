"""The facts of this host and user in a file .env: Compose reads it, and then needs no invoke."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher import ROOT
from launcher.cards import Card, say
from launcher.engine import is_rootless
from launcher.gpus import AMD, NVIDIA, Gpu, Machine, detect
from launcher.owners import Owner, in_the_container, make_folder, of_the_files
from launcher.targets import in_a_container

MARK = "# Written by `invoke dotenv`"
KEPT = "# ---- Below this line is yours. It wins over what stands above, and is kept. ----"
HOW = f"""{MARK} on {{host}}. Run it again after a change of cards, driver or user.
# Docker Compose reads this file in the folder of compose.yaml; a value in the shell wins over one
# here. Where several users share one clone, each has a file of their own and names it:
#   invoke dotenv --file ~/llm-labs.env && docker compose --env-file ~/llm-labs.env run --rm …
"""
VIDEO = 44  # compose.yaml's default, the number that Debian and Ubuntu give to the group
NOBODY = 65534


@dataclass(frozen=True)
class Line:
    """A variable, its value, and what a reader should know of it."""

    name: str
    value: str
    why: str

    def __str__(self) -> str:
        comment = "".join(f"# {one}\n" for one in self.why.splitlines())
        return f"{comment}{self.name}={self.value}\n"


def write(file: str = "") -> None:
    """Write `file`, by default .env beside compose.yaml, or bring it up to date if it is there.

    Raises:
        Card: where it isn't this command's own, or can't be written.
    """
    path = Path(file).expanduser() if file else ROOT / ".env"
    yours = _yours(path)
    caller = of_the_files()
    rootless = is_rootless()
    machine = detect(user=in_a_container(rootless, caller))
    lines = who(caller, rootless, ROOT) + cards(machine, caller)
    text = HOW.format(host=socket.gethostname()) + "\n" + "\n".join(map(str, lines))
    try:
        _replace(path, f"{text}\n{KEPT}\n{yours}", caller)
    except OSError as error:
        raise Card(f"{path} can't be written.", str(error), f"ls -ld {path.parent}") from error
    for line in lines:
        print(f"{line.name}={line.value}")
    say(f"{path} is written, with a comment on each of these lines.")


def _yours(path: Path) -> str:
    """What a person added below the mark; nothing where there is no file yet."""
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8")
    if not text.startswith(MARK):
        raise Card(
            f"{path} is there, and isn't by `invoke dotenv`.",
            "It would be overwritten. Its lines can follow the ones that are written.",
            f"mv {path} {path}.mine && invoke dotenv && cat {path}.mine >> {path}",
        )
    return text.partition(f"{KEPT}\n")[2]


def who(caller: Owner, rootless: bool, clone: Path) -> list[Line]:
    """The lines on the user; a rootless engine maps the container's root to who runs it."""
    inside = in_the_container(caller, rootless)
    whose = "The files in outputs/ are this user's: `id -u` and `id -g`."
    if rootless:
        whose = "The engine is rootless: its root is you, and the files in outputs/ are yours."
    project = "One project a user: `docker compose down` of one leaves another's labs alone."
    lines = [
        Line("COMPOSE_PROJECT_NAME", f"llm-labs-{caller.uid}", project),
        Line("LABS_UID", str(inside.uid), whose),
        Line("LABS_GID", str(inside.gid), "And this group's."),
    ]
    if not os.access(clone, os.W_OK):
        outputs = caller.home / "llm-labs-outputs"
        make_folder(outputs, caller)
        lines.append(Line("LABS_OUTPUTS", str(outputs), "The clone isn't yours to write to."))
    return lines


def cards(machine: Machine, caller: Owner) -> list[Line]:
    """The lines on the accelerators that were found; none where there are none."""
    amd = list(machine.usable(AMD) or machine.of(AMD))
    nvidia = machine.of(NVIDIA)
    lines = _amd(amd, caller) if amd else []
    if nvidia:
        why = f'{_listed(nvidia)}\nall, or one by its number or UUID; "0,2" for several.'
        lines.append(Line("LABS_GPUS", "all", why))
    return lines


def _amd(gpus: list[Gpu], caller: Owner) -> list[Line]:
    first = gpus[0]
    others = sorted({one.target for one in gpus} - {first.target})
    target = f"The gfx target of the image, llm-labs:rocm-{first.target}."
    if others:
        target += f"\nThe cards of another target ({', '.join(others)}) can't run it."
    nodes = f"{_listed(gpus)}\nOne card's node, or /dev/dri for all; for several see compose.yaml."
    whole = len(gpus) > 1 and not others
    groups = [*dict.fromkeys(gid for one in gpus for gid in one.gids)]
    # Compose wants two, and two different ones: the spare adds nothing that this user hasn't got.
    groups += [one for one in (VIDEO, caller.gid, NOBODY) if one not in groups]
    of = "The groups that /dev/kfd and the render nodes belong to, as `stat -c %g` gives them."
    return [
        Line("LABS_GFX", first.target, target),
        Line("LABS_RENDER_NODES", "/dev/dri" if whole else first.node, nodes),
        Line("LABS_RENDER_GID", str(groups[0]), of),
        Line("LABS_VIDEO_GID", str(groups[1]), "The second of them, or one that adds nothing."),
    ]


def _listed(gpus: Sequence[Gpu]) -> str:
    """A line for each GPU, and what is wrong with it if anything is."""
    return "\n".join(
        f"{one.index}: {one.name}, {one.target}, {one.node} {one.unusable}".rstrip() for one in gpus
    )


def _replace(path: Path, text: str, caller: Owner) -> None:
    """Whole or not at all, and the caller's."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o644)
        if os.geteuid() == 0:
            os.chown(fresh, caller.uid, caller.gid)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
