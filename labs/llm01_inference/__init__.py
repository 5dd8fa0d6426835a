"""LLM01: the parts that later labs may import."""

from labs.llm01_inference.lesson import sample as draw
from labs.llm01_inference.lesson import top_p as top_p
from labs.llm01_inference.model_files import called as called
from labs.llm01_inference.view_data import reading as reading

__all__ = ["called", "draw", "reading", "top_p"]
