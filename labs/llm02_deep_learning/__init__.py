"""LLM02: the parts that later labs may import."""

from labs.llm02_deep_learning.data import accuracy as accuracy
from labs.llm02_deep_learning.data import batches_of as batches_of
from labs.llm02_deep_learning.data import digits as digits
