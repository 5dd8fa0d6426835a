"""A network that may be cut in the middle, its training, and which parameters get a gradient."""

from collections.abc import Callable, Mapping
from statistics import mean
from typing import Any

from labs.kit import Run
from labs.llm02_deep_learning.data import accuracy, digits

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def three_layers(between: Callable[[Tensor], Tensor]) -> nn.Sequential:
    """Return a network for digits; `between` is applied to the result of its second layer."""
    first = nn.Linear(64, 64)
    second = nn.Linear(64, 64)
    third = nn.Linear(64, 10)
    for layer in (first, second, third):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def hook(_layer: nn.Module, _inputs: Any, z: Tensor) -> Tensor:
        return between(z)  # replaces the layer's result

    second.register_forward_hook(hook)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)


def train_plainly(model: nn.Module, batches: list[Tensor]) -> tuple[float, float, float]:
    """Train without Accelerate; return the first loss, the mean of the last 20, the test accuracy.

    With several processes, Accelerate's DistributedDataParallel would notice unused parameters.
    """
    x, y, x_test, y_test = digits()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for batch in batches:
        loss = F.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], mean(losses[-20:]), accuracy(model, x_test, y_test)


def without_gradient(loss: Tensor, module: nn.Module) -> list[str]:
    """Return the names of the parameters for which PyTorch returns None as the gradient."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [name for name, g in zip(names, found, strict=True) if g is None]


def intact_and_cut() -> tuple[Tensor, Tensor, nn.Module]:
    """Return the loss of an intact network, the loss of a cut one, and the intact network."""
    x, y, _, _ = digits()
    model = three_layers(lambda z: z)
    cut = three_layers(lambda z: z.detach())
    return F.cross_entropy(model(x), y), F.cross_entropy(cut(x), y), model


def check_names(
    run: Run,
    unreached: Callable[[Tensor, nn.Module], list[str]],
    cuts: Mapping[str, Callable[[Tensor], Tensor]],
) -> None:
    """Check which parameters each cut leaves without a gradient, by the walk and by PyTorch.

    Args:
        run: the run, whose seed sets the weights.
        unreached: the walk, from a loss and a network to names.
        cuts: by name, what is applied to the result of the second layer.
    """
    x, y, _, _ = digits()
    before = "0.weight, 0.bias, 2.weight, 2.bias"  # 1 and 3 are the activations
    for name, between in cuts.items():
        torch.manual_seed(run.seed)
        model = three_layers(between)
        loss = F.cross_entropy(model(x), y)
        names = ", ".join(unreached(loss, model)) or "none"
        want = "none" if name == "intact" else before
        because = "all are reached" if name == "intact" else "everything before the cut"
        run.check(f"{name}: not reached", names, equals=want, because=because, decides=True)
        theirs = ", ".join(without_gradient(loss, model)) or "none"
        because = "`torch.autograd.grad` returns None for the same parameters"
        run.check(f"{name}: without a gradient", theirs, equals=want, because=because)
        loss.backward()  # raises no error
