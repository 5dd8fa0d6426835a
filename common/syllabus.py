"""The labs of the course, read from their files, and the names that a learner may type."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from common.cards import WRONG_USAGE, Card

LABS = Path(__file__).resolve().parent.parent / "labs"
ALL = "all"  # every lesson
ALL_SITTINGS = "all+"  # every lesson and every deeper part
_FOLDER = re.compile(r"llm(\d\d)([a-z]?)_\w+")
_FILES = {"lesson.py": "", "deeper.py": "+"}  # a lab's sittings, by the end of their names
_TYPED = re.compile(r"(?:llm)?[-_ ]?0*(\d{1,2})([a-z]?)(\+?)", re.IGNORECASE)
_HEADING = re.compile(r"^# # \S+ · (?P<title>.+)\n# (?P<blurb>.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Lesson:
    """One sitting of a lab.

    Attributes:
        name: "LLM06" for the lesson, "LLM06+" for the deeper part.
        path: the file that teaches it.
        title: its title, from the first cell.
        blurb: one line on its content, from the first cell.
        sheet: a learner's sheet that is run in place of the file.
        text: the sheet's text: its learner may change the file during the run.
        yours: the exercises that the learner wrote; None unless a sheet is run.
    """

    name: str
    path: Path
    title: str
    blurb: str
    sheet: Path | None = None
    text: str = ""
    yours: tuple[str, ...] | None = None

    @property
    def source(self) -> str:
        """The text that is run: the sheet's, or the file's."""
        return self.text or self.path.read_text(encoding="utf-8")

    @property
    def deeper(self) -> bool:
        """Whether this is the second sitting of a lab."""
        return self.name.endswith("+")

    @property
    def folder(self) -> str:
        """The name of the lab's folder."""
        return self.path.parent.name

    @property
    def module(self) -> str:
        """The module that teaches it."""
        return f"labs.{self.folder}.{self.path.stem}"

    @property
    def checks_module(self) -> str:
        """The module with the checks of its exercises."""
        return f"labs.{self.folder}.checks"

    @property
    def sheet_name(self) -> str:
        """The file name of a learner's sheet."""
        return f"{self.folder}_deeper.py" if self.deeper else f"{self.folder}.py"


def lessons(folder: Path = LABS) -> list[Lesson]:
    """Return every sitting below `folder`, in the order of the course."""
    folders = sorted(path for path in folder.glob("llm*") if _FOLDER.fullmatch(path.name))
    files = (path / name for path in folders for name in _FILES)
    return [_read(path) for path in files if path.is_file()]


def _read(path: Path) -> Lesson:
    heading = _HEADING.search(path.read_text(encoding="utf-8"))
    if heading is None:
        raise ValueError(f"{path}: its first cell needs the heading '# # NAME · title' and a line")
    name = re.sub(_FOLDER, r"LLM\1\2", path.parent.name) + _FILES[path.name]
    return Lesson(name, path, heading["title"].strip(), heading["blurb"].strip())


def find(text: str, among: Iterable[Lesson] | None = None) -> list[Lesson]:
    """Return the labs that `text` names: a name, a number, a comma list, `all` or `all+`.

    Raises:
        Card: for an unknown name; it lists the nearest ones.
    """
    known = {lesson.name: lesson for lesson in (lessons() if among is None else among)}
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise Card("No lab was named.", "The name is empty.", "invoke labs", WRONG_USAGE)
    names = [name for word in words for name in _names(word, known)]
    return [known[name] for name in dict.fromkeys(names)]


def following(lesson: Lesson) -> Lesson | None:
    """Return the next lesson of the course, after either sitting of a lab."""
    later = (other for other in lessons() if other.folder > lesson.folder and not other.deeper)
    return next(later, None)


def deeper_part(lesson: Lesson) -> Lesson | None:
    """Return the deeper part of a lesson; None for a lab without one."""
    return next((other for other in lessons() if other.name == f"{lesson.name}+"), None)


def _names(word: str, known: dict[str, Lesson]) -> list[str]:
    if word.lower() == ALL_SITTINGS:
        return list(known)
    if word.lower() == ALL:
        return [name for name, lesson in known.items() if not lesson.deeper]
    return [_name(word, known)]


def _name(word: str, known: dict[str, Lesson]) -> str:
    typed = _TYPED.fullmatch(word)
    name = f"LLM{int(typed[1]):02d}{typed[2].lower()}{typed[3]}" if typed else word
    if name in known:
        return name
    near = [other for other in known if other.startswith(name.removesuffix("+"))]
    near += [lesson.name for lesson in known.values() if word.lower() in lesson.title.lower()]
    near = near or get_close_matches(name.upper(), known, n=3, cutoff=0.5)
    raise Card(
        f"There is no lab called {word!r}.",
        f"Nearest: {', '.join(near)}." if near else f"The labs are: {', '.join(known)}.",
        "invoke labs",
        WRONG_USAGE,
    )
