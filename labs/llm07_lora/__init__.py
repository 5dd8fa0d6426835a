"""LLM07: the parts that later labs may import."""

from labs.llm07_lora.lesson import LoraLinear as LoraLinear
from labs.llm07_lora.lesson import insert as insert
from labs.llm07_lora.models import randomize as randomize
from labs.llm07_lora.models import take_out as take_out
from labs.llm07_lora.training import trainable as trainable
