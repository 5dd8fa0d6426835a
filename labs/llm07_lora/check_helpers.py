"""What several checks of LLM07 need: a layer with random weights, and plain messages."""

from collections.abc import Callable
from typing import Any

from labs.kit import Mistake, draw

import torch
from torch import nn

Function = Callable[..., Any]


def require_function(implementation: Any) -> None:
    """Raise a Mistake for what can't be called."""
    if not callable(implementation):
        raise Mistake(f"expected a function, got {type_of(implementation)}")


def type_of(value: Any) -> str:
    """Return a value's type in words."""
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


def random_layer(implementation: Any) -> Any:
    """Return a layer (6 -> 4) in float64 of rank 2 with alpha 6, all weights random.

    Raises:
        Mistake: if the implementation isn't a class.
    """
    if not isinstance(implementation, type):
        raise Mistake(f"expected a class, got {type_of(implementation)}")
    layer: Any = implementation(nn.Linear(6, 4).double(), rank=2, alpha=6.0)
    with torch.no_grad():
        for i, weight in enumerate((layer.base.weight, layer.base.bias, layer.A, layer.B)):
            weight.copy_(draw(*weight.shape, seed=i))
    return layer
