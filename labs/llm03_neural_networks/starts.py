"""Twenty layers from several starts: their comparison with the theory, and a trained stack."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from labs.kit import Run

Pairs = Sequence[tuple[float, float]]  # (RMS, spread) by layer


class Trained(NamedTuple):
    """A trained stack: test accuracy, losses by step, and how many directions layer 10 uses."""

    accuracy: float
    losses: list[float]
    directions: float

    def first_step_below(self, bound: float) -> int:
        """Return the first step with a loss below a bound, or else the number of steps."""
        below = (step for step, loss in enumerate(self.losses) if loss < bound)
        return next(below, len(self.losses))


def compare_with_theory(
    run: Run, measured: Mapping[str, Sequence[Pairs]], expected: Mapping[str, Pairs], room: float
) -> None:
    """Check the last layer's RMS and spread against the theory, for each start and seed.

    Args:
        run: records the checks.
        measured: by start, for each seed.
        expected: by start.
        room: the factor by which either number may be off.
    """
    because = "section 6: four standard deviations of ln √q, and its shift"
    rows = []
    for start, by_seed in measured.items():
        row: list[Any] = [start]
        for j, quantity in enumerate(("RMS", "spread")):
            values = [by_layer[-1][j] for by_layer in by_seed]
            aim = expected[start][-1][j]
            row += [median(values), aim]
            ratios = [max(value / aim, aim / value) for value in values]
            name = f"{start}: {quantity}, off from the theory by a factor of"
            decides = start in ("He", "PyTorch")
            run.check(name, ratios, at_most=room, because=because, decides=decides)
        rows.append(row)
    columns = ["", "RMS", "in theory", "spread across inputs", "in theory"]
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
    run.check(name, correlations["PyTorch"], at_most=0.5, because=because, decides=True)
