"""Generate with the options of transformers' `generate`, by ours and by the library."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

from labs.kit import Run, seconds_paired
from labs.llm01_inference.lesson import generate, logits_of, repetition_penalty
from labs.llm01_inference.replies import library_text
from labs.llm01_inference.search import beam_search
from labs.llm01_inference.steps import counted

import torch

OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_beams": 3, "repetition_penalty": 1.3},
    {"repetition_penalty": 1.3},
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
    if beams := how.pop("num_beams", None):
        return beam_search(model, prompt, new, beams, change, end, **how)
    how.pop("prompt_lookup_num_tokens", None)  # ours is greedy, which the guesses must not change
    return generate_batch(model, [prompt], new, change, end=end)[0]


def compare(
    run: Run,
    name: str,
    opened: tuple[Any, Any],
    texts: Sequence[str],
    new: int,
    options: list[dict[str, Any]],
    ours: Callable[..., list[int]],
) -> tuple[list[int], list[float]]:
    """Compare texts of ours with the library's, and tabulate them beside greedy texts.

    Returns:
        For each of the options: how many texts differ from the greedy text with the same end
        token, and the mean ln p of all tokens minus that of the greedy texts.
    """
    model, tokenizer = opened
    prompts = [tokenizer(text).input_ids for text in texts]
    rows = []
    different = 0
    for how in options:
        early = {"early_stopping", "length_penalty"} & how.keys()
        end = tokenizer(".").input_ids[-1:] if early else [model.config.eos_token_id]
        greedy = [ours(model, prompt, new, end) for prompt in prompts]
        mine = [ours(model, prompt, new, end, **how) for prompt in prompts]
        with counted(model) as calls:
            theirs = [library_text(model, x, new, eos_token_id=end, **how) for x in prompts]
        different += sum(a != b for a, b in zip(mine, theirs, strict=True))
        changed = sum(a != b for a, b in zip(theirs, greedy, strict=True))
        shown = ", ".join(f"{key}={value}" for key, value in how.items()) or "greedy"
        likely, of_greedy = (mean_of_ln_p(model, prompts, written) for written in (mine, greedy))
        count = sum(map(len, mine))
        row = [shown, tokenizer.decode(end), count, len(calls), changed, likely, likely - of_greedy]
        rows.append(row)
    columns = ["options", "end token", "tokens", "calls", "texts ≠ greedy", "mean ln p"]
    columns.append("mean ln p − greedy")
    run.table(f"{name}, compared with greedy text that has the same end token", columns, rows)
    because = "the same steps; only between nearly equal logits does rounding decide"
    what = f"{name}: texts that differ from the library's"
    run.measure(what, different, expect_at_most=0, because=because, decides=True)
    return [row[4] for row in rows], [row[6] for row in rows]


def mean_of_ln_p(model: Any, prompts: list[list[int]], texts: list[list[int]]) -> float:
    """Return the mean ln p of the tokens of all texts, at T = 1 and without cuts."""
    total = 0.0
    for prompt, text in zip(prompts, texts, strict=True):
        before = logits_of(model, prompt + text)[len(prompt) - 1 : -1]  # (T, V), about the text
        ids = torch.tensor(text, device=before.device)
        total += before.log_softmax(-1).gather(1, ids[:, None]).sum().item()
    return total / sum(map(len, texts))


def parted_after(ours: Callable[..., list[int]], model: Any, prompt: list[int], new: int) -> int:
    """Return after how many tokens the lesson's text, without a cache, differs from ours."""
    plain = list(generate(model, prompt, new))
    cached = ours(model, prompt, new)
    return next((i for i in range(new) if plain[i] != cached[i]), new)


def guess_ahead(
    model: Any, tokenizer: Any, text: str, new: int, guesses: int
) -> tuple[str, float, float]:
    """Write by the library's prompt lookup after a text.

    Returns:
        The text, tokens for each call of the model, and time ÷ greedy time: a median of 9 pairs.
    """
    prompt = tokenizer(text).input_ids
    plain = partial(library_text, model, prompt, new, eos_token_id=None)
    ahead = partial(plain, prompt_lookup_num_tokens=guesses)
    with counted(model) as calls:
        written = ahead()
    ratio = median(a / b for a, b in zip(*seconds_paired(ahead, plain, 9), strict=True))
    return repr(text), len(written) / len(calls), ratio
