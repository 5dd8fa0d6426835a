"""Check the files that a lab's own options name, before a container or an environment is made.

The labs check what is in them.
"""

import os
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from shlex import quote

from common.cards import WRONG_USAGE, Card
from common.lab_options import file_flags
from common.syllabus import find
from launcher import ROOT
from launcher.engine.container_spec import Bind
from launcher.run.lab_command import LabCommand

INSIDE = Path("/lab")  # where a container's lab starts


def refuse_missing(command: LabCommand, binds: Sequence[Bind] | None = None) -> None:
    """Refuse a file or folder that the lab won't find or can't read.

    Args:
        command: The labs and their options.
        binds: The folders that the container mounts; None without a container.

    Raises:
        Card: If there is one.
    """
    for option, name in _named(command):
        seen = ROOT / name if binds is None else _behind(INSIDE / name, binds)
        if seen is not None and seen.exists():
            if not os.access(seen, os.R_OK):
                why = "You have no permission to read it."
                raise Card(f"{name} can't be read.", why, f"chmod a+r {quote(name)}", WRONG_USAGE)
        elif not command.online or name[:1] in "./":  # with --online it may be a name on the hub
            raise _missing(option, name, binds is not None)


def _named(command: LabCommand) -> Iterator[tuple[str, str]]:
    """Yield each option that names a file, and the name."""
    if not command.lab_options:
        return
    flags = file_flags(find(",".join(command.labs)))
    for word, following in pairwise([*command.lab_options, ""]):
        option, equals, value = word.partition("=")
        if option in flags and (value or following):
            yield option, value if equals else following


def _behind(path: Path, binds: Sequence[Bind]) -> Path | None:
    """Return the file of this machine that a container sees at a path; None if it sees none."""
    path = Path(os.path.normpath(path))
    above = [bind for bind in binds if path.is_relative_to(bind.target)]
    if not above:
        return None
    nearest = max(above, key=lambda bind: len(bind.target))
    return Path(nearest.source) / path.relative_to(nearest.target)


def _missing(option: str, name: str, in_container: bool) -> Card:
    what = f"The lab doesn't see {name}."
    elsewhere = next((path for path in (Path.cwd() / name, ROOT / name) if path.exists()), None)
    if elsewhere is None:
        return _nowhere(option, name)
    visible = any(elsewhere.is_relative_to(ROOT / folder) for folder in ("work", "outputs"))
    if visible or not in_container:
        path = elsewhere.relative_to(ROOT) if elsewhere.is_relative_to(ROOT) else elsewhere
        why = f"The paths of a lab start at {ROOT}."
        return Card(what, why, f"{option} {quote(str(path))}", WRONG_USAGE)
    copy = f"work/{elsewhere.name}"
    words = " ".join(quote(str(path)) for path in (elsewhere, ROOT / copy))
    copies = f"mkdir -p {quote(str(ROOT / 'work'))} && cp -r {words}"
    why = "A lab in a container sees only work/ and outputs/ of the clone."
    return Card(what, why, f"{copies}; then {option} {quote(copy)}", WRONG_USAGE)


def _nowhere(option: str, name: str) -> Card:
    """Return the card for a path that doesn't exist, with the nearest name."""
    what = f"There is no {name}."
    parent = (ROOT / name).parent
    names = [path.name for path in parent.iterdir()] if parent.is_dir() else []
    near = get_close_matches(Path(name).name, names, 1)
    if near:
        fix = f"{option} {quote(str(Path(name).with_name(near[0])))}"
        return Card(what, f"There is {near[0]} in {parent}.", fix, WRONG_USAGE)
    why = f"The paths of a lab start at {ROOT}."
    if parent == ROOT / "work":
        fix = f"put the file there; or correct its name: ls {quote(str(parent))}"
        return Card(what, why, fix, WRONG_USAGE)
    fix = f"{option} {quote(f'work/{Path(name).name}')}"
    if not (ROOT / "work" / Path(name).name).exists():
        fix = f"put it into work/: {fix}"
    return Card(what, why, fix, WRONG_USAGE)
