"""Layers with a planted fault, for the learner's `diagnose` to name."""

from collections.abc import Callable
from typing import Any

from labs.shared.small_gpt import Config, LanguageModel

from torch import Tensor, nn


def planted(fault: str, d_model: int) -> Callable[[Tensor], Tensor]:
    """Return an untrained attention layer, (B, T, d) -> (B, T, d) in float64, with one fault.

    Args:
        fault: a key of FAULTS in the lesson; "sound" for none.
        d_model: the width of the vectors, d.
    """
    changes: dict[str, Any] = {
        "no norm": {"norm": nn.Identity},
        "norm on the sum": {"placement": "post"},
        "no residual": {"alpha": 0.0},
        "dead branch": {"beta": 0.0},
    }
    model = LanguageModel(Config(2, 1, d_model, **changes.get(fault, {}))).double()
    block: Any = model.blocks[0]
    layer = block.attention
    position = model.position
    if fault == "looks ahead":
        return lambda x: layer(x.flip(1), position).flip(1)
    return lambda x: layer(x, position)
