"""LLM05a: the parts that later labs may import."""

from labs.llm05a_normalization.lesson import RMSNorm as RMSNorm
from labs.llm05a_normalization.lesson import Sinusoid as Sinusoid
from labs.llm05a_normalization.lesson import SwiGLU as SwiGLU
from labs.llm05a_normalization.lesson import rms_norm as rms_norm
from labs.llm05a_normalization.lesson import wide as wide
