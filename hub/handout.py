"""Hand out a lab: write its sheet into the work/ of every learner without one."""

from dataclasses import dataclass, field
from pathlib import Path

from common import safe_files, sheets
from common.syllabus import find
from hub import learners
from launcher.hub.folder import LEARNERS


@dataclass
class HandedOut:
    """Whose work/ a sheet was written to, who had one, and who couldn't get it."""

    written: list[str] = field(default_factory=list[str])
    had: list[str] = field(default_factory=list[str])
    failed: list[str] = field(default_factory=list[str])


def hand_out(workshop: Path, lab: str, names: list[str]) -> dict[str, HandedOut]:
    """Write the sheets of labs; return what happened, by lab.

    Args:
        workshop: The folder workshop/.
        lab: The labs, as `invoke learn` takes them.
        names: The learners.

    Raises:
        Card: If there is no such lab.
    """
    result: dict[str, HandedOut] = {}
    for lesson in find(lab):
        if not sheets.exercises(lesson.source):
            continue
        content = sheets.make(lesson.name, lesson.source).encode()
        result[lesson.name] = _to_all(workshop, lesson.sheet_name, content, names)
    return result


def _to_all(workshop: Path, sheet: str, content: bytes, names: list[str]) -> HandedOut:
    done = HandedOut()
    for name in names:
        try:
            learners.make_folders(workshop, name)
            with safe_files.open_folder(workshop / LEARNERS, name, "work") as work:
                new = safe_files.write_new_file(work, sheet, content)
        except (OSError, ValueError):
            done.failed.append(name)
        else:
            (done.written if new else done.had).append(name)
    return done


def describe(lab: str, result: HandedOut) -> str:
    """Return what happened with a lab's sheet, for the teacher."""
    text = f"{lab} went to {len(result.written)} of {len(result.written + result.had)} learners"
    have = "has" if len(result.had) == 1 else "have"
    text += f"; {len(result.had)} {have} it already." if result.had else "."
    return f"{text} It failed for {', '.join(result.failed)}." if result.failed else text
