"""Generate with the options of transformers' `generate`, by ours and by the library."""

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from labs.kit import Run, seconds_paired
from labs.llm01_inference.lesson import generate, logits_of, repetition_penalty
from labs.llm01_inference.replies import library_text
from labs.llm01_inference.search import beam_search
from labs.llm01_inference.steps import counted

import torch
from transformers.generation import logits_process as library

OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_beams": 3, "repetition_penalty": 1.3},
    {"repetition_penalty": 1.3},
    {"no_repeat_ngram_size": 3},
    {"num_beams": 3},
    {"num_beams": 3, "early_stopping": True},
    {"num_beams": 4, "length_penalty": 2.0, "early_stopping": "never"},
    {"num_beams": 2, "length_penalty": 0.0},
    {"prompt_lookup_num_tokens": 8},
]


def generate_as_asked(
    generate_batch: Callable[..., list[list[int]]],
    model: Any,
    prompt: list[int],
    new: int,
    end: list[int],
    **how: Any,
) -> list[int]:
    """Generate with ours what the options of transformers' `generate` ask for."""
    change: list[Any] = []
    if penalty := how.pop("repetition_penalty", None):
        change.append(partial(repetition_penalty, penalty=penalty))
    if n := how.pop("no_repeat_ngram_size", None):  # no n-gram twice; the library's, in our loop
        change.append(library.NoRepeatNGramLogitsProcessor(n))
    if beams := how.pop("num_beams", None):
        return beam_search(model, prompt, new, beams, change, end, **how)
    how.pop("prompt_lookup_num_tokens", None)  # ours is greedy, which the guesses must not change
    return generate_batch(model, [prompt], new, change, end=end)[0]


def compare(
    run: Run,
    name: str,
    model: Any,
    prompts: list[list[int]],
    new: int,
    stop: list[int],
    options: list[dict[str, Any]],
    ours: Callable[..., list[int]],
) -> list[list[Any]]:
    """Compare texts of ours with the library's.

    Returns:
        For each of the options: their names, the number of tokens and of calls, how many texts
        differ from the greedy text with the same end tokens, and the mean ln p of all tokens.
    """
    rows = []
    different = 0
    greedy: dict[int, list[list[int]]] = {}  # by end token
    for how in options:
        early = {"early_stopping", "length_penalty"} & how.keys()
        end = stop if early else [model.config.eos_token_id]
        if end[0] not in greedy:
            greedy[end[0]] = [ours(model, prompt, new, end) for prompt in prompts]
        mine = [ours(model, prompt, new, end, **how) for prompt in prompts]
        with counted(model) as calls:
            theirs = [library_text(model, x, new, eos_token_id=end, **how) for x in prompts]
        different += sum(a != b for a, b in zip(mine, theirs, strict=True))
        changed = sum(a != b for a, b in zip(theirs, greedy[end[0]], strict=True))
        shown = ", ".join(f"{key}={value}" for key, value in how.items()) or "greedy"
        likely = sum(map(partial(sum_of_ln_p, model), prompts, mine)) / sum(map(len, mine))
        rows.append([shown, sum(map(len, mine)), len(calls), changed, likely])
    because = "the same steps; only between nearly equal logits does rounding decide"
    what = f"{name}: texts that differ from the library's"
    run.measure(what, different, expect_at_most=0, because=because, decides=True)
    return rows


def sum_of_ln_p(model: Any, prompt: list[int], text: list[int]) -> float:
    """Return the sum of ln p of a text's tokens after the prompt, at T = 1 and without cuts."""
    before = logits_of(model, prompt + text)[len(prompt) - 1 : -1]  # (T, V), about the text
    ids = torch.tensor(text, device=before.device)
    return before.log_softmax(-1).gather(1, ids[:, None]).sum().item()


def parted_after(ours: Callable[..., list[int]], model: Any, prompt: list[int], new: int) -> int:
    """Return after how many tokens the lesson's text, without a cache, differs from ours."""
    plain = list(generate(model, prompt, new))
    cached = ours(model, prompt, new)
    return next((i for i in range(new) if plain[i] != cached[i]), new)


def guess_ahead(
    model: Any, tokenizer: Any, prompt: list[int], new: int, guesses: int
) -> tuple[str, float, float]:
    """Write by the library's prompt lookup.

    Returns:
        The prompt, tokens for each call of the model, and time ÷ greedy time: a median of 9 pairs.
    """
    plain = partial(library_text, model, prompt, new, eos_token_id=None)
    ahead = partial(plain, prompt_lookup_num_tokens=guesses)
    with counted(model) as calls:
        text = ahead()
    ratio = median(a / b for a, b in zip(*seconds_paired(ahead, plain, 9), strict=True))
    return repr(tokenizer.decode(prompt)), len(text) / len(calls), ratio
