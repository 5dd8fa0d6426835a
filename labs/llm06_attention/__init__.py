"""LLM06: the parts that later labs may import."""

from labs.llm06_attention.head_patterns import view as attention_view
from labs.llm06_attention.lesson import MultiHeadAttention as MultiHeadAttention
from labs.llm06_attention.lesson import causal_mask as causal_mask
from labs.llm06_attention.recall import GUESS as GUESS
from labs.llm06_attention.recall import KEYS as KEYS
from labs.llm06_attention.recall import TARGETS as TARGETS
from labs.llm06_attention.recall import VOCABULARY as VOCABULARY
from labs.llm06_attention.recall import circuit as circuit
from labs.llm06_attention.recall import recall_batch as recall_batch
from labs.llm06_attention.recall import rope as rope

__all__ = [
    "GUESS",
    "KEYS",
    "TARGETS",
    "VOCABULARY",
    "MultiHeadAttention",
    "attention_view",
    "causal_mask",
    "circuit",
    "recall_batch",
    "rope",
]
