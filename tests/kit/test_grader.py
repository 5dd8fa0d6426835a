"""The grader on LLM06: each part by itself, and whatever a sheet does, it is told in words."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labs.course import sheets, workbook
from labs.course.cards import Card
from labs.course.sheets import SENTINEL
from labs.course.syllabus import find
from labs.kit.grader import sandbox
from labs.kit.grader.grader import Grader
from labs.kit.grader.verdicts import NOT_WRITTEN, RIGHT, WRONG, Verdict
from tests.conftest import REPO

import pytest
import torch

LAB = find("LLM06")[0]
RIGHT_BODY = "lowest = torch.finfo(scores.dtype).min\n" + (
    "    if mask is None:\n        return scores.softmax(-1)\n"
    "    return scores.masked_fill(~mask, lowest).softmax(-1).masked_fill(~mask, 0.0)"
)


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    threads = torch.get_num_threads()
    yield Grader(LAB)
    torch.set_num_threads(threads)


@pytest.fixture
def untouched() -> str:
    return sheets.make(LAB.name, LAB.source)


class Desk:
    """A learner's sheet, with `first` as the body of its first exercise."""

    def __init__(self, grader: Grader, path: Path, text: str) -> None:
        self.grader, self.path, self.text = grader, path, text

    def grade(self, first: str = "", text: str = "") -> dict[str, Verdict]:
        text = text or self.text.replace(SENTINEL, first or SENTINEL, 1)
        self.path.write_text(text, encoding="utf-8")
        found = self.grader.grade(self.path, text)
        workbook.put_back(self.path, text)
        assert self.path.read_text(encoding="utf-8") == text, "the sheet is as it was"
        return {one.part: one for one in found}


@pytest.fixture
def desk(grader: Grader, tmp_path: Path, untouched: str) -> Desk:
    return Desk(grader, tmp_path / LAB.path.name, untouched)


def test_nothing_is_written_in_an_untouched_sheet(desk: Desk) -> None:
    verdicts = desk.grade()
    assert list(verdicts) == list(sheets.exercises(LAB.source))
    assert {one.state for one in verdicts.values()} == {NOT_WRITTEN}


def test_the_lab_itself_is_all_right(desk: Desk) -> None:
    assert {one.state for one in desk.grade(text=LAB.source).values()} == {RIGHT}


def test_one_can_start_anywhere_the_rest_is_the_lab_s(desk: Desk) -> None:
    """tiled_attention alone; and multi-head attention, which is built on two others."""
    for part in ("tiled_attention", "MultiHeadAttention.forward"):
        verdicts = desk.grade(text=with_bodies(desk.text, part))
        assert verdicts.pop(part).state == RIGHT
        assert {one.state for one in verdicts.values()} == {NOT_WRITTEN}


def with_bodies(text: str, *parts: str) -> str:
    """An untouched sheet with these bodies as in the lab."""
    lab, lines = sheets.exercises(LAB.source), text.splitlines(keepends=True)
    for part, exercise in reversed(sheets.exercises(text).items()):
        if part in parts:
            theirs = lab[part].node
            first, last = exercise.node.lineno - 1, exercise.node.end_lineno
            lines[first:last] = LAB.source.splitlines(keepends=True)[
                theirs.lineno - 1 : theirs.end_lineno
            ]
    return "".join(lines)


def test_a_mistake_is_told_where_it_was_made_and_not_where_it_is_used(desk: Desk) -> None:
    """Everything rests on masked_softmax; it alone is wrong."""
    wrong = LAB.source.replace(".softmax(-1).masked_fill(~mask, 0.0)\n", ".softmax(-1)\n")
    assert wrong != LAB.source
    verdicts = desk.grade(text=wrong)
    assert verdicts.pop("masked_softmax").state == WRONG
    assert {one.state for one in verdicts.values()} == {RIGHT}


def test_a_mistake_comes_with_the_call_what_was_expected_and_what_came(desk: Desk) -> None:
    (verdict, *_) = desk.grade("return scores.softmax(-1)").values()
    assert verdict.state == WRONG
    assert verdict.given == "float64 (2, 3, 4, 5), bool (4, 5)"
    assert " at [0, 0, 0, 0], in float64 (2, 3, 4, 5)" in verdict.expected
    assert verdict.came.split()[0] != verdict.expected.split()[0]
    assert "of 120 differ" in verdict.came
    shorter = desk.grade("return scores.softmax(-1)[0]")["masked_softmax"]
    assert (shorter.expected, shorter.came) == ("float64 (2, 3, 4, 5)", "float64 (3, 4, 5)")


def test_a_method_s_mistake_is_compared_with_the_lab_s_own_method(desk: Desk) -> None:
    wrong = LAB.source.replace("mixed.transpose(1, 2).flatten(2)", "mixed.flatten(1, 2)")
    assert wrong != LAB.source
    verdict = desk.grade(text=wrong)["MultiHeadAttention.forward"]
    assert verdict.state == WRONG
    assert verdict.line and "self.out(" in verdict.code


def test_what_it_printed_is_shown(desk: Desk) -> None:
    verdict = desk.grade("print('shape', scores.shape)\n    return scoers")["masked_softmax"]
    assert verdict.printed == "shape torch.Size([2, 3, 4, 5])"
    assert "name 'scoers' is not defined" in verdict.said
    assert verdict.code == "return scoers"


def test_of_eight_calls_what_the_failing_one_was_given_and_printed_is_shown(desk: Desk) -> None:
    body = "print(k.shape)\n    if block < 10:\n        q @ v\n    return attention(q, k, v)"
    node = sheets.exercises(desk.text)["tiled_attention"].node
    head, _, rest = desk.text.partition(f"def {node.name}(")
    verdict = desk.grade(text=f"{head}def {node.name}({rest.replace(SENTINEL, body, 1)}")[node.name]
    assert "it raised RuntimeError" in verdict.said and verdict.code == "q @ v"
    assert (
        verdict.given == "float64 (2, 3, 10, 4), float64 (2, 3, 10, 4), float64 (2, 3, 10, 6), "
        "block=4"
    )
    assert verdict.printed == "torch.Size([2, 3, 10, 4])", "of the second call alone"
    wrong = "print(mask)\n    return scores.softmax(-1) if mask is None else scores"
    assert desk.grade(wrong)["masked_softmax"].printed.count("tensor(") == 1
    assert "None" not in desk.grade(wrong)["masked_softmax"].printed


HOSTILE = [
    ("while True:\n        pass", "is there an endless loop?", True),
    ("return masked_softmax(scores, mask)", "calls itself without end", True),
    ("return torch.empty(10 * 2**30, dtype=torch.uint8)", "more memory than its 2 GiB", True),
    ("return [0] * 10 * 2**30", "more memory than its 2 GiB", True),
    ("import os\n    os._exit(0)", "ended Python itself, with code 0", False),
    ("import sys\n    sys.exit()", "ended the program (exit)", True),
    ("raise KeyboardInterrupt", "it raised KeyboardInterrupt", True),
    ("import os\n    while True:\n        os.fork()", "more processes than its limit", False),
    ("while True:\n        print('x' * 99)", "printed more than 1 MiB", False),
    ("import ctypes\n    ctypes.string_at(0)", "crashed Python itself (SIGSEGV)", True),
    ("import os\n    os.closerange(0, 999)\n    return scores.softmax(-1)", "ended Python", False),
    ("import os\n    os.remove(__file__)", "may change no files", True),
    ("import einops\n    return scores", "no module named 'einops' here", True),
    ("return input('? ')", "nobody is there to type", True),
    ("if mask is None:\n        return scores.softmax(-1)\n    raise NotImplementedError",
     "still says `raise NotImplementedError`", True),
    ("pass\n    scores.softmax(-1)", "nothing (None) came", False),
]  # fmt: skip


@pytest.mark.parametrize(("body", "told", "placed"), HOSTILE, ids=[one[1] for one in HOSTILE])
def test_whatever_a_body_does_it_is_stopped_and_explained(
    desk: Desk, body: str, told: str, placed: bool
) -> None:
    verdict = desk.grade(body)["masked_softmax"]
    assert verdict.state == WRONG
    assert told in verdict.said
    if placed:
        assert verdict.code.strip() in body
        assert desk.path.read_text().splitlines()[verdict.line - 1].strip() == verdict.code.strip()


def test_nothing_else_is_lost_by_a_hostile_body(desk: Desk) -> None:
    text = with_bodies(desk.text, "sliding_window_mask", "tiled_attention")
    verdicts = desk.grade(text=text.replace(SENTINEL, "import os\n    os._exit(0)", 1))
    assert [one.state for one in verdicts.values()] == [WRONG, *[NOT_WRITTEN] * 3, RIGHT, RIGHT]


WHOLE: list[tuple[Any, str, str]] = [
    (("def masked_softmax(", "def masked_softmax(("), "can't be read as Python", "line 71"),
    (("import math\n", "import math\nimport einops\n"), "can't be run", "no module named 'einops'"),
    (("LENGTHS =", "1 / 0\nLENGTHS ="), "can't be run", "ZeroDivisionError"),
    (("LENGTHS =", "import os; os._exit(3)\nLENGTHS ="), "can't be run", "with code 3"),
    (("import math\n", "import math\0\n"), "can't be read as Python", "null"),
]


@pytest.mark.parametrize(("change", "what", "why"), WHOLE, ids=[one[2] for one in WHOLE])
def test_a_sheet_that_can_not_be_run_is_one_card(
    desk: Desk, change: tuple[str, str], what: str, why: str
) -> None:
    with pytest.raises(Card) as caught:
        desk.grade(text=desk.text.replace(*change, 1))
    assert what in caught.value.what
    assert why in caught.value.why
    assert caught.value.code == 1


def test_what_is_no_utf_8_is_a_card_that_names_the_byte(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.py"
    sheet.write_bytes(b"# one\n# \xe9t\xe9\n")
    with pytest.raises(Card) as caught:
        workbook.read(sheet)
    assert "Line 2 has the byte 0xe9" in caught.value.why


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.py"
    sheet.write_bytes(b"\xef\xbb\xbfx = 1\r\ny = 2\r\n")
    assert workbook.read(sheet) == "x = 1\ny = 2\n"


def test_a_lost_or_renamed_function_is_told_and_hurts_no_other(desk: Desk) -> None:
    text = with_bodies(desk.text, "grouped_query_attention", "MultiHeadAttention.forward")
    text = text.replace("def masked_softmax(", "def my_softmax(")
    verdicts = desk.grade(text=text)
    assert "no function of this name" in verdicts["masked_softmax"].said
    assert verdicts["grouped_query_attention"].state == RIGHT
    verdicts = desk.grade(
        text=text.replace("    def forward(self, x, mask=None", "    def go(self, x, mask=None")
    )
    assert "no function of this name" in verdicts["MultiHeadAttention.forward"].said
    assert verdicts["grouped_query_attention"].state == RIGHT


def test_a_learner_s_helpers_and_a_lost_decorator_are_fine(desk: Desk) -> None:
    text = desk.text.replace(SENTINEL, "return helper(scores, mask)", 1)
    helper = RIGHT_BODY.replace("\n    ", "\n    ")
    text = text.replace(
        "\n\n# %% 1. Scaled", f"\n\ndef helper(scores, mask):\n    {helper}\n\n\n# %% 1. Scaled"
    )
    assert desk.grade(text=text)["masked_softmax"].state == RIGHT
    first = text.index("@lab.exercise(")
    last = text.index("def masked_softmax")
    assert desk.grade(text=text[:first] + text[last:])["masked_softmax"].state == RIGHT


@pytest.mark.parametrize("mark", ["@lab.exercise()", "@lab.exercise(level=1, hints=HINTS)"])
def test_a_decorator_that_was_changed_is_the_sheet_s_own_error_or_none(
    desk: Desk, mark: str
) -> None:
    first, last = desk.text.index("@lab.exercise("), desk.text.index("def masked_softmax")
    text = f"{desk.text[:first]}HINTS = ('one',)\n{mark}\n{desk.text[last:]}"
    text = text.replace(SENTINEL, RIGHT_BODY, 1)
    if mark == "@lab.exercise()":
        with pytest.raises(Card) as caught:
            desk.grade(text=text)
        assert "missing 2 required" in caught.value.why
    else:
        assert desk.grade(text=text)["masked_softmax"].state == RIGHT


def test_a_sheet_of_an_older_release_is_still_graded(desk: Desk) -> None:
    """Its lab had one exercise less, another bound, and a function that is gone now."""
    older = with_bodies(desk.text, "tiled_attention").replace(sheets.made_from(desk.text), "0" * 16)
    node = sheets.exercises(older)["sliding_window_mask"].node
    lines = older.splitlines(keepends=True)
    del lines[node.decorator_list[0].lineno - 1 : node.end_lineno]
    verdicts = desk.grade(text="".join(lines))
    assert verdicts["tiled_attention"].state == RIGHT
    assert verdicts["sliding_window_mask"].state == WRONG
    assert "no function of this name" in verdicts["sliding_window_mask"].said


def test_a_part_that_passed_is_checked_again_only_where_it_or_what_is_around_it_changed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    run = sandbox.run

    def counting(work: Any, *rest: Any) -> Any:
        checked.append(str(work.args[-1]))  # the part; of the first child, what is lacking
        return run(work, *rest)

    monkeypatch.setattr(sandbox, "run", counting)
    text = f"{LAB.source}\nAROUND = 1\n"
    parts = list(sheets.exercises(LAB.source))

    def graded(changed: str) -> tuple[list[str], list[str]]:
        checked.clear()
        verdicts = desk.grade(text=changed)
        return checked[1:], [part for part, one in verdicts.items() if one.state == WRONG]

    assert graded(text) == (parts, [])
    assert graded(text) == ([], [])
    assert graded(f"{text}# said in a comment\n") == ([], [])
    wrong = text.replace(".softmax(-1).masked_fill(~mask, 0.0)\n", ".softmax(-1)\n")
    assert graded(wrong) == (["masked_softmax"], ["masked_softmax"])
    assert graded(wrong) == (["masked_softmax"], ["masked_softmax"]), "only what passed is known"
    assert graded(text) == ([], []), "the text that passed is back"
    elsewhere = text.replace("/ math.sqrt(q.shape[-1])  # (..., Tq, Tk)", "# not divided")
    assert elsewhere != text
    again, broken = graded(elsewhere)
    assert again == parts and "grouped_query_attention" in broken


def test_kept_warm_the_parent_has_what_a_check_imports_and_no_thread_or_process() -> None:
    """In a Python of its own: what was imported can't be taken back."""
    code = """
import os, sys, threading
from labs.kit.grader.grader import Grader
from labs.course.syllabus import find
grader = Grader(find("LLM06")[0])
before = set(sys.modules)
grader.keep_warm()
assert "torch._inductor" in set(sys.modules) - before, "the tiled check asks for it"
assert threading.active_count() == 1
assert open(f"/proc/self/task/{os.getpid()}/children").read() == ""
states = {one.state for one in grader.grade(grader.lesson.path, grader.source)}
assert states == {"right"}, states
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_check_is_given_up_when_the_sheet_is_saved_again(desk: Desk) -> None:
    text = f"{LAB.source}\nUNSEEN = 1\n"
    desk.path.write_text(text)
    asked = iter([False] * 3)
    found = desk.grader.grade(desk.path, text, stop=lambda: next(asked, True))
    assert len(found) < len(sheets.exercises(text))
