"""LLM10: its options. No later lab imports from it."""

from dataclasses import dataclass
from pathlib import Path

from common.options import FILE, integer, option, positive

MAX_MERGES = 2**16 - 257  # ids have 16 bits


@dataclass(frozen=True)
class LessonOptions:
    """The options of LLM10 and LLM10+: another model, another text, merges, steps."""

    model: str | None = option("a Llama instead of SmolLM2: a folder, or a hub id")
    corpus: Path | None = option(
        "a text in UTF-8 instead of Shakespeare", kind=FILE, type=Path, metavar="FILE"
    )
    merges: int = option("of LLM04's BPE; default: 0", 0, type=integer(0, MAX_MERGES), metavar="N")
    steps: int | None = option("training steps; default: by the size", type=positive, metavar="N")


DeeperOptions = LessonOptions
