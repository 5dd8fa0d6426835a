"""Where a learner stands in a lab: which exercises are done, tried and not started."""

from collections.abc import Collection
from dataclasses import dataclass

from common.progress import Part, Record
from common.syllabus import Lesson

MARKS = {"done": "✓", "tried": "✗", "not started": "·"}
# Of a class as CSV, with a line for each learner and exercise.
COLUMNS = (
    *("learner", "lab", "exercise", "state", "tries", "hints asked for", "solution", "done"),
    "stuck",
)
STUCK_TRIES = 5  # different texts of one exercise that were all wrong


@dataclass(frozen=True)
class Standing:
    """A learner's progress in one lab."""

    lesson: Lesson
    exercises: tuple[str, ...]
    record: Record

    @property
    def parts(self) -> dict[str, Part]:
        """The progress on each exercise that the lab has today, in its order."""
        return {name: self.record.parts.get(name, Part()) for name in self.exercises}

    @property
    def marks(self) -> str:
        """A mark for each exercise."""
        return "".join(MARKS[part.state] for part in self.parts.values())

    def count(self, state: str) -> int:
        """Return the number of exercises in a state."""
        return sum(part.state == state for part in self.parts.values())

    @property
    def started(self) -> bool:
        """Whether any exercise was tried."""
        return self.count("not started") < len(self.exercises)

    @property
    def finished(self) -> bool:
        """Whether every exercise is done; a lab without exercises is never unfinished."""
        return self.count("done") == len(self.exercises)

    def is_stuck(self, exercise: str) -> bool:
        """Return whether an exercise was wrong many times."""
        part = self.parts[exercise]
        return part.state == "tried" and part.tries >= STUCK_TRIES

    @property
    def stuck(self) -> list[str]:
        """Return the exercises that were wrong many times, as text for people."""
        name = self.lesson.name
        return [
            f"{name} {exercise} ({part.tries} tries)"
            for exercise, part in self.parts.items()
            if self.is_stuck(exercise)
        ]

    def csv_rows(self, learner: str) -> list[tuple[str | int, ...]]:
        """Return a line of CSV for each exercise, with `COLUMNS`."""
        return [
            (
                *(learner, self.lesson.name, name, part.state, part.tries, part.requested_hints),
                *("yes" if part.solution else "", part.done.replace("+00:00", "Z")),
                "yes" if self.is_stuck(name) else "",
            )
            for name, part in self.parts.items()
        ]


def has_begun(standing: Standing, work: Collection[str]) -> bool:
    """Return whether a learner has tried an exercise or has the sheet.

    Args:
        standing: The learner's progress in the lab.
        work: The names in the learner's folder of sheets.
    """
    return standing.started or (bool(standing.exercises) and standing.lesson.sheet_name in work)
