"""The main job, whole: each lab there is as a learner runs it, and one of them in a container too.

What differs between the two runtimes is the launcher's; the lab's own code, packages and models are
the same, so that one lab tells whether a container runs them.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from labs.kit.syllabus import lessons
from tests.conftest import Clone, Ended

import pytest

LABS = pytest.mark.parametrize("lab", [lesson.name for lesson in lessons()])
AT_ONCE = os.cpu_count() or 1  # one thread each: models this small gain little from a second


def run(clone: Clone, lab: str, runtime: str, **environment: str) -> Ended:
    return clone.invoke("lab", lab, "--runtime", runtime, "--seed", "3", **environment)


@pytest.fixture(scope="module")
def running(
    request: pytest.FixtureRequest, shared_clone: Clone
) -> Iterator[dict[str, Future[Ended]]]:
    """Each lab that is asked for, in the environment, several side by side."""
    request.getfixturevalue("lab_environment")
    tests = [one for one in request.session.items if isinstance(one, pytest.Function)]
    mine = [one for one in tests if "running" in one.fixturenames]
    labs = [str(one.callspec.params["lab"]) for one in mine]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        start = {lab: (shared_clone, lab, "venv") for lab in labs}
        yield {lab: pool.submit(run, *how, OMP_NUM_THREADS="1") for lab, how in start.items()}


def passed(clone: Clone, lab: str, ended: Ended) -> None:
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
    passed(clone, "LLM06", run(clone, "LLM06", "docker"))


@LABS
def test_a_lab_passes_in_an_environment(
    shared_clone: Clone, running: dict[str, Future[Ended]], lab: str
) -> None:
    passed(shared_clone, lab, running[lab].result())
