"""Random graphs of operations, for any engine whose values have the operators of tensors."""

import random
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_FULL = torch.zeros(2, 3, 4, dtype=torch.float64)  # x + _FULL broadcasts any x to this shape
_LABELS = torch.tensor([[0, 3, 1], [2, 2, 0]])


def _square(x: Any) -> Any:
    """Return a matrix, (2, 3, 4) -> (4, 4)."""
    x = x.reshape((6, 4))
    return (x.mT @ x).tanh()


def _loss(x: Any) -> Any:
    """Return the cross-entropy, (2, 3, 4) -> ()."""
    if isinstance(x, Tensor):
        return F.cross_entropy(x.flatten(0, 1), _LABELS.flatten())
    return x.cross_entropy(_LABELS)


def _gelu(x: Any) -> Any:
    return F.gelu(x) if isinstance(x, Tensor) else x.gelu()


def _log_softmax(x: Any) -> Any:
    return x.log_softmax(-1) if isinstance(x, Tensor) else x.log_softmax()


STEPS: dict[str, Callable[[Any, Any], Any]] = {  # each keeps values moderate
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a.tanh() * b,
    "divide": lambda a, b: a / (b * b + 1),
    "power": lambda a, _: (a * a + 1) ** -1.5,
    "products": lambda a, b: (a + _FULL).tanh() @ (b + _FULL).mT.sigmoid() @ (a + _FULL),
    "one matrix for a batch": lambda a, b: (a + _FULL) @ _square(b + _FULL),
    "exp": lambda a, _: a.tanh().exp(),
    "log": lambda a, _: (a * a + 1).log(),
    "sigmoid": lambda a, _: a.sigmoid(),
    "relu": lambda a, _: a.relu(),
    "gelu": lambda a, _: _gelu(a),
    "log-softmax": lambda a, b: _log_softmax(a + _FULL) * b.tanh(),
    "sum": lambda a, b: a.tanh().sum() * b.tanh(),
    "reshape": lambda a, _: (a + _FULL).reshape((4, 6)).relu().reshape((2, 3, 4)),
    "cross-entropy": lambda a, b: _loss(a + _FULL) * b,
}

Step = tuple[str, int, int]  # the name of a step and the two values it takes


def random_graph(chance: random.Random) -> tuple[list[list[int]], list[Step]]:
    """Return the shapes of four leaves that broadcast to (2, 3, 4), and twelve random steps."""
    shapes = [[chance.choice((1, n)) for n in (2, 3, 4)][chance.randrange(4) :] for _ in range(4)]
    names = [chance.choice(list(STEPS)) for _ in range(12)]
    steps = [
        (name, chance.randrange(4 + i), chance.randrange(4 + i)) for i, name in enumerate(names)
    ]
    return shapes, steps


def run_steps(steps: list[Step], leaves: list[Any]) -> list[Any]:
    """Take the steps with the engine of the leaves; return the leaves and all results."""
    values = list(leaves)
    for name, a, b in steps:
        values.append(STEPS[name](values[a], values[b]))
    return values


def total(values: list[Any]) -> Any:
    """Return a scalar that depends on every value."""
    totals = [value.tanh().sum() for value in values]
    return sum(totals[1:], totals[0])


def follow(steps: list[Step], leaves: list[Any]) -> Any:
    """Take the steps; return a scalar that depends on every value."""
    return total(run_steps(steps, leaves))
