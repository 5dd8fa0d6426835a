"""`check`: one mistake at a time, hints that are counted, experiments on the learner's parts."""

import json
import re
from pathlib import Path
from typing import Any

from tests.conftest import Clone, Ended
from tests.small_lab import DEEPER_SHEET, LESSON, SHEET, write, write_next

import pytest

ADD = "return a + b"
COUNT = "self.total = add(self.total, n)\n        return self.total"
PRODUCT = "return a * b"


def record(school: Clone, lab: str = "LLM90") -> dict[str, Any]:
    return json.loads((school.path / "work" / "progress" / f"{lab}.json").read_text())


def marks(ended: Ended) -> dict[str, str]:
    """Return the mark of each exercise in the printed table."""
    return {part: mark for mark, part in re.findall(r"^ ([✓✗·]) (\S+)", ended.out, re.MULTILINE)}


def test_without_a_sheet_the_card_names_the_command_that_writes_one(school: Clone) -> None:
    ended = school.labs("check", "LLM90")
    assert ended.code == 2, ended
    assert "fix: invoke learn LLM90" in ended.err


def test_an_untouched_sheet_fails_and_shows_the_first_exercise(sheet: Clone) -> None:
    ended = sheet.labs("check", "LLM90")
    assert ended.code == 1, ended
    assert marks(ended) == {"add": "·", "Counter.count": "·"}
    assert "not written yet" in ended.out
    assert "Next: add, level 1" in ended.out
    assert "Which sign adds?" in ended.out
    assert "experiments" not in ended.out
    assert record(sheet)["parts"]["add"]["tries"] == 0


def test_one_mistake_is_shown_in_full_and_of_others_a_line(
    sheet: Clone,
) -> None:
    write_next(sheet, "return a - b")
    write_next(sheet, "return n")
    first = sheet.labs("check", "LLM90")
    assert first.code == 1, first
    assert marks(first) == {"add": "✗", "Counter.count": "✗"}
    assert "is that a difference?" in first.out
    others = first.out.partition("Wrong, too:")[2]
    assert re.search(r"^ Counter.count .*is the total kept\?", others, re.MULTILINE)
    assert "in full: invoke check LLM90 --all" in others
    assert re.search(r"^ expected +5$", first.out, re.MULTILINE)
    assert re.search(r"^ got +-1$", first.out, re.MULTILINE)
    assert "experiments" not in first.out
    every = sheet.labs("check", "LLM90", "--all")
    assert "is that a difference?" in every.out
    assert "is the total kept?" in every.out
    assert "Wrong, too" not in every.out


def test_hints_are_shown_one_by_one_and_counted(sheet: Clone) -> None:
    shown = [
        sheet.labs("check", "LLM90", *words).out for words in ((), ("--hint",), (), ("--hint",))
    ]
    assert ["It is a cross." in out for out in shown] == [False, True, True, True]
    assert ["return a + b" in out for out in shown] == [False, False, False, True]
    assert record(sheet)["parts"]["add"]["hints"] == 3
    of_the_other = sheet.labs("check", "LLM90", "--hint", "Counter.count").out
    assert "Use add." in of_the_other
    assert "self.total = add(…)" not in of_the_other
    last = sheet.labs("check", "LLM90", "--hint", "Counter.count").out
    assert "self.total = add(…)" in last
    assert "That was the last hint." in last
    assert "The lab's solution: invoke check LLM90 --solution Counter.count\n" in last


def test_the_solution_is_shown_on_request_and_that_is_recorded(sheet: Clone) -> None:
    assert "the answer" not in sheet.labs("check", "LLM90").out
    ended = sheet.labs("check", "LLM90", "--solution", "Counter.count")
    assert ended.code == 0, ended
    assert "self.total = add(self.total, n)" in ended.out
    assert "not written yet" not in ended.out, "nothing has to be checked for it"
    assert record(sheet)["parts"]["Counter.count"]["solution"] is True
    assert record(sheet)["parts"]["add"]["solution"] is False


def test_a_locked_solution_is_not_shown_until_the_teacher_opens_it(sheet: Clone) -> None:
    folder = sheet.path / "class"
    folder.mkdir()
    (folder / "solutions.json").write_text('["LLM06"]')
    sheet.change("common/classroom.py", "/opt/labs/class", str(folder))
    for words in ((), ("Counter.count",), ("--watch",)):
        refused = sheet.labs("check", "LLM90", "--solution", *words)
        assert refused.code == 1, refused
        assert "why: Your teacher opens the solutions later." in refused.err
        assert "self.total = add(" not in refused.out
    for _ in range(2):
        hint = sheet.labs("check", "LLM90", "--hint", "Counter.count").out
    assert "That was the last hint. Your teacher opens the solutions later.\n" in hint
    write_next(sheet, ADD)
    right = sheet.labs("check", "LLM90").out
    assert "add is right. Your teacher opens the solutions later.\n" in right
    assert not any(part["solution"] for part in record(sheet)["parts"].values())
    (folder / "solutions.json").write_text('["LLM06", "LLM90"]')
    opened = sheet.labs("check", "LLM90", "--solution", "Counter.count")
    assert "self.total = add(self.total, n)" in opened.out


def test_a_solution_without_a_name_is_that_of_the_current_exercise_and_runs_no_experiment(
    sheet: Clone,
) -> None:
    write_next(sheet, ADD)
    ended = sheet.labs("check", "LLM90", "--solution")
    assert ended.code == 0, ended
    assert marks(ended) == {"add": "✓", "Counter.count": "·"}
    assert "self.total = add(self.total, n)" in ended.out
    assert "the answer" not in ended.out
    assert "experiments" not in ended.out
    parts = record(sheet)["parts"]
    assert [parts[name]["solution"] for name in ("add", "Counter.count")] == [False, True]
    write_next(sheet, "return n")
    write(sheet, ADD, "return a - b")
    wrong = sheet.labs("check", "LLM90", "--solution")
    assert wrong.code == 0, wrong
    assert "the answer" in wrong.out
    assert "self.total = add(self.total, n)" not in wrong.out


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (("--hint", "subtract"), "--hint"),
        (("--solution", "subtract"), "--solution"),
        (("--solution", "count"), "--solution Counter.count"),
        (("--hint", "counter.cuont"), "--hint Counter.count"),
        (("--solution=ad",), "--solution add"),
    ],
)
def test_an_unknown_exercise_is_a_card_with_the_nearest_name(
    sheet: Clone, words: tuple[str, ...], fix: str
) -> None:
    ended = sheet.labs("check", "LLM90", *words)
    assert ended.code == 2, ended
    assert "It has add, Counter.count." in ended.err
    assert ended.err.rstrip().endswith(f"fix: invoke check LLM90 {fix}")


def test_from_the_first_try_to_the_ending(sheet: Clone) -> None:
    write_next(sheet, "return a - b")
    assert sheet.labs("check", "LLM90").code == 1
    assert sheet.labs("check", "LLM90").code == 1
    write(sheet, "return a - b", ADD)
    ended = sheet.labs("check", "LLM90")
    assert ended.code == 1, ended
    assert marks(ended)["add"] == "✓"
    assert "after 2 tries" in ended.out
    assert "The lab's solution: invoke check LLM90 --solution add" in ended.out
    assert "They come to 6." in ended.out, "the lab's experiments run on the right parts"
    assert "✓ add: right" in ended.out
    assert "✓ Counter.count (the lab's own): right" in ended.out
    assert "Next: Counter.count" in ended.out.split("report:")[1]
    run = record(sheet)["best"]
    assert (run["yours"], run["passed"], run["of"]) == (1, 3, 3)
    assert record(sheet)["parts"]["add"]["tries"] == 2, "an unchanged text is not another try"

    again = sheet.labs("check", "LLM90")
    assert "The lab's solution" not in again.out, "it is named once"
    assert "have run on this sheet" in again.out
    assert "They come to" not in again.out

    write_next(sheet, COUNT)
    last = sheet.labs("check", "LLM90")
    assert last.code == 0, last
    assert "All of LLM90's exercises are right" in last.out
    ending = last.out.split("exercises are right")[1]
    assert "add, and to count" in ending, "the lab's own words"
    assert "Peano 1889" in ending, "the lab's own words"
    assert record(sheet)["best"]["yours"] == 2
    hints = sheet.labs("check", "LLM90", "--hint", "add").out
    assert "It is a cross." in hints, "all hints are shown once it is right"
    assert "return a + b" in hints


def test_the_report_of_a_check_shows_the_learner_s_own_code(sheet: Clone) -> None:
    write_next(sheet, "total = a  # mine alone\n    return total + b")
    ended = sheet.labs("check", "LLM90")
    folder = Path(ended.out.split("report: ")[1].split()[0]).parent
    page = (sheet.path / folder / "report.html").read_text()
    assert "mine alone" in page
    assert "the answer" not in page
    environment = json.loads((sheet.path / folder / "results.json").read_text())["environment"]
    assert environment["written_by_you"] == "add"


def test_an_experiment_catches_a_part_that_passes_its_own_check(sheet: Clone) -> None:
    write_next(sheet, "return a + b if b < 4 else 0")
    write(sheet, "for n in (1, 2, 3):", "for n in (1, 2, 4):")
    ended = sheet.labs("check", "LLM90")
    assert ended.code == 1, ended
    assert "✗ one, two and three" in ended.out
    assert record(sheet)["best"]["passed"] == 2
    assert "1 of LLM90's checks failed" in ended.err


def test_a_crash_in_an_experiment_names_the_sheet(sheet: Clone) -> None:
    write_next(sheet, "return {(2, 3): 5, (0, 1): 1, (1, 2): 3}[a, b]")
    ended = sheet.labs("check", "LLM90")
    assert ended.code == 1, ended
    assert "LLM90 crashed in counting_adds." in ended.err
    assert f"fix: correct {SHEET}" in ended.err


def test_right_exercises_whose_experiments_crash_are_not_the_end(sheet: Clone) -> None:
    """The learner has changed code outside the exercises by accident."""
    write_next(sheet, ADD)
    write_next(sheet, COUNT)
    path = sheet.path / SHEET
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('return f"They come', 'lost\n    return f"They come'))
    ended = sheet.labs("check", "LLM90")
    assert ended.code == 1, ended
    assert "All of LLM90's exercises are right, but an experiment failed" in ended.out
    assert "invoke lab LLM90" in ended.out
    assert "You are now able to" not in ended.out
    again = sheet.labs("check", "LLM90")
    assert again.code == 1, again
    assert "but an experiment crashed" in again.out


def test_a_sheet_that_removes_itself_stays(sheet: Clone) -> None:
    """In an experiment: Landlock refuses it; without Landlock the sheet is restored."""
    write_next(sheet, "import os\n    if a == b == 3: os.remove(__file__)\n    return a + b")
    path = sheet.path / SHEET
    before = path.read_text()
    ended = sheet.labs("check", "LLM90")
    assert path.read_text() == before
    refused = "Permission denied: 'work/llm90_small.py'" in ended.err
    assert refused or "It has been restored." in ended.out, ended


def test_a_sheet_that_is_not_utf_8_is_a_card(sheet: Clone) -> None:
    path = sheet.path / SHEET
    path.write_bytes(path.read_bytes() + b"# \xe9t\xe9\n")
    ended = sheet.labs("check", "LLM90")
    assert ended.code == 1, ended
    assert "is not UTF-8" in ended.err
    assert "0xe9" in ended.err
    assert "Traceback" not in ended.err


def test_a_sheet_of_an_older_release_is_recognised_and_graded(sheet: Clone) -> None:
    """The lab has gained an exercise, and another claim, that the old sheet lacks."""
    write_next(sheet, ADD)
    new = """@lab.exercise(level=1, hints=("a", "b", "c"))
def double(a):
    \"\"\"Twice the number.\"\"\"
    return 2 * a


# %% 2. A claim"""
    sheet.change(LESSON, "# %% 2. A claim", new)
    checks = sheet.path / "labs" / "llm90_small" / "checks.py"
    checks.write_text(
        checks.read_text() + '\n\n@checks.proves("double")\ndef double(module):\n    pass\n'
    )
    ended = sheet.labs("check", "LLM90")
    assert ended.code == 1, ended
    assert "LLM90 has changed since this sheet was made" in ended.out
    assert "invoke learn LLM90" in ended.out
    assert marks(ended) == {"add": "✓", "Counter.count": "·", "double": "✗"}
    assert "no function of this name" in ended.out
    assert "2 * a" not in sheet.labs("learn", "LLM90").out


def test_a_run_on_a_sheet_that_does_not_exist_is_a_card(school: Clone) -> None:
    ended = school.labs("LLM90", "--sheet", "work/nowhere.py")
    assert ended.code == 2, ended
    assert "what: work/nowhere.py can't be read." in ended.err


def test_a_run_on_another_lab_s_sheet_is_a_card(sheet: Clone) -> None:
    source = (sheet.path / LESSON).read_text().replace("LLM90", "LLM91")
    sheet.kit_lab("", "LLM91")
    (sheet.lab_folder("LLM91") / "lesson.py").write_text(source)
    ended = sheet.labs("LLM91", "--sheet", SHEET)
    assert ended.code == 2, ended
    assert "is not a sheet of LLM91" in ended.err
    assert "invoke lab LLM90" in ended.err


def test_a_lab_runs_on_a_sheet_as_it_is(sheet: Clone) -> None:
    write_next(sheet, "return a - b")
    for words in (("--sheet",), ("--", "--sheet")):
        ended = sheet.labs("LLM90", *words, SHEET)
        assert ended.code == 1, ended
        assert "✗ add: is that a difference?" in ended.out
        assert "✗ Counter.count (the lab's own): " in ended.out, "it uses the learner's add here"


def test_one_experiment_runs_on_a_sheet(sheet: Clone) -> None:
    write_next(sheet, "return a - b")
    ended = sheet.labs("LLM90", "--sheet", SHEET, "--only", "counting_adds")
    assert ended.code == 1, ended
    assert "✗ one, two and three" in ended.out
    assert not (sheet.path / "work" / "progress").exists(), "only a full run counts as progress"


def test_a_deeper_part_is_checked_like_a_lesson(deeper: Clone) -> None:
    missing = deeper.labs("check", "LLM90+")
    assert missing.code == 2, missing
    assert f"{DEEPER_SHEET} doesn't exist." in missing.err
    assert "fix: invoke learn LLM90+" in missing.err

    assert deeper.labs("learn", "LLM90+").code == 0
    write_next(deeper, "return a + b", DEEPER_SHEET)
    wrong = deeper.labs("check", "90+")
    assert wrong.code == 1, wrong
    assert marks(wrong) == {"multiply": "✗"}
    assert "is that a sum?" in wrong.out
    assert "invoke check LLM90+ --hint multiply" in wrong.out

    deeper.change(DEEPER_SHEET, "return a + b", PRODUCT)
    right = deeper.labs("check", "LLM90+")
    assert right.code == 0, right
    assert "✓ seven times six: 42" in right.out
    assert "All of LLM90+'s exercises are right" in right.out
    assert "Adams 1979" in right.out
    assert record(deeper, "LLM90+")["best"]["yours"] == 1
    assert not (deeper.path / "work" / "progress" / "LLM90.json").exists()
    solution = deeper.labs("check", "LLM90+", "--solution", "multiply")
    assert "the deeper answer" in solution.out


def test_the_ending_of_a_lesson_names_its_deeper_part(deeper: Clone) -> None:
    assert deeper.labs("learn", "LLM90").code == 0
    write_next(deeper, ADD)
    write_next(deeper, COUNT)
    ended = deeper.labs("check", "LLM90")
    assert ended.code == 0, ended
    assert "Deeper: invoke learn LLM90+, A small lab." in ended.out


def test_a_deeper_part_without_exercises_is_run_and_not_checked(sheet: Clone) -> None:
    sheet.deeper_part("")
    learned = sheet.labs("learn", "LLM90+")
    assert learned.code == 0, learned
    assert learned.out == "LLM90+ has no exercises.\n"
    ended = sheet.labs("check", "LLM90+")
    assert ended.code == 2, ended
    assert "what: LLM90+ has no exercises." in ended.err
    assert "fix: invoke lab LLM90+" in ended.err
    write_next(sheet, ADD)
    write_next(sheet, COUNT)
    ending = sheet.labs("check", "LLM90")
    assert ending.code == 0, ending
    assert "Deeper: invoke lab LLM90+, A small lab." in ending.out


def test_a_lesson_s_sheet_is_not_a_sheet_of_its_deeper_part(deeper: Clone) -> None:
    assert deeper.labs("learn", "LLM90").code == 0
    ended = deeper.labs("LLM90+", "--sheet", SHEET)
    assert ended.code == 2, ended
    assert f"{SHEET} is not a sheet of LLM90+." in ended.err
    assert "It is a sheet of LLM90." in ended.err


def test_several_labs_are_not_checked_at_once(deeper: Clone) -> None:
    ended = deeper.labs("check", "all+")
    assert ended.code == 2, ended
    assert "all+ names 2 labs." in ended.err
