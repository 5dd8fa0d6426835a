"""Networks of our engine that learn to read digits: wide, deep, or in their last layer only."""

from labs.kit import Run
from labs.llm02_deep_learning.data import batches_of, digits
from labs.llm02_deep_learning.lesson import MLP, Momentum, train

import torch
from torch import Tensor


def reads_digits(
    seed: int, steps: int, lr: float, activation: str, *widths: int, last_only: bool = False
) -> Tensor:
    """Train an MLP of our engine, or its last layer; return 1 for each test digit read, (360,)."""
    x, y, x_test, y_test = digits()
    torch.manual_seed(seed)
    model = MLP(*widths, activation=activation)
    trained = [model.weights[-1], model.biases[-1]] if last_only else model.parameters()
    train(model, Momentum(trained, lr), x, y, batches_of(64, len(y), steps))
    return (model(x_test).data.argmax(-1) == y_test).float()


def train_deep(run: Run) -> dict[str, list[float]]:
    """Return the test accuracies of ten layers after 300 steps, by activation and trained part."""
    widths = [64] * 10 + [10]
    right: dict[str, list[float]] = {}
    for name in ("sigmoid", "ReLU"):
        for part in ("all layers", "the last layer alone"):
            last = part != "all layers"
            key = f"ten layers of {name}, {part} trained"
            right[key] = [
                reads_digits(seed, 300, 0.02, name, *widths, last_only=last).mean().item()
                for seed in run.seeds(3)
            ]
            run.measure(f"{key}: test accuracy", right[key])
    return right
