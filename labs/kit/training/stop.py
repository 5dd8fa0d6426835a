"""Stop a training in all processes, because its job is about to end."""

import os
from typing import NoReturn

from common.cards import INTERRUPTED, Card
from labs.kit.run.processes import is_main
from labs.kit.run.run import Run

_SBATCH = "sbatch "  # the launcher's command that continues a job of Slurm


def stop(run: Run, name: str, done: int, steps: int | None, saved: int) -> NoReturn:
    """Raise a card in all processes; the main one shows it before any of them ends.

    Args:
        run: the run.
        name: the name of the training.
        done: the number of steps that are done.
        steps: the number of all its steps; None if it isn't known.
        saved: the step of the last checkpoint.
    """
    again = os.environ.get("LABS_CONTINUE") or "the same command again"
    fix = f"{again}, which goes on from it"
    if again.startswith(_SBATCH):
        fix += f"; with more time: {_SBATCH}--time=MINUTES {again.removeprefix(_SBATCH)}"
    total = f" of {steps:,}" if steps else ""
    card = Card(
        f"The training of {name!r} stops after step {done:,}{total}: its job is about to end.",
        f"It was asked to (signal USR1). The last checkpoint is of step {saved:,}.",
        fix,
        INTERRUPTED,
    )
    if is_main():
        card.show()
    run.accelerator.wait_for_everyone()
    card.shown_elsewhere = True
    raise card
