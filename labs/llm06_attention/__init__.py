"""LLM06: its options, and the parts that later labs may import."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.options import option
from common.parts import at_first_use

if TYPE_CHECKING:
    from labs.llm06_attention.head_patterns import view as view
    from labs.llm06_attention.lesson import MultiHeadAttention as MultiHeadAttention
    from labs.llm06_attention.lesson import causal_mask as causal_mask
    from labs.llm06_attention.recall import GUESS as GUESS
    from labs.llm06_attention.recall import KEYS as KEYS
    from labs.llm06_attention.recall import TARGETS as TARGETS
    from labs.llm06_attention.recall import VOCABULARY as VOCABULARY
    from labs.llm06_attention.recall import circuit as circuit
    from labs.llm06_attention.recall import recall_batch as recall_batch
    from labs.llm06_attention.recall import rope as rope

__getattr__ = at_first_use(__name__)


@dataclass(frozen=True)
class LessonOptions:
    """The options of LLM06 and LLM06+."""

    model: str | None = option("a Llama-like model instead of SmolLM2: a folder, or a hub id")


DeeperOptions = LessonOptions
