"""Which labs there are, read from their files; and what a learner may call them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from labs.kit.cards import WRONG_USAGE, Card

LABS = Path(__file__).resolve().parent.parent
_FILE = re.compile(r"llm(\d\d)([a-z]?)_\w+\.py")
_CALLED = re.compile(r"(?:llm)?[-_ ]?0*(\d{1,2})([a-z]?)", re.IGNORECASE)
_HEADING = re.compile(r"^# # \S+ · (?P<title>.+)\n# (?P<blurb>.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Lesson:
    """One lab: its name ("LLM06"), file, title and the one line that says what it is."""

    name: str
    path: Path
    title: str
    blurb: str
    text: str = ""  # a sheet's, which its learner may change while it runs
    yours: tuple[str, ...] | None = None  # of a sheet: the parts that its learner wrote

    @property
    def source(self) -> str:
        """The whole file."""
        return self.text or self.path.read_text(encoding="utf-8")

    @property
    def module(self) -> str:
        return f"labs.{self.path.stem}"


def lessons(folder: Path = LABS) -> list[Lesson]:
    """Every lab in `folder`, in the order of the course."""
    return [_read(path) for path in sorted(folder.glob("llm*.py")) if _FILE.fullmatch(path.name)]


def _read(path: Path) -> Lesson:
    heading = _HEADING.search(path.read_text(encoding="utf-8"))
    if heading is None:
        raise ValueError(f"{path}: its first cell lacks the heading '# # NAME · title' and a line")
    name = re.sub(_FILE, r"LLM\1\2", path.name)
    return Lesson(name, path, heading["title"].strip(), heading["blurb"].strip())


def find(text: str, among: Iterable[Lesson] | None = None) -> list[Lesson]:
    """The labs that `text` asks for: a name, a number, a comma list or `all`.

    Raises:
        Card: where a name is unknown; it lists the nearest ones.
    """
    known = {lesson.name: lesson for lesson in (lessons() if among is None else among)}
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise Card("No lab was named.", "The name is empty.", "invoke labs", WRONG_USAGE)
    names = [name for word in words for name in _names(word, known)]
    return [known[name] for name in dict.fromkeys(names)]


def _names(word: str, known: dict[str, Lesson]) -> list[str]:
    return list(known) if word.lower() == "all" else [_name(word, known)]


def _name(word: str, known: dict[str, Lesson]) -> str:
    called = _CALLED.fullmatch(word.strip())
    name = f"LLM{int(called[1]):02d}{called[2].lower()}" if called else word.strip()
    if name in known:
        return name
    near = [other for other in known if other.startswith(name)]
    near += [one.name for one in known.values() if word.lower() in one.title.lower()]
    near = near or get_close_matches(name.upper(), known, n=3, cutoff=0.5)
    raise Card(
        f"There is no lab called {word.strip()!r}.",
        f"Nearest: {', '.join(near)}." if near else f"So far there are: {', '.join(known)}.",
        "invoke labs",
        WRONG_USAGE,
    )
