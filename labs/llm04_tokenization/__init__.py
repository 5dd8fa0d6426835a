"""LLM04: the parts that later labs may import."""

from labs.llm04_tokenization.lesson import BPE as BPE
from labs.llm04_tokenization.lesson import WORD as WORD
from labs.llm04_tokenization.lesson import Pair as Pair
from labs.llm04_tokenization.lesson import count_words as count_words
from labs.llm04_tokenization.lesson import encode_stream as encode_stream
from labs.llm04_tokenization.lesson import train as train
from labs.llm04_tokenization.lesson import vocabulary as vocabulary
from labs.llm04_tokenization.vocabularies import LETTERS as LETTERS
