"""Cards and status lines on a pipe and on a terminal."""

import io
import sys

from common.cards import Card, print_status, refuse_value

import pytest

CARD = Card("What [bold]happened[/bold].", "Why: a/b " + "c" * 200, "the 'one' command")


def test_a_card_is_three_plain_lines_on_a_pipe(capsys) -> None:
    CARD.show()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"what: {CARD.what}\nwhy: {CARD.why}\nfix: {CARD.fix}\n"


def test_a_card_is_a_panel_with_the_same_text_on_a_terminal(monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    CARD.show()
    printed = terminal.getvalue()
    assert "╭" in printed and "llm-labs" in printed
    assert "[bold]happened[/bold]" in printed
    assert "the 'one' command" in printed


def test_status_lines_go_to_stderr(capsys) -> None:
    print_status("making [something]")
    assert capsys.readouterr() == ("", "making [something]\n")


def test_an_unknown_value_is_wrong_usage() -> None:
    with pytest.raises(Card) as caught:
        refuse_value("--stack", "tpu", ("auto", "cpu"))
    assert caught.value.code == 2
    assert "auto, cpu" in caught.value.why
