"""LLM08: the parts that later labs may import."""

from labs.llm08_training.lesson import PARTS as PARTS
from labs.llm08_training.training import Recipe as Recipe
from labs.llm08_training.training import train as train
