"""LLM03: the parts that later labs may import."""

from labs.llm03_neural_networks.costs import best_in_turn as best_in_turn
