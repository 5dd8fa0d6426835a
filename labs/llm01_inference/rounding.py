"""Round the weights of a model, and measure what it costs."""

import copy
import math
from collections.abc import Callable
from typing import Any

from labs.kit import Run
from labs.llm01_inference.diversity import human_texts
from labs.llm01_inference.uncertainty import mean_and_error

import torch
from torch import Tensor

Rounded = Callable[
    [Tensor, int], Tensor
]  # weights (..., n) and bits -> rounded along the last axis
Statistic = Callable[[Tensor], float]  # of the texts with these numbers
ROUNDINGS: list[tuple[str, dict[str, Any]]] = [
    ("8 bits, a scale for each row", {"bits": 8}),
    ("6 bits, a scale for each row", {"bits": 6}),
    ("4 bits, a scale for each row", {"bits": 4}),
    ("3 bits, a scale for each row", {"bits": 3}),
    ("4 bits, a scale for each 32 weights", {"bits": 4, "block": 32}),
    ("4 bits, as Q4_1", {"bits": 4, "block": 32, "least_to_largest": True}),
]
TEXTS = 30


def in_blocks(
    rounded: Rounded, w: Tensor, bits: int, block: int = 0, least_to_largest: bool = False
) -> Tensor:
    """Round (out, in) by `rounded`: each row, or each block where `block` divides the row.

    From least to largest, as in Q4_1, a block has 2^bits levels between its extremes.
    """
    width = w.shape[-1]
    size = block if block and width % block == 0 else width
    x = w.unflatten(-1, (-1, size))  # (out, blocks, size)
    if not least_to_largest:
        return rounded(x, bits).flatten(-2)  # (out, in)
    low = x.amin(-1, keepdim=True)
    step = ((x.amax(-1, keepdim=True) - low) / (2**bits - 1)).clamp(min=1e-12)
    return (((x - low) / step).round() * step + low).flatten(-2)  # (out, in)


@torch.no_grad()
def with_layers_rounded(rounded: Rounded, model: Any, count: int, **how: Any) -> tuple[Any, float]:
    """Return a copy with the matrices of `count` layers rounded, and their relative error."""
    net = copy.deepcopy(model)
    layers = net.model.layers[:: max(1, len(net.model.layers) // count)][:count]
    errors = 0.0
    weights = 0.0
    for w in (w for w in layers.parameters() if w.dim() == 2):
        new = in_blocks(rounded, w, **how)
        errors += (new - w).square().sum().item()
        weights += w.square().sum().item()
        w.copy_(new)
    return net, math.sqrt(errors / weights)


@torch.no_grad()
def losses_of(model: Any, ids: Tensor) -> Tensor:
    """Return the mean nats of each text, (B, T) -> (B,)."""
    logp = model(ids.to(model.device)).logits[:, :-1].log_softmax(-1)  # (B, T - 1, V)
    chosen = logp.gather(2, ids[:, 1:, None].to(logp.device))[..., 0]  # (B, T - 1)
    return -chosen.mean(-1).cpu()


def growth(low: Tensor, high: Tensor, ratio: float) -> Statistic:
    """Return the exponent of ε by which the mean cost rises, as a function of the chosen texts.

    Args:
        low: the cost of each text, (B,).
        high: the same with an error that is `ratio` times as large.
        ratio: of the relative errors.
    """

    def exponent(texts: Tensor) -> float:
        before, after = (costs[texts].mean().clamp(min=1e-9).item() for costs in (low, high))
        return math.log(after / before) / math.log(ratio)

    return exponent


def jackknife(statistic: Statistic, n: int) -> tuple[float, float]:
    """Return a statistic of n texts, and its standard error: leave out each of them in turn."""
    every = torch.arange(n)
    without = torch.tensor([statistic(every[every != i]) for i in range(n)], dtype=torch.float64)
    return statistic(every), without.std().item() * (n - 1) / math.sqrt(n)


def costs_of_rounding(
    run: Run, name: str, opened: tuple[Any, Any], rounded: Rounded
) -> tuple[list[list[Any]], list[Tensor]]:
    """Return a row for each rounding (what, layers, ε, cost, SE, loss), and its costs by text."""
    model, tokenizer = opened
    depth = model.config.num_hidden_layers
    ids = torch.tensor(human_texts(tokenizer, TEXTS, run.pick(tiny=20, small=64, full=64)))
    before = losses_of(model, ids)  # (B,)
    tries = [(what, how, depth) for what, how in ROUNDINGS]
    tries.append((*ROUNDINGS[3], max(1, depth // 4)))
    rows = []
    costs = []
    for what, how, count in run.progress(tries, name):
        net, error = with_layers_rounded(rounded, model, count, **how)
        costs.append(losses_of(net, ids) - before)  # (B,)
        loss = (before + costs[-1]).mean().item()
        rows.append([what, count, error, *mean_and_error(costs[-1].tolist()), loss])
    columns = ["weights", "layers", "relative error ε", "nats per token added", "SE", "loss"]
    title = f"{name}, {TEXTS} excerpts of Shakespeare, {ids.shape[1]} tokens each (layers only)"
    run.table(title, columns, rows)
    return rows, costs


def compare_exponents(run: Run, rows: list[list[Any]], costs: list[Tensor]) -> list[str]:
    """Measure the exponents of ε from 6 to 4 bits and from 4 to 3, and their difference.

    Args:
        run: gets the measurements.
        rows: as costs_of_rounding returns them.
        costs: of each row, by text.

    Returns:
        Both exponents, each with its standard error.
    """
    _, six, four, three = rows[:4]
    because = "two standard errors over the texts: only then has the exponent a meaning"
    low = 2 * six[4]
    run.measure("nats, 6 bits", six[3], expect_at_least=low, because=because, decides=True)
    from_six = growth(costs[1], costs[2], four[2] / six[2])
    from_four = growth(costs[2], costs[3], three[2] / four[2])
    said = []
    for name, power in (("6 → 4 bits", from_six), ("4 → 3 bits", from_four)):
        exponent, error = jackknife(power, TEXTS)
        run.measure(f"exponent of ε, {name}", exponent)
        run.measure(f"standard error of the exponent, {name}", error)
        said.append(f"{exponent:.1f} ± {error:.1f}")
    apart, error = jackknife(lambda texts: from_four(texts) - from_six(texts), TEXTS)
    because = "one power of ε would have the difference 0; two standard errors over the texts"
    low = 2 * error
    what = "difference of the two exponents"
    run.measure(what, apart, expect_at_least=low, because=because, decides=True)
    return said
