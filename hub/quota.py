"""Find learners whose files outgrow their quota.

A seat warns its learner and refuses to save beyond the quota (docker/seat_config.py). Code that a
learner runs can write all the same, so the hub stops a seat that goes on growing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from common import safe_files
from hub.seat_ends import Reason, stopped
from launcher.hub.folder import LEARNERS

SLACK = 1.1  # a run that begins below the quota may end a little above it
GRACE = 5 * 2**20  # bytes; a learner who removes files also writes: a note, progress, a notebook


@dataclass
class Growth:
    """Remember what each learner's files took.

    Attributes:
        quota: The bytes that a learner's files may take.
        before: What they took when they were last measured; None if they couldn't be.
        least: The least that they took since the seat started.
    """

    quota: int
    before: dict[str, int | None] = field(default_factory=dict[str, int | None])
    least: dict[str, int] = field(default_factory=dict[str, int])

    def too_much(self, workshop: Path, names: Iterable[str]) -> list[str]:
        """Return those who are beyond their quota, and have written more than `GRACE` since.

        Who removes files is never among them. Who hides files is: in folders that they close again
        and again, or that are too deep to be measured.
        """
        used = {name: _size(workshop / LEARNERS, name) for name in names}
        known = {name: size for name, size in used.items() if size is not None}
        self.least = {name: min(size, self.least.get(name, size)) for name, size in known.items()}
        self.before = used
        growing = [name for name, size in used.items() if self._grows(name, size)]
        for name in growing:  # a seat that starts again may write again
            self.least.pop(name, None)
        return growing

    def reason(self, name: str) -> Reason:
        """Return why the seat of a learner is stopped."""
        size = self.before.get(name)
        if size is None:
            why = "your files can't be measured: a folder is closed, or too deep in others."
            return stopped(why, "files can't be measured")
        used = f"{size / 2**20:,.0f} of {self.quota / 2**20:,.0f} MB"
        why = f"your files take {used}. Delete some once it runs again."
        return stopped(why, f"quota, {used}")

    def _grows(self, name: str, size: int | None) -> bool:
        if size is None:
            return True
        return size > max(SLACK * self.quota, self.least[name] + GRACE)


def _size(root: Path, name: str) -> int | None:
    """Return what a learner's files take; None if folders are closed while the hub opens them.

    Otherwise a learner who has closed a folder would be stopped after each start of the seat.
    """
    size = safe_files.size_of(root, name)
    if size is None:
        safe_files.open_closed_folders(root, name)
        size = safe_files.size_of(root, name)
    return size
