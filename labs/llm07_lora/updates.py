"""Change the updates of trained models: cut them to few directions, scale them, round them."""

import copy
import math
from itertools import product
from typing import Any, NamedTuple

from labs.kit import Run
from labs.llm07_lora import plays, training
from labs.llm07_lora.lesson import adapters, insert, low_rank
from labs.llm07_lora.models import ALL, glass

import torch
from torch import Tensor


def energy(matrix: Tensor) -> Tensor:
    """Return the share of Σσ² in the first 1, 2, 3 … directions."""
    squares = torch.linalg.svdvals(matrix.float()).square()
    return squares.cumsum(0) / squares.sum()


@torch.no_grad()
def cut(model: Any, first: int, last: int, like: int = 0) -> Any:
    """Return glass with directions `first` to `last` − 1 of each ΔW of a fine-tuned model.

    With `like`, they are scaled to the sum of squares of the first `like` directions.
    """
    short = insert(glass(), ALL, last - first, alpha=last - first)
    for name, layer in adapters(short).items():
        delta = model.get_submodule(name).weight.cpu() - layer.base.weight
        a, b = low_rank(delta, last)
        layer.A.copy_(a[first:])
        layer.B.copy_(b[:, first:])
        if like:
            layer.B.mul_(energy(delta)[like - 1].sqrt() * delta.norm() / layer.delta().norm())
    return short


@torch.no_grad()
def shrink(model: Any, like: int) -> Any:
    """Return glass with each ΔW scaled to the sum of squares of its first `like` directions."""
    small = glass()
    for name, layer in small.named_modules():
        if name.split(".")[-1] in ALL:
            delta = model.get_submodule(name).weight.cpu() - layer.weight
            layer.weight += energy(delta)[like - 1].sqrt() * delta
    return small


def weight_changes(models: list[Any], layer: str) -> list[Tensor]:
    """Return the ΔW of one kind of layer: of each model and each block."""
    base = dict(glass().named_modules())
    names = [name for name in base if name.endswith(layer)]
    return [
        model.get_submodule(name).weight.cpu() - base[name].weight
        for model, name in product(models, names)
    ]


def squares_in_8(run: Run, tuned: list[Any]) -> dict[str, Tensor]:
    """Tabulate the share of each layer's squares in 8 directions, and return all shares."""
    torch.manual_seed(run.seed)  # the same numbers, whether `trained` has just trained or not
    shares = {}
    table = []
    for layer in ALL:
        changes = weight_changes(tuned, layer)
        shares[layer] = torch.stack([energy(change) for change in changes]).mean(0)
        random = energy(torch.randn_like(changes[0]))
        table.append([layer, shares[layer][7].item(), random[7].item()])
    shares["random"] = random  # of the shape of the last layer
    run.table("Share of the squares in 8 directions", ["layer", "ΔW (mean)", "random"], table)
    ratios = [ours / random for _, ours, random in table]
    because = "1, within a few percent, if ΔW were random"
    run.check("share in 8 directions ÷ random", ratios, at_least=1.3, because=because)
    return shares


@torch.no_grad()
def scaled(model: Any, t: float) -> Any:
    """Return glass with t times the update of a model, an adapter's or full fine-tuning's."""
    changed = copy.deepcopy(model).cpu()
    for layer in adapters(changed).values():
        layer.B.mul_(t)
    if not adapters(changed):
        for weight, base in zip(changed.parameters(), glass().parameters(), strict=True):
            weight.copy_(base + t * (weight - base))
    return changed


@torch.no_grad()
def stored(model: Any, dtype: torch.dtype, t: float = 1.0, merged: bool = False) -> Any:
    """Return an adapted model whose base is rounded to a dtype, the update's factor being t.

    Merged, the sum is rounded. The rounded weights stay in float32, which computes the loss.
    """
    rounded = scaled(model, t)
    for layer in adapters(rounded).values():
        weight = layer.base.weight
        weight.copy_(weight.to(dtype))
        if merged:
            layer.merge()
            weight.copy_(weight.to(dtype))
    return rounded


def rounding(model: Any, dtype: torch.dtype) -> tuple[float, float]:
    """Return ρ of a merge in a dtype, and the share of ΔW's numbers that change no weight."""
    beside = stored(model, dtype)
    sums = adapters(stored(model, dtype, merged=True))
    error = 0.0
    update = 0.0
    vanished = 0
    count = 0
    for name, layer in adapters(beside).items():
        delta = layer.delta()
        change = sums[name].base.weight - layer.base.weight
        error += (change - delta).square().sum().item()
        update += delta.square().sum().item()
        vanished += int(((change == 0) & (delta != 0)).sum())
        count += int((delta != 0).sum())
    return math.sqrt(error / update), vanished / count


class Merge(NamedTuple):
    """Losses without, beside and with a merged update; cost ÷ gain, ρ, share that vanishes."""

    bare: float
    beside: float
    merged: float
    cost: float
    rho: float
    vanished: float


def merge_costs(run: Run, model: Any, dtype: torch.dtype) -> Merge:
    """Return what a merge in a dtype costs on the test rows of plays."""
    test = plays.rows().test
    bare = training.test_loss(run, stored(model, dtype, 0.0), test)
    beside = training.test_loss(run, stored(model, dtype), test)
    merged = training.test_loss(run, stored(model, dtype, merged=True), test)
    cost = (merged - beside) / (bare - beside)
    return Merge(bare, beside, merged, cost, *rounding(model, dtype))
