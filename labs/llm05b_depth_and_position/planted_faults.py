"""Layers with a planted fault, for the learner's `diagnose` to name."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

HEADS = 4


def planted(fault: str, d_model: int) -> Callable[[Tensor], Tensor]:
    """Return an untrained attention layer, (B, T, d) -> (B, T, d) in float64, with one fault.

    Args:
        fault: a key of FAULTS in the lesson; "sound" for none.
        d_model: the width of the vectors, d.
    """
    w_q, w_k, w_v, w_out = torch.randn(4, d_model, d_model, dtype=torch.float64) / math.sqrt(
        d_model
    )
    if fault == "dead branch":
        w_out = torch.zeros_like(w_out)

    def branch(x: Tensor) -> Tensor:
        q, k, v = (
            (x @ w.mT).unflatten(-1, (HEADS, -1)).transpose(1, 2)  # (B, H, T, D)
            for w in (w_q, w_k, w_v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.transpose(1, 2).flatten(2) @ w_out.mT  # (B, T, d)

    def norm(x: Tensor) -> Tensor:
        return F.layer_norm(x, (d_model,))

    layers: dict[str, Callable[[Tensor], Tensor]] = {
        "no norm": lambda x: x + branch(x),
        "norm on the sum": lambda x: norm(x + branch(x)),
        "no residual": lambda x: branch(norm(x)),
        "looks ahead": lambda x: x + branch(norm(x).flip(1)).flip(1),
    }
    return layers.get(fault, lambda x: x + branch(norm(x)))
