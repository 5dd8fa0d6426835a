"""Gradients as vectors, for comparisons."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn


def gradient_of(model: nn.Module, loss: Tensor) -> Tensor:
    """Return a loss's gradient of all parameters in one vector, and clear those of the model."""
    loss.backward()
    parts = [cast(Tensor, weight.grad).flatten() for weight in model.parameters()]
    model.zero_grad()
    return torch.cat(parts)


def added(parts: Iterable[Tensor]) -> Tensor:
    """Return the sum of tensors."""
    return sum(parts, torch.zeros(()))


def sizes(model: nn.Module) -> list[int]:
    """Return the number of weights in each parameter of a model."""
    return [weight.numel() for weight in model.parameters()]


def relative_error(gradient: Tensor, right: Tensor) -> float:
    """Return the norm of a gradient's error, relative to the norm of the right one."""
    return ((gradient - right).norm() / right.norm()).item()
