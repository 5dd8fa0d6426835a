"""LLM05b: no later lab imports from it."""
