"""What a learner's code prints can't control the terminal; colors and bars stay."""

import io
import sys

from labs.kit.run import plain_output
from labs.kit.run.plain_output import harmless, plain

import pytest
from rich.console import Console
from rich.progress import Progress

HOSTILE = [
    "\x1b]0;a new title\x07",
    "\x1b]52;c;cm0gLXJmIH4K\x1b\\",  # the clipboard
    "\x1b[2J",
    "\x1b[6n",  # the terminal's reply counts as typed
    "\x1bP$q\x1b\\",
    "\x9b31m",
    "\x07",
    "\x08\x08\x08",
    "\x1b",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_that_is_quoted_has_no_control_characters(text: str) -> None:
    shown = plain(f"before {text}after\n\tand a tab")
    assert not [one for one in shown if (one < " " and one not in "\n\t") or "\x7f" <= one < "\xa0"]
    assert shown.startswith("before ") and shown.endswith("after\n\tand a tab")


def test_a_return_of_the_carriage_ends_a_line() -> None:
    assert plain("10 %\r20 %\r\ndone ✓") == "10 %\n20 %\ndone ✓"


@pytest.mark.parametrize("text", [one for one in HOSTILE if one != "\x1b[2J"])
def test_a_sheet_s_output_has_no_harmful_sequences(text: str) -> None:
    shown = harmless(f"before {text}after")
    assert "\x1b" not in shown and "\x07" not in shown and "\x9b" not in shown


def test_a_sequence_in_two_pieces_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    plain_output.protect_terminal()
    plain_output.protect_terminal()
    print("\x1b", end="")
    print("]0;title\x07", "\x1b[", sep="", end="")
    sys.stdout.writelines(["6n", "\x1b"])
    assert "\x1b" not in screen.getvalue()


def test_the_colors_and_bars_of_the_lab_itself_stay() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system="256", width=60)
    console.print("[red]wrong[/red]")
    with Progress(console=console) as progress:
        progress.advance(progress.add_task("training", total=2))
    assert "\x1b[" in screen.getvalue()
    assert harmless(screen.getvalue()) == screen.getvalue()
