"""Find the checkpoint from which a training resumes, and report why the others don't fit."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from labs.kit import atomic_folder
from labs.kit.run.run import Run
from labs.kit.run.run_folder import writing_to
from labs.kit.training import checkpoint_folders

Found = tuple[Path, dict[str, Any]]  # a valid checkpoint and its manifest


class Search:
    """The search for the checkpoint of one training, in the main process.

    Args:
        run: the run; it gets every folder that the search takes.
        name: the name of the training.
        facts: everything that the training's weights depend on.
        steps: the number of steps of the training, if it is known.
        say: prints a line about the training.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        facts: Mapping[str, Any],
        steps: int | None,
        say: Callable[[str], None],
    ) -> None:
        """Prepare the search."""
        self._run = run
        self._name = name
        self._facts = facts
        self._steps = steps
        self._say = say

    def find(self) -> tuple[Found | None, Path]:
        """Return the newest valid checkpoint, and the folder for those of this run.

        Raises:
            Card: with --resume, if there are checkpoints of this training and none of them fits;
                or another process has locked them; if the folder can't be written.
        """
        parent = checkpoint_folders.root(self._run)
        with writing_to(parent):
            place = checkpoint_folders.take(parent, self._name, self._facts)
        self._run.checkpoint_folders.append(place)
        found = self._newest_valid(place.folder)
        if found:
            restart = f"to start over: rm -r {place.folder}"
            self._say(f"{self._progress(found)}, from its checkpoint ({restart})")
        else:
            self._report_locked(
                checkpoint_folders.folder_of(parent, self._name, self._facts), place
            )
        return found or self._find_similar(place), place.folder

    def _report_locked(self, own: Path, place: checkpoint_folders.Place) -> None:
        """Report that another process has locked this training's checkpoints.

        Raises:
            Card: with --resume.
        """
        if place.folder == own or not atomic_folder.all_in(own):
            return
        if self._run.settings.resume:
            raise checkpoint_folders.in_use(self._name, own)
        holder = checkpoint_folders.holder_of(own)
        self._say(f"starts over: {holder} has locked the checkpoints in {own}")

    def _progress(self, found: Found) -> str:
        done = found[1]["step"]
        trained = self._steps is not None and done >= self._steps
        return f"already trained, {done:,} steps" if trained else f"resumes after step {done:,}"

    def _find_similar(self, place: checkpoint_folders.Place) -> Found | None:
        """Report a checkpoint that doesn't fit; with --resume, take one of another machine."""
        near = checkpoint_folders.nearest(place, self._facts)
        if near is None:
            return None
        folder, differences = near
        resume = self._run.settings.resume
        usable = resume and checkpoint_folders.only_machine_differs(differences)
        other = checkpoint_folders.lock(folder) if usable else None
        found = self._newest_valid(folder) if other else None
        if other and found:
            self._run.checkpoint_folders.append(other)
            self._say(f"{self._progress(found)}, but not bit for bit:")
            self._say("; ".join(differences.values()))
            return found
        if resume:
            raise checkpoint_folders.does_not_fit(self._name, folder, differences)
        self._say(f"starts over: the checkpoints in {folder} don't fit.")
        self._say("; ".join(differences.values()))
        return None

    def _newest_valid(self, folder: Path) -> Found | None:
        """Return the newest checkpoint whose files are unchanged; remove damaged ones."""
        for path in atomic_folder.all_in(folder):
            try:
                return path, atomic_folder.read(path)
            except ValueError as error:
                self._say(f"{path.name} is damaged ({error}) and was removed")
                shutil.rmtree(path)
        return None
