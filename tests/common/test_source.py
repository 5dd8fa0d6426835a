"""A lab's source: cells, functions, experiments and the closing."""

from common import source
from common.cards import Card
from common.source import require_experiment

import pytest

SOURCE = '''"""Left out."""
import nothing

# %% [markdown]
# # LLM90 · A title
# A line with `code`.
#
#   indented

# %% 1. First
import math

def helper():
    return math.pi

@decorated(
    level=1,
)
def part(x):
    """Says."""
    return x

# %%
last = 1
'''
EXPERIMENTS = '''
@lab.experiment
def rows_sum_to_one(run):
    """Every row
    sums to one.

    Predict: to what?
    """


def helper():
    """No experiment."""


@lab.experiment
def masks_hide_the_future(run):
    """A causal mask hides the future."""


@lab.closing
def summary(results):
    return "The end."
'''


def test_cells_are_prose_or_code_in_file_order() -> None:
    first, second, third = source.split(SOURCE)
    assert (first.prose, first.title) == (True, "")
    assert first.text == "# LLM90 · A title\nA line with `code`.\n\n  indented"
    assert (second.prose, second.title) == (False, "1. First")
    assert second.text.startswith("import math")
    assert (third.title, third.text) == ("", "last = 1")


def test_a_cell_has_the_number_of_its_first_line() -> None:
    lines = SOURCE.splitlines()
    assert all(lines[cell.first_line - 1].startswith("# %%") for cell in source.split(SOURCE))


def test_functions_are_found_with_their_decorators() -> None:
    found = source.functions(SOURCE)
    assert set(found) == {"helper", "part"}
    assert found["part"].source.startswith("@decorated(")
    assert SOURCE.splitlines()[found["part"].line - 1] == "@decorated("
    assert found["part"].source.endswith("return x")


def test_a_file_without_marks_has_no_cells() -> None:
    assert source.split("x = 1\n") == []


def test_experiments_are_listed_with_their_claims_in_file_order() -> None:
    assert list(source.experiments(EXPERIMENTS).items()) == [
        ("rows_sum_to_one", "Every row sums to one."),
        ("masks_hide_the_future", "A causal mask hides the future."),
    ]


def test_the_closing_is_found_by_its_decorator() -> None:
    assert source.closing(EXPERIMENTS) == "summary"


def test_a_lab_without_a_closing_has_an_empty_name_for_it() -> None:
    assert source.closing(SOURCE) == ""


def test_an_experiment_that_exists_passes() -> None:
    require_experiment("LLM90", EXPERIMENTS, "masks_hide_the_future")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("future", "Nearest: masks_hide_the_future."),
        ("Rows_Sum", "Nearest: rows_sum_to_one."),
        ("rows_sums_to_ones", "Nearest: rows_sum_to_one."),
        ("mask_hides_the_future", "Nearest: masks_hide_the_future."),
        ("xyz", "None of its experiments has a similar name."),
        ("helper", "None of its experiments has a similar name."),
        ("summary", "None of its experiments has a similar name."),
    ],
)
def test_an_unknown_experiment_is_a_card_with_the_nearest_names(name: str, nearest: str) -> None:
    with pytest.raises(Card) as caught:
        require_experiment("LLM90", EXPERIMENTS, name)
    assert caught.value.what == f"LLM90 has no experiment {name!r}."
    assert caught.value.why == nearest
    assert caught.value.fix == "invoke lab LLM90 --list"
    assert caught.value.code == 2
