"""Generate a reply with transformers, and pass on its text as it grows."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from labs.kit.chat.conversation import Prompt
from labs.kit.chat.open_model import ChatModel
from labs.kit.chat.plain import plain
from labs.kit.chat.sampling import Sampling

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList, TextStreamer


@dataclass(frozen=True)
class Reply:
    """What a model wrote.

    Attributes:
        text: its text, without control characters.
        tokens: the number of its tokens.
    """

    text: str
    tokens: int


class StopButton(StoppingCriteria):
    """Ends a reply after the token during which it was pressed."""

    def __init__(self) -> None:
        """Start unpressed."""
        self.pressed = False

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Return for each text whether it is done, (B,)."""
        del scores
        return torch.full((input_ids.shape[0],), self.pressed, device=input_ids.device)

    @contextmanager
    def on_ctrl_c(self) -> Generator[None]:
        """Let Ctrl-C press the button; a second one raises KeyboardInterrupt."""

        def press(number: int, frame: FrameType | None) -> None:
            if self.pressed:
                signal.default_int_handler(number, frame)
            self.pressed = True

        before = signal.signal(signal.SIGINT, press)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


class _Streamer(TextStreamer):
    """Passes on text instead of printing it."""

    def __init__(self, tokenizer: Any, write: Callable[[str], object]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write = write
        self.text = ""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        del stream_end
        text = plain(text)
        self.text += text
        self._write(text)


def generate(
    model: ChatModel,
    prompt: Prompt,
    sampling: Sampling,
    write: Callable[[str], object],
    button: StopButton,
) -> Reply:
    """Generate a reply with the global random numbers.

    Args:
        model: the model.
        prompt: what it reads.
        sampling: the settings.
        write: called with each new piece of text.
        button: ends the reply.
    """
    ids = torch.tensor([prompt.ids], device=model.model.device)
    streamer = _Streamer(model.tokenizer, write)
    with torch.inference_mode():
        written = model.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=_configuration(model, sampling, prompt.max_tokens),
            stopping_criteria=StoppingCriteriaList([button]),
            streamer=streamer,
        )
    return Reply(streamer.text, written.shape[1] - ids.shape[1])


def _configuration(model: ChatModel, sampling: Sampling, max_tokens: int) -> GenerationConfig:
    """Return the library's settings; those that the model's folder suggests don't count."""
    model.model.generation_config = GenerationConfig()
    ends = model.tokenizer.eos_token_id
    pad = model.tokenizer.pad_token_id
    options = sampling.generation_options()
    return GenerationConfig(
        max_new_tokens=max_tokens,
        eos_token_id=ends,
        pad_token_id=ends if pad is None else pad,
        **options,
    )
