"""Checkpoints of a training: saved by Accelerate, found again after an interruption.

An interrupted run resumes from its last checkpoint and ends with the same weights, bit for bit, as
an uninterrupted one: on the same machine, with the same lab, data, seed and options.
"""

import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from common.cards import FAILED, Card
from labs.kit import atomic_folder
from labs.kit.run import stop_request
from labs.kit.run.processes import is_main, stop_all
from labs.kit.run.run import Run
from labs.kit.run.run_folder import refusal
from labs.kit.training import checkpoint_folders
from labs.kit.training.find_checkpoint import Found, Search
from labs.kit.training.loop import require_finite_weights
from labs.kit.training.state import require_random_states, restore, state_of
from labs.kit.training.stop import stop

import torch
from accelerate.utils import broadcast, broadcast_object_list, gather_object, load

STATE_FILE = "state.pt"
# Accelerate warns of tied weights at each checkpoint. Loading ties them again.
logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)


class Checkpoints:
    """The checkpoints of one training. Create it before `accelerator.prepare`.

    Args:
        run: the run.
        name: the name of the training; a lab may have several, one after the other.
        depends_on: what the weights depend on beside the lab, its options, seed and machine: a
            configuration, the number of steps, a data set's hash. It must be JSON. A checkpoint
            of a training that depended on something else isn't loaded.
        steps: the number of steps, if it is known: then a finished training is reported as such.
        every_steps: the number of steps between checkpoints; by default the clock decides.
        every_minutes: the minutes between checkpoints, without `every_steps`.
        keep: the number of checkpoints to retain.

    Raises:
        ValueError: for a number that is too small.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        *,
        depends_on: Mapping[str, Any] | None = None,
        steps: int | None = None,
        every_steps: int | None = None,
        every_minutes: float = 1,
        keep: int = 2,
    ) -> None:
        """Note what the training depends on; nothing is read or written yet."""
        if keep < 1 or (every_steps is not None and every_steps < 1) or every_minutes < 0:
            raise ValueError("keep and every_steps must be at least 1, every_minutes at least 0")
        self.run = run
        self.name = name
        self.steps = steps
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.keep = keep
        self.seconds = 0.0  # of training until the last checkpoint, over all runs
        self._facts = checkpoint_folders.facts_of(run, name, depends_on or {})
        self._extras: dict[str, Any] = {}
        self._saved = 0  # the step of the newest checkpoint
        self._folder: Path | None = None  # resume finds it
        run.accelerator.free_memory()  # what was prepared before belongs to another training

    def include(self, **extras: Any) -> None:
        """Include more state in the checkpoints, beside the objects that Accelerate prepared.

        Args:
            extras: by name a torch.Generator; a list or dict of numbers and strings, which
                `resume` changes in place; anything with `state_dict` and `load_state_dict`.

        Raises:
            TypeError: for anything else.
        """
        for name, value in extras.items():
            state_of(name, value)
        self._extras.update(extras)

    def resume(self) -> int:
        """Load the newest valid checkpoint.

        Call it right before the loop: it also restores every random number generator.

        Returns:
            The number of steps that are done; 0 without a checkpoint.

        Raises:
            Card: with --resume, if there are checkpoints of this training and none of them fits.
        """
        found, self._folder = self._find_together()
        if found:
            path, manifest = found
            self._load(path)
            self._saved = manifest["step"]
            self.seconds = manifest["seconds"]
        self._since = time.perf_counter() - self.seconds
        self._clock = time.monotonic()
        stop_request.listen()
        return self._saved

    def save_if_due(self, done: int) -> None:
        """Save after a step if it is time to, as the main process decides for all.

        Args:
            done: the number of steps that are done.

        Raises:
            KeyboardInterrupt: after saving, if Ctrl-C or TERM has arrived.
            Card: after saving, in all processes, if the job is about to end.
        """
        due = time.monotonic() - self._clock >= 60 * self.every_minutes
        if self.every_steps is not None:
            due = done % self.every_steps == 0
        decision = torch.tensor([due, stop_request.arrived()], dtype=torch.float32)
        if self.run.accelerator.num_processes > 1:
            decision = cast(torch.Tensor, broadcast(decision.to(self.run.device)))
        due = bool(decision[0])
        asked = int(decision[1])
        if asked in stop_request.ENDS:
            self._say(f"interrupted; saving a checkpoint of step {done:,} …")
        if due or asked:
            self._save(done)
        if asked:
            stop_request.end()
            if asked in stop_request.ENDS:  # here it may not have arrived yet
                raise KeyboardInterrupt
            stop(self.run, self.name, done, self.steps, self._saved)

    def save(self, done: int) -> None:
        """Save after the loop: a later interruption then loses no step.

        A full disk is reported and the lab continues; earlier checkpoints stay.

        Raises:
            Card: if the weights are NaN or infinite.
            KeyboardInterrupt: after saving, if Ctrl-C or TERM has arrived.
        """
        self._save(done)
        stop_request.end()

    def _save(self, done: int) -> None:
        if self._folder is None:
            raise RuntimeError("call resume before the first save")
        if done == self._saved:
            return
        require_finite_weights(self.run, self.name, done, self._saved)
        self.seconds = time.perf_counter() - self._since
        reason = self._write(self._folder, done)
        self._clock = time.monotonic()
        if reason:
            self._say(f"no checkpoint of step {done:,}: {reason} The training continues.")
            self._say(
                f"the last checkpoint is of step {self._saved:,}; free space for {self._folder}"
            )
        else:
            self._saved = done

    def _say(self, text: str) -> None:
        self.run.say(f"{self.name}: {text}")

    def _find_together(self) -> tuple[Found | None, Path]:
        """Return what the main process found, in all processes."""
        search = Search(self.run, self.name, self._facts, self.steps, self._say)
        found: Any = None
        if is_main():
            try:
                found = search.find()
            except Card as card:
                found = (card.what, card.why, card.fix, card.code)
        found = _from_main(found)
        if len(found) == 4:
            stop_all(Card(*found))
        return found

    def _load(self, path: Path) -> None:
        """Load everything. torch's and Accelerate's loaders refuse pickled code."""
        try:
            self.run.accelerator.load_state(str(path))
            require_random_states(path, self.run.accelerator.process_index)
            states = load(path / STATE_FILE, map_location="cpu")
            if set(states) != set(self._extras):
                raise KeyError(f"it has {sorted(states)}, not {sorted(self._extras)}")
            for name, state in states.items():
                restore(self._extras[name], state)
        except Exception as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            fix = f"rm -r {path.parent}, which starts over"
            raise Card(f"The checkpoint {path} can't be loaded.", why, fix, FAILED) from error

    def _write(self, folder: Path, done: int) -> str:
        """Write a checkpoint: every process its part, then the main one the rest.

        Returns:
            Why it can't be written; empty if it was.
        """
        reasons = cast(list[str], gather_object([_try_to(self._write_states, folder)]))
        reason = next((reason for reason in reasons if reason), "")
        if is_main() and not reason:
            reason = _try_to(self._publish, folder, done)
        if is_main() and reason:
            shutil.rmtree(atomic_folder.aside(folder), ignore_errors=True)
        return _from_main(reason)

    def _write_states(self, folder: Path) -> None:
        part = atomic_folder.aside(folder)
        self.run.accelerator.save_state(str(part))
        if is_main():
            states = {name: state_of(name, value) for name, value in self._extras.items()}
            torch.save(states, part / STATE_FILE)
            if not self._saved:
                load(part / STATE_FILE)  # what can't be loaded is an error now

    def _publish(self, folder: Path, done: int) -> None:
        facts = {"step": done, "seconds": self.seconds, "facts": self._facts}
        snapshot = atomic_folder.path_of(folder, done)
        atomic_folder.publish(atomic_folder.aside(folder), snapshot, facts)
        for old in atomic_folder.all_in(folder)[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)


def _try_to(write: Any, folder: Path, *more: Any) -> str:
    """Write; return why the disk refused, in a sentence, or nothing."""
    try:
        write(folder, *more)
    except Exception as error:  # safetensors and torch report no errno
        reason = refusal(error, folder)
        if not reason:
            raise
        return reason
    return ""


def _from_main(value: Any) -> Any:
    """Return the main process's value, in all processes."""
    return broadcast_object_list([value])[0]
