"""LLM01: its options, and the parts that later labs may import."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.options import FILE, option
from common.parts import at_first_use

if TYPE_CHECKING:
    from labs.llm01_inference.lesson import sample as sample
    from labs.llm01_inference.lesson import top_p as top_p
    from labs.llm01_inference.model_files import called as called
    from labs.llm01_inference.view_data import reading as reading

__getattr__ = at_first_use(__name__)


@dataclass(frozen=True)
class LessonOptions:
    """The options of LLM01 alone."""

    model: str | None = option("a Llama-like model instead of SmolLM2: a folder, or a hub id")
    prompts: Path | None = option("questions as JSONL or CSV", kind=FILE, type=Path, metavar="FILE")


@dataclass(frozen=True)
class DeeperOptions:
    """The options of LLM01+ alone."""

    model: str | None = option("a Llama-like model instead of SmolLM2: a folder, or a hub id")
