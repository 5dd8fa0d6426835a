"""LLM07: the parts that later labs may import."""

from labs.llm07_lora.training import trainable as trainable
