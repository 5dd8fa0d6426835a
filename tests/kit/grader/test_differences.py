"""Where two results differ, in the words that a learner reads."""

from labs.kit.grader.differences import describe, difference


def test_floats_that_differ_by_rounding_are_equal_so_the_wrong_number_is_named() -> None:
    found = difference((0.2, 0.133), (0.2 - 1e-17 * 3, 0.19999999))
    assert found == {"expected": "[1]: 0.133", "got": "[1]: 0.2"}
    assert difference((0.2, 0.1), (0.2, 0.1 + 1e-12)) == {}
    assert difference(0.0, 1e-3) == {"expected": "0", "got": "0.001"}


def test_iterators_are_not_compared_and_have_no_address() -> None:
    assert difference(iter([1]), iter([2])) == {}
    assert difference((i for i in [1]), None) == {"expected": "a generator", "got": "None"}
    assert describe(x for x in [1]) == "a generator"


class Plain:
    """An object without a repr of its own."""


def test_functions_and_objects_have_a_name_and_no_address() -> None:
    assert describe(lambda x: x) == "a function"
    assert describe(describe) == "the function describe"
    assert describe("x".upper) == "<built-in method upper of str object>"
    assert describe(Plain()).endswith("Plain object>")
