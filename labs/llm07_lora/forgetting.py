"""Measure what a trained model forgets: its loss on text that the base has written."""

from collections.abc import Sequence
from functools import cache
from statistics import mean
from typing import Any

from labs.kit import Run
from labs.llm07_lora import plays, training
from labs.llm07_lora.models import glass
from labs.llm07_lora.updates import scaled

import numpy as np
import torch
from torch import Tensor


@cache
@torch.no_grad()
def own_text(seed: int) -> Tensor:
    """Return rows that glass writes, sampled without a cut, (64, LENGTH)."""
    torch.manual_seed(seed)
    model = glass()
    tokens = [torch.full((64, 1), 2)]  # <bos>
    cache_ = None
    while len(tokens) < plays.LENGTH:
        seen = model(tokens[-1], cache=cache_, use_cache=True)
        cache_ = seen.cache
        tokens.append(seen.logits[:, -1].softmax(-1).multinomial(1))  # (64, 1)
    return torch.cat(tokens, 1)


@cache
@torch.no_grad()
def _own_losses(run: Run) -> Tensor:
    """Return the loss of glass on each row that it wrote, (64,)."""
    return training.row_losses(glass().to(run.device), own_text(run.seed).to(run.device))


def forgotten(run: Run, model: Any) -> Tensor:
    """Return how much a model's loss on glass's own text is above glass's, for each row."""
    rows = own_text(run.seed).to(run.device)
    return training.row_losses(model.to(run.device), rows) - _own_losses(run)


def scale_that_gains(run: Run, model: Any, untouched: float, gain: float) -> float:
    """Return the t at which t times an update has a gain on the test rows.

    Bisection leaves an interval of 1/32. In it, the gain is nearly linear in t.

    Args:
        run: the run.
        model: a trained model.
        untouched: the loss without the update.
        gain: nats per token; at most that of the entire update.
    """

    def gain_at(t: float) -> float:
        return untouched - training.test_loss(run, scaled(model, t), plays.rows().test)

    ts = [0.0, 1.0]
    gains = [0.0, gain_at(1.0)]
    for _ in range(5):
        middle = mean(ts)
        found = gain_at(middle)
        end = int(found >= gain)  # the end of the interval that moves to the middle
        ts[end] = middle
        gains[end] = found
    return float(np.interp(gain, gains, ts))


def partial_learning(
    run: Run, model: Any, untouched: float, ts: Sequence[float]
) -> list[tuple[float, float]]:
    """Return what parts of an update learn and forget, for each factor t."""
    pairs = []
    for t in ts:
        part = scaled(model, t)
        learned = untouched - training.test_loss(run, part, plays.rows().test)
        pairs.append((learned, forgotten(run, part).mean().item()))
    return pairs
