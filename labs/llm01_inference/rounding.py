"""Round the weights of a model, and measure what it costs."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
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
ROUNDINGS: dict[str, dict[str, Any]] = {  # a scale for each row, unless there are blocks
    "8 bits": {"bits": 8},
    "4 bits": {"bits": 4},
    "3 bits": {"bits": 3},
    "4 bits in blocks": {"bits": 4, "block": 32},
    "4 bits as Q4_1": {"bits": 4, "block": 32, "least_to_largest": True},
}
BOTH_SIGNS = ("8 bits", "4 bits", "3 bits")
TEXTS = 30


@dataclass
class Cost:
    """What a rounding of the weights costs.

    Attributes:
        error: the relative error ε.
        loss: nats per token of the rounded model.
        rounded: nats added to the mean of each text, (B,).
        mirrored: the same if each weight's error has the other sign, (B,); NaN if not tried.
    """

    error: float
    loss: float
    rounded: Tensor
    mirrored: Tensor

    def mean_of_both(self) -> Tensor:
        """Return the mean over both signs of the errors, (B,)."""
        return (self.rounded + self.mirrored) / 2


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
def with_layers_rounded(
    rounded: Rounded, model: Any, sign: int = 1, **how: Any
) -> tuple[Any, float]:
    """Return a copy with the matrices of all layers rounded, and their relative error.

    With sign −1 each weight gets the error of the same size in the other direction.
    """
    net = copy.deepcopy(model)
    errors = 0.0
    weights = 0.0
    for w in (w for w in net.model.layers.parameters() if w.dim() == 2):
        error = in_blocks(rounded, w, **how) - w
        errors += error.square().sum().item()
        weights += w.square().sum().item()
        w.add_(sign * error)
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
) -> dict[str, Cost]:
    """Return what each of ROUNDINGS costs a model, and tabulate it."""
    model, tokenizer = opened
    ids = torch.tensor(human_texts(tokenizer, TEXTS, run.pick(tiny=20, small=64, full=64)))
    before = losses_of(model, ids)  # (B,)
    costs = {}
    rows = []
    for what, how in run.progress(list(ROUNDINGS.items()), name):
        net, error = with_layers_rounded(rounded, model, **how)
        after = losses_of(net, ids)  # (B,)
        mirrored = torch.full_like(before, math.nan)
        if what in BOTH_SIGNS:
            net, _ = with_layers_rounded(rounded, model, sign=-1, **how)
            mirrored = losses_of(net, ids) - before  # (B,)
        cost = Cost(error, after.mean().item(), after - before, mirrored)
        row = [what, error]
        for added in (cost.rounded, cost.mirrored, cost.mean_of_both()):
            row += mean_and_error(added.tolist()) if added.isfinite().all() else ["", ""]
        rows.append(row)
        costs[what] = cost
    columns = ["weights", "ε"]
    for added in ("added", "other sign", "mean of both"):
        columns += [added, "SE"]
    title = f"{name}, nats per token, {TEXTS} excerpts of Shakespeare of {ids.shape[1]} tokens"
    run.table(title, columns, rows)
    return costs


def compare_exponents(run: Run, costs: dict[str, Cost]) -> str:
    """Measure the exponents of ε of the mean over both signs, and return a sentence about them."""
    mean, error = mean_and_error(costs["8 bits"].mean_of_both().tolist())
    because = "two standard errors over the texts: only then has an exponent a meaning"
    what = "nats, 8 bits, mean of both signs"
    run.measure(what, mean, expect_at_least=2 * error, because=because, decides=True)
    said = []
    for low, high in pairwise(BOTH_SIGNS):
        ratio = costs[high].error / costs[low].error
        power = growth(costs[low].mean_of_both(), costs[high].mean_of_both(), ratio)
        exponent, error = jackknife(power, TEXTS)
        what = f"exponent of ε, {low} → {high}"
        # at 3 bits the model is worse than a uniform one: no theory for so large an error
        if high == "3 bits":
            run.measure(what, exponent)
        else:
            margin = math.log(2) / math.log(ratio)  # the exponent's error if c changes by 2
            because = "the square, if c of both differs by less than a factor of two: our choice"
            square = (2 - margin, 2 + margin)
            run.measure(what, exponent, expect_between=square, because=because, decides=True)
        run.measure(f"standard error of the {what}", error)
        said.append(f"{exponent:.2f} ± {error:.2f} ({low} → {high})")
    four = costs["4 bits"]
    three = costs["3 bits"]
    alone = []
    for before, after in ((four.rounded, three.rounded), (four.mirrored, three.mirrored)):
        exponent, error = jackknife(growth(before, after, three.error / four.error), TEXTS)
        alone.append(f"{exponent:.1f} ± {error:.1f}")
    return (
        f"4 bits cost {four.rounded.mean():.2f} nats per token, with the other sign "
        f"{four.mirrored.mean():.2f}. The exponents of the mean of both are {' and '.join(said)}. "
        f"From 4 to 3 bits, one sign alone would give {' or '.join(alone)}."
    )
