"""LLM05b and LLM05b+: no later lab imports from them."""
