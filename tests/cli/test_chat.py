"""`python -m labs chat` and `invoke chat`: on a terminal, from a pipe, and in a container."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from labs.cli import chat as chat_command
from tests.conftest import BIN, Clone, Ended, Running
from tests.kit.chat.small_models import TEMPLATE, WORDS, save_adapter, save_model

import pytest

READY = "Ctrl-D ends the chat"
LONG = 400  # characters, so that a reply is on its way
RUN = "2026-01-01_00-00-00"


@pytest.fixture(scope="module")
def chats(shared_clone: Clone) -> Clone:
    """A clone in which LLM10 saved a chat model and a base model, and LLM07 an adapter."""
    chat = shared_clone.outputs / "LLM10" / RUN / "model"
    save_model(chat, TEMPLATE, context=100_000)
    (chat / "README.md").write_text("---\nlicense: mit\n---\n# Small, trained on faq.csv\n")
    save_model(shared_clone.outputs / "LLM10" / "2025-01-01_00-00-00" / "base", context=64)
    save_adapter(shared_clone.outputs / "LLM07" / RUN / "adapter", chat)
    return shared_clone


def labs(clone: Clone, home: Path, *words: str, **how: Any) -> Running:
    """Start `python -m labs chat` in the tests' own Python."""
    how = {"PYTHONPATH": str(clone.path), "LABS_HOME": str(home), **how}
    return clone.start(sys.executable, "-m", "labs", "chat", *words, **how)


def wait_for_prompt(chat: Running) -> None:
    chat.wait_for(lambda: chat.text.endswith("\n> "))


def say(chat: Running, *lines: str) -> None:
    """Type lines, each when the prompt is there: before that, the terminal is in another mode."""
    for line in lines:
        wait_for_prompt(chat)
        before = len(chat.text)
        chat.type(f"{line}\n".encode())
        chat.wait_for(lambda before=before: len(chat.text) > before)


def stop_a_long_reply(chat: Running) -> None:
    """Ask for a reply without an end, and press Ctrl-C in the middle of it."""
    say(chat, "/max-tokens 90000", "/top-k 1", "why")
    before = len(chat.text)
    chat.wait_for(lambda: len(chat.text) > before + LONG)
    chat.type(b"\x03")
    chat.wait_for("(stopped)")


def pipe(clone: Clone, home: Path, text: bytes, *words: str) -> Ended:
    """Give a text to `python -m labs chat` by a pipe."""
    environment = {**os.environ, "PYTHONPATH": str(clone.path), "LABS_HOME": str(home)}
    command = [sys.executable, "-m", "labs", "chat", *words]
    ended = subprocess.run(
        command, input=text, capture_output=True, cwd=clone.path, env=environment, check=False
    )
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


# SmolLM2


def test_smollm2_replies_to_a_pipe_once(chats: Clone, labs_home: Path) -> None:
    ended = pipe(chats, labs_home, b"What is the capital of France? One short sentence.\n")
    assert ended.code == 0, ended
    assert "Paris" in ended.out
    assert ended.out.count("\n") == 1
    assert ended.err == ""


def test_smollm2_talks_on_a_terminal(chats: Clone, labs_home: Path) -> None:
    chat = labs(chats, labs_home, terminal=(30, 100), TERM="dumb")
    chat.wait_for(READY)
    assert "SmolLM2-135M-Instruct · 134.5 M parameters" in chat.text
    say(chat, "/temperature 0", "/system Reply with one word.", "What is the capital of France?")
    chat.wait_for("Paris")
    say(chat, "/quit")
    assert chat.ended().code == 0


# Small models


def test_commands_are_obeyed_and_ctrl_c_stops_a_reply_before_it_ends_the_chat(
    chats: Clone, labs_home: Path
) -> None:
    chat = labs(chats, labs_home, "LLM10", terminal=(30, 100), TERM="dumb")
    chat.wait_for(READY)
    for typed, reply in (
        ("/top-k 5", "/top-k 5"),
        ("/top-p 2", "/top-p needs a number from 0.01 to 1."),
        ("/max-tokens 3", "/max-tokens 3"),
        ("/seed -1", "/seed needs an integer from 0 to 4294967295."),
        ("/max-tokens 0", "/max-tokens needs an integer from 1 to 1000000."),
        ("/nonsense", "There is no command /nonsense."),
        ("/help", "A message that starts with / needs a space before it."),
        ("good morning", "(3 tokens; /max-tokens allows longer replies)"),
        ("/settings", "/top-k        5"),
        ("/reset", "This is a new conversation."),
        ("/system", "The model's own system prompt is used."),
    ):
        say(chat, typed)
        chat.wait_for(reply)
    stop_a_long_reply(chat)
    say(chat, "/max-tokens 2", "good")  # the stopped reply is a part of the conversation
    chat.wait_for("(2 tokens;")
    wait_for_prompt(chat)
    chat.type(b"\x03")
    ended = chat.ended()
    assert ended.code == 130
    assert "Traceback" not in ended.out


def test_a_base_model_continues_text_and_says_so(chats: Clone, labs_home: Path) -> None:
    base = str(chats.outputs / "LLM10" / "2025-01-01_00-00-00")
    chat = labs(chats, labs_home, base, terminal=(30, 100), TERM="dumb")
    chat.wait_for("It continues your text.")
    chat.wait_for(READY)
    say(chat, "/top-k 1", "/system x")
    chat.wait_for("A base model has no system prompt.")
    say(chat, "good morning")
    chat.wait_for("(the context of 64 tokens is full)")
    say(chat, "")
    chat.wait_for("of the text were left out.")
    wait_for_prompt(chat)
    chat.type(b"\x04")
    assert chat.ended().code == 0


def test_an_adapter_replies_to_a_message_of_two_lines(chats: Clone, labs_home: Path) -> None:
    ended = pipe(chats, labs_home, b" /seed 1\nwhy ?", "LLM07")
    assert ended.code == 0, ended
    assert set(ended.out.split()) <= set(WORDS)
    assert ended.out.strip()


@pytest.mark.parametrize(
    "text, words, what",
    [
        (b"", [], "There is nothing to reply to."),
        (b" \n", [], "There is nothing to reply to."),
        (b"\xff\xfe", [], "The input isn't UTF-8."),
        (b"x" * (2**20 + 1), [], "The input is too long."),
        (b"/settings\n", [], "/settings is a command, and commands need a terminal."),
        (b"/seed 1\nWhat is a token?\n", [], "/seed is a command, and commands need a terminal."),
        (b"why", ["LLM06"], "LLM06 has saved no model"),
        (b"why", ["outputs/gone"], "There is no folder outputs/gone."),
        (b"why", ["--loud"], "chat has no option --loud."),
    ],
)
def test_what_gets_no_reply_is_a_card(
    chats: Clone, labs_home: Path, text: bytes, words: list[str], what: str
) -> None:
    ended = pipe(chats, labs_home, text, *words)
    assert ended.code == 2, ended
    assert f"what: {what}" in ended.err
    assert ended.out == ""


@pytest.mark.parametrize("text", [" /seed 1", "/etc/passwd is a file", "why ?\ngood", "/seeds"])
def test_a_pipe_that_is_no_command_is_one_message(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{text}\n".encode())))
    assert chat_command._piped_message() == text


def test_a_reader_that_leaves_ends_the_chat_quietly(chats: Clone, labs_home: Path) -> None:
    command = (
        f"echo why | '{sys.executable}' -m labs chat LLM10 | head -c 1; echo ${{PIPESTATUS[1]}}"
    )
    variables = {"PYTHONPATH": str(chats.path), "LABS_HOME": str(labs_home)}
    ended = chats.run("bash", "-c", command, **variables)
    assert ended.out[1:] == "141\n", ended
    assert ended.err == ""


# Through invoke


def test_the_models_are_listed_without_a_stack(chats: Clone) -> None:
    ended = chats.invoke("chat", "--list")
    assert ended.code == 0, ended
    lines = [line.partition(",")[0] for line in ended.out.splitlines()]
    assert lines == [
        "invoke chat  (SmolLM2-135M-Instruct",
        f"invoke chat outputs/LLM10/{RUN}/model  (chat model",
        f"invoke chat outputs/LLM07/{RUN}/adapter  (adapter",
        "invoke chat outputs/LLM10/2025-01-01_00-00-00/base  (base model",
    ]
    assert ended.out.splitlines()[1].endswith(" MB: Small, trained on faq.csv)")
    assert "stack" not in ended.err


def test_a_model_is_named_as_the_lab_sees_it(chats: Clone) -> None:
    folder = chats.outputs / "LLM10" / RUN / "model"
    for model in ("LLM10", f"{folder}/"):
        ended = chats.invoke("--dry", "chat", model, "--runtime", "venv")
        assert ended.code == 0, ended
        assert ended.out.rstrip().endswith(f" -m labs chat outputs/LLM10/{RUN}/model")
    ended = chats.invoke("--dry", "chat", "--runtime", "venv")
    assert ended.out.rstrip().endswith(" -m labs chat")


def test_a_model_that_does_not_exist_starts_nothing(chats: Clone) -> None:
    ended = chats.invoke("chat", "LLM06", "--runtime", "venv")
    assert ended.code == 2, ended
    assert "what: LLM06 has saved no model" in ended.err
    assert "stack" not in ended.err


@pytest.mark.engine
def test_a_container_replies_to_a_pipe_and_a_terminal(clone: Clone) -> None:
    save_model(clone.outputs / "LLM10" / RUN / "model", TEMPLATE, context=100_000)
    command = f"echo why | '{BIN / 'invoke'}' chat LLM10 --runtime docker"
    piped = clone.run("bash", "-c", command)
    assert piped.code == 0, piped
    assert piped.out.strip()
    assert set(piped.out.split()) <= set(WORDS)
    words = ("chat", "LLM10", "--runtime", "docker")
    chat = clone.start_invoke(*words, terminal=(30, 100), TERM="dumb")
    chat.wait_for(READY)
    stop_a_long_reply(chat)
    wait_for_prompt(chat)
    chat.type(b"\x03")
    assert chat.ended().code == 130
