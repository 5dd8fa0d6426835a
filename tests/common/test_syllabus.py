"""The names that a learner may type for a lab, and the cards for unknown names."""

from pathlib import Path

from common import syllabus
from common.cards import Card
from common.syllabus import Lesson, deeper_part, find, following, lessons

import pytest

FOLDERS = {
    "LLM01": "llm01_x",
    "LLM02": "llm02_x",
    "LLM05a": "llm05a_x",
    "LLM05b": "llm05b_x",
    "LLM06": "llm06_x",
    "LLM10": "llm10_x",
}
NAMES = ("LLM01", "LLM02", "LLM05a", "LLM05b", "LLM06", "LLM06+", "LLM10", "LLM10+")


def lesson(name: str) -> Lesson:
    file = "deeper.py" if name.endswith("+") else "lesson.py"
    path = Path("labs") / FOLDERS[name.removesuffix("+")] / file
    return Lesson(name, path, f"Title of {name}", "")


KNOWN = [lesson(name) for name in NAMES]


def found(text: str) -> list[str]:
    return [lesson.name for lesson in find(text, KNOWN)]


@pytest.mark.parametrize("text", ["LLM06", "llm06", "6", "06", "llm6", "LLM-06", " llm_6 "])
def test_a_lab_has_many_names(text: str) -> None:
    assert found(text) == ["LLM06"]


@pytest.mark.parametrize("text", ["LLM06+", "llm06+", "6+", "06+", "llm6+", "LLM-06+", " llm_6+ "])
def test_a_deeper_part_is_named_by_a_plus(text: str) -> None:
    assert found(text) == ["LLM06+"]


@pytest.mark.parametrize("text", ["LLM5a", "llm05A", "5a", "LLM05a"])
def test_a_letter_may_follow_the_number(text: str) -> None:
    assert found(text) == ["LLM05a"]


def test_a_comma_list_keeps_its_order_and_names_each_lab_once() -> None:
    assert found("6, LLM01,,llm06,5b") == ["LLM06", "LLM01", "LLM05b"]
    assert found("6+,6,llm06+") == ["LLM06+", "LLM06"]
    assert found("10,all") == ["LLM10", "LLM01", "LLM02", "LLM05a", "LLM05b", "LLM06"]


@pytest.mark.parametrize("text", ["all", "ALL", " all "])
def test_all_is_every_lesson_in_the_order_of_the_course(text: str) -> None:
    assert found(text) == [name for name in NAMES if not name.endswith("+")]


@pytest.mark.parametrize("text", ["all+", "ALL+", " all+ ", "all,all+"])
def test_all_plus_adds_every_deeper_part(text: str) -> None:
    assert set(found(text)) == set(NAMES)


def test_all_plus_is_in_the_order_of_the_course() -> None:
    assert found("all+") == list(NAMES)


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("LLM05", ("LLM05a", "LLM05b"), "LLM10"),
        ("5", ("LLM05a", "LLM05b"), "LLM10"),
        ("LLLM06", ("LLM06",), ""),
        ("attention", NAMES, ""),
        ("LLM01+", ("LLM01",), "LLM10"),
        ("5+", ("LLM05a", "LLM05b"), "LLM10"),
        ("LLM05a+", ("LLM05a",), "LLM05b"),
    ],
)
def test_an_unknown_lab_is_a_card_with_the_nearest_names(
    text: str, near: tuple[str, ...], far: str
) -> None:
    with pytest.raises(Card) as caught:
        find(text, KNOWN)
    assert caught.value.code == 2
    assert repr(text) in caught.value.what
    assert all(name in caught.value.why for name in near)
    assert not far or far not in caught.value.why


@pytest.mark.parametrize("text", ["", " ", ",", ", ,"])
def test_an_empty_name_is_a_card(text: str) -> None:
    with pytest.raises(Card, match="No lab was named"):
        find(text, KNOWN)


@pytest.mark.parametrize(
    "text", ["6x7", "LLM0x6", "../llm06", "6;ls", "LLM06 LLM01", "6++", "+6", "+", "all++"]
)
def test_a_malformed_name_is_a_card(text: str) -> None:
    with pytest.raises(Card):
        find(text, KNOWN)


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_titles_are_read_from_the_labs_themselves(tmp_path: Path) -> None:
    write(tmp_path, "llm07_b/lesson.py", "# %% [markdown]\n# # LLM07 · A title\n# A line.\n")
    write(tmp_path, "llm07_b/deeper.py", "# %% [markdown]\n# # LLM07+ · Deeper\n# More.\n")
    write(tmp_path, "llm07_b/checks.py", "")
    write(tmp_path, "llm05b_a/lesson.py", "# %% [markdown]\n# # LLM05b · Other\n# Another.\n")
    write(tmp_path, "helper/lesson.py", "")
    write(tmp_path, "llm09.py", "")
    assert [(sitting.name, sitting.title, sitting.blurb) for sitting in lessons(tmp_path)] == [
        ("LLM05b", "Other", "Another."),
        ("LLM07", "A title", "A line."),
        ("LLM07+", "Deeper", "More."),
    ]


@pytest.mark.parametrize("file", ["lesson.py", "deeper.py"])
def test_a_lab_without_its_heading_is_an_error_that_names_the_file(
    tmp_path: Path, file: str
) -> None:
    write(tmp_path, f"llm07_b/{file}", "print()\n")
    with pytest.raises(ValueError, match=rf"llm07_b/{file}"):
        lessons(tmp_path)


def test_every_lab_of_the_course_has_a_title_and_a_module() -> None:
    sittings = lessons()
    assert sittings
    for sitting in sittings:
        assert sitting.title
        assert sitting.blurb
        assert sitting.module.startswith("labs.llm")


def test_a_heading_has_the_name_of_its_sitting() -> None:
    for sitting in lessons():
        assert f"# # {sitting.name} · {sitting.title}\n" in sitting.source


def test_both_sittings_share_a_folder_and_its_checks() -> None:
    first = lesson("LLM06")
    second = lesson("LLM06+")
    assert (first.folder, second.folder) == ("llm06_x", "llm06_x")
    assert (first.module, second.module) == ("labs.llm06_x.lesson", "labs.llm06_x.deeper")
    assert first.checks_module == second.checks_module == "labs.llm06_x.checks"
    assert (first.sheet_name, second.sheet_name) == ("llm06_x.py", "llm06_x_deeper.py")
    assert (first.deeper, second.deeper) == (False, True)


def test_the_next_lesson_follows_either_sitting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syllabus, "lessons", lambda: KNOWN)
    assert following(lesson("LLM06")) == lesson("LLM10")
    assert following(lesson("LLM06+")) == lesson("LLM10")
    assert following(lesson("LLM05a")) == lesson("LLM05b")
    assert following(lesson("LLM10")) is None
    assert following(lesson("LLM10+")) is None


def test_a_lesson_knows_its_deeper_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syllabus, "lessons", lambda: KNOWN)
    assert deeper_part(lesson("LLM06")) == lesson("LLM06+")
    assert deeper_part(lesson("LLM06+")) is None
    assert deeper_part(lesson("LLM01")) is None
