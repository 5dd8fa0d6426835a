"""A small lab with two exercises, for what a learner does with a lab."""

from tests.conftest import Clone

import pytest

LAB = '''
@lab.exercise(level=1, hints=("Which sign adds?", "It is a cross.", "return a + b"))
def add(a, b):
    """The sum of two numbers."""
    return a + b  # the answer, in a trailing comment


class Counter:
    def __init__(self):
        self.total = 0

    @lab.exercise(level=2, hints=("What is there already?", "Use add.", "self.total = add(…)"))
    def count(self, n):
        """Add n to the total, and return it."""
        self.total = add(self.total, n)
        return self.total


# %% 2. A claim
@lab.experiment
def counting_adds(run: Run):
    """Counting adds.

    Predict: what do one, two and three come to?
    """
    counter = Counter()
    for n in (1, 2, 3):
        counter.count(n)
    run.check("one, two and three", counter.total, equals=6)
    return f"They come to {counter.total}."


# %% [markdown]
# ## What surprised
# Nothing. **Read on**: Peano 1889.
'''
CHECKS = """
from labs.kit import Mistake

def add(implementation):
    got = implementation(2, 3)
    if got == -1:
        raise Mistake("is that a difference?")
    if got != 5:
        raise Mistake(f"5 was expected, {got} came")

def counter(implementation):
    one = implementation()
    if [one.count(1), one.count(2)] != [1, 3]:
        raise Mistake("1 and 3 were expected: is the total kept?")
"""
OPENING = (
    "# **You will be able to** add, and to count. **Builds on** nothing. **Takes** a minute.\n"
)


@pytest.fixture
def school(clone: Clone) -> Clone:
    """A clone whose one lab, LLM90, has two exercises and one experiment."""
    for path in (clone.path / "labs").glob("llm*.py"):
        path.unlink()
    clone.kit_lab(LAB, checks=CHECKS)
    clone.change("labs/llm90_small.py", "# Some **prose** for the report.\n", OPENING)
    return clone


def write(school: Clone, old: str, new: str) -> None:
    """Change the sheet, as a learner does."""
    school.change("work/llm90_small.py", old, new)
