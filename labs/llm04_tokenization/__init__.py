"""LLM04: the parts that later labs may import. They are the fast ones, of the deeper part."""

from typing import TYPE_CHECKING

from common.parts import at_first_use

if TYPE_CHECKING:
    from labs.llm04_tokenization.deeper import BPE as BPE
    from labs.llm04_tokenization.deeper import WORD as WORD
    from labs.llm04_tokenization.deeper import count_words as count_words
    from labs.llm04_tokenization.deeper import encode_stream as encode_stream
    from labs.llm04_tokenization.deeper import train as train
    from labs.llm04_tokenization.lesson import Pair as Pair
    from labs.llm04_tokenization.lesson import vocabulary as vocabulary
    from labs.llm04_tokenization.vocabularies import LETTERS as LETTERS

__getattr__ = at_first_use(__name__)
