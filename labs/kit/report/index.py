"""outputs/index.html: all runs, the newest first, and two runs of a lab side by side.

Each run writes the page anew from what the run folders contain, so that no run is lost if two end
at once. The last one to write has seen all of them.
"""

import fcntl
import json
import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from labs.kit.report import comparison, runs
from labs.kit.report.runs import Run

import jinja2
from markupsafe import Markup

PAGE = "index.html"
_PART = (".index-", ".part")
LOCK_SECONDS = 10  # a write takes less than two; a lock that is held longer is not waited for


def update(outputs: Path) -> Path:
    """Write the page of all runs below a folder, in one step; return its path.

    Raises:
        OSError: if it can't be written.
    """
    with _lock(outputs):
        for left_behind in outputs.glob("*".join(_PART)):  # by a run that was killed
            left_behind.unlink(missing_ok=True)
        page = _render(runs.find(outputs))
        # No temporary file of Python's: its mode would have to change, and a sheet may not do that.
        part = outputs / str(os.getpid()).join(_PART)
        try:
            part.write_text(page, encoding="utf-8")
            part.replace(outputs / PAGE)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    return outputs / PAGE


@contextmanager
def _lock(folder: Path) -> Generator[None]:
    """Hold a lock on a folder, or go on without one where that takes too long."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        with suppress(OSError):
            os.close(descriptor)  # releases the lock


def _render(found: Sequence[Run]) -> str:
    """Return the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("index.html.j2").render(
        listed=[run for run in found if not run.unfinished],
        unfinished=[run for run in found if run.unfinished],
        labs=sorted({run.lab for run in found}),
        data=_as_script_data(_comparable(found)),
    )


def _comparable(found: Sequence[Run]) -> dict[str, Any]:
    """Return what the page compares: for each lab the rows, and the values of each run."""
    labs: dict[str, Any] = {}
    for lab in sorted({run.lab for run in found}):
        complete = [run for run in found if run.lab == lab and run.results]
        rows, values = comparison.of_lab(complete)
        groups = list(dict.fromkeys(row.group for row in rows))
        labs[lab] = {
            "groups": groups,
            "rows": [[groups.index(row.group), row.name, row.is_verdict] for row in rows],
            "started": {run.name: run.when for run in complete},
            "runs": {run.name: one for run, one in zip(complete, values, strict=True)},
        }
    return {
        "labs": labs,
        "timings": comparison.TIMINGS,
        "environment": comparison.ENVIRONMENT,
    }


def _as_script_data(data: dict[str, Any]) -> Markup:
    """Return data as JSON that is safe inside a script element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))
