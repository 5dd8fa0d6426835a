"""Find the pages that runs have written: outputs/index.html and each run's report.html."""

import re
from dataclasses import dataclass
from pathlib import Path

from common.cards import WRONG_USAGE, Card
from launcher import ROOT, settings

INDEX = "index.html"
REPORT = "report.html"
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(?:_(\d+))?")


@dataclass(frozen=True)
class Page:
    """A page in a folder of runs.

    Attributes:
        outputs: the folder of all runs.
        path: the page's path below it.
    """

    outputs: Path
    path: Path

    @property
    def file(self) -> Path:
        """Return the page's file."""
        return self.outputs / self.path


def outputs_folders() -> list[Path]:
    """Return the folders of runs: those of containers, and those without one."""
    folders = [ROOT / "outputs"]
    if setting := settings.find("LABS_OUTPUTS"):
        folders.insert(0, (ROOT / Path(setting.value).expanduser()).resolve())
    return list(dict.fromkeys(folder for folder in folders if folder.is_dir()))


def newest_report(lab: str = "") -> Page:
    """Return the newest report.

    Args:
        lab: The name of a lab, such as LLM06; every lab if empty.

    Raises:
        Card: if there are no pages.
    """
    pages = [
        Page(folder, path.relative_to(folder))
        for folder in outputs_folders()
        for path in folder.glob(f"{lab or '*'}/*/{REPORT}")
        if _STAMP.fullmatch(path.parent.name) and path.is_file()
    ]
    if not pages:
        what = f"There is no report of {lab} yet." if lab else "There is no report yet."
        why = f"Each run writes one. This clone has no finished run{f' of {lab}' if lab else ''}."
        raise Card(what, why, f"invoke lab {lab or 'LLM06'}", WRONG_USAGE)
    return max(pages, key=_started)


def newest_index() -> Page:
    """Return the page of all runs in the folder with the newest run.

    Raises:
        Card: if there are no pages.
    """
    outputs = newest_report().outputs
    if not (outputs / INDEX).is_file():
        why = f"{outputs} has none. Each run writes it at its end."
        raise Card("There is no page of all runs yet.", why, "invoke lab LLM06", WRONG_USAGE)
    return Page(outputs, Path(INDEX))


def _started(page: Page) -> tuple[str, int]:
    """Return when a run started; the second run of the same second is later."""
    match = _STAMP.fullmatch(page.path.parent.name)
    return (match[1], int(match[2] or 1)) if match else ("", 0)
