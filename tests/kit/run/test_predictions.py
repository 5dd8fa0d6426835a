"""The learner's guesses: requested on a terminal, recorded, and skipped everywhere else."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from labs.kit.run.predictions import question
from tests.conftest import Clone, Running
from tests.small_lab import CHECKS, LAB

import pytest

PROMPT = "your guess (Enter skips):"


def start(school: Clone, *words: str, **how: Any) -> Running:
    how = {"terminal": (40, 100), "TERM": "xterm", "CI": None, **how}
    command = (sys.executable, "-m", "labs", *words)
    return school.start(*command, PYTHONPATH=str(school.path), **how)


def results(school: Clone) -> tuple[dict[str, Any], Path]:
    folder = max((school.outputs / "LLM90").iterdir())
    return json.loads((folder / "results.json").read_text()), folder


def test_a_guess_is_requested_first_and_shown_beside_the_result(school: Clone) -> None:
    running = start(school, "LLM90")
    running.wait_for(PROMPT)
    assert "what do one, two and three come to?" in running.text
    assert "They come to" not in running.text, "the guess comes before the result"
    running.type("about <5>\x1b[A é\n".encode())
    assert running.ended().code == 0, running.text
    assert "you guessed: about <5>" in running.text
    found, folder = results(school)
    (guess,) = found["guesses"].values()
    assert guess.startswith("about <5>")
    assert "\x1b" not in guess
    assert guess.endswith("é")
    page = (folder / "report.html").read_text()
    row = page.split("your guess</th>")[1].split("</table>")[0]
    assert "about &lt;5&gt;" in row
    assert "They come to 6." in row
    assert page.count("They come to 6.") == 1
    assert "you guessed" in (folder / "log.txt").read_text()


def test_a_guess_changes_no_reproducible_result(school: Clone) -> None:
    words = ("LLM90", "--precision", "fp32")  # `auto` measures, and two measurements may differ
    running = start(school, *words)
    running.wait_for(PROMPT)
    running.type(b"7\n")
    assert running.ended().code == 0
    with_guess = results(school)[0]
    assert school.labs(*words, "--outputs", "outputs/pipe").code == 0
    (folder,) = (school.outputs / "pipe" / "LLM90").iterdir()
    without = json.loads((folder / "results.json").read_text())
    assert with_guess.pop("guesses")
    assert without.pop("guesses") == {}
    del with_guess["timings"]
    del without["timings"]
    assert with_guess == without


def test_enter_and_ctrl_d_skip_the_guess(school: Clone) -> None:
    for key in (b"\n", b"\x04"):
        running = start(school, "LLM90")
        running.wait_for(PROMPT)
        running.type(key)
        assert running.ended().code == 0, running.text
        assert "you guessed" not in running.text
        assert results(school)[0]["guesses"] == {}


TWO_QUESTIONS = (
    LAB
    + '''

# %% 3. Another claim
@lab.experiment
def counting_again(run: Run):
    """Counting again.

    Predict: what does one come to?
    """
    run.check("one", Counter().count(1), equals=1, decides=True)
'''
)
HOW_TO_SKIP = "Enter skips a question, Ctrl-D all questions of this run."


@pytest.mark.parametrize(("keys", "questions"), [(b"\n", 2), (b"\x04", 1)])
def test_ctrl_d_skips_all_questions_and_the_first_one_says_so(
    school: Clone, keys: bytes, questions: int
) -> None:
    school.kit_lab(TWO_QUESTIONS, checks=CHECKS)
    running = start(school, "LLM90")
    for number in range(1, questions + 1):
        running.wait_for(lambda number=number: running.text.count(PROMPT) == number)
        running.type(keys)
    assert running.ended().code == 0, running.text
    assert running.text.count(PROMPT) == questions
    assert running.text.count(HOW_TO_SKIP) == 1
    assert running.text.index(HOW_TO_SKIP) < running.text.index(PROMPT)


def test_ctrl_c_at_the_prompt_ends_the_run(school: Clone) -> None:
    running = start(school, "LLM90")
    running.wait_for(PROMPT)
    running.type(b"\x03")
    assert running.ended().code == 130


def test_no_guess_is_requested_on_a_pipe_in_ci_or_with_several_labs(school: Clone) -> None:
    assert PROMPT not in school.labs("LLM90").out
    in_ci = start(school, "LLM90", CI="true")
    assert in_ci.ended().code == 0
    assert PROMPT not in in_ci.text
    shutil.copytree(school.lab_folder("LLM90"), school.lab_folder("LLM91"))
    school.change("labs/llm91_small/lesson.py", "LLM90", "LLM91")
    several = start(school, "all")
    assert several.ended().code == 0
    assert "LLM91" in several.text
    assert PROMPT not in several.text


def test_no_guess_is_requested_with_several_processes(school: Clone) -> None:
    running = start(school, "LLM90", "--processes", "2")
    assert running.ended().code == 0, running.text
    assert PROMPT not in running.text


def test_the_question_is_the_paragraph_that_starts_with_predict() -> None:
    assert question("Some detail.\n\nPredict: how\nmuch?\n\nMore.") == "Predict: how much?"
    assert question("Nothing to predict: it is known.") == ""
