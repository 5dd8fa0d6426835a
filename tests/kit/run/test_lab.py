"""A lab as a script, a module and a notebook; one experiment of it."""

import sys

from tests.conftest import Clone
from tests.kit.every_finding import CHECKS, LAB, NOTHING, only_run, read_page, read_results

import pytest


@pytest.mark.parametrize("processes", [1, 2])
def test_a_lab_runs_as_a_script(clone: Clone, processes: int) -> None:
    clone.kit_lab(NOTHING)
    script = str(clone.lab_folder("LLM90").relative_to(clone.path) / "lesson.py")
    words = ("--size", "full", "--precision", "fp32", "--processes", str(processes))
    ended = clone.run(sys.executable, script, *words, PYTHONPATH=str(clone.path))
    assert ended.code == 0, ended
    assert "precision fp32" in ended.out
    environment = read_results(only_run(clone))["environment"]
    assert environment["size"] == "full"
    assert environment["processes"] == processes


def test_importing_a_lab_does_and_prints_nothing(clone: Clone) -> None:
    clone.kit_lab(LAB, checks=CHECKS)
    code = "from labs.llm90_small.lesson import add; assert add(1, 2) == 3"
    ended = clone.run(sys.executable, "-c", code, PYTHONPATH=str(clone.path))
    assert (ended.code, ended.out, ended.err) == (0, "", ""), ended
    assert not clone.outputs.exists()


NOTEBOOK = """
import sys
from IPython.core.interactiveshell import InteractiveShell
import labs
from common import source
from common.syllabus import find

shell = InteractiveShell.instance()
shell.user_module.__name__ = "__main__"
sys.modules["__main__"] = shell.user_module
shell.user_ns["__name__"] = "__main__"
for cell in source.split(find("LLM90")[0].source):
    if not cell.prose:
        print("CELL", cell.title)
        shell.run_cell(cell.text).raise_error()
"""
CLOSING = """

@lab.closing
def closing(results):
    return "The sum is " + results.shown("figures", "the sum")
"""


def test_in_a_notebook_each_experiment_runs_with_its_cell(clone: Clone) -> None:
    body = LAB.replace("@lab.experiment\ndef figures", "# %% 2. More\n@lab.experiment\ndef figures")
    clone.kit_lab(body + CLOSING, checks=CHECKS)
    ended = clone.run(sys.executable, "-c", NOTEBOOK, PYTHONPATH=str(clone.path))
    assert ended.code == 0, ended
    first, second, last = ended.out.split("CELL ")[1:]
    assert first.startswith("1. Preparations")
    assert "It was drawn." in first
    assert second.startswith("2. More")
    assert "the sum" in second
    assert "The sum is 2" in last
    assert "report.html" in last
    results = read_results(only_run(clone))
    assert {one["name"] for one in results["experiments"]} == {"parts", "chance", "figures"}


BROKEN = '''
# %% 2. An exercise
@lab.exercise(level=1, hints=("Add.", "a + b", "return a + b"))
def add(a, b):
    return a +* b

# %% 3. Its claim
@lab.experiment
def sums(run: Run):
    """Sums are right."""
    run.check("sums", [add(1, n) for n in (1, 2)], equals=[2, 3], decides=True)

# %% 4. Another claim, whose own code is wrong
def twice(a):
    return 2 * b

@lab.experiment
def doubles(run: Run):
    """Doubles are right."""
    run.check("twice 2", twice(2), equals=4, decides=True)
'''


def test_in_a_notebook_a_name_of_a_cell_that_failed_needs_no_traceback(clone: Clone) -> None:
    clone.kit_lab(BROKEN, checks=CHECKS)
    code = NOTEBOOK.replace(".raise_error()", "")
    ended = clone.run(sys.executable, "-c", code, PYTHONPATH=str(clone.path))
    _, first, second, third, *_ = ended.out.split("CELL ")[1:]
    assert "SyntaxError" in first
    assert "add isn't defined: run the cell above that defines it first." in second
    assert "Traceback" not in second
    assert "name 'b' is not defined" in third, "the learner's own code is shown"
    assert "in twice" in third


# One experiment

TWO = '''
@lab.exercise(level=1, hints=("Add.", "a + b", "return a + b"))
def add(a, b):
    return a + b

@lab.experiment
def right(run: Run):
    """This one passes."""
    run.check("one", 1, equals=1, decides=True)

@lab.experiment
def wrong(run: Run):
    """This one fails."""
    run.check("two", 1, equals=2, decides=True)
'''


@pytest.mark.parametrize(("name", "code"), [("right", 0), ("wrong", 1)])
def test_only_runs_one_experiment_and_reports_it(clone: Clone, name: str, code: int) -> None:
    ended = clone.labs(clone.kit_lab(TWO, checks=CHECKS), "--only", name)
    assert ended.code == code, ended
    assert ("checks failed" in ended.err) == (code == 1)
    results = read_results(only_run(clone))
    assert [one["name"] for one in results["experiments"]] == [name]
    assert results["passed"] is (code == 0)
    page = read_page(only_run(clone))
    assert f'<section class="experiment" aria-labelledby="{name}">' in page
    assert page.count('<section class="experiment"') == 1


def test_only_in_a_lab_run_as_a_script_checks_the_name(clone: Clone) -> None:
    clone.kit_lab(TWO, checks=CHECKS)
    script = str(clone.lab_folder("LLM90") / "lesson.py")
    ended = clone.run(sys.executable, script, "--only", "rights", PYTHONPATH=str(clone.path))
    assert ended.code == 2, ended
    assert "what: LLM90 has no experiment 'rights'." in ended.err
