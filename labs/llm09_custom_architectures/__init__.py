"""LLM09: no later lab imports from it."""
