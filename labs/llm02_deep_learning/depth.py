"""The gradient of each layer in theory, and the bounds of what reaches untrained layers."""

import math
from typing import Any

from labs.kit import Run
from labs.llm02_deep_learning.lesson import MLP, TensorValue

import torch
from torch import Tensor


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


def check_gradients(
    run: Run, gradients: dict[str, list[list[float]]], derived: dict[str, list[float]], width: int
) -> None:
    """Check the gradient of the first layer's weights ÷ that of the last, for each seed."""
    back = {name: [g[0] / g[-1] for g in by_seed] for name, by_seed in gradients.items()}
    depth = len(gradients["ReLU"][0])
    because = "4⁻¹⁹; the last layer's input is at least half the size of the first one's"
    ratios = back["sigmoid"]
    what = "sigmoid: gradient, first layer ÷ last layer"
    run.check(what, ratios, at_most=2 * 4**-19, because=because, decides=True)
    # For ReLU the ratio is near 1 with any gain, so it can't decide. The first layer's size can: a
    # sum over 64 independent examples, with inputs and gradients of RMS 1, is √64 = 8. With finite
    # width the logarithm of an example's squared gradient has a variance of 5/n a layer (Hanin &
    # Nica 2020).
    off = [abs(math.log(g[0] / 8)) for g in gradients["ReLU"]]
    bound = 4 * math.sqrt(5 * (depth - 1) / width) / 2
    because = (
        "64 examples make √64 = 8; with one example ln has a standard deviation of √(5·19/n)/2, "
        "with 64 a smaller one; four of these. With gain 1 it would be 6.6"
    )
    what = "ReLU: |ln(gradient of the first layer ÷ 8)|"
    run.check(what, off, at_most=bound, because=because, decides=True)
    run.measure("ReLU: gradient, first layer ÷ last layer", back["ReLU"])
    off = {
        name: [abs(math.log(ratio / derived[name][0])) for ratio in back[name]] for name in derived
    }
    because = (
        "E[f′²] from a sample of z; eight standard deviations of the difference of two networks: "
        "0.074 over 24 pairs at width 256, and as 1/√n for others. With 1/4 in place of each f′ it "
        "would be 1.2"
    )
    what = "sigmoid: |ln(first layer ÷ last layer) − ln of the derived ratio|"
    wide = 0.3 * math.sqrt(256 / width)
    run.check(what, off["sigmoid"], at_most=2 * wide, because=because, decides=True)
    because = (
        "five standard deviations of the difference of two networks: 0.06 over 40 pairs at width "
        "256, and as 1/√n for others"
    )
    what = "tanh: |ln(first layer ÷ last layer) − ln of the derived ratio|"
    run.measure(what, off["tanh"], expect_at_most=wide, because=because)
    run.measure("tanh: gradient, first layer ÷ last layer", back["tanh"])


def check_spreads(run: Run, spreads: dict[str, list[list[float]]]) -> None:
    """Check the relative spread of the last layer's input, for each seed."""
    ends = {name: [spread[-1] for spread in by_seed] for name, by_seed in spreads.items()}
    because = "4⁻¹⁹; its size is at least half that of the first layer's input"
    what = "sigmoid: relative spread of the last layer's input"
    run.check(what, ends["sigmoid"], at_most=2 * 4**-19, because=because, decides=True)
    because = (
        "half of 0.236, for infinitely wide layers (LLM03+); narrower ones are higher and scatter"
    )
    what = "ReLU: relative spread of the last layer's input"
    run.measure(what, ends["ReLU"], expect_at_least=0.118, because=because, decides=True)
    because = "tanh is odd, so unrelated inputs get no common part; related ones weren't tried"
    what = "tanh: relative spread of the last layer's input"
    run.measure(what, ends["tanh"], expect_at_least=0.9, because=because)
