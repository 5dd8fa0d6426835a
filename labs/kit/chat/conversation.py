"""What the model reads: a conversation, or for a base model a text, cut to fit its context."""

from dataclasses import dataclass, field
from typing import Any

from labs.kit.chat.open_model import ChatModel

MIN_ROOM = 16  # tokens of a reply, however small the context is


class TooLong(Exception):
    """A message that doesn't fit into the context, even alone."""


class TemplateError(Exception):
    """A chat template that refuses the conversation."""


@dataclass(frozen=True)
class Prompt:
    """What the model reads next.

    Attributes:
        ids: its tokens.
        max_tokens: how long the reply can be at most.
        dropped: what was left out to make it fit, in words; empty if nothing was.
    """

    ids: list[int]
    max_tokens: int
    dropped: str = ""


@dataclass
class Conversation:
    """The turns of a chat. A model without a chat template has a text instead.

    Attributes:
        model: the model that reads it.
        system: the system prompt; empty for the template's own.
        turns: the messages, each with a role and a content.
        text: the text that a base model continues.
    """

    model: ChatModel
    system: str = ""
    turns: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    text: str = ""

    def reset(self) -> None:
        """Forget all turns; the system prompt stays."""
        self.turns.clear()
        self.text = ""

    def prompt(self, message: str, max_tokens: int) -> Prompt:
        """Return what the model reads for a new message. Nothing is recorded yet.

        Args:
            message: the user's message; for a base model the start of a new text, or nothing to
                continue the present text.
            max_tokens: how long the reply can be at most.

        Raises:
            TooLong: if the message doesn't fit into the context.
            TemplateError: if the chat template refuses the conversation.
        """
        # Up to half of the context is reserved for the reply.
        room = max(min(max_tokens, self.model.context // 2), min(MIN_ROOM, max_tokens))
        limit = self.model.context - room
        if not self.model.is_chat_model:
            return self._text_prompt(message or self.text, limit, max_tokens)
        return self._chat_prompt(message, limit, max_tokens)

    def record(self, message: str, reply: str) -> None:
        """Add a message and the reply to the conversation."""
        if not self.model.is_chat_model:
            self.text = (message or self.text) + reply
            return
        self.turns.append({"role": "user", "content": message})
        self.turns.append({"role": "assistant", "content": reply})

    def _text_prompt(self, text: str, limit: int, max_tokens: int) -> Prompt:
        ids: list[int] = self.model.tokenizer(text).input_ids
        if not ids:
            start = self.model.tokenizer.bos_token_id
            ids = [0 if start is None else start]
        last = ids[-limit:]
        dropped = f"the first {len(ids) - limit:,} tokens of the text" if len(ids) > limit else ""
        return Prompt(last, min(max_tokens, self.model.context - len(last)), dropped)

    def _chat_prompt(self, message: str, limit: int, max_tokens: int) -> Prompt:
        """Drop the oldest pairs of turns until the rest fits."""
        asked = {"role": "user", "content": message}
        pairs = len(self.turns) // 2
        for dropped in range(pairs + 1):
            ids = self._render([*self.turns[2 * dropped :], asked])
            if len(ids) <= limit:
                # A dropped turn is never needed again: the conversation only grows.
                del self.turns[: 2 * dropped]
                what = "oldest message and its reply"
                if dropped > 1:
                    what = f"{dropped} oldest messages and their replies"
                room = self.model.context - len(ids)
                return Prompt(ids, min(max_tokens, room), f"the {what}" if dropped else "")
        raise TooLong(
            f"Your message has too many tokens for this model: with the system prompt "
            f"{len(ids):,}, and {limit:,} fit."  # pyright: ignore[reportPossiblyUnboundVariable]
        )

    def _render(self, turns: list[dict[str, str]]) -> list[int]:
        """Return the tokens of some turns, as the model's chat template puts them."""
        from jinja2 import TemplateError as JinjaError

        system = [{"role": "system", "content": self.system}] if self.system else []
        tokenizer: Any = self.model.tokenizer
        try:
            rendered = tokenizer.apply_chat_template(
                [*system, *turns], tokenize=False, add_generation_prompt=True
            )
        except (JinjaError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise TemplateError(f"The model's chat template refuses: {error}") from error
        return tokenizer(rendered, add_special_tokens=False).input_ids
