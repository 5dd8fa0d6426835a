"""LLM07: its options, and the parts that later labs may import."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.options import option
from common.parts import at_first_use

if TYPE_CHECKING:
    from labs.llm07_lora.training import trainable as trainable

__getattr__ = at_first_use(__name__)


@dataclass(frozen=True)
class LessonOptions:
    """The options of LLM07 and LLM07+."""

    model: str | None = option("a Llama-like chat model instead of SmolLM2: a folder, or a hub id")


DeeperOptions = LessonOptions
