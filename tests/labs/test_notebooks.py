"""Each lab as a notebook: IPython runs its cells in order, each experiment where it is defined."""

import json
import sys
from pathlib import Path

from common.syllabus import Lesson, lessons
from tests.conftest import Clone

import pytest

RUN_CELLS = """
import sys
from IPython.core.interactiveshell import InteractiveShell
from common import source

shell = InteractiveShell.instance()
shell.user_ns["__name__"] = "__main__"
for cell in source.split(open(sys.argv[1], encoding="utf-8").read()):
    if not cell.prose:
        shell.run_cell(cell.text).raise_error()
"""


@pytest.mark.slow
@pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.name)
def test_the_cells_of_a_lab_run_to_the_end(lesson: Lesson, clone: Clone, labs_home: Path) -> None:
    home = {"LABS_HOME": str(labs_home), "PYTHONPATH": str(clone.path), "MPLBACKEND": "Agg"}
    ended = clone.run(
        sys.executable, "-c", RUN_CELLS, f"labs/{lesson.folder}/{lesson.path.name}", **home
    )
    assert ended.code == 0, ended
    (path,) = (clone.outputs / lesson.name).glob("*/results.json")  # LLM10 also saves its model
    results = json.loads(path.read_text(encoding="utf-8"))
    assert results["passed"] is True
    assert len(results["experiments"]) > (1 if lesson.deeper else 3)
