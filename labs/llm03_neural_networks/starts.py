"""Twenty layers from several starts: their comparison with the theory, and a trained stack."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from labs.kit import Run

import torch
from torch import Tensor

Pairs = Sequence[tuple[float, float]]  # (RMS, spread) by layer


class Trained(NamedTuple):
    """A trained stack.

    Attributes:
        accuracy: the share of the test images that it reads.
        losses: by step.
        directions: how many layer 10 uses, as a participation ratio.
        named: how many of the ten digits have the largest logit for some test image.
    """

    accuracy: float
    losses: list[float]
    directions: float
    named: int

    def steps_before(self, bound: float) -> int:
        """Return the number of steps before the loss falls below a bound, or else of all steps."""
        below = (step for step, loss in enumerate(self.losses) if loss < bound)
        return next(below, len(self.losses))


def participation_ratio(z: Tensor) -> float:
    """Return how many directions the rows of z, (B, n), use after subtracting their mean."""
    z = z.double()
    squares = torch.linalg.svdvals(z - z.mean(0)).square()
    # NaN: all rows are equal, and no direction is used
    return (squares.sum().square() / squares.square().sum()).nan_to_num(0).item()


def last_share(by_seed: Sequence[Pairs]) -> list[float]:
    """Return spread ÷ RMS after the last layer, for each seed."""
    last = [by_layer[-1] for by_layer in by_seed]
    return [spread / rms for rms, spread in last]


def four_deviations(n: int, depth: int, biases: bool = False) -> float:
    """Return the factor by which √q may be off after layers of n units (section 6).

    Args:
        n: the number of units.
        depth: the number of layers.
        biases: whether they are PyTorch's: a sixth of a layer's deviation reaches the next layer.
    """
    if biases:
        return math.exp(4 * math.sqrt(5 / n * 36 / 35) / 2)
    return math.exp(4 * math.sqrt(5 * depth / n) / 2 + 5 * depth / (4 * n))


def compare_with_theory(
    run: Run, measured: Mapping[str, Sequence[Pairs]], expected: Mapping[str, Pairs], n: int
) -> None:
    """Check the last layer's RMS and spread against the theory, for each start and seed.

    Args:
        run: records the checks.
        measured: by start, for each seed.
        expected: by start.
        n: the number of units.
    """
    because = "section 6: how far a finite width strays, four standard deviations"
    rows = []
    for start, by_seed in measured.items():
        row: list[Any] = [start]
        for j, quantity in enumerate(("RMS", "spread")):
            values = [by_layer[-1][j] for by_layer in by_seed]
            aim = expected[start][-1][j]
            row += [median(values), aim]
            ratios = [max(value / aim, aim / value) for value in values]
            biases = (start, quantity) == ("PyTorch", "RMS")  # in the spread the biases cancel
            room = four_deviations(n, len(by_seed[0]), biases)
            name = f"{start}: {quantity}, off from the theory by a factor of"
            decides = start in ("He", "PyTorch")
            run.check(name, ratios, at_most=room, because=because, decides=decides)
        rows.append(row)
    columns = ["", "RMS", "in theory", "spread across samples", "in theory"]
    run.table("After the last layer (medians of three seeds)", columns, rows)


def check_correlations(run: Run, correlations: Mapping[str, Sequence[float]], bare: str) -> None:
    """Check how much of the last spread is left in bfloat16, for He's start and PyTorch's.

    Args:
        run: records the checks.
        correlations: of bfloat16 with float64, by start, for each seed.
        bare: the name of PyTorch's start without biases.
    """
    because = "the spread is far above a rounding of bfloat16, up to 2⁻⁸ of the value"
    for start in ("He", bare):
        name = f"{start}: correlation of bfloat16 with float64"
        run.check(name, correlations[start], at_least=0.9, because=because, decides=start == "He")
    because = "the spread is thousands of times smaller than a rounding, which takes its place"
    name = "PyTorch: correlation of bfloat16 with float64"
    drowned = [abs(correlation) for correlation in correlations["PyTorch"]]
    run.check(name, drowned, at_most=0.5, because=because, decides=True)
