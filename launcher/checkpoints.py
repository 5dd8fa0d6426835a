"""What an interrupted run has saved, and the command that goes on from it."""

import time
from collections.abc import Sequence
from pathlib import Path

from launcher.run_pages import outputs_folders

STEP = "step-"  # labs/kit/atomic_folder.py names a checkpoint step-00000024


def last_words(labs: Sequence[str], started: float, command: str) -> str:
    """Return whether a run saved a checkpoint, and the command that goes on or starts over.

    Args:
        labs: The names of the labs.
        started: When the run started, in seconds since 1970.
        command: The command that the user typed.
    """
    found = [
        path
        for folder in outputs_folders()
        for lab in labs
        for path in folder.glob(f"{lab}/checkpoints/*/{STEP}*")
        if path.name.removeprefix(STEP).isdecimal()
    ]
    if not found:
        return f"No checkpoint was saved. This starts over:\n  {command}"
    newest = max(found, key=_saved)
    step = int(newest.name.removeprefix(STEP))
    if _saved(newest) >= started:
        return f"A checkpoint of step {step:,} was saved. This goes on from it:\n  {command}"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(_saved(newest)))
    return (
        f"No checkpoint was saved. An earlier one, of step {step:,}, is from {when}. "
        f"This goes on from it, if it fits:\n  {command}"
    )


def _saved(checkpoint: Path) -> float:
    return checkpoint.stat().st_mtime
