"""The texts that LLM10's model writes during its training, and the share of known words."""

import random
import re
from functools import cache, partial
from typing import Any

from labs.kit import Run
from labs.llm01_inference import reading
from labs.llm10_llama.corpus import prompt_of
from labs.llm10_llama.ladder import corpus
from labs.llm10_llama.training import Parts, Trained

import torch

WORDS = re.compile(r"[^\W\d_]{2,}")  # a single letter is a word too easily
READ = 10_000_000  # tokens at the beginning of a text, whose words are known


def written(result: Trained) -> dict[int, tuple[float, str]]:
    """Return by the number of steps the validation loss and the text that the model wrote."""
    return {int(steps): (loss, text) for steps, (loss, text) in result.seen.items()}


@cache
def vocabulary(run: Run) -> set[str]:
    """Return the words of the training text, in small letters."""
    text = corpus(run)
    return {word.lower() for word in WORDS.findall(text.decode(text.train[:READ].tolist()))}


def known_words(run: Run, text: str) -> float:
    """Return the share of a text's words that are words of the training text; 0 without words.

    The last word doesn't count: it may be cut off.
    """
    words = WORDS.findall(text)[:-1]
    return sum(word.lower() in vocabulary(run) for word in words) / max(1, len(words))


def known_since(shares: dict[int, float], least: float) -> str:
    """Say from which sample on all shares of known words are at least `least`.

    One early sample isn't enough: it has few words, so its share may be large by chance.
    """
    enough = [n for n in shares if min(x for m, x in shares.items() if m >= n) >= least]
    return f"from the sample after {enough[0]:,} steps on" if enough else "not in the last sample"


def show_probabilities(run: Run, model: Any, tokenizer: Any, parts: Parts) -> None:
    """Let a model write, and show the probability of each token in the view of LLM01."""
    prompt = prompt_of(corpus(run))
    start = tokenizer(prompt, return_tensors="pt").input_ids
    new = parts.generate(model, start, 150, partial(parts.choose, temperature=0.8, p=0.95))
    texts = {"just written": prompt + tokenizer.decode(new[0])}
    view = reading(texts, tokenizer, lambda ids: model(torch.tensor([ids]))[0])
    run.view("tokens", "written", *view)


def shares_if_mixed(run: Run, text: str, times: int = 20) -> list[float]:
    """Return the share of known words after the letters of a text were mixed, `times` times.

    All other signs stay, so the words' lengths and the letters' frequencies do, too.
    """
    shares: list[float] = []
    for seed in range(times):
        letters = [sign for sign in text if sign.isalpha()]
        random.Random(seed).shuffle(letters)
        mixed = "".join(letters.pop() if sign.isalpha() else sign for sign in text)
        shares.append(known_words(run, mixed))
    return shares
