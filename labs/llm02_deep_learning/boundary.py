"""Two spirals, and what a network predicts on them while it trains."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from labs.llm02_deep_learning.data import accuracy, best_line, spirals

import torch
from torch import Tensor

MAP_SIZE = 40  # grid points along a side of a map
REACH = 1.15  # of a map, from the centre
STOPS = (0, 10, 20, 40, 60, 80, 100, 150, 200, 300, 400)  # steps at which to look

Result = dict[str, Any]


def grid_points(n: int, reach: float = REACH) -> Tensor:
    """Return the points of a square grid, row by row from the lowest, (n·n, 2)."""
    line = torch.linspace(-reach, reach, n)
    return torch.cartesian_prod(line, line).flip(1)  # (n·n, 2): x varies fastest


def watch(parts: tuple[Callable[..., Any], ...], activation: str, seed: int, last: int) -> Result:
    """Train a 2-64-64-2 network on two spirals, with all 500 points in each step.

    Args:
        parts: the lesson's `MLP`, `Momentum` and `train`.
        activation: its name.
        seed: of the points and of the first weights.
        last: the number of steps.

    Returns:
        `steps`; for each, `maps` of p(class 1) (MAP_SIZE²,), `losses` on the training data and
        `accuracies` on 2,000 unseen points; the accuracy of the best straight `line` on these; the
        training data `x` and `y`.
    """
    build, optimizer_of, train = parts
    torch.manual_seed(seed)
    x, y = spirals(500)
    unseen = spirals(2000)
    model = build(2, 64, 64, 2, activation=activation)
    optimizer = optimizer_of(model.parameters(), 0.1)
    stops = [*STOPS, last]
    maps = []
    losses = []
    accuracies = []
    for start, stop in pairwise([0, *stops]):
        train(model, optimizer, x, y, [torch.arange(500)] * (stop - start))
        maps.append(model(grid_points(MAP_SIZE)).data.softmax(-1)[:, 1])
        losses.append(model(x).cross_entropy(y).data.item())
        accuracies.append(accuracy(model, *unseen))
    line = best_line(*unseen)
    return {
        "x": x,
        "y": y,
        "steps": stops,
        "maps": maps,
        "losses": losses,
        "accuracies": accuracies,
        "line": line,
    }
