"""A build's steps: their own output is shown, and a step that fails is a card."""

import signal
import sys
from pathlib import Path

from common.cards import Card
from launcher.image.build import Step, run_build
from tests.conftest import REPO, Running

import pytest

FULL = "import os; os.write(os.open('/dev/full', os.O_WRONLY), b'x')"
# Two steps; the second one shows whether it has a terminal, and may wait for a signal.
BUILD = """
import sys
from launcher.image.build import Step, run_build
from common.interrupts import Interrupted, Interrupts
second = "import sys, time; print('terminal', sys.stdout.isatty(), flush=True); time.sleep(%s)"
second = [sys.executable, "-c", second % sys.argv[1]]
try:
    with Interrupts():
        run_build("It failed.", [Step("The first", ["true"]), Step("The second", second)])
except Interrupted:
    sys.exit(130)
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


def test_each_step_has_a_title_and_shows_its_output(capfd) -> None:
    first = Step("The first", python("print('out')"))
    second = Step("The second", python("import os; print(os.environ['A'])"), {"A": "b"})
    run_build("It failed.", [first, Step("", ["true"]), second])
    shown = capfd.readouterr().err
    assert shown.startswith("  The first\nout\n  The second\nb\nDone in ")


def test_a_failed_step_is_a_card_without_colors(tmp_path: Path) -> None:
    code = "print('\\x1b[31mline\\x1b[0m 19'); raise SystemExit(1)"
    never = tmp_path / "never"
    with pytest.raises(Card) as caught:
        run_build("It failed.", [Step("First", python(code)), Step("", ["touch", str(never)])])
    assert (caught.value.what, caught.value.why) == ("It failed.", "line 19")
    assert not never.exists()


def test_a_full_disk_is_a_card() -> None:
    with pytest.raises(Card) as caught:
        run_build("It failed.", [Step("First", python(FULL))])
    assert caught.value.what == "The disk is full."


@pytest.mark.parametrize("seconds", [0, 600])
def test_on_a_terminal_a_step_has_a_terminal(seconds: int) -> None:
    words = [sys.executable, "-c", BUILD, str(seconds)]
    with Running(words, (40, 100), cwd=REPO, env={"TERM": "xterm"}) as running:
        running.wait_for("terminal True")
        if seconds:
            running.send(signal.SIGTERM)
        assert running.ended().code == (130 if seconds else 0)
        assert ("Done in" in running.text) == (not seconds)
