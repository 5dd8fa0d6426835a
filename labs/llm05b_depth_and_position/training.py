"""Sizes, texts, training and probes of LLM05b's small models."""

import math
from collections.abc import Callable
from statistics import mean, stdev
from typing import Any, NamedTuple

from labs.kit import Run
from labs.shared import small_gpt
from labs.shared.small_gpt import Position

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LONG = 8  # times as long as in training


class Sizes(NamedTuple):
    """Of a model and its training."""

    layers: int
    d: int
    length: int
    batch: int
    steps: int


def deep_sizes(run: Run) -> Sizes:
    """Return the sizes of the stacks that are trained for their depth."""
    return run.pick(
        tiny=Sizes(6, 32, 32, 8, 240),
        small=Sizes(8, 64, 64, 16, 1000),
        full=Sizes(24, 256, 128, 32, 4000),
    )


def long_sizes(run: Run) -> Sizes:
    """Return the sizes of the models that read longer texts than in training."""
    return run.pick(
        tiny=Sizes(2, 48, 64, 8, 160),
        small=Sizes(3, 96, 64, 32, 1500),
        full=Sizes(6, 256, 128, 64, 6000),
    )


def validation(run: Run) -> Tensor:
    """Return 8,192 characters of the validation text, (n, T + 1)."""
    length = deep_sizes(run).length
    return small_gpt.shakespeare().windows(2**13 // length, length)


def long_windows(run: Run) -> Tensor:
    """Return windows of 8 T characters of the validation text, (n, 8 T + 1)."""
    return small_gpt.shakespeare().windows(run.pick(64, 256, 256), LONG * long_sizes(run).length)


def mean_loss(model: nn.Module, windows: Tensor) -> Tensor:
    """Return the mean loss of (n, T + 1) windows, in nats per character."""
    logits = model(windows[:, :-1])  # (n, T, V)
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


class Outcome(NamedTuple):
    """What a training of a deep stack leaves behind."""

    model: Any
    loss: float  # on the validation text
    curve: list[float]  # the training loss before each step
    norms: list[float]  # of all gradients together, before each step
    gradients: list[list[float]]  # what `probe` returned, every eighth step


def train_deep(
    run: Run,
    model: nn.Module,
    lr: float,
    warm: bool,
    seed: int,
    probe: Callable[[Any], list[float]] | None = None,
) -> Outcome:
    """Train a deep stack; a warm-up takes a fifth of the steps.

    Args:
        run: the run.
        model: an untrained model, which stays as it is.
        lr: the peak of the learning rate.
        warm: whether there is a warm-up.
        seed: of the batches.
        probe: is called with the model at every eighth step, when it has gradients.
    """
    sizes = deep_sizes(run)
    gradients: list[list[float]] = []

    def watch(step: int, model: Any) -> None:
        if probe is not None and step % 8 == 0:
            gradients.append(probe(model))

    trained = small_gpt.train(
        run,
        model,
        small_gpt.shakespeare(),
        steps=sizes.steps,
        lr=lr,
        seed=seed,
        warmup=sizes.steps // 5 if warm else 0,
        batch=sizes.batch,
        length=sizes.length,
        watch=watch,
    )
    loss = small_gpt.nats(trained.model, validation(run)).mean().item()
    return Outcome(trained.model, loss, trained.losses, trained.gradient_norms, gradients)


def train_long(run: Run, model: nn.Module, lr: float, seed: int) -> Any:
    """Train a model on windows of T characters; a warm-up takes a tenth of the steps."""
    sizes = long_sizes(run)
    return small_gpt.train(
        run,
        model,
        small_gpt.shakespeare(),
        steps=sizes.steps,
        lr=lr,
        seed=seed,
        warmup=sizes.steps // 10,
        batch=sizes.batch,
        length=sizes.length,
    ).model


def loss_by_place(run: Run, model: nn.Module, times: int) -> Tensor:
    """Return the mean loss at each place of the windows' last `times` · T characters."""
    windows = long_windows(run)[:, -times * long_sizes(run).length - 1 :]
    return small_gpt.nats(model, windows).mean(0).cpu()


def last_half(run: Run, losses: Tensor) -> float:
    """Return the mean loss of the last T/2 characters."""
    return losses[-long_sizes(run).length // 2 :].mean().item()


def difference(a: list[float], b: list[float]) -> list[float]:
    """Return a − b, seed by seed."""
    return [x - y for x, y in zip(a, b, strict=True)]


STUDENT = 4.303  # t for three values, two-sided 95 %


def lower_limit(gains: list[float]) -> float:
    """Return the lower end of the 95 % confidence interval of the mean of three seeds."""
    if len(gains) != 3:
        raise ValueError(f"Student's t is for three seeds here, not {len(gains)}")
    return mean(gains) - STUDENT * stdev(gains) / math.sqrt(3)


@torch.no_grad()
def scores_of_one_pair(attention: Any, tokens: Tensor, position: Position, length: int) -> Tensor:
    """Return the score of one query token and one key token at all places, (T, T), in head 0."""
    heads = attention.heads
    d = attention.q.in_features
    query, key = tokens  # (d,) each
    q = attention.q(position.embed(query.expand(1, length, d)))  # (1, T, d)
    k = attention.k(position.embed(key.expand(1, length, d)))
    q = position.turn(q.unflatten(-1, (heads, -1)).transpose(1, 2))  # (1, H, T, D)
    k = position.turn(k.unflatten(-1, (heads, -1)).transpose(1, 2))
    scores = q @ k.mT / math.sqrt(d // heads)  # (1, H, T, T)
    bias = position.bias(heads, length)
    return (scores if bias is None else scores + bias)[0, 0]


def spread_at_distances(scores: Tensor) -> float:
    """Return the largest difference between two places at one distance, for (T, T) scores."""
    diagonals = (scores.diagonal(-distance) for distance in range(len(scores) // 2))
    return max((row.max() - row.min()).item() for row in diagonals)
