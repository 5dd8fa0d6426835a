"""LLM03: the parts that later labs may import."""

from labs.llm03_neural_networks.lesson import Transformer as Transformer
from labs.llm03_neural_networks.lesson import total as total
