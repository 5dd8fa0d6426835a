"""Language models that count: the baselines of a loss."""

import torch
from torch import Tensor


def losses_by_counting(seen: Tensor, ids: Tensor, v: int, k: float = 200.0) -> tuple[float, float]:
    """Return the mean nats of ids[1:] (N,) by a unigram and a bigram that counted `seen` (M,)."""
    n = seen.bincount(minlength=v).double()
    unigram = (n + 1) / (n + 1).sum()  # one more of each: nothing is impossible
    pairs, times = (seen[:-1] * v + seen[1:]).unique(return_counts=True)
    asked = ids[:-1] * v + ids[1:]
    at = torch.searchsorted(pairs, asked).clamp(max=len(pairs) - 1)
    both = times[at] * (pairs[at] == asked)
    bigram = (both + k * unigram[ids[1:]]) / (n[ids[:-1]] + k)
    return -unigram[ids[1:]].log().mean().item(), -bigram.log().mean().item()
