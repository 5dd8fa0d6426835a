"""Run each lab as a learner does, in an environment.

A lab has the same code, packages and models in a container: test_container_run runs one there.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common.syllabus import lessons
from tests.browser import page_of
from tests.conftest import Clone, Ended
from tests.kit.report.page_rules import require_good_page_of_a_lab

import pytest

# Every lesson, and one deeper part; the others together take longer than all lessons.
LABS = pytest.mark.parametrize(
    "lab",
    [
        pytest.param(
            lesson.name,
            marks=[pytest.mark.slow] if lesson.deeper and lesson.name != "LLM09+" else [],
        )
        for lesson in lessons()
    ],
)
VIEWS = {  # the interactive views of each lab, as its page has them
    "LLM01": ["tokens", "sampler"],
    "LLM02": ["graph", "boundary"],
    "LLM03": ["plane"],
    "LLM04": ["merges", "tokens"],
    "LLM05a": ["norms"],
    "LLM05b": ["rotation", "lengths"],
    "LLM06": ["five_words", "attention"],
    "LLM07": ["low_rank"],
    "LLM08": ["batch"],
    "LLM10": ["curve", "tokens"],
    "LLM10+": ["attention"],
}
# What a key is pressed on: a token, a slider, or a word.
CONTROLS = (
    "[role=option][tabindex='0'], .view-batch [tabindex='0'], input[type=range], tbody button"
)
# Which key changes it: at its start, a slider or the choice in a batch only moves to the right.
KEY = """control => {
  if (control.tagName === "BUTTON") return "Enter";
  if (control.closest(".view-batch")) return "ArrowRight";
  return control.type === "range" && control.value === control.min ? "ArrowRight" : "ArrowLeft";
}"""
AT_ONCE = os.cpu_count() or 1  # with one thread each: such small models gain little from two


def run(clone: Clone, lab: str, runtime: str, **environment: str) -> Ended:
    return clone.invoke("lab", lab, "--runtime", runtime, "--seed", "3", **environment)


@pytest.fixture(scope="module")
def running(
    request: pytest.FixtureRequest, shared_clone: Clone
) -> Iterator[dict[str, Future[Ended]]]:
    """Start each lab that a test needs in the environment, several side by side."""
    request.getfixturevalue("lab_environment")
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    needed = [test for test in tests if not test.get_closest_marker("skip")]
    mine = [test for test in needed if "running" in test.fixturenames]
    labs = dict.fromkeys(str(test.callspec.params["lab"]) for test in mine)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            lab: pool.submit(run, shared_clone, lab, "venv", OMP_NUM_THREADS="1") for lab in labs
        }


def folder_of(clone: Clone, lab: str, ended: Ended) -> Path:
    """Return the folder of a run; the last line names its report.

    Earlier tests may have left other runs of the lab in this clone.
    """
    assert ended.code == 0, ended
    return clone.outputs / lab / Path(ended.out.splitlines()[-1]).parent.name


def require_good_run(clone: Clone, lab: str, ended: Ended) -> None:
    folder = folder_of(clone, lab, ended)
    results = json.loads((folder / "results.json").read_text("utf-8"))
    assert results["passed"] is True
    deeper = lab.endswith("+")
    checks = sum(len(experiment["checks"]) for experiment in results["experiments"])
    assert checks > (2 if deeper else 10)
    verdicts = [experiment["verdict"] for experiment in results["experiments"]]
    assert not {"failed", "crashed"} & set(verdicts)
    assert results["environment"]["stack"]["stack"] == "cpu"
    page = (folder / "report.html").read_text("utf-8")
    figures = list(Path(folder, "figures").glob("*.svg"))
    assert len(figures) == page.count('<svg class="drawing"') >= (1 if deeper else 2)
    assert results["timings"]["peak_memory_mib"] < 4096


@LABS
def test_a_lab_passes_in_an_environment(
    shared_clone: Clone, running: dict[str, Future[Ended]], lab: str
) -> None:
    require_good_run(shared_clone, lab, running[lab].result())


@LABS
def test_the_page_of_a_lab_is_a_good_page(
    browser: Any, shared_clone: Clone, running: dict[str, Future[Ended]], lab: str
) -> None:
    folder = folder_of(shared_clone, lab, running[lab].result())
    require_good_page_of_a_lab(browser, folder / "report.html")


@pytest.mark.parametrize(
    "lab",
    [pytest.param(lab, marks=[pytest.mark.slow] if lab.endswith("+") else []) for lab in VIEWS],
)
def test_the_views_of_a_lab_respond_to_a_key(
    browser: Any, shared_clone: Clone, running: dict[str, Future[Ended]], lab: str
) -> None:
    from playwright.sync_api import expect

    folder = folder_of(shared_clone, lab, running[lab].result())
    with page_of(browser, folder / "report.html", 1280, "light") as page:
        views = page.locator("figure.view").all()
        assert [view.get_attribute("data-view") for view in views] == VIEWS[lab]
        for view in views:
            line = view.locator(".view-live")
            expect(line).not_to_be_empty()
            before = line.text_content()
            control = view.locator(CONTROLS).first
            control.press(control.evaluate(KEY))
            expect(line).not_to_have_text(before or "")
