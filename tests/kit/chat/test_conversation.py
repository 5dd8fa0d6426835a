"""What a model reads, sampling settings, and text without terminal escapes."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from labs.kit.chat.conversation import Conversation, TemplateError, TooLong
from labs.kit.chat.open_model import ChatModel
from labs.kit.chat.plain import plain
from labs.kit.chat.sampling import SETTINGS, Sampling
from tests.kit.chat.small_models import TEMPLATE, tokenizer

import pytest


def model(template: str = TEMPLATE, context: int = 40) -> ChatModel:
    return ChatModel(SimpleNamespace(), tokenizer(template), context, "small", "cpu", "fp32")


def read(conversation: Conversation, message: str, max_tokens: int = 8) -> str:
    """Return what the model reads, as text."""
    prompt = conversation.prompt(message, max_tokens)
    return conversation.model.tokenizer.decode(prompt.ids)


def test_a_chat_model_reads_all_turns_and_the_system_prompt() -> None:
    conversation = Conversation(model(), system="rain")
    conversation.record("good morning", "sun")
    expected = "<system> rain <user> good morning <assistant> sun <user> why <assistant>"
    assert read(conversation, "why") == expected


def test_reset_forgets_the_turns_and_not_the_system_prompt() -> None:
    conversation = Conversation(model(), system="rain")
    conversation.record("good", "sun")
    conversation.reset()
    assert read(conversation, "why") == "<system> rain <user> why <assistant>"


def test_the_oldest_turns_are_left_out_when_the_context_is_full() -> None:
    conversation = Conversation(model(context=40))
    for number in range(8):
        conversation.record(f"{'good ' * number}morning", "sun")
    prompt = conversation.prompt("why ?", 8)
    text = conversation.model.tokenizer.decode(prompt.ids)
    assert len(prompt.ids) <= 40 - 8
    assert text.startswith("<user> good good good")  # never in the middle of a turn
    assert text.endswith("<user> why ? <assistant>")
    assert prompt.dropped == "the 6 oldest messages and their replies"
    assert conversation.prompt("why ?", 8).dropped == "", "it is said once"
    assert len(conversation.turns) == 4


def test_a_message_that_never_fits_is_refused_and_the_conversation_stays() -> None:
    conversation = Conversation(model(context=40))
    conversation.record("good", "sun")
    with pytest.raises(TooLong, match="too many tokens"):
        conversation.prompt("rain " * 33, 8)
    assert len(conversation.turns) == 2


def test_a_reply_is_never_longer_than_what_is_left_of_the_context() -> None:
    prompt = Conversation(model(context=40)).prompt("rain " * 10, 1000)
    assert prompt.max_tokens == 40 - len(prompt.ids)
    assert Conversation(model(context=40)).prompt("rain", 5).max_tokens == 5


def test_a_template_that_refuses_is_named() -> None:
    refusing = "{{ raise_exception('no system prompt here') }}"
    with pytest.raises(TemplateError, match="no system prompt here"):
        Conversation(model(refusing), system="x").prompt("why", 8)


def test_a_base_model_continues_the_text() -> None:
    conversation = Conversation(model(""))
    assert read(conversation, "good morning") == "good morning"
    conversation.record("good morning", " rain")
    assert read(conversation, "") == "good morning rain"
    assert read(conversation, "why") == "why", "another text starts anew"


def test_a_long_text_loses_its_beginning() -> None:
    conversation = Conversation(model("", context=40))
    prompt = conversation.prompt("good " * 50 + "why ?", 1000)
    assert len(prompt.ids) == 20, "half of the context is for the reply"
    assert conversation.model.tokenizer.decode(prompt.ids).endswith("good why ?")
    assert prompt.dropped == "the first 32 tokens of the text"


def test_an_empty_text_can_be_continued() -> None:
    assert Conversation(model("")).prompt("", 8).ids == [0]


@pytest.mark.parametrize(
    "command, value, expected",
    [
        ("temperature", "0.7", 0.7),
        ("top-p", "1", 1.0),
        ("top-k", "40", 40),
        ("min-p", ".05", 0.05),
        ("max-tokens", "1", 1),
        ("seed", "4294967295", 4294967295),
    ],
)
def test_a_setting_is_changed_by_its_command(command: str, value: str, expected: Any) -> None:
    changed = Sampling().changed(command, value)
    assert changed == replace(Sampling(), **{command.replace("-", "_"): expected})
    assert changed.shown()[f"/{command}"] == str(expected)


@pytest.mark.parametrize("command", SETTINGS)
@pytest.mark.parametrize("value", ["", "warm", "-1", "nan", "inf", "1e99", "1,5", "0x10"])
def test_a_value_out_of_range_is_refused(command: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"/{command} needs an? (number|integer) from"):
        Sampling().changed(command, value)


def test_at_temperature_zero_nothing_is_sampled() -> None:
    assert Sampling(temperature=0).generation_options() == {"do_sample": False}
    assert Sampling().generation_options()["do_sample"] is True


def test_text_keeps_its_lines_and_loses_what_a_terminal_obeys() -> None:
    assert plain("a\tb\nc é 中 🙂 ﷽") == "a\tb\nc é 中 🙂 ﷽"
    escapes = "\x1b[2J\x1b]0;title\x07\x9b31m\r\x08\x00\u202eend\x7f"
    assert plain(escapes) == "[2J]0;title31mend"
