"""The training loop of LLM06's small models."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from labs.kit import Run, on_one_thread
from labs.llm06_attention import dates, recall

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@on_one_thread
def train(
    run: Run,
    model: nn.Module,
    batch: Callable[[], tuple[Tensor, ...]],
    steps: int,
    lr: float,
    warmup: int,
    label: str,
) -> tuple[Any, list[float]]:
    """Train with AdamW; return the model and its accuracy at each step.

    `batch()` returns the inputs of the model, and last the targets, (B, N) for logits (B, N, V).
    The learning rate rises over `warmup` steps, then stays at `lr`.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.98), fused=True)
    model, optimizer = run.accelerator.prepare(model, optimizer)
    curve = []
    for step in run.progress(range(steps), label):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / (warmup + 1))
        *inputs, targets = (run.share(x).to(run.device) for x in batch())
        logits = model(*inputs)
        run.accelerator.backward(F.cross_entropy(logits.flatten(0, 1), targets.flatten()))
        optimizer.step()
        optimizer.zero_grad()
        curve.append((logits.argmax(-1) == targets).float().mean().item())
    return run.accelerator.unwrap_model(model, keep_fp32_wrapper=False), curve


@cache
def train_on_recall(
    run: Run, model: Callable[[int, int], nn.Module], layers: int, heads: int, seed: int
) -> tuple[Any, list[float]]:
    """Train `model(layers, heads)` on recall; return it and its accuracy at each step."""
    torch.manual_seed(seed)
    label = f"recall, {layers} × {heads} heads, seed {seed}"
    batch = partial(recall.batch, 64)
    return _train_warmed(run, model(layers, heads), batch, _steps(run), label)


def train_on_previous(run: Run, model: Callable[[int, int], nn.Module], seed: int) -> list[float]:
    """Train `model(1, 2)` to give the token before each query, with half of the steps of recall.

    Returns:
        Its accuracy at each step.
    """
    torch.manual_seed(seed)
    label = f"the token before, 1 × 2 heads, seed {seed}"
    batch = partial(recall.previous_batch, 64)
    return _train_warmed(run, model(1, 2), batch, _steps(run) // 2, label)[1]


def _steps(run: Run) -> int:
    return run.pick(tiny=300, small=1000, full=4000)


def _train_warmed(
    run: Run, model: nn.Module, batch: Callable[[], tuple[Tensor, ...]], steps: int, label: str
) -> tuple[Any, list[float]]:
    # At 0.003 without warm-up, one of 12 seeds took 490 steps; like this, none of 14 takes 200.
    return train(run, model, batch, steps, 6e-3, steps // 5, label)


def train_on_dates(run: Run, model: Callable[[], nn.Module], seed: int) -> Any:
    """Train `model()` on random dates, a new batch each step; return it."""
    torch.manual_seed(seed)
    batch = partial(dates.Sampler(seed).batch, 32)
    steps = run.pick(tiny=300, small=800, full=1600)
    return train(run, model(), batch, steps, 3e-3, 0, f"dates, seed {seed}")[0]
