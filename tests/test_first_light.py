"""The main job, whole: each lab there is as a learner runs it, and one of them in a container too.

What differs between the two runtimes is the launcher's; the lab's own code, packages and models are
the same, so that one lab tells whether a container runs them.
"""

import json
from pathlib import Path

from labs.kit.syllabus import lessons
from tests.conftest import Clone

import pytest

LABS = pytest.mark.parametrize("lab", [lesson.name for lesson in lessons()])


def passes(clone: Clone, lab: str, runtime: str) -> None:
    ended = clone.invoke("lab", lab, "--runtime", runtime, "--seed", "3")
    assert ended.code == 0, ended
    (folder,) = (clone.outputs / lab).iterdir()
    results = json.loads((folder / "results.json").read_text("utf-8"))
    assert results["passed"] is True
    assert sum(len(one["checks"]) for one in results["experiments"]) > 20
    assert results["environment"]["stack"]["stack"] == "cpu"
    assert folder.name in ended.out.splitlines()[-1], "the last line names the report"
    page = (folder / "report.html").read_text("utf-8")
    figures = list(Path(folder, "figures").glob("*.png"))
    assert len(figures) == page.count("data:image/png;base64,") >= 2
    assert results["timings"]["peak_memory_mib"] < 4096


@pytest.mark.engine
@pytest.mark.usefixtures("engine")
def test_a_lab_passes_in_a_container(clone: Clone) -> None:
    passes(clone, "LLM06", "docker")


@LABS
@pytest.mark.usefixtures("lab_environment")
def test_a_lab_passes_in_an_environment(shared_clone: Clone, lab: str) -> None:
    passes(shared_clone, lab, "venv")
