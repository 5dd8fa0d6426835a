"""LLM08: no later lab imports from it."""
