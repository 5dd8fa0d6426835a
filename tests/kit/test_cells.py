"""A lab's source, cut into cells."""

from labs.course import source

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


def test_cells_are_prose_or_code_in_their_order() -> None:
    first, second, third = source.split(SOURCE)
    assert (first.prose, first.title) == (True, "")
    assert first.text == "# LLM90 · A title\nA line with `code`.\n\n  indented"
    assert (second.prose, second.title) == (False, "1. First")
    assert second.text.startswith("import math")
    assert (third.title, third.text) == ("", "last = 1")


def test_a_cell_knows_its_line() -> None:
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
