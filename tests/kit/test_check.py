"""`check`: one thing at a time, hints that are remembered, experiments on one's own parts."""

import json
import re
from pathlib import Path
from typing import Any

from tests.conftest import Clone, Ended
from tests.kit.conftest import write

import pytest

SENTINEL = "raise NotImplementedError  # yours to write"
ADD = "return a + b"
COUNT = "self.total = add(self.total, n)\n        return self.total"


@pytest.fixture
def sheet(school: Clone) -> Clone:
    assert school.labs("learn", "LLM90").code == 0
    return school


def record(school: Clone) -> dict[str, Any]:
    return json.loads((school.path / "work" / "progress" / "LLM90.json").read_text())


def marks(ended: Ended) -> dict[str, str]:
    """The table's marks."""
    return {part: mark for mark, part in re.findall(r"^ ([✓✗·]) (\S+)", ended.out, re.MULTILINE)}


def test_without_a_sheet_it_says_how_to_get_one(school: Clone) -> None:
    ended = school.labs("check", "LLM90")
    assert ended.code == 2, ended
    assert "mend: invoke learn LLM90" in ended.err


def test_an_untouched_sheet_fails_and_is_told_what_to_write_first(sheet: Clone) -> None:
    ended = sheet.labs("check", "LLM90")
    assert ended.code == 1, ended
    assert marks(ended) == {"add": "·", "Counter.count": "·"}
    assert "not written yet" in ended.out
    assert "Next: add, level 1" in ended.out and "Which sign adds?" in ended.out
    assert "experiments" not in ended.out
    assert record(sheet)["parts"]["add"]["tries"] == 0


def test_one_wrong_thing_is_told_at_a_time_unless_all_is_asked_for(sheet: Clone) -> None:
    first_only(sheet, "return a - b")
    first_only(sheet, "return n")
    one = sheet.labs("check", "LLM90")
    assert one.code == 1, one
    assert marks(one) == {"add": "✗", "Counter.count": "✗"}
    assert "is that a difference?" in one.out and "is the total kept?" not in one.out
    assert "expected  5" in one.out and "came      -1" in one.out
    assert "experiments" not in one.out
    every = sheet.labs("check", "LLM90", "--all")
    assert "is that a difference?" in every.out and "is the total kept?" in every.out


def test_hints_come_one_by_one_and_are_remembered(sheet: Clone) -> None:
    shown = [
        sheet.labs("check", "LLM90", *words).out for words in ((), ("--hint",), (), ("--hint",))
    ]
    assert ["It is a cross." in out for out in shown] == [False, True, True, True]
    assert ["return a + b" in out for out in shown] == [False, False, False, True]
    assert record(sheet)["parts"]["add"]["hints"] == 3
    of_the_other = sheet.labs("check", "LLM90", "--hint", "Counter.count").out
    assert "Use add." in of_the_other and "self.total = add(…)" not in of_the_other
    last = sheet.labs("check", "LLM90", "--hint", "Counter.count").out
    assert "self.total = add(…)" in last and "that was the last" in last
    assert "the lab's own: invoke check LLM90 --solution Counter.count\n" in last


def test_the_solution_is_shown_when_asked_for_and_that_is_remembered(sheet: Clone) -> None:
    assert "the answer" not in sheet.labs("check", "LLM90").out
    ended = sheet.labs("check", "LLM90", "--solution", "Counter.count")
    assert ended.code == 0, ended
    assert "self.total = add(self.total, n)" in ended.out
    assert "not written yet" not in ended.out, "nothing has to be checked for it"
    assert record(sheet)["parts"]["Counter.count"]["solution"] is True
    assert record(sheet)["parts"]["add"]["solution"] is False


def test_a_solution_without_a_name_is_of_the_exercise_one_is_at_and_starts_no_experiment(
    sheet: Clone,
) -> None:
    first_only(sheet, ADD)
    ended = sheet.labs("check", "LLM90", "--solution")
    assert ended.code == 0, ended
    assert marks(ended) == {"add": "✓", "Counter.count": "·"}
    assert "self.total = add(self.total, n)" in ended.out and "the answer" not in ended.out
    assert "experiments" not in ended.out
    parts = record(sheet)["parts"]
    assert [parts[one]["solution"] for one in ("add", "Counter.count")] == [False, True]
    first_only(sheet, "return n")
    write(sheet, ADD, "return a - b")
    wrong = sheet.labs("check", "LLM90", "--solution")
    assert wrong.code == 0, wrong
    assert "the answer" in wrong.out and "self.total = add(self.total, n)" not in wrong.out


@pytest.mark.parametrize(
    ("words", "mend"),
    [
        (("--hint", "subtract"), "--hint"),
        (("--solution", "subtract"), "--solution"),
        (("--solution", "count"), "--solution Counter.count"),
        (("--hint", "counter.cuont"), "--hint Counter.count"),
        (("--solution=ad",), "--solution add"),
    ],
)
def test_an_exercise_that_is_not_there_is_a_card_that_names_the_nearest(
    sheet: Clone, words: tuple[str, ...], mend: str
) -> None:
    ended = sheet.labs("check", "LLM90", *words)
    assert ended.code == 2, ended
    assert "It has add, Counter.count." in ended.err
    assert ended.err.rstrip().endswith(f"mend: invoke check LLM90 {mend}")


def first_only(school: Clone, body: str) -> None:
    path = school.path / "work" / "llm90_small.py"
    path.write_text(path.read_text().replace(SENTINEL, body, 1))


def test_from_the_first_try_to_the_ending(sheet: Clone) -> None:
    first_only(sheet, "return a - b")
    assert sheet.labs("check", "LLM90").code == 1
    assert sheet.labs("check", "LLM90").code == 1
    path = sheet.path / "work" / "llm90_small.py"
    path.write_text(path.read_text().replace("return a - b", ADD))
    ended = sheet.labs("check", "LLM90")
    assert ended.code == 1, ended
    assert marks(ended)["add"] == "✓"
    assert "after 2 tries" in ended.out
    assert "How the lab does it: invoke check LLM90 --solution add" in ended.out
    assert "They come to 6." in ended.out, "the lab's experiments run on what is right"
    assert "✓ add: right" in ended.out and "✓ Counter.count (the lab's own): right" in ended.out
    assert "Next: Counter.count" in ended.out.split("report:")[1]
    run = record(sheet)["best"]
    assert (run["yours"], run["passed"], run["of"]) == (1, 3, 3)
    assert record(sheet)["parts"]["add"]["tries"] == 2, "the same text is no other try"

    again = sheet.labs("check", "LLM90")
    assert "How the lab does it" not in again.out, "once"
    assert "have run on this sheet" in again.out and "They come to" not in again.out

    first_only(sheet, COUNT)
    last = sheet.labs("check", "LLM90")
    assert last.code == 0, last
    assert "All of LLM90's exercises are right" in last.out
    ending = last.out.split("exercises are right")[1]
    assert "add, and to count" in ending and "Peano 1889" in ending, "in the lab's own words"
    assert record(sheet)["best"]["yours"] == 2
    hints = sheet.labs("check", "LLM90", "--hint", "add").out
    assert "It is a cross." in hints and "return a + b" in hints, "all, once it is right"


def test_the_report_of_a_check_shows_the_learner_s_own_code(sheet: Clone) -> None:
    first_only(sheet, "total = a  # mine alone\n    return total + b")
    ended = sheet.labs("check", "LLM90")
    folder = Path(ended.out.split("report: ")[1].split()[0]).parent
    page = (sheet.path / folder / "report.html").read_text()
    assert "mine alone" in page and "the answer" not in page
    environment = json.loads((sheet.path / folder / "results.json").read_text())["environment"]
    assert environment["written_by_you"] == "add"


def test_a_part_that_passes_its_check_and_fails_an_experiment_is_told_by_the_experiment(
    sheet: Clone,
) -> None:
    first_only(sheet, "return a + b if b < 4 else 0")
    sheet.change("work/llm90_small.py", "for n in (1, 2, 3):", "for n in (1, 2, 4):")
    ended = sheet.labs("check", "LLM90")
    assert ended.code == 1, ended
    assert "✗ one, two and three" in ended.out
    assert record(sheet)["best"]["passed"] == 2
    assert "1 of LLM90's checks failed" in ended.err


def test_a_crash_in_an_experiment_names_the_sheet(sheet: Clone) -> None:
    first_only(sheet, "return {(2, 3): 5, (0, 1): 1, (1, 2): 3}[a, b]")
    ended = sheet.labs("check", "LLM90")
    assert ended.code == 1, ended
    assert "LLM90 crashed in counting_adds." in ended.err
    assert "mend: correct work/llm90_small.py" in ended.err


def test_a_sheet_that_removes_itself_is_put_back(sheet: Clone) -> None:
    """In an experiment: in its check it can't, where the kernel has Landlock."""
    first_only(sheet, "import os\n    if a == b == 3: os.remove(__file__)\n    return a + b")
    path = sheet.path / "work" / "llm90_small.py"
    before = path.read_text()
    ended = sheet.labs("check", "LLM90")
    assert path.read_text() == before
    assert "It is back, as it was." in ended.out, ended


def test_a_sheet_in_bytes_that_are_no_utf_8_is_a_card(sheet: Clone) -> None:
    path = sheet.path / "work" / "llm90_small.py"
    path.write_bytes(path.read_bytes() + b"# \xe9t\xe9\n")
    ended = sheet.labs("check", "LLM90")
    assert ended.code == 1, ended
    assert "is no UTF-8" in ended.err and "0xe9" in ended.err
    assert "Traceback" not in ended.err


def test_a_sheet_of_an_older_release_is_known_and_graded_all_the_same(sheet: Clone) -> None:
    """The lab has a new exercise and another claim since; an old sheet has neither."""
    first_only(sheet, ADD)
    new = """@lab.exercise(level=1, hints=("a", "b", "c"))
def double(a):
    \"\"\"Twice the number.\"\"\"
    return 2 * a


# %% 2. A claim"""
    sheet.change("labs/llm90_small.py", "# %% 2. A claim", new)
    checks = sheet.path / "labs" / "checks" / "llm90.py"
    checks.write_text(checks.read_text() + "\n\ndef double(implementation):\n    pass\n")
    ended = sheet.labs("check", "LLM90")
    assert ended.code == 1, ended
    assert "Made from another release of LLM90" in ended.out
    assert "invoke learn LLM90" in ended.out
    assert marks(ended) == {"add": "✓", "Counter.count": "·", "double": "✗"}
    assert "no function of this name" in ended.out
    assert "2 * a" not in sheet.labs("learn", "LLM90").out


def test_a_sheet_for_a_run_that_is_not_there_is_a_card(school: Clone) -> None:
    ended = school.labs("LLM90", "--sheet", "work/nowhere.py")
    assert ended.code == 2, ended
    assert "what: work/nowhere.py can't be read." in ended.err


def test_another_lab_s_sheet_is_a_card(sheet: Clone) -> None:
    other = (sheet.path / "labs" / "llm90_small.py").read_text().replace("LLM90", "LLM91")
    (sheet.path / "labs" / "llm91_small.py").write_text(other)
    ended = sheet.labs("LLM91", "--sheet", "work/llm90_small.py")
    assert ended.code == 2, ended
    assert "is no sheet of LLM91" in ended.err and "invoke lab LLM90" in ended.err


def test_a_lab_can_be_run_on_a_sheet_as_it_is(sheet: Clone) -> None:
    first_only(sheet, "return a - b")
    for words in (("--sheet",), ("--", "--sheet")):
        ended = sheet.labs("LLM90", *words, "work/llm90_small.py")
        assert ended.code == 1, ended
        assert "✗ add: is that a difference?" in ended.out
        assert "✗ Counter.count (the lab's own): " in ended.out, (
            "it counts by the learner's add here"
        )
