"""LLM01: the parts that later labs may import."""

from labs.llm01_inference.lesson import called as called
from labs.llm01_inference.lesson import draw as draw
from labs.llm01_inference.lesson import top_p as top_p
