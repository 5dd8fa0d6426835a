"""Remove the first token's value from a Llama-like model, or hide a key, and measure the loss."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@contextmanager
def without_the_first_value(model: Any) -> Iterator[None]:
    """Leave the first token's value out of the outputs of all later tokens.

    One hook in each layer sets this value to 0 before attention. That also empties the output of
    the first token, which sees only itself. So another hook writes its value back there.
    """
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


@torch.no_grad()
def loss_on_text(
    model: Any, ids: Tensor, hidden: tuple[int, int] | None = None, start: int = 7
) -> tuple[Tensor, list[float]]:
    """Return each text's loss, (B,), and the weights on the first and on the second token.

    `hidden` is a key and the first query without it. Both results are means over the queries from
    `start` on. By default the first of them is the eighth token, which predicts the ninth. The
    weights are also means over all heads.
    """
    length = ids.shape[1]
    mask = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    if hidden is not None:
        key, query = hidden
        mask[query:, key] = False
    lowest = torch.finfo(torch.float32).min
    bias = torch.zeros(mask.shape, device=ids.device).masked_fill(~mask, lowest)  # (T, T)
    bias = bias.expand(len(ids), 1, -1, -1)
    outputs = model(ids, attention_mask=bias, output_attentions=True)
    logits = outputs.logits[:, start:-1].transpose(1, 2)  # (B, V, T − 1 − start)
    losses = F.cross_entropy(logits, ids[:, start + 1 :], reduction="none").mean(1)  # (B,)
    weights = torch.stack([layer[:, :, start:, :2].mean((0, 1, 2)) for layer in outputs.attentions])
    return losses.cpu(), weights.mean(0).tolist()


def in_errors(losses: Tensor) -> float:
    """Return the mean of losses, (B,), in units of its standard error."""
    return (losses.mean() / losses.std()).item() * math.sqrt(len(losses))


def with_error(losses: Tensor) -> str:
    """Return the mean of losses, (B,), and its standard error as text."""
    error = losses.std() / math.sqrt(len(losses))
    return f"{losses.mean():z.2f} ± {error:.2f}"  # z: 0.00 instead of -0.00
