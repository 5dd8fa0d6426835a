"""LLM10: no later lab imports from it."""
