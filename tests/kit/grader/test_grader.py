"""The grader: each part is checked alone, and whatever a sheet does is explained in words."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import sheets, workbook
from common.cards import Card
from common.sheets import SENTINEL
from common.syllabus import lessons
from labs.kit.grader.grader import Grader
from labs.kit.grader.verdicts import NOT_WRITTEN, RIGHT, WRONG, Verdict
from labs.kit.sandbox import child
from tests.conftest import REPO
from tests.kit.grader import attention_lab

import pytest
import torch

LAB = lessons(attention_lab.HERE)[0]
RIGHT_BODY = "lowest = torch.finfo(scores.dtype).min\n" + (
    "    if mask is None:\n        return scores.softmax(-1)\n"
    "    return scores.masked_fill(~mask, lowest).softmax(-1).masked_fill(~mask, 0.0)"
)
SHEET = sheets.make(LAB.name, LAB.source)
FIRST_LINE = SHEET[: SHEET.index("def masked_softmax")].count("\n") + 1


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        attention_lab.add_to_the_course(patch.setattr)
        yield Grader(LAB)
    torch.set_num_threads(threads)


class Desk:
    """A learner's sheet, with `first` as the body of its first exercise."""

    def __init__(self, grader: Grader, path: Path, text: str) -> None:
        self.grader = grader
        self.path = path
        self.text = text

    def grade(self, first: str = "", text: str = "") -> dict[str, Verdict]:
        text = text or self.text.replace(SENTINEL, first or SENTINEL, 1)
        self.path.write_text(text, encoding="utf-8")
        verdicts = self.grader.grade(self.path, text)
        workbook.restore(self.path, text)
        assert self.path.read_text(encoding="utf-8") == text, "the sheet is unchanged"
        return {verdict.part: verdict for verdict in verdicts}


@pytest.fixture
def desk(grader: Grader, tmp_path: Path) -> Desk:
    return Desk(grader, tmp_path / LAB.sheet_name, SHEET)


def test_nothing_is_written_in_an_untouched_sheet(desk: Desk) -> None:
    verdicts = desk.grade()
    assert list(verdicts) == list(sheets.exercises(LAB.source))
    assert states(verdicts) == {NOT_WRITTEN}


def states(verdicts: dict[str, Verdict]) -> set[str]:
    return {verdict.state for verdict in verdicts.values()}


def test_every_part_of_the_lab_itself_is_right(desk: Desk) -> None:
    assert states(desk.grade(text=LAB.source)) == {RIGHT}


def test_a_learner_can_start_anywhere_and_the_lab_supplies_the_rest(desk: Desk) -> None:
    """tiled_attention stands alone; multi-head attention is built on two other parts."""
    for part in ("tiled_attention", "MultiHeadAttention.forward"):
        verdicts = desk.grade(text=with_bodies(desk.text, part))
        assert verdicts.pop(part).state == RIGHT
        assert states(verdicts) == {NOT_WRITTEN}


def with_bodies(text: str, *parts: str) -> str:
    """Return a sheet with the lab's own bodies of these parts."""
    lab = sheets.exercises(LAB.source)
    lines = text.splitlines(keepends=True)
    for part, exercise in reversed(sheets.exercises(text).items()):
        if part in parts:
            theirs = lab[part].node
            first = exercise.node.lineno - 1
            last = exercise.node.end_lineno
            lines[first:last] = LAB.source.splitlines(keepends=True)[
                theirs.lineno - 1 : theirs.end_lineno
            ]
    return "".join(lines)


def test_a_mistake_is_reported_where_it_was_made_and_not_where_it_is_used(desk: Desk) -> None:
    """Other parts use masked_softmax; it alone is wrong."""
    wrong = LAB.source.replace(".softmax(-1).masked_fill(~mask, 0.0)\n", ".softmax(-1)\n")
    assert wrong != LAB.source
    verdicts = desk.grade(text=wrong)
    assert verdicts.pop("masked_softmax").state == WRONG
    assert states(verdicts) == {RIGHT}


def test_a_mistake_shows_the_call_and_the_expected_and_actual_result(desk: Desk) -> None:
    (verdict, *_) = desk.grade("return scores.softmax(-1)").values()
    assert verdict.state == WRONG
    assert verdict.arguments == "float64 (2, 3, 4, 5), bool (4, 5)"
    assert " at [0, 0, 0, 0], in float64 (2, 3, 4, 5)" in verdict.expected
    assert verdict.got.split()[0] != verdict.expected.split()[0]
    assert "of 120 differ" in verdict.got
    shorter = desk.grade("return scores.softmax(-1)[0]")["masked_softmax"]
    assert (shorter.expected, shorter.got) == ("float64 (2, 3, 4, 5)", "float64 (3, 4, 5)")


def test_a_method_is_compared_with_the_lab_s_own_method(desk: Desk) -> None:
    wrong = LAB.source.replace("mixed.transpose(1, 2).flatten(2)", "mixed.flatten(1, 2)")
    assert wrong != LAB.source
    verdict = desk.grade(text=wrong)["MultiHeadAttention.forward"]
    assert verdict.state == WRONG
    assert verdict.line
    assert "self.out(" in verdict.code


def test_the_output_of_the_failing_call_is_shown(desk: Desk) -> None:
    verdict = desk.grade("print('shape', scores.shape)\n    return scoers")["masked_softmax"]
    assert verdict.printed == "shape torch.Size([2, 3, 4, 5])"
    assert "name 'scoers' is not defined" in verdict.message
    assert verdict.code == "return scoers"


def test_of_a_function_that_calls_itself_the_check_s_own_call_is_shown(desk: Desk) -> None:
    body = (
        "print('dimensions', scores.dim())\n"
        "    if scores.dim() == 0:\n        raise RuntimeError('a scalar')\n"
        "    return masked_softmax(scores[0])"
    )
    verdict = desk.grade(body)["masked_softmax"]
    assert "a scalar" in verdict.message
    assert verdict.arguments == "float64 (2, 3, 4, 5)", "the check's first call has no mask"
    assert verdict.printed.splitlines() == [f"dimensions {n}" for n in (4, 3, 2, 1, 0)]


def test_of_several_calls_the_failing_one_is_shown_with_arguments_and_output(
    desk: Desk,
) -> None:
    body = "print(k.shape)\n    if block < 10:\n        q @ v\n    return attention(q, k, v)"
    node = sheets.exercises(desk.text)["tiled_attention"].node
    head, _, rest = desk.text.partition(f"def {node.name}(")
    verdict = desk.grade(text=f"{head}def {node.name}({rest.replace(SENTINEL, body, 1)}")[node.name]
    assert "it raised RuntimeError" in verdict.message
    assert verdict.code == "q @ v"
    assert (
        verdict.arguments == "float64 (2, 3, 10, 4), float64 (2, 3, 10, 4), float64 (2, 3, 10, 6), "
        "block=4"
    )
    assert verdict.printed == "torch.Size([2, 3, 10, 4])", "only what the second call printed"
    wrong = "print(mask)\n    return scores.softmax(-1) if mask is None else scores"
    assert desk.grade(wrong)["masked_softmax"].printed.count("tensor(") == 1
    assert "None" not in desk.grade(wrong)["masked_softmax"].printed


HOSTILE = [
    ("while True:\n        pass", "is there an endless loop?", True),
    ("return masked_softmax(scores, mask)", "calls itself endlessly", True),
    (
        "return torch.empty(10 * 2**30, dtype=torch.uint8)",
        "memory than its limit of 2 GiB",
        True,
    ),
    ("return [0] * 10 * 2**30", "memory than its limit of 2 GiB", True),
    ("import os\n    os._exit(0)", "ended Python itself with code 0", False),
    ("import sys\n    sys.exit()", "ended the program (exit)", True),
    ("raise KeyboardInterrupt", "it raised KeyboardInterrupt", True),
    ("import os\n    while True:\n        os.fork()", "started more than 16 processes", False),
    ("while True:\n        print('x' * 99)", "printed more than 1 MiB", False),
    ("import ctypes\n    ctypes.string_at(0)", "crashed Python itself (SIGSEGV)", True),
    ("import os\n    os.closerange(0, 999)\n    return scores.softmax(-1)", "ended Python", False),
    ("import os\n    os.remove(__file__)", "and change temporary files", True),
    ("import einops\n    return scores", "no module named 'einops' here", True),
    ("return input('? ')", "waits for input, and there is none", True),
    (
        "if mask is None:\n        return scores.softmax(-1)\n    raise NotImplementedError",
        "still says `raise NotImplementedError`",
        True,
    ),
    ("pass\n    scores.softmax(-1)", "got nothing (None)", False),
]


@pytest.mark.parametrize(("body", "message", "placed"), HOSTILE, ids=[row[1] for row in HOSTILE])
def test_hostile_code_is_stopped_and_explained(
    desk: Desk, body: str, message: str, placed: bool
) -> None:
    verdict = desk.grade(body)["masked_softmax"]
    assert verdict.state == WRONG
    assert message in verdict.message
    if placed:
        assert verdict.code.strip() in body
        assert desk.path.read_text().splitlines()[verdict.line - 1].strip() == verdict.code.strip()


def test_hostile_code_leaves_the_other_verdicts_intact(desk: Desk) -> None:
    text = with_bodies(desk.text, "sliding_window_mask", "tiled_attention")
    verdicts = desk.grade(text=text.replace(SENTINEL, "import os\n    os._exit(0)", 1))
    found = [verdict.state for verdict in verdicts.values()]
    assert found == [WRONG, NOT_WRITTEN, NOT_WRITTEN, NOT_WRITTEN, RIGHT, RIGHT]


UNUSABLE: list[tuple[Any, str, str]] = [
    (("def masked_softmax(", "def masked_softmax(("), "is not valid Python", f"line {FIRST_LINE}"),
    (("import math\n", "import math\nimport einops\n"), "can't be run", "no module named 'einops'"),
    (("LENGTHS =", "1 / 0\nLENGTHS ="), "can't be run", "ZeroDivisionError"),
    (("LENGTHS =", "import os; os._exit(3)\nLENGTHS ="), "can't be run", "with code 3"),
    (("import math\n", "import math\0\n"), "is not valid Python", "null"),
]


@pytest.mark.parametrize(("change", "what", "why"), UNUSABLE, ids=[row[2] for row in UNUSABLE])
def test_a_sheet_that_can_not_be_run_is_one_card(
    desk: Desk, change: tuple[str, str], what: str, why: str
) -> None:
    with pytest.raises(Card) as caught:
        desk.grade(text=desk.text.replace(*change, 1))
    assert what in caught.value.what
    assert why in caught.value.why
    assert caught.value.code == 1


def test_a_lost_or_renamed_function_is_reported_and_affects_no_other_part(desk: Desk) -> None:
    text = with_bodies(desk.text, "grouped_query_attention", "MultiHeadAttention.forward")
    text = text.replace("def masked_softmax(", "def my_softmax(")
    verdicts = desk.grade(text=text)
    assert "no function of this name" in verdicts["masked_softmax"].message
    assert verdicts["grouped_query_attention"].state == RIGHT
    verdicts = desk.grade(
        text=text.replace("    def forward(self, x, mask=None", "    def go(self, x, mask=None")
    )
    assert "no function of this name" in verdicts["MultiHeadAttention.forward"].message
    assert verdicts["grouped_query_attention"].state == RIGHT


def test_own_helpers_and_a_lost_decorator_change_nothing(desk: Desk) -> None:
    text = desk.text.replace(SENTINEL, "return helper(scores, mask)", 1)
    helper = f"def helper(scores, mask):\n    {RIGHT_BODY}"
    text = text.replace("\n\n# %% Scaled", f"\n\n{helper}\n\n\n# %% Scaled")
    assert desk.grade(text=text)["masked_softmax"].state == RIGHT
    first = text.index("@lab.exercise(")
    last = text.index("def masked_softmax")
    assert desk.grade(text=text[:first] + text[last:])["masked_softmax"].state == RIGHT


@pytest.mark.parametrize("mark", ["@lab.exercise()", "@lab.exercise(level=1, hints=HINTS)"])
def test_a_changed_decorator_is_an_error_only_if_python_raises_one(desk: Desk, mark: str) -> None:
    first = desk.text.index("@lab.exercise(")
    last = desk.text.index("def masked_softmax")
    text = f"{desk.text[:first]}HINTS = ('one',)\n{mark}\n{desk.text[last:]}"
    text = text.replace(SENTINEL, RIGHT_BODY, 1)
    if mark == "@lab.exercise()":
        with pytest.raises(Card) as caught:
            desk.grade(text=text)
        assert "missing 2 required" in caught.value.why
    else:
        assert desk.grade(text=text)["masked_softmax"].state == RIGHT


def test_a_sheet_of_an_older_release_is_still_graded(desk: Desk) -> None:
    """The sheet of an older release lacks one exercise that the lab has today."""
    older = with_bodies(desk.text, "tiled_attention").replace(sheets.made_from(desk.text), "0" * 16)
    node = sheets.exercises(older)["sliding_window_mask"].node
    lines = older.splitlines(keepends=True)
    del lines[node.decorator_list[0].lineno - 1 : node.end_lineno]
    verdicts = desk.grade(text="".join(lines))
    assert verdicts["tiled_attention"].state == RIGHT
    assert verdicts["sliding_window_mask"].state == WRONG
    assert "no function of this name" in verdicts["sliding_window_mask"].message


def test_a_part_that_passed_is_checked_again_only_after_a_change_in_it_or_around_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    run = child.run

    def counting(task: Any, *rest: Any) -> Any:
        checked.append(str(task.args[-1]))  # the part; for the first child, the unwritten parts
        return run(task, *rest)

    monkeypatch.setattr(child, "run", counting)
    text = f"{LAB.source}\nAROUND = 1\n"
    parts = list(sheets.exercises(LAB.source))

    def graded(changed: str) -> tuple[list[str], list[str]]:
        checked.clear()
        verdicts = desk.grade(text=changed)
        return checked[1:], [part for part in verdicts if verdicts[part].state == WRONG]

    assert graded(text) == (parts, [])
    assert graded(text) == ([], [])
    assert graded(f"{text}# a comment\n") == ([], [])
    wrong = text.replace(".softmax(-1).masked_fill(~mask, 0.0)\n", ".softmax(-1)\n")
    assert graded(wrong) == (["masked_softmax"], ["masked_softmax"])
    assert graded(wrong) == (["masked_softmax"], ["masked_softmax"]), (
        "a failed part is checked again"
    )
    assert graded(text) == ([], []), "the text that passed is back"
    elsewhere = text.replace("/ math.sqrt(q.shape[-1])  # (..., Tq, Tk)", "# not divided")
    assert elsewhere != text
    again, broken = graded(elsewhere)
    assert again == parts
    assert "grouped_query_attention" in broken


def test_a_warm_parent_has_the_checks_imports_and_no_thread_or_child() -> None:
    """In a separate Python process: an import can't be undone."""
    code = """
import os, sys, threading
from labs.kit.grader.grader import Grader
from tests.kit.grader.attention_lab import add_to_the_course
grader = Grader(add_to_the_course())
before = set(sys.modules)
grader.keep_warm()
assert "torch._inductor" in set(sys.modules) - before, "the check of tiled_attention imports it"
assert threading.active_count() == 1
assert open(f"/proc/self/task/{os.getpid()}/children").read() == ""
states = {verdict.state for verdict in grader.grade(grader.lesson.path, grader.source)}
assert states == {"right"}, states
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_check_ends_when_the_sheet_is_saved_again(desk: Desk) -> None:
    text = f"{LAB.source}\nUNSEEN = 1\n"
    desk.path.write_text(text)
    saved = iter([False] * 3)
    verdicts = desk.grader.grade(desk.path, text, stop=lambda: next(saved, True))
    assert len(verdicts) < len(sheets.exercises(text))
