"""LLM03: the parts that later labs may import."""
