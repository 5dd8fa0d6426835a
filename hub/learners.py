"""Learners: the names they may have, and the folders of their work on the server's disk."""

from pathlib import Path

from common import classroom
from launcher.engine.container_spec import Bind
from launcher.hub.folder import CLASS, LEARNERS
from launcher.hub.users import ALLOWED, is_allowed

# The folders in that of a learner, and where a seat mounts them.
MOUNTS = {"work": "/lab/work", "outputs": "/lab/outputs"}


def clean_name(text: str) -> str:
    """Return a name as typed, in lower case and without spaces around it."""
    return text.strip().lower()


def make_folders(workshop: Path, name: str) -> None:
    """Create the folders of a learner; the engine would create them for root.

    Raises:
        ValueError: If the name isn't allowed.
        OSError: If the disk refuses.
    """
    if not is_allowed(name):
        raise ValueError(f"{name!r} isn't a learner's name: {ALLOWED}")
    for folder in MOUNTS:
        (workshop / LEARNERS / name / folder).mkdir(parents=True, exist_ok=True)
    (workshop / LEARNERS / name / "work" / "progress").mkdir(exist_ok=True)


def binds(host_folder: str, name: str) -> tuple[Bind, ...]:
    """Return the mounts of a learner's folders and the class's; the paths are those of the host."""
    folder = Path(host_folder, LEARNERS, name)
    own = (Bind(str(folder / part), target) for part, target in MOUNTS.items())
    return (*own, Bind(str(Path(host_folder, CLASS)), str(classroom.FOLDER), read_only=True))


def names(workshop: Path) -> list[str]:
    """Return the names of all learners who have a folder."""
    folders = (workshop / LEARNERS).glob("*/")
    return sorted(folder.name for folder in folders if is_allowed(folder.name))
