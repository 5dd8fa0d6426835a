"""Checkpoints of a training: written by Accelerate, kept by us, found again after a kill.

A run that was killed goes on from its last checkpoint, and ends with the weights, bit for bit, that
it would have had: on the same machine, with the same lab, data, seed and options.
"""

import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from labs.kit import kept, snapshots
from labs.kit.cards import FAILED, Card
from labs.kit.carried import restore, state_of
from labs.kit.outputs import refusal, writing_to
from labs.kit.ranks import is_main, stop_all
from labs.kit.run import Run
from labs.kit.training import cure

import torch
from accelerate.utils import RNG_STATE_NAME, broadcast, broadcast_object_list, gather_object, load

CARRIED = "carried.pt"
Found = tuple[Path, dict[str, Any]]  # a sound checkpoint and its manifest
# It warns of tied weights at each checkpoint. Loading ties them again.
logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)


class Checkpoints:
    """The checkpoints of one training. Make it before `accelerator.prepare`, which it watches.

    Args:
        name: the training's, of which a lab may have several, one after the other.
        depends_on: what its bits depend on beside the lab, its options, seed and machine: a
            configuration, the number of steps, a data set's hash. A checkpoint of a training that
            depended on something else isn't loaded. Only what JSON can tell.
        steps: how many it has in all, where that is known: then one that is done is told as such.
        every_steps: how often `save_if_due` saves; without it the clock decides.
        keep: so many are kept; an older one goes when the newest is safe on the disk.
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
        if keep < 1 or (every_steps is not None and every_steps < 1) or every_minutes < 0:
            raise ValueError("keep and every_steps begin at 1, every_minutes at 0")
        self.run, self.name, self.steps = run, name, steps
        self.every_steps, self.every_minutes, self.keep = every_steps, every_minutes, keep
        self.seconds = 0.0  # that the training took until its last checkpoint, over all its runs
        self._facts = kept.facts(run, name, depends_on or {})
        self._things: dict[str, Any] = {}
        self._saved = 0  # the step of the newest checkpoint
        self._folder: Path | None = None  # resume finds it
        run.accelerator.free_memory()  # what was prepared until now is none of this training's

    def carry(self, **things: Any) -> None:
        """Name what belongs to the training beside what Accelerate prepared.

        Args:
            things: a torch.Generator; a list or a dict of numbers and strings, which `resume`
                changes in place; anything with `state_dict` and `load_state_dict`.
        """
        for name, thing in things.items():
            state_of(name, thing)
        self._things.update(things)

    def resume(self) -> int:
        """Load the newest sound checkpoint; how many steps are done, 0 where there is none.

        Call it last before the loop: it also puts every random number generator where it was.

        Raises:
            Card: with --resume, where checkpoints of this training are there and don't fit it.
        """
        found, self._folder = self._agreed_find()
        if found:
            path, manifest = found
            self._load(path)
            self._saved, self.seconds = manifest["step"], manifest["seconds"]
        self._since = time.perf_counter() - self.seconds
        self._clock = time.monotonic()
        return self._saved

    def save_if_due(self, done: int) -> None:
        """Save after a step where it is time to; `done` is how many steps are done.

        By the clock, N processes ask the main one at each step; by steps they need not.
        """
        if self.every_steps is not None:
            due = done % self.every_steps == 0
        else:
            due = time.monotonic() - self._clock >= 60 * self.every_minutes
            if self.run.accelerator.num_processes > 1:
                told = torch.tensor(float(due), device=self.run.device)
                due = bool(cast(torch.Tensor, broadcast(told)))
        if due:
            self.save(done)

    def save(self, done: int) -> None:
        """Save now. After the loop, too: then a run that is killed later needn't train again.

        A full disk is told, and the training goes on; earlier checkpoints stay.

        Raises:
            Card: where the weights are NaN or infinite, which no checkpoint should keep.
        """
        if self._folder is None:
            raise RuntimeError("resume comes before the first save")
        if done == self._saved:
            return
        self._look_at_weights(done)
        self.seconds = time.perf_counter() - self._since
        reason = self._write(self._folder, done)
        self._clock = time.monotonic()
        if reason:
            self._say(f"no checkpoint of step {done:,}: {reason} The training goes on.")
            self._say(f"the last checkpoint is of step {self._saved:,}; make room: {self._folder}")
        else:
            self._saved = done

    def _say(self, text: str) -> None:
        self.run.say(f"{self.name}: {text}")

    def _agreed_find(self) -> tuple[Found | None, Path]:
        """What the main process found, in all of them."""
        found: Any = None
        if is_main():
            try:
                found = self._find()
            except Card as card:
                found = (card.what, card.why, card.mend, card.code)
        found = _agreed(found)
        if len(found) == 4:
            stop_all(Card(*found))
        return found

    def _find(self) -> tuple[Found | None, Path]:
        parent = kept.root(self.run)
        with writing_to(parent):
            place = kept.take(parent, self.name, self._facts)
        self.run.places.append(place)
        found = self._sound_one(place.folder)
        if found:
            anew = f"to begin anew: rm -r {place.folder}"
            self._say(f"{self._where(found)}, from its checkpoint ({anew})")
        return found or self._of_another(place), place.folder

    def _where(self, found: Found) -> str:
        done = found[1]["step"]
        trained = self.steps is not None and done >= self.steps
        return f"already trained, {done:,} steps" if trained else f"goes on after step {done:,}"

    def _of_another(self, place: kept.Place) -> Found | None:
        """A checkpoint that doesn't quite fit: taken from another machine's where asked for."""
        near = kept.nearest(place, self._facts)
        if near is None:
            return None
        folder, differences = near
        insists = self.run.settings.resume
        other = kept.lock(folder) if insists and kept.of_another_machine(differences) else None
        found = self._sound_one(folder) if other else None
        if other and found:
            self.run.places.append(other)
            self._say(f"{self._where(found)}, though not bit for bit:")
            self._say("; ".join(differences.values()))
            return found
        if insists:
            raise kept.refuse(self.name, folder, differences)
        self._say(f"begins anew: the checkpoints in {folder} don't fit.")
        self._say("; ".join(differences.values()))
        return None

    def _sound_one(self, folder: Path) -> Found | None:
        """The newest checkpoint that is as it was written; those that aren't are removed."""
        for one in snapshots.all_in(folder):
            try:
                return one, snapshots.read(one)
            except ValueError as error:
                self._say(f"{one.name} is damaged ({error}): removed, for the one before it")
                shutil.rmtree(one)
        return None

    def _load(self, path: Path) -> None:
        """Load everything, no pickled code: torch's and Accelerate's loaders refuse it."""
        try:
            self.run.accelerator.load_state(str(path))
            self._look_at_random_numbers(path)
            carried = load(path / CARRIED, map_location="cpu")
            if set(carried) != set(self._things):
                raise KeyError(f"it carries {sorted(carried)}, not {sorted(self._things)}")
            for name, state in carried.items():
                restore(self._things[name], state)
        except Exception as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            mend = f"rm -r {path.parent}, and begin anew"
            raise Card(f"The checkpoint {path} can't be loaded.", why, mend, FAILED) from error

    def _look_at_random_numbers(self, path: Path) -> None:
        """Accelerate goes on in silence where it can't load them."""
        file = f"{RNG_STATE_NAME}_{self.run.accelerator.process_index}.pkl"
        saved = load(path / file)
        pairs = [(saved["torch_manual_seed"], torch.get_rng_state())]
        if torch.cuda.is_available():
            now = torch.cuda.get_rng_state_all()
            pairs += zip(saved["torch_cuda_manual_seed"], now, strict=True)
        if not all(torch.equal(then, now) for then, now in pairs):
            raise ValueError(f"{file} wasn't loaded")

    def _look_at_weights(self, done: int) -> None:
        models = cast(
            list[torch.nn.Module],
            self.run.accelerator._models,  # pyright: ignore[reportPrivateUsage]
        )
        if not models:
            raise RuntimeError("Checkpoints comes before accelerator.prepare: nothing is saved")
        finite = [one.detach().isfinite().all() for model in models for one in model.parameters()]
        if not all(finite):
            what = f"The weights of {self.name!r} are NaN or infinite after step {done:,}."
            why = f"A gradient was. No checkpoint is written; the last is of step {self._saved:,}."
            stop_all(Card(what, why, cure(self.run), FAILED))

    def _write(self, folder: Path, done: int) -> str:
        """Every process its part, then the main one all the rest; what kept it from it, if so."""
        reasons = cast(list[str], gather_object([_refused(self._fill, folder)]))
        reason = next((one for one in reasons if one), "")
        if is_main() and not reason:
            reason = _refused(self._seal, folder, done)
        if is_main() and reason:
            shutil.rmtree(snapshots.aside(folder), ignore_errors=True)
        return _agreed(reason)

    def _fill(self, folder: Path) -> None:
        part = snapshots.aside(folder)
        self.run.accelerator.save_state(str(part))
        if is_main():
            carried = {name: state_of(name, thing) for name, thing in self._things.items()}
            torch.save(carried, part / CARRIED)
            if not self._saved:
                load(part / CARRIED)  # what can't be read is an error now, not after a kill

    def _seal(self, folder: Path, done: int) -> None:
        facts = {"step": done, "seconds": self.seconds, "facts": self._facts}
        snapshots.seal(snapshots.aside(folder), snapshots.path_of(folder, done), facts)
        for old in snapshots.all_in(folder)[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)


def _refused(write: Any, folder: Path, *more: Any) -> str:
    """Write; the disk's refusal in a sentence, or nothing."""
    try:
        write(folder, *more)
    except Exception as error:  # safetensors and torch have no errno to tell
        reason = refusal(error, folder)
        if not reason:
            raise
        return reason
    return ""


def _agreed(value: Any) -> Any:
    """The main process's value, in all of them."""
    return broadcast_object_list([value])[0]
