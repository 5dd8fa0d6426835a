"""Differences of texts; shares, their differences and standard errors."""

import math
from collections.abc import Sequence

from labs.kit import tolerance

import torch
from torch import Tensor


def rounding(logits: Tensor) -> float:
    """Return how much float32 may round logits of this size."""
    return tolerance(torch.float32) * max(1.0, logits.abs().max().item())


def errors_of_shares(ids: Tensor, probabilities: Tensor, tokens: int) -> list[float]:
    """Return how far the shares of the most probable tokens are from p, in standard errors."""
    n = ids.numel()
    p, best = probabilities.topk(tokens)
    shares = ids.flatten().bincount(minlength=len(probabilities))[best] / n
    # 1/n² is the square of one draw; it matters only where p is nearly 0 or 1
    return ((shares - p) / (p * (1 - p) / n + 1 / n**2).sqrt()).abs().tolist()


def share(right: Sequence[bool]) -> tuple[float, float]:
    """Return the share of right replies and its standard error."""
    n = len(right)
    p = sum(right) / n
    return p, math.sqrt(p * (1 - p) / n)


def mean_and_error(numbers: Sequence[float]) -> tuple[float, float]:
    """Return the mean of at least two numbers, and its standard error."""
    n = len(numbers)
    mean = sum(numbers) / n
    variance = sum((number - mean) ** 2 for number in numbers) / (n - 1)
    return mean, math.sqrt(variance / n)


def unlike(ours: list[list[int]], theirs: list[list[int]]) -> int:
    """Count the tokens that differ between texts of the same lengths."""
    return sum(a != b for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True))


def verdict(gain: float, error: float) -> str:
    """Say a difference of shares with its standard error, and whether chance explains it."""
    if gain == error == 0:
        return "0, equal at each question"
    said = f"{100 * gain:+.0f} ± {100 * error:.0f}".replace("-", "−")
    return said if abs(gain) > 2 * error else f"{said}, which may be chance"


def unlike_logits(ours: Tensor, theirs: Tensor, uncut: Tensor) -> int:
    """Count the logits that differ after two cuts of the same logits, (..., V) each.

    If several tokens have the smallest logit that is left, either of them may be cut off.
    """
    edge = theirs.where(theirs.isfinite(), math.inf).amin(-1, keepdim=True)  # (..., 1)
    at_edge = uncut == edge  # (..., V)
    tied = at_edge & (at_edge.sum(-1, keepdim=True) > 1)
    return int(((ours != theirs) & ~tied).sum())


def without_least(cut: Tensor, uncut: Tensor) -> Tensor:
    """Remove the least probable token that a cut leaves, (..., V) -> (..., V): a cut off by one.

    Of tokens that have the same logit, either may be cut off. So if the least one is tied, remove
    the next one, too: a cut that no rule allows.
    """
    fewer, least = _without_edge(cut)
    tied = (uncut == least).sum(-1, keepdim=True) > 1  # (..., 1)
    return torch.where(tied, _without_edge(fewer)[0], fewer)


def _without_edge(cut: Tensor) -> tuple[Tensor, Tensor]:
    """Remove the tokens with the smallest logit left, (..., V), and return this logit, (..., 1)."""
    least = cut.where(cut.isfinite(), math.inf).amin(-1, keepdim=True)
    return cut.masked_fill(cut == least, -math.inf), least
