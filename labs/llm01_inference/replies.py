"""Ask a model many prompts at once, show text as it is written, and write by the library.

LLM01+ explains the three devices of `reply_ids`: padding, mask and cache.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


def replies(model: Any, tokenizer: Any, prompts: Sequence[str], new: int) -> list[str]:
    """Return the greedy continuation of each prompt: its first line, of up to `new` tokens."""
    written = reply_ids(model, tokenizer, prompts, new)
    return [first_line(tokenizer, ids)[0] for ids in written]


@torch.no_grad()
def reply_ids(model: Any, tokenizer: Any, prompts: Sequence[str], new: int) -> list[list[int]]:
    """Return up to `new` greedy ids after each prompt; a reply may end once its line is complete.

    The tokens that all prompts start with are computed once, and complete replies leave the batch.
    """
    rows = [tokenizer(prompt).input_ids for prompt in prompts]
    shared = _common_prefix(rows)
    cache = DynamicCache(config=model.config)
    if shared:
        prefix = torch.tensor([rows[0][:shared]], device=model.device)  # (1, shared)
        model(prefix, cache=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(len(rows))
    ids, mask = _padded([row[shared:] for row in rows], shared, model.device)
    written: list[list[int]] = [[] for _ in rows]
    running = list(range(len(rows)))  # the row of each text in the batch
    for _ in range(new):
        positions = mask.cumsum(-1) - 1  # (B, shared + T)
        out = model(
            ids,
            attention_mask=mask,
            position_ids=positions[:, -ids.shape[1] :].clamp(min=0),
            cache=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        ids = out.logits[:, -1].argmax(-1, keepdim=True)  # (B, 1)
        mask = torch.cat((mask, torch.ones_like(ids)), 1)
        for row, token in zip(running, ids[:, 0].tolist(), strict=True):
            written[row].append(token)
        unfinished = [
            i for i, row in enumerate(running) if not first_line(tokenizer, written[row])[1]
        ]
        if not unfinished:
            break
        if len(unfinished) <= 0.75 * len(running):  # leaving copies the cache, so not one by one
            running = [running[i] for i in unfinished]
            cache.batch_select_indices(torch.tensor(unfinished, device=ids.device))
            ids = ids[unfinished]
            mask = mask[unfinished]
    return written


def _common_prefix(rows: list[list[int]]) -> int:
    """Return how many tokens all rows start with, at most all but the last of the shortest row."""
    shared = 0
    for column in zip(*(row[:-1] for row in rows), strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    return shared


def _padded(rows: list[list[int]], shared: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return left-padded ids (B, T), and a mask (B, shared + T): 1 for text, 0 for padding."""
    width = max(len(row) for row in rows)
    ids = [[0] * (width - len(row)) + row for row in rows]
    mask = [[1] * shared + [0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def first_line(tokenizer: Any, ids: list[int]) -> tuple[str, bool]:
    """Return the first line of a reply, and whether it is complete."""
    end = tokenizer.eos_token_id
    ended = end in ids
    text = tokenizer.decode(ids[: ids.index(end)] if ended else ids).strip()
    line = text.split("\n")[0]
    return line.strip(), ended or "\n" in text


def stream(tokenizer: Any, tokens: Iterable[int]) -> Iterator[str]:
    """Yield the text of the tokens in pieces, each as soon as its last character is complete."""
    ids: list[int] = []
    text = ""
    shown = 0
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # it stands for half a character
            yield text[shown:]
            shown = len(text)
    yield text[shown:]


def library_text(model: Any, prompt: list[int], new: int, **settings: Any) -> list[int]:
    """Return up to `new` ids by `model.generate`, greedy unless the settings say otherwise."""
    ids = torch.tensor([prompt], device=model.device)  # (1, T)
    settings = {"do_sample": False, "pad_token_id": 0, **settings}
    mask = torch.ones_like(ids)
    written = model.generate(ids, attention_mask=mask, max_new_tokens=new, **settings)
    return written[:, len(prompt) :].flatten().tolist()
