"""Stop a training in all processes, because its job is about to end."""

import os
from typing import NoReturn

from labs.course.cards import INTERRUPTED, Card
from labs.kit.run.processes import is_main
from labs.kit.run.run import Run


def stop(run: Run, name: str, done: int, saved: int) -> NoReturn:
    """Raise a card in all processes; the main one shows it before any of them ends.

    Args:
        run: the run.
        name: the name of the training.
        done: the number of steps that are done.
        saved: the step of the last checkpoint.
    """
    card = Card(
        f"The training of {name!r} stops after step {done:,}: its job is about to end.",
        f"It was asked to (signal USR1). The last checkpoint is of step {saved:,}.",
        f"{os.environ.get('LABS_CONTINUE') or 'the same command again'}, which goes on from it",
        INTERRUPTED,
    )
    if is_main():
        card.show()
    run.accelerator.wait_for_everyone()
    card.shown_elsewhere = True
    raise card
