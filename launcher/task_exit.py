"""Run the action of an invoke task, and turn its end into an exit code."""

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from common.cards import WRONG_USAGE, Card
from common.interrupts import INTERRUPTED, Interrupted, Interrupts
from launcher.run.file_owner import give_caches_to_owner
from launcher.run.lab_command import flags_of
from launcher.task_words import KnownTask, wrong_words


def exit_code_of(action: Callable[[Interrupts], int | None]) -> int:
    """Call `action` and return its exit code; print a card for an expected failure."""
    try:
        with Interrupts() as interrupts:
            return action(interrupts) or 0
    except Card as card:
        card.show()
        return card.code
    except Interrupted as interrupted:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would end Invoke with 1
        if not interrupted.explained:
            notes = getattr(interrupted, "__notes__", ())
            print("\ninterrupted", *notes, sep="\n", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    finally:
        give_caches_to_owner()


def refuse_no_lab(task_name: str) -> int:
    """Print a card for `invoke lab` without a lab, and return the exit code."""
    why = f"invoke {task_name} needs a lab, such as LLM06; see invoke {task_name} --help."
    Card("Which lab?", why, "invoke labs lists them").show()
    return WRONG_USAGE


def refuse_wrong_words(words: Sequence[str], tasks: Mapping[str, KnownTask]) -> int:
    """Print a card for words that Invoke can't parse; return the exit code, 0 without a card.

    Args:
        words: The words of the command, from the task on.
        tasks: The tasks by name.
    """
    card = wrong_words(words, tasks, flags_of)
    if card is None:
        return 0
    card.show()
    return card.code
