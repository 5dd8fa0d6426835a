"""A function with a gradient written by hand."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def with_backward(
    forward: Callable[..., Tensor], backward: Callable[..., tuple[Tensor, ...]]
) -> Callable[..., Tensor]:
    """Return `forward` with `backward` in place of autograd's gradient.

    Args:
        forward: a function of tensors.
        backward: takes the gradient of the output and then the inputs; returns a gradient for each
            of the inputs, or for the first ones.
    """

    class ByHand(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Tensor:
            ctx.save_for_backward(*inputs)
            return forward(*inputs)

        @staticmethod
        def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
            return backward(dy, *ctx.saved_tensors)

    return ByHand.apply  # type: ignore[no-any-return]
