"""The runs below outputs/, read from their files. Any file of a run may be missing or damaged."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from labs.kit.records import PARTS

MAX_RESULTS = 20 * 2**20  # bytes; the largest results.json of the labs has 40 KB
STAMP = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)(?:_(\d+))?")
VIEW_BOX = re.compile(r'<svg\b[^>]*viewBox="\S+ \S+ ([\d.]+) ([\d.]+)"')
FIRST_LETTERS = 2_000  # of an SVG file; matplotlib's viewBox is within the first 500
PICTURES = (".svg", ".png")
NOT_FINISHED = "not finished"
UNREADABLE = "unreadable"
# The order in which a page counts verdicts, and the only verdicts that it knows.
VERDICTS = ("crashed", "failed", "held", "not held", "inconclusive", "shown")


@dataclass(frozen=True)
class Run:
    """One run of a lab, as far as its folder can be read.

    Attributes:
        lab: the name of its lab's folder below outputs/, such as LLM06.
        name: the name of its folder, such as 2026-11-25_14-03-59.
        state: empty for a complete run, else NOT_FINISHED or UNREADABLE.
        report: whether it has a report.html.
        figure: the path of its best figure below outputs/; empty without a figure.
        results: its results.json; empty unless it is complete.
    """

    lab: str
    name: str
    state: str = ""
    report: bool = False
    figure: str = ""
    results: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def path(self) -> str:
        """Its folder below outputs/."""
        return f"{self.lab}/{self.name}"

    @property
    def when(self) -> str:
        """When it started: 2026-11-25 14:03:59."""
        match = STAMP.fullmatch(self.name)
        return f"{match[1]} {match[2]}:{match[3]}:{match[4]}" if match else self.name

    @property
    def order(self) -> tuple[str, int, str]:
        """A key that sorts runs by their start; the second run of the same second is later."""
        match = STAMP.fullmatch(self.name)
        return (self.when, int(match[5] or 1) if match else 0, self.lab)

    @property
    def title(self) -> str:
        """The title of its lab."""
        return text(self.results.get("title"))

    @property
    def environment(self) -> dict[str, Any]:
        """What its results depend on."""
        return mapping(self.results.get("environment"))

    @property
    def timings(self) -> dict[str, Any]:
        """What another run with the same environment may find otherwise."""
        return mapping(self.results.get("timings"))

    @property
    def seconds(self) -> float | None:
        """How long its experiments took."""
        seconds = self.timings.get("seconds")
        return float(seconds) if isinstance(seconds, int | float) else None

    @property
    def experiments(self) -> list[dict[str, Any]]:
        """Its experiments, each with the verdict that the report shows."""
        timed = mapping(self.timings.get("experiments"))
        found = mappings(self.results.get("experiments"))
        return [{**one, "verdict": _verdict(one, timed)} for one in found]

    @property
    def unfinished(self) -> bool:
        """Whether it found nothing yet: it still runs, or it was interrupted."""
        return self.state == NOT_FINISHED or not (self.state or self.experiments)

    @property
    def partial(self) -> str:
        """Which part of its lab was run, "only NAME" or "3 of 12 experiments"; else empty."""
        missing = self.results.get("not_run")
        left_out = len(cast(list[Any], missing)) if isinstance(missing, list) else 0
        names = [text(one.get("name")) for one in self.experiments]
        names = [name for name in names if name != PARTS]
        if not left_out:
            return ""
        if len(names) == 1:
            return f"only {names[0]}"
        return f"{len(names)} of {len(names) + left_out} experiments"

    @property
    def verdicts(self) -> dict[str, int]:
        """The number of experiments with each verdict."""
        counted = Counter(one["verdict"] for one in self.experiments)
        return {verdict: counted[verdict] for verdict in VERDICTS if counted[verdict]}


def text(value: Any) -> str:
    """Return a value of a results.json as text; empty for None."""
    return "" if value is None else str(value)


def mapping(value: Any) -> dict[str, Any]:
    """Return a value of a results.json if it is an object, else an empty one."""
    if not isinstance(value, dict):
        return {}
    return {str(key): member for key, member in cast(dict[Any, Any], value).items()}


def mappings(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a value of a results.json; none if it isn't an array."""
    members = cast(list[Any], value) if isinstance(value, list) else []
    return [mapping(member) for member in members if isinstance(member, dict)]


def _verdict(experiment: dict[str, Any], timed: dict[str, Any]) -> str:
    """Return an experiment's verdict; one that depends on time is among the timings."""
    name = text(experiment.get("name"))
    verdict = text(mapping(timed.get(name)).get("verdict")) or text(experiment.get("verdict"))
    return verdict if verdict in VERDICTS else "shown"


def find(outputs: Path) -> list[Run]:
    """Return every run below a folder, the newest first. Links are not followed."""
    runs = [_read(folder) for lab in _folders(outputs) for folder in _folders(lab)]
    return sorted((run for run in runs if run), key=lambda run: run.order, reverse=True)


def _folders(folder: Path) -> Iterator[Path]:
    """Yield the folders in a folder; none if it can't be read."""
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return
    yield from (path for path in paths if path.is_dir() and not path.is_symlink())


def _read(folder: Path) -> Run | None:
    """Read a run; None for a folder that isn't one."""
    lab = folder.parent.name
    if not STAMP.fullmatch(folder.name):
        return None
    report = (folder / "report.html").is_file()
    try:
        results = _results(folder / "results.json")
    except FileNotFoundError:
        return Run(lab, folder.name, NOT_FINISHED, report)
    except (OSError, ValueError, RecursionError):
        return Run(lab, folder.name, UNREADABLE, report)
    return Run(lab, folder.name, "", report, _best_figure(folder, results), results)


def _results(path: Path) -> dict[str, Any]:
    """Return a results.json.

    Raises:
        ValueError: if it is damaged or far too large.
    """
    if path.stat().st_size > MAX_RESULTS:
        raise ValueError("results.json is too large")
    results = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(results, dict):
        raise ValueError("results.json is not an object")
    return mapping(results)


def _best_figure(folder: Path, results: dict[str, Any]) -> str:
    """Return the figure to show for a run: the widest of the claims that were decided.

    A wide figure stays legible in a small picture; of several the first one counts. A run of an
    older version doesn't list its figures. Its newest file counts.
    """
    files = _pictures(folder / "figures")
    decided: list[str] = []
    others: list[str] = []
    for experiment in mappings(results.get("experiments")):
        names = experiment.get("figures")
        listed = [text(name) for name in cast(list[Any], names)] if isinstance(names, list) else []
        shown = experiment.get("verdict") == "shown"
        (others if shown else decided).extend(name for name in listed if name in files)
    candidates = decided or others or files[:1]
    if not candidates:
        return ""
    name = max(candidates, key=lambda name: _width_to_height(folder / "figures" / name))
    return f"{folder.parent.name}/{folder.name}/figures/{name}"


def _width_to_height(picture: Path) -> float:
    """Return the ratio of an SVG file's sides; 0 for any other file."""
    try:
        with picture.open(encoding="utf-8", errors="replace") as file:
            box = VIEW_BOX.search(file.read(FIRST_LETTERS))
        return float(box[1]) / float(box[2]) if box else 0.0
    except (OSError, ValueError, ZeroDivisionError):
        return 0.0


def _pictures(folder: Path) -> list[str]:
    """Return the names of the figures in a folder, the newest first."""
    try:
        files = [path for path in folder.iterdir() if path.suffix in PICTURES]
        files = [path for path in files if path.is_file() and not path.is_symlink()]
        files.sort(key=lambda path: (path.stat().st_mtime, path.name), reverse=True)
    except OSError:
        return []
    return [path.name for path in files]
