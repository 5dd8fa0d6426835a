"""What reaches each layer of an untrained network: gradients backward, differences forward."""

import math
from typing import Any

from labs.llm02_deep_learning.lesson import MLP, TensorValue

import torch
from torch import Tensor


def gradients_by_layer(activation: str, depth: int, width: int) -> list[float]:
    """Return the RMS of each layer's weight gradient, untrained, for 64 random inputs."""
    model = MLP(*[width] * (depth + 1), activation=activation)
    logits: Any = model(torch.randn(64, width))
    (logits * torch.randn(64, width)).sum().backward()
    return [weight.grad.square().mean().sqrt().item() for weight in model.weights]


def derived_gradients(activation: str, depth: int, width: int) -> list[float]:
    """Return the RMS gradient of each layer's weights ÷ that of the last layer's, in theory.

    The theory is the RMS of the layer's input times gain·√E[f′²] for each layer after it. Both are
    sampled by a forward pass alone.
    """
    model = MLP(*[width] * (depth + 1), activation=activation, dtype=torch.float64)
    y: Any = TensorValue(torch.randn(64, width, dtype=torch.float64))
    sizes = []
    factors = []
    for weight in model.weights:
        sizes.append(_rms(y.data))
        z = TensorValue((y @ weight).data)
        y = model.activation(z)
        y.sum().backward()  # z.grad is f′(z)
        factors.append(_rms(weight.data) * math.sqrt(width) * _rms(z.grad))
    return [sizes[i] / sizes[-1] * math.prod(factors[i:-1]) for i in range(depth)]


def _rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def spreads_by_layer(activation: str, depth: int, width: int) -> list[float]:
    """Return how much each layer's input differs between 64 random inputs, relative to its size."""
    model = MLP(*[width] * (depth + 1), activation=activation, dtype=torch.float64)
    y = TensorValue(torch.randn(64, width, dtype=torch.float64))
    spreads = []
    for i, (weight, bias) in enumerate(zip(model.weights, model.biases, strict=True)):
        y = model.activation(y) if i else y
        spread = y.data.var(0).mean() / y.data.square().mean()  # variance over the inputs
        spreads.append(spread.sqrt().item())
        y = y @ weight + bias  # (64, width)
    return spreads
