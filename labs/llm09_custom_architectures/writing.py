"""Write token by token: a step of attention with its cache, and what a step takes."""

from collections.abc import Callable
from typing import Any

from labs.kit import seconds
from labs.llm06_attention import rope

import torch
import torch.nn.functional as F
from torch import Tensor


def attention_step(attention: Any, x: Tensor, keys: Tensor, values: Tensor, place: int) -> Tensor:
    """Return the output for the token at a place, (B, d), and put it into the cache; one head.

    x is (B, d); keys and values are (B, T, d) with T > place, and are changed at that place.
    """
    new = x[:, None]  # (B, 1, d)
    q = rope(attention.q_proj(new), start=place)
    keys[:, place] = rope(attention.k_proj(new), start=place)[:, 0]
    values[:, place] = attention.v_proj(x)
    end = place + 1
    mixed = F.scaled_dot_product_attention(q, keys[:, :end], values[:, :end])
    return attention.o_proj(mixed)[:, 0]


@torch.no_grad()
def step_by_step(attention: Any, x: Tensor) -> Tensor:
    """Return the attention's outputs for a text, one token at a time, (B, T, d) -> (B, T, d)."""
    keys = torch.empty_like(x)
    values = torch.empty_like(x)
    outputs = [attention_step(attention, x[:, t], keys, values, t) for t in range(x.shape[1])]
    return torch.stack(outputs, 1)


@torch.no_grad()
def time_of_attention(attention: Any, length: int) -> float:
    """Return the shortest time of a step with `length` tokens in the cache, in milliseconds."""
    width = attention.q_proj.in_features
    keys, values = torch.randn(2, 1, length + 1, width)
    x = torch.randn(1, width)
    return _milliseconds(lambda: attention_step(attention, x, keys, values, length))


@torch.no_grad()
def time_of_convolution(convolution: Any) -> float:
    """Return the shortest time of a step of a convolution, in milliseconds."""
    state = convolution.start(1)
    x = torch.randn(1, state.shape[-1])
    return _milliseconds(lambda: convolution.step(x, state))


def _milliseconds(step: Callable[[], Any]) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return 1000 * min(seconds(step, 30))  # other load disturbs the shortest least
    finally:
        torch.set_num_threads(before)
