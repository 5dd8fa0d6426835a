"""Cards on a pipe and on a terminal; what is said, is said on stderr."""

import io
import sys

from launcher.cards import Card, say, show, unknown_value

import pytest

CARD = Card("What [bold]happened[/bold].", "Why: a/b " + "c" * 200, "the 'one' command")


def test_on_a_pipe_a_card_is_three_plain_lines(capsys) -> None:
    show(CARD)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"what: {CARD.what}\nwhy: {CARD.why}\nmend: {CARD.mend}\n"


def test_on_a_terminal_a_card_is_a_panel_that_keeps_its_words(monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    show(CARD)
    printed = terminal.getvalue()
    assert "╭" in printed and "llm-labs" in printed
    assert "[bold]happened[/bold]" in printed
    assert "the 'one' command" in printed


def test_what_is_done_is_told_beside_the_lab_s_output(capsys) -> None:
    say("making [something]")
    assert capsys.readouterr() == ("", "making [something]\n")


def test_an_unknown_value_is_wrong_usage() -> None:
    with pytest.raises(Card) as caught:
        unknown_value("--stack", "tpu", ("auto", "cpu"))
    assert caught.value.code == 2
    assert "auto, cpu" in caught.value.why
