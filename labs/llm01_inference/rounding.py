"""Round the weights of a model, and measure what it costs."""

import copy
import math
from typing import Any

import torch
from torch import Tensor


def rounded(w: Tensor, bits: int, block: int = 0, least_to_largest: bool = False) -> Tensor:
    """Round (out, in) to at most 2^bits levels a row, or a block where `block` divides the row."""
    width = w.shape[-1]
    size = block if block and width % block == 0 else width
    x = w.unflatten(-1, (-1, size))  # (out, blocks, size)
    if least_to_largest:
        low = x.amin(-1, keepdim=True)
        step = (x.amax(-1, keepdim=True) - low) / (2**bits - 1)
    else:
        low = torch.zeros(())
        step = x.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    step = step.clamp(min=1e-12)
    return (((x - low) / step).round() * step + low).flatten(-2)  # (out, in)


@torch.no_grad()
def with_layers_rounded(model: Any, count: int, **how: Any) -> tuple[Any, float]:
    """Return a copy with the matrices of `count` layers rounded, and their relative error."""
    net = copy.deepcopy(model)
    layers = net.model.layers[:: max(1, len(net.model.layers) // count)][:count]
    errors = 0.0
    weights = 0.0
    for w in (w for w in layers.parameters() if w.dim() == 2):
        new = rounded(w, **how)
        errors += (new - w).square().sum().item()
        weights += w.square().sum().item()
        w.copy_(new)
    return net, math.sqrt(errors / weights)


@torch.no_grad()
def losses_of(model: Any, ids: Tensor) -> Tensor:
    """Return the mean nats of each text, (B, T) -> (B,)."""
    logp = model(ids.to(model.device)).logits[:, :-1].log_softmax(-1)  # (B, T - 1, V)
    chosen = logp.gather(2, ids[:, 1:, None].to(logp.device))[..., 0]  # (B, T - 1)
    return -chosen.mean(-1).cpu()
