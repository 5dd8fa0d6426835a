"""What a chat template adds to the texts of a conversation."""

from functools import cache, partial
from typing import Any

from common.cards import WRONG_USAGE, Card
from labs.llm08_training.conversations import Message, messages_of
from labs.llm08_training.readers import BadRow

Q_AND_A = {"prompt": "Which\nassistant\nare you?", "completion": "SmolLM2."}


def refuse_special(tokenizer: Any, messages: list[Message]) -> None:
    """Raise BadRow if a text contains a special token."""
    for turn in messages:
        for token in tokenizer.all_special_tokens:
            if token in turn["content"]:
                raise BadRow(f"its text contains the special token {token}")


@cache
def header_of(tokenizer: Any) -> list[int]:
    """Return the tokens that the chat template adds when it asks for a reply.

    Raises:
        Card: if there is no template, or if it adds none: nothing marks the replies then.
    """
    why = "Its tokenizer has no chat template."
    talk = messages_of(Q_AND_A)[:1]
    if tokenizer.chat_template:
        apply = partial(tokenizer.apply_chat_template, talk, tokenize=False)
        asking = apply(add_generation_prompt=True).removeprefix(apply())
        if header := tokenizer(asking, add_special_tokens=False).input_ids:
            return header
        why = "Its chat template puts nothing before a response."
    what = "The start of a response can't be found in the model's tokens."
    raise Card(what, why, "another model: --model …", WRONG_USAGE)
