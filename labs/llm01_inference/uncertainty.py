"""Differences of texts; shares, their differences and standard errors."""

import math
from collections.abc import Sequence

from torch import Tensor


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


def difference(a: Sequence[bool], b: Sequence[bool]) -> tuple[float, float]:
    """Return share(a) − share(b) on the same questions, and the standard error of this difference.

    Question by question the difference is -1, 0 or 1. The standard error is their standard
    deviation ÷ √n.
    """
    n = len(a)
    steps = [int(x) - int(y) for x, y in zip(a, b, strict=True)]
    mean = sum(steps) / n
    variance = sum((step - mean) ** 2 for step in steps) / (n - 1)
    return mean, math.sqrt(variance / n)


def unlike(ours: list[list[int]], theirs: list[list[int]]) -> int:
    """Count the tokens that differ between texts of the same lengths."""
    return sum(a != b for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True))
