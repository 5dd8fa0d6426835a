"""A small lab that records every kind of finding, for tests of runs and of their reports."""

import json
from pathlib import Path
from typing import Any

from tests.conftest import Clone

LAB = '''
import random
import numpy as np
import torch
import matplotlib.pyplot as plt

@lab.exercise(level=1, hints=("Add.", "a + b", "return a + b"))
def add(a, b):
    return a + b

@lab.experiment
def chance(run: Run):
    """Chance is **seeded**.

    A second paragraph, which is the prediction.
    """
    drawn = [torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random()]]
    run.check("in the unit interval", [x for row in drawn for x in row], at_least=0, at_most=1,
              because="a uniform number is one")
    run.measure("first draws", [row[0] for row in drawn], expect_at_most=0.5)
    run.measure("not a number", float("nan"), expect_at_most=1, decides=True)
    return "It was drawn."

@lab.experiment
def figures(run: Run):
    """A figure and a table are saved."""
    for name in ("line", "dots"):
        fig, ax = plt.subplots()
        ax.plot([1, 2, 3], [1, 4, 9])
        run.figure(fig, name, f"The caption of {name}")
    run.table("A table's title", ["n", "square"], [[n, n * n] for n in range(1000, 1003)])
    run.measure("elapsed", time.perf_counter(), unit="s", timed=True)
    run.check("the word", run.options.word, equals=run.options.word)
    run.check("the sum", add(1, 1), equals=2, decides=True)
'''
CHECKS = """
@checks.proves("add")
def add(module):
    if module.add(2, 3) != 5:
        raise Mistake("expected 5; did you subtract?")
"""
# A lab that needs nothing and finds nothing.
NOTHING = '''
@lab.experiment
def nothing(run: Run):
    """Nothing."""
    run.say(f"precision {run.precision}")
'''


def only_run(clone: Clone, name: str = "LLM90") -> Path:
    """Return the folder of the only run of a lab."""
    (folder,) = (clone.outputs / name).iterdir()
    return folder


def read_results(folder: Path) -> dict[str, Any]:
    """Return the results of a run; NaN and infinity aren't JSON."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} isn't JSON")

    return json.loads((folder / "results.json").read_text("utf-8"), parse_constant=refuse)


def read_page(folder: Path) -> str:
    """Return the report of a run."""
    return (folder / "report.html").read_text("utf-8")


def experiment_of(results: dict[str, Any], name: str) -> dict[str, Any]:
    """Return one experiment of some results."""
    (experiment,) = [one for one in results["experiments"] if one["name"] == name]
    return experiment
