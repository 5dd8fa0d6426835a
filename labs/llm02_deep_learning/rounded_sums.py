"""Long sums of small numbers, with plain and with stochastic rounding."""

from itertools import accumulate

import torch
from torch import Tensor


def plain_sums(dtype: torch.dtype) -> list[float]:
    """Return 1.0 and the sums after each of 1,000 additions of 0.001, in a dtype."""
    steps = torch.full((1000,), 0.001, dtype=dtype)
    return [x.item() for x in accumulate(steps, initial=torch.ones((), dtype=dtype))]


def stochastic_bfloat16(x: Tensor) -> Tensor:
    """Round float32 to bfloat16, away from 0 with the probability that keeps the mean right."""
    # bfloat16 drops float32's last 16 bits. They are a fraction of a spacing, in units of 2⁻¹⁶.
    # Adding a random 16-bit number carries into the other bits with exactly that probability.
    noise = torch.randint(0, 2**16, x.shape, dtype=torch.int32)
    bits = (x.view(torch.int32) + noise) & ~0xFFFF
    return bits.view(torch.float32).bfloat16()


def stochastic_sums(start: float, step: float, n: int, copies: int) -> Tensor:
    """Return independent sums in bfloat16 with stochastic rounding, by steps, (n + 1, copies)."""
    sums = [torch.full((copies,), start, dtype=torch.bfloat16)]
    for _ in range(n):
        sums.append(stochastic_bfloat16(sums[-1].float() + step))
    return torch.stack(sums).float()
