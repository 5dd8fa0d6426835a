"""Remove the first token's value from a Llama-like model, to see what a sink hands over."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def without_the_first_value(model: Any) -> Iterator[None]:
    """Leave the first token's value out of the outputs of all later tokens."""
    firsts = {}
    handles = []
    sharing = model.config.num_attention_heads // model.config.num_key_value_heads
    width = model.config.head_dim
    for layer in model.model.layers:
        attn = layer.self_attn

        def remove(_: Any, _inputs: Any, v: Tensor, attn: Any = attn) -> Tensor:
            firsts[attn] = v[:, 0]  # (B, Hkv·D)
            return torch.cat((torch.zeros_like(v[:, :1]), v[:, 1:]), 1)

        def restore(_: Any, inputs: tuple[Tensor], attn: Any = attn) -> tuple[Tensor]:
            value = firsts[attn].unflatten(-1, (-1, width))  # (B, Hkv, D)
            first = value.repeat_interleave(sharing, 1).flatten(1)  # (B, H·D)
            return (torch.cat((first[:, None], inputs[0][:, 1:]), 1),)

        handles.append(attn.v_proj.register_forward_hook(remove))
        handles.append(attn.o_proj.register_forward_pre_hook(restore))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
