"""A small lab with two exercises, for tests of what a learner does with a lab.

A conftest imports the fixtures `school` and `sheet` from here.
"""

import shutil

from common.sheets import SENTINEL
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
    run.check("one, two and three", counter.total, equals=6, decides=True)
    return f"They come to {counter.total}."


# %% [markdown]
# ## What surprised
# Nothing. **Read on**: Peano 1889.
'''
CHECKS = """

@checks.proves("add")
def add(module):
    got = module.add(2, 3)
    if got == -1:
        raise Mistake("is that a difference?")
    if got != 5:
        raise Mistake(f"expected 5, got {got}")


@checks.proves("Counter.count")
def counter(module):
    counter = module.Counter()
    if [counter.count(1), counter.count(2)] != [1, 3]:
        raise Mistake("expected 1 and 3: is the total kept?")
"""
DEEPER = '''
@lab.exercise(level=3, hints=("How often is a added?", "Use a loop.", "return a * b"))
def multiply(a, b):
    """The product of two numbers."""
    return a * b  # the deeper answer


# %% 2. A claim
@lab.experiment
def seven_times_six(run: Run):
    """Seven times six is forty-two."""
    run.check("seven times six", multiply(7, 6), equals=42, decides=True)


# %% [markdown]
# ## What surprised
# The number. **Read on**: Adams 1979.
'''
DEEPER_CHECKS = """

@checks.proves("multiply")
def multiply(module):
    if module.multiply(2, 5) != 10:
        raise Mistake("is that a sum?")
"""
OPENING = (
    "# **You will be able to** add, and to count. **Builds on** nothing. **Takes** a minute.\n"
)
LESSON = "labs/llm90_small/lesson.py"
SHEET = "work/llm90_small.py"
DEEPER_SHEET = "work/llm90_small_deeper.py"


@pytest.fixture
def school(clone: Clone) -> Clone:
    """A clone whose only lab, LLM90, has two exercises and one experiment."""
    for folder in (clone.path / "labs").glob("llm*"):
        shutil.rmtree(folder)
    clone.kit_lab(LAB, checks=CHECKS)
    clone.change(LESSON, "# Some **prose** for the report.\n", OPENING)
    return clone


@pytest.fixture
def sheet(school: Clone) -> Clone:
    """A school with an untouched sheet of LLM90."""
    ended = school.labs("learn", "LLM90")
    assert ended.code == 0, ended
    return school


@pytest.fixture
def deeper(school: Clone) -> Clone:
    """A school whose lab has a deeper part with one exercise and one experiment."""
    school.kit_lab(LAB, checks=CHECKS + DEEPER_CHECKS)
    school.change(LESSON, "# Some **prose** for the report.\n", OPENING)
    school.deeper_part(DEEPER)
    return school


def write(school: Clone, old: str, new: str) -> None:
    """Change the sheet, as a learner does."""
    school.change(SHEET, old, new)


def write_next(school: Clone, body: str, sheet: str = SHEET) -> None:
    """Write the body of the first exercise that isn't written yet."""
    path = school.path / sheet
    path.write_text(path.read_text().replace(SENTINEL, body, 1))
