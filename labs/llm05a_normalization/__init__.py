"""LLM05a: its options, and the parts that later labs may import."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.options import option, positive
from common.parts import at_first_use

if TYPE_CHECKING:
    from labs.llm05a_normalization.lesson import RMSNorm as RMSNorm
    from labs.llm05a_normalization.lesson import Sinusoid as Sinusoid
    from labs.llm05a_normalization.lesson import SwiGLU as SwiGLU
    from labs.llm05a_normalization.lesson import rms_norm as rms_norm
    from labs.llm05a_normalization.lesson import wide as wide

__getattr__ = at_first_use(__name__)


@dataclass(frozen=True)
class LessonOptions:
    """The options of LLM05a alone."""

    steps: int | None = option("train this many steps in section 6", type=positive)


@dataclass(frozen=True)
class DeeperOptions:
    """The options of LLM05a+ alone."""

    tune: bool = option("search the learning rates at tiny, too", False)
