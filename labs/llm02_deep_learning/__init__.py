"""LLM02: the parts that later labs may import."""

from typing import TYPE_CHECKING

from common.parts import at_first_use

if TYPE_CHECKING:
    from labs.llm02_deep_learning.data import accuracy as accuracy
    from labs.llm02_deep_learning.data import batches_of as batches_of
    from labs.llm02_deep_learning.data import digits as digits

__getattr__ = at_first_use(__name__)
