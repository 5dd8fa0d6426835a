"""Beam search, as `generate(num_beams=…)` of transformers does it."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

Change = Callable[[Tensor, Tensor], Tensor]  # ids (B, T), logits (B, V) -> logits


@torch.no_grad()
def beam_search(
    model: Any,
    prompt: list[int],
    new: int,
    beams: int,
    change: Sequence[Change] = (),
    end: Collection[int] = (),
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
) -> list[int]:
    """Return the best of `beams` texts after one prompt, as `generate(num_beams=…)` does.

    Once `beams` texts are finished, `early_stopping` says when to end the search: True ends it at
    once. False goes on while the best running text has a higher score than the worst finished text,
    "never" while the best running text could still reach a higher score than that.
    """
    ids = torch.tensor([prompt], device=model.device)  # (running, T)
    scores = torch.zeros(1, device=model.device)  # the sum of ln p of each running text
    cache: Any = DynamicCache(config=model.config)
    fresh = ids
    ends = torch.tensor(list(end)).to(ids)
    finished: list[tuple[float, list[int]]] = []  # score, ids; the best first
    for n in range(1, new + 1):
        out = model(fresh, cache=cache, use_cache=True, logits_to_keep=1)
        logp = out.logits[:, -1].float().log_softmax(-1)  # (running, V)
        for function in change:
            logp = function(ids, logp)
        # enough candidates that `beams` are left even if all others end here
        candidates = (1 + max(len(ends), 1)) * beams
        total, where = (scores[:, None] + logp).flatten().topk(candidates)
        parent = where // logp.shape[1]
        token = where % logp.shape[1]
        texts = torch.cat((ids[parent], token[:, None]), 1)
        ended = torch.isin(token, ends) | (n == new)
        for i in ended[:beams].nonzero()[:, 0]:
            finished.append(((total[i] / n**length_penalty).item(), texts[i].tolist()))
        finished = sorted(finished, key=lambda text: -text[0])[:beams]
        alive = (~ended).nonzero()[:beams, 0]
        enough = len(finished) == beams
        if n == new or (enough and early_stopping is True):
            break
        longest = new if early_stopping == "never" and length_penalty > 0 else n
        if enough and total[alive[0]] / longest**length_penalty <= finished[-1][0]:
            break
        ids = texts[alive]
        scores = total[alive]
        fresh = token[alive, None]
        cache.reorder_cache(parent[alive])
    return finished[0][1][len(prompt) :]
