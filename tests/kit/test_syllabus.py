"""What a learner may call a lab, and what they are told about a name that is none."""

from pathlib import Path

from labs.course.cards import Card
from labs.course.syllabus import Lesson, find, lessons

import pytest

NAMES = ("LLM01", "LLM02", "LLM05a", "LLM05b", "LLM06", "LLM10")
KNOWN = [Lesson(name, Path(f"{name.lower()}_x.py"), f"Title of {name}", "") for name in NAMES]


def found(text: str) -> list[str]:
    return [lesson.name for lesson in find(text, KNOWN)]


@pytest.mark.parametrize("text", ["LLM06", "llm06", "6", "06", "llm6", "LLM-06", " llm_6 "])
def test_a_lab_has_many_names(text: str) -> None:
    assert found(text) == ["LLM06"]


@pytest.mark.parametrize("text", ["LLM5a", "llm05A", "5a", "LLM05a"])
def test_a_letter_may_follow_the_number(text: str) -> None:
    assert found(text) == ["LLM05a"]


def test_a_comma_list_keeps_its_order_and_names_each_lab_once() -> None:
    assert found("6, LLM01,,llm06,5b") == ["LLM06", "LLM01", "LLM05b"]


@pytest.mark.parametrize("text", ["all", "ALL", " all "])
def test_all_is_every_lab_in_the_order_of_the_course(text: str) -> None:
    assert found(text) == list(NAMES)


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("LLM05", ("LLM05a", "LLM05b"), "LLM10"),
        ("5", ("LLM05a", "LLM05b"), "LLM10"),
        ("LLLM06", ("LLM06",), ""),
        ("attention", NAMES, ""),
    ],
)
def test_an_unknown_name_is_told_the_nearest(text: str, near: tuple[str, ...], far: str) -> None:
    with pytest.raises(Card) as caught:
        find(text, KNOWN)
    assert caught.value.code == 2
    assert repr(text) in caught.value.what
    assert all(name in caught.value.why for name in near)
    assert not far or far not in caught.value.why


@pytest.mark.parametrize("text", ["", " ", ",", ", ,"])
def test_no_name_at_all_is_a_card(text: str) -> None:
    with pytest.raises(Card, match="No lab was named"):
        find(text, KNOWN)


@pytest.mark.parametrize("text", ["6x7", "LLM0x6", "../llm06", "6;ls", "LLM06 LLM01"])
def test_what_only_looks_like_a_name_is_a_card(text: str) -> None:
    with pytest.raises(Card):
        find(text, KNOWN)


def test_titles_are_read_from_the_labs_themselves(tmp_path: Path) -> None:
    (tmp_path / "llm07_b.py").write_text("# %% [markdown]\n# # LLM07 · A title\n# A line.\n")
    (tmp_path / "llm05b_a.py").write_text("# %% [markdown]\n# # LLM05b · Other\n# Another.\n")
    (tmp_path / "helper.py").write_text("")
    assert [(one.name, one.title, one.blurb) for one in lessons(tmp_path)] == [
        ("LLM05b", "Other", "Another."),
        ("LLM07", "A title", "A line."),
    ]


def test_a_lab_without_its_heading_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "llm07_b.py").write_text("print()\n")
    with pytest.raises(ValueError, match=r"llm07_b\.py"):
        lessons(tmp_path)


def test_every_lab_here_has_a_title_and_a_module() -> None:
    here = lessons()
    assert here
    assert all(one.title and one.blurb and one.module.startswith("labs.llm") for one in here)
