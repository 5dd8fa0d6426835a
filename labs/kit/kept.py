"""Where a training's checkpoints are kept between runs, and which of them fit a training."""

import fcntl
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from labs.kit import snapshots
from labs.kit.cards import WRONG_USAGE, Card
from labs.kit.options import Settings
from labs.kit.syllabus import LABS, Lesson

if TYPE_CHECKING:
    from labs.kit.run import Run

FOLDER = "checkpoints"
# On another machine these differ; a training can go on there, though not to the same bits.
MACHINE = ("stack", "python", "device", "threads", "cpu_capability")
PACKAGES = ("torch", "transformers", "accelerate", "peft", "tokenizers", "numpy")
IRRELEVANT = ("online", "options")  # to the bits; the options are facts one by one
LONGEST_TOLD = 60  # characters, what was and what is together; one hash is longer
CALLED = {"lab_sha256": "the lab's text", "sources_sha256": "the text of labs it builds on"}


@dataclass
class Place:
    """A folder that this process alone writes one training's checkpoints to."""

    folder: Path
    lock: IO[str]

    def leave(self) -> None:
        """Leave it to the next run; where it holds no checkpoint, leave nothing."""
        if not snapshots.all_in(self.folder):
            self.remove()

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.close()
        with suppress(OSError):  # other trainings' are there
            self.folder.parent.rmdir()


def root(run: "Run") -> Path:
    """Where all checkpoints of a lab are: beside its runs, so that the next one finds them."""
    return (_of(run.lesson, run.settings) if run.lesson else run.folder) / FOLDER


def _of(lesson: Lesson, settings: Settings) -> Path:
    return settings.outputs / lesson.name


def expect(lesson: Lesson, settings: Settings) -> None:
    """See that there is something to go on from, where --resume insists on it.

    Raises:
        Card: where there is nothing.
    """
    folder = _of(lesson, settings) / FOLDER
    if settings.resume and not any(snapshots.all_in(one) for one in folder.glob("*")):
        raise Card(
            f"{lesson.name} has nothing to resume.",
            f"{folder} holds no checkpoint: the last run came to its end, or not to its first "
            "checkpoint; or this lab trains for no longer than a minute and writes none.",
            f"invoke lab {lesson.name}, which finds by itself what there is",
            WRONG_USAGE,
        )


def facts(run: "Run", name: str, depends_on: Mapping[str, Any]) -> dict[str, Any]:
    """All that a training's bits depend on; what JSON can't tell is a TypeError."""
    from labs.kit.results import environment

    known: dict[str, Any] = {"precision": run.precision, "size": run.size, "seed": run.seed}
    if run.lesson:
        known = environment(run, run.lesson)
        known["sources_sha256"] = _sources(run.lesson)
    options = {f"--{option}": value for option, value in known.pop("options", {}).items()}
    known = {key: value for key, value in known.items() if key not in IRRELEVANT}
    return json.loads(json.dumps({**known, **options, **depends_on, "training": name}))


def _sources(lesson: Lesson) -> str:
    """A hash of the labs that a lab's text names, and of those that they name."""
    known = {one.stem: one for one in LABS.glob("*.py")}
    texts, names = [lesson.source], {lesson.path.stem}
    for text in texts:
        for word in sorted(set(re.findall(r"\w+", text)) & set(known) - names):
            names.add(word)
            texts.append(known[word].read_text(encoding="utf-8"))
    return hashlib.sha256("\0".join(texts[1:]).encode()).hexdigest()


def take(parent: Path, name: str, facts: Mapping[str, Any]) -> Place:
    """The place of the training with these facts; a second run at the same time gets another."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    for attempt in count(1):
        folder = parent / (f"{_slug(name)}-{digest}" + (f"-{attempt}" if attempt > 1 else ""))
        folder.mkdir(parents=True, exist_ok=True)
        if place := lock(folder):
            shutil.rmtree(snapshots.aside(folder), ignore_errors=True)
            return place
    raise AssertionError("unreachable")


def lock(folder: Path) -> Place | None:
    """Take a folder for as long as this process lives; None where another run has it."""
    file = (folder / ".lock").open("w")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, no child inherits it
    except OSError:
        file.close()
        return None
    return Place(folder, file)


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-").lower()


def nearest(place: Place, wanted: Mapping[str, Any]) -> tuple[Path, dict[str, str]] | None:
    """Where there are checkpoints of this training that don't fit, and why: the likest ones."""
    found: list[tuple[Path, dict[str, str]]] = []
    for folder in sorted(place.folder.parent.glob("*")):
        newest = snapshots.all_in(folder)[:1]
        there = cast(dict[str, Any], snapshots.glance(newest[0]).get("facts", {})) if newest else {}
        differences = _differences(there, wanted)
        if differences and there.get("training") == wanted["training"]:
            found.append((folder, differences))
    return min(found, key=lambda one: len(one[1]), default=None)


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, str]:
    keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    return {key: _told(key, there.get(key), here.get(key)) for key in keys}


def _told(key: str, there: Any, here: Any) -> str:
    was, now = ("nothing" if value is None else str(value) for value in (there, here))
    if key in CALLED or len(was) + len(now) > LONGEST_TOLD:
        return f"{CALLED.get(key, key)} has changed"
    return f"{key} was {was} and is {now}"


def of_another_machine(differences: Mapping[str, str]) -> bool:
    """Is it only the machine that differs?"""
    return all(key in (*MACHINE, *PACKAGES) for key in differences)


def refuse(name: str, folder: Path, differences: Mapping[str, str]) -> Card:
    """--resume insists, and what there is doesn't fit."""
    return Card(
        f"The checkpoints of {name!r} don't fit this run.",
        f"{'; '.join(differences.values())}. They are in {folder}.",
        "give what was given then; or leave out --resume, to begin anew",
        WRONG_USAGE,
    )
