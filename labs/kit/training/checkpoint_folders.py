"""The folders with the checkpoints of trainings, and which of them fit a run."""

import ast
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any, cast

from common.cards import WRONG_USAGE, Card
from common.syllabus import LABS, Lesson
from labs.kit import atomic_folder
from labs.kit.run.environment import PACKAGES, environment
from labs.kit.run.resume import checkpoints_folder
from labs.kit.run.run import Run

# These differ on another machine; a training can resume there, but not bit for bit.
MACHINE = ("stack", "python", "device", "threads", "cpu_capability")
# Irrelevant to the weights; each option is a fact by its name.
IRRELEVANT = ("online", "only", "options", "precision_because")
LOCK = ".lock"  # has a note of the process that locked it last, and of its job
MAX_CHARACTERS = 60  # of two values that are shown
NAMES = {"lab_sha256": "the lab's text", "sources_sha256": "the text of labs that it imports"}


@dataclass
class Place:
    """A folder to which this process alone writes one training's checkpoints."""

    folder: Path
    lock: IO[str]

    def release(self) -> None:
        """Leave the folder to the next run; remove it if it has no checkpoint."""
        if not atomic_folder.all_in(self.folder):
            self.remove()

    def remove(self) -> None:
        """Remove the folder with its checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.close()
        with suppress(OSError):  # it has other trainings' folders
            self.folder.parent.rmdir()


def root(run: Run) -> Path:
    """Return the folder of all checkpoints of a run's lab."""
    if run.lesson is None:
        return run.folder / "checkpoints"
    return checkpoints_folder(run.lesson, run.settings)


def facts_of(run: Run, name: str, depends_on: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that a training's weights depend on.

    Raises:
        TypeError: if `depends_on` isn't JSON.
    """
    facts: dict[str, Any] = {"precision": run.precision, "size": run.size, "seed": run.seed}
    if run.lesson:
        facts = environment(run, run.lesson)
        facts["sources_sha256"] = _hash_of_imports(run.lesson)
    options = {f"--{option}": value for option, value in facts.pop("options", {}).items()}
    facts = {key: value for key, value in facts.items() if key not in IRRELEVANT}
    return json.loads(json.dumps({**facts, **options, **depends_on, "training": name}))


def _hash_of_imports(lesson: Lesson) -> str:
    """Return a hash of the labs' modules that a lab imports, directly or not, without the kit."""
    modules = sorted(imported_modules(lesson))
    texts = [module.read_text(encoding="utf-8") for module in modules]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def imported_modules(lesson: Lesson) -> set[Path]:
    """Return the files of all labs' modules that a lab imports, directly or not."""
    found: set[Path] = set()
    texts = [lesson.source]
    while texts:
        for path in _imports(texts.pop()) - found - {lesson.path}:
            found.add(path)
            texts.append(path.read_text(encoding="utf-8"))
    return found


def _imports(text: str) -> set[Path]:
    """Return the labs' modules that a text imports, without course, kit and command line."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    teaching = {name for name in names if re.match(r"labs\.(llm|shared\b)", name)}
    places = [LABS.joinpath(*name.split(".")[1:]) for name in teaching]
    files = [path.with_suffix(".py") for path in places]
    files += [path / "__init__.py" for path in places]
    return {path for path in files if path.is_file()}


def folder_of(parent: Path, name: str, facts: Mapping[str, Any]) -> Path:
    """Return the folder of the training with these facts, which another run may have taken."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    return parent / f"{_slug(name)}-{digest}"


def take(parent: Path, name: str, facts: Mapping[str, Any]) -> Place:
    """Take the folder of the training with these facts, or another one if a run has taken it."""
    own = folder_of(parent, name, facts)
    for attempt in count(1):
        folder = own.with_name(f"{own.name}-{attempt}") if attempt > 1 else own
        folder.mkdir(parents=True, exist_ok=True)
        if place := lock(folder):
            shutil.rmtree(atomic_folder.aside(folder), ignore_errors=True)
            return place
    raise AssertionError("unreachable")


def lock(folder: Path) -> Place | None:
    """Lock a folder for the lifetime of this process; return None if another run has it."""
    file = (folder / LOCK).open("a")  # another run's note stays
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, no child inherits it
    except OSError:
        file.close()
        return None
    with suppress(OSError):  # on a full disk, the note is empty
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        # The launcher reads from it which checkpoints belong to a job: launcher/run/checkpoints.py.
        file.write(os.environ.get("LABS_CONTINUE", ""))
        file.flush()
    return Place(folder, file)


def holder_of(folder: Path) -> str:
    """Return who has locked a folder, as far as it is known: process 12 on n2."""
    try:
        note = (folder / LOCK).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        note = ""
    return note.partition("\n")[0] or "another process"


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-").lower()


def nearest(place: Place, wanted: Mapping[str, Any]) -> tuple[Path, dict[str, str]] | None:
    """Return the most similar folder of this training that doesn't fit, and its differences."""
    candidates: list[tuple[Path, dict[str, str]]] = []
    for folder in sorted(place.folder.parent.glob("*")):
        newest = atomic_folder.all_in(folder)[:1]
        manifest = atomic_folder.read_manifest(newest[0]) if newest else {}
        facts = cast(dict[str, Any], manifest.get("facts", {}))
        differences = _differences(facts, wanted)
        if differences and facts.get("training") == wanted["training"]:
            candidates.append((folder, differences))
    return min(candidates, key=lambda candidate: len(candidate[1]), default=None)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return {key: _describe(key, before.get(key), now.get(key)) for key in keys}


def _describe(key: str, before: Any, now: Any) -> str:
    old = "nothing" if before is None else str(before)
    new = "nothing" if now is None else str(now)
    if key in NAMES or len(old) + len(new) > MAX_CHARACTERS:
        return f"{NAMES.get(key, key)} has changed"
    return f"{key} was {old} and is {new}"


def only_machine_differs(differences: Mapping[str, str]) -> bool:
    """Return whether the differences are those of another machine."""
    return all(key in (*MACHINE, *PACKAGES) for key in differences)


def in_use(name: str, folder: Path) -> Card:
    """Return the card for --resume with checkpoints that another process has locked."""
    return Card(
        f"The checkpoints of {name!r} are in use.",
        f"The holder of the lock in {folder} is {holder_of(folder)}.",
        "wait until it ends, or end it; or leave out --resume, to start over",
    )


def does_not_fit(name: str, folder: Path, differences: Mapping[str, str]) -> Card:
    """Return the card for --resume with checkpoints that don't fit."""
    return Card(
        f"The checkpoints of {name!r} don't fit this run.",
        f"{'; '.join(differences.values())}. They are in {folder}.",
        "use the same options as before; or leave out --resume, to start over",
        WRONG_USAGE,
    )
