"""Where the checkpoints of a lab are, and whether there are any to resume from."""

import sys
from pathlib import Path

from common.cards import WRONG_USAGE, Card
from common.options import Settings
from common.syllabus import Lesson
from labs.kit import atomic_folder


def checkpoints_folder(lesson: Lesson, settings: Settings) -> Path:
    """Return the folder of all checkpoints of a lab, beside its runs."""
    return settings.outputs / lesson.name / "checkpoints"


def say_how_to_resume(lesson: Lesson, settings: Settings) -> None:
    """Print where the checkpoints of an interrupted run are, if it has any."""
    folder = checkpoints_folder(lesson, settings)
    if any(atomic_folder.all_in(one) for one in folder.glob("*")):
        print(f"\nThe same command resumes from {folder}, if a checkpoint fits.", file=sys.stderr)


def require_checkpoints(lesson: Lesson, settings: Settings) -> None:
    """Check that there is a checkpoint if --resume is given.

    Raises:
        Card: if the lab has no checkpoint.
    """
    folder = checkpoints_folder(lesson, settings)
    if settings.resume and not any(atomic_folder.all_in(one) for one in folder.glob("*")):
        raise Card(
            f"{lesson.name} has nothing to resume.",
            f"{folder} has no checkpoint: the last run ended by itself or before its first "
            "checkpoint, or this lab trains for less than a minute and writes none.",
            f"invoke lab {lesson.name}, which resumes by itself if a checkpoint fits",
            WRONG_USAGE,
        )
