"""LLM08: its options, and the parts that later labs may import."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.options import FILE, option, positive
from common.parts import at_first_use

if TYPE_CHECKING:
    from labs.llm08_training.lesson import PARTS as PARTS
    from labs.llm08_training.training import Recipe as Recipe
    from labs.llm08_training.training import train as train

__getattr__ = at_first_use(__name__)


def names_of(text: str) -> tuple[str, ...]:
    """Parse the option --columns: the names of the request and of the response."""
    return tuple(name.strip() for name in text.split(","))


@dataclass(frozen=True)
class LessonOptions:
    """The options of LLM08 alone: the rows to train on, and how."""

    dataset: str | None = option(
        "a JSONL, CSV or Parquet file, a folder of them, or a hub id", kind=FILE
    )
    columns: tuple[str, ...] | None = option(
        "the columns of the request and the response, if they have unusual names",
        type=names_of,
        metavar="REQUEST,RESPONSE",
    )
    bad_rows: str = option("default: stop", "stop", choices=("stop", "skip"))
    steps: int | None = option("training steps; default: all rows once", type=positive)
    max_length: int | None = option("tokens at which a row is cut; default: 256", type=positive)
    model: str | None = option("a chat model instead of SmolLM2: a folder, or a hub id")


@dataclass(frozen=True)
class DeeperOptions:
    """The options of LLM08+ alone."""

    model: str | None = option("a chat model instead of SmolLM2: a folder, or a hub id")
