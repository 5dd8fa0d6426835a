"""LLM03: the parts that later labs may import."""

from typing import TYPE_CHECKING

from common.parts import at_first_use

if TYPE_CHECKING:
    from labs.llm03_neural_networks.costs import best_in_turn as best_in_turn

__getattr__ = at_first_use(__name__)
