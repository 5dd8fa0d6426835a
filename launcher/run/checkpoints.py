"""What an interrupted run has saved, and the command that goes on from it."""

import time
from collections.abc import Sequence
from pathlib import Path

from launcher.run.pages import outputs_folders

STEP = "step-"  # labs/kit/atomic_folder.py names a checkpoint step-00000024
# labs/kit/training/checkpoint_folders.py writes the command that continues a job into it.
LOCK = ".lock"


def last_words(labs: Sequence[str], started: float, command: str) -> str:
    """Return whether a run saved a checkpoint, and the command that goes on or starts over.

    Args:
        labs: The names of the labs.
        started: When the run started, in seconds since 1970.
        command: The command that the user typed.
    """
    found = [path for lab in labs for path in _find(lab)]
    if not found:
        return f"No checkpoint was saved. This starts over:\n  {command}"
    newest = max(found, key=_saved)
    step = _step(newest)
    if _saved(newest) >= started:
        return f"A checkpoint of step {step:,} was saved. This goes on from it:\n  {command}"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(_saved(newest)))
    return (
        f"No checkpoint was saved. An earlier one, of step {step:,}, is from {when}. "
        f"This goes on from it, if it fits:\n  {command}"
    )


def last_words_in_job(command: str) -> str:
    """Return whether a job of Slurm has a checkpoint, and the command that submits it again."""
    step = newest_step_of_job(command)
    if step is None:
        return f"No checkpoint was saved. This starts over:\n  {command}"
    return f"The last checkpoint is of step {step:,}. This goes on from it:\n  {command}"


def newest_step_of_job(command: str) -> int | None:
    """Return the step of the newest checkpoint that a job wrote or resumed from, or None.

    Args:
        command: The command that submits the job again. Trainings of other jobs have another one.
    """
    found = [path for path in _find("*") if _job_of(path.parent) == command]
    return _step(max(found, key=_saved)) if found else None


def _job_of(folder: Path) -> str:
    """Return the command that continues the job that used a training's checkpoints last."""
    try:
        note = (folder / LOCK).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return note.partition("\n")[2]


def _find(lab: str) -> list[Path]:
    return [
        path
        for folder in outputs_folders()
        for path in folder.glob(f"{lab}/checkpoints/*/{STEP}*")
        if path.name.removeprefix(STEP).isdecimal()
    ]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(STEP))


def _saved(checkpoint: Path) -> float:
    return checkpoint.stat().st_mtime
