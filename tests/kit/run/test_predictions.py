"""Guesses: asked where somebody sits at a terminal, kept, and nowhere in anybody's way."""

import json
import sys
from pathlib import Path
from typing import Any

from labs.kit.run.predictions import question
from tests.conftest import Clone, Running

PROMPT = "your guess (Enter skips):"


def start(school: Clone, *words: str, **how: Any) -> Running:
    how = {"terminal": (40, 100), "TERM": "xterm", "CI": None, **how}
    command = (sys.executable, "-m", "labs", *words)
    return school.start(*command, PYTHONPATH=str(school.path), **how)


def results(school: Clone) -> tuple[dict[str, Any], Path]:
    folder = max((school.outputs / "LLM90").iterdir())
    return json.loads((folder / "results.json").read_text()), folder


def test_a_guess_is_asked_before_and_shown_beside_what_came(school: Clone) -> None:
    running = start(school, "LLM90")
    running.wait_for(PROMPT)
    assert "what do one, two and three come to?" in running.text
    assert "They come to" not in running.text, "asked before it is shown"
    running.type("about <5>\x1b[A é\n".encode())
    assert running.ended().code == 0, running.text
    assert "you guessed: about <5>" in running.text
    found, folder = results(school)
    (guess,) = found["guesses"].values()
    assert guess.startswith("about <5>") and "\x1b" not in guess and guess.endswith("é")
    page = (folder / "report.html").read_text()
    row = page.split("your guess</th>")[1].split("</table>")[0]
    assert "about &lt;5&gt;" in row and "They come to 6." in row
    assert page.count("They come to 6.") == 1
    assert "you guessed" in (folder / "log.txt").read_text()


def test_a_guess_changes_nothing_that_is_reproducible(school: Clone) -> None:
    running = start(school, "LLM90")
    running.wait_for(PROMPT)
    running.type(b"7\n")
    assert running.ended().code == 0
    with_guess = results(school)[0]
    assert school.labs("LLM90", "--outputs", "outputs/pipe").code == 0
    (folder,) = (school.outputs / "pipe" / "LLM90").iterdir()
    without = json.loads((folder / "results.json").read_text())
    assert with_guess.pop("guesses") and without.pop("guesses") == {}
    with_guess.pop("timings"), without.pop("timings")
    assert with_guess == without


def test_enter_and_the_end_of_input_skip_it(school: Clone) -> None:
    for key in (b"\n", b"\x04"):
        running = start(school, "LLM90")
        running.wait_for(PROMPT)
        running.type(key)
        assert running.ended().code == 0, running.text
        assert "you guessed" not in running.text
        assert results(school)[0]["guesses"] == {}


def test_ctrl_c_ends_the_run_while_it_is_asked(school: Clone) -> None:
    running = start(school, "LLM90")
    running.wait_for(PROMPT)
    running.type(b"\x03")
    assert running.ended().code == 130


def test_nobody_is_asked_on_a_pipe_in_ci_or_of_several_labs(school: Clone) -> None:
    assert PROMPT not in school.labs("LLM90").out
    in_ci = start(school, "LLM90", CI="true")
    assert in_ci.ended().code == 0 and PROMPT not in in_ci.text
    (school.path / "labs" / "checks" / "llm91.py").write_text(
        (school.path / "labs" / "checks" / "llm90.py").read_text()
    )
    lab = (school.path / "labs" / "llm90_small.py").read_text()
    (school.path / "labs" / "llm91_small.py").write_text(lab.replace("LLM90", "LLM91"))
    several = start(school, "all")
    assert several.ended().code == 0 and PROMPT not in several.text


def test_of_several_processes_none_asks(school: Clone) -> None:
    running = start(school, "LLM90", "--processes", "2")
    assert running.ended().code == 0, running.text
    assert PROMPT not in running.text


def test_the_question_is_the_paragraph_that_begins_with_predict() -> None:
    assert question("Some detail.\n\nPredict: how\nmuch?\n\nMore.") == "Predict: how much?"
    assert question("Nothing to predict: it is known.") == ""
