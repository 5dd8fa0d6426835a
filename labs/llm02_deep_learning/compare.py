"""What the comparisons of our engine with PyTorch need: operations for both, and parameters."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = torch.tensor([0, 2])
Shape = tuple[int, ...]


def _gelu(a: Any) -> Any:
    return F.gelu(a) if isinstance(a, Tensor) else a.gelu()


def _cross_entropy(x: Any) -> Any:
    """Return the loss of two examples of three classes, (2, 3) -> ()."""
    return F.cross_entropy(x, CLASSES) if isinstance(x, Tensor) else x.cross_entropy(CLASSES)


# Each operation of the lesson's engine, with the shapes of its inputs.
CASES: list[tuple[str, Callable[..., Any], list[Shape]]] = [
    *(
        (name, operation, shapes)
        for name, operation in (("+", lambda a, b: a + b), ("×", lambda a, b: a * b))
        for shapes in ([(2, 3), (2, 3)], [(2, 3), (3,)], [(2, 1), (1, 3)], [(), (2, 3)])
    ),
    ("@", lambda a, b: a @ b, [(2, 3), (3, 4)]),
    ("@", lambda a, b: a @ b, [(5, 2, 3), (3, 4)]),
    ("@", lambda a, b: a @ b, [(2, 3), (5, 3, 4)]),
    ("sum", lambda a: a.sum(), [(2, 3)]),
    ("sigmoid", lambda a: a.sigmoid(), [(4, 5)]),
    ("tanh", lambda a: a.tanh(), [(4, 5)]),
    ("relu", lambda a: a.relu(), [(4, 5)]),
    ("gelu", _gelu, [(4, 5)]),
    ("cross-entropy", _cross_entropy, [(2, 3)]),
]


def like_ours(module: nn.Module) -> list[Tensor]:
    """Return the parameters of a stack of linear layers as our MLP has them.

    Returns:
        All weights, transposed to (n, m), and then all biases.
    """
    parameters = list(module.parameters())
    return [*(weight.T for weight in parameters[::2]), *parameters[1::2]]


@torch.no_grad()
def copy_parameters(ours: Iterable[Any], module: nn.Module) -> None:
    """Copy the parameters of our MLP into a module of PyTorch."""
    for value, theirs in zip(ours, like_ours(module), strict=True):
        theirs.copy_(value.data)


def gradients(
    leaf: Callable[[Tensor], Any], f: Callable[..., Any], *inputs: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Return the gradient of Σ weight·f(inputs), with random weights, for each input.

    Args:
        leaf: makes a leaf of our engine from a tensor.
        f: an operation, for values of our engine and for tensors.
        inputs: the tensors that it takes.

    Returns:
        Pairs of our gradient and that of PyTorch's autograd.
    """
    ours = [leaf(x) for x in inputs]
    theirs: list[Any] = [x.clone().requires_grad_() for x in inputs]
    y = f(*ours)
    weight = torch.rand(y.data.shape, dtype=y.data.dtype) + 0.5  # not 0: no gradient would be
    (y * weight).sum().backward()
    (f(*theirs) * weight).sum().backward()
    return [(value.grad, x.grad) for value, x in zip(ours, theirs, strict=True)]


def central_differences(
    f: Callable[..., float], numbers: Mapping[str, float], h: float
) -> list[float]:
    """Return (f(x + h) − f(x − h)) / 2h for each argument x of f.

    Args:
        f: takes the numbers by name.
        numbers: where to differentiate.
        h: the step.
    """
    slopes = []
    for name, x in numbers.items():
        high = f(**{**numbers, name: x + h})
        low = f(**{**numbers, name: x - h})
        slopes.append((high - low) / (2 * h))
    return slopes


def each_rule(leaf: Callable[[Tensor], Any]) -> list[tuple[str, float, float]]:
    """Compare the rule of each operation with PyTorch's autograd.

    Args:
        leaf: makes a leaf of our engine from a tensor.

    Returns:
        For each operation its name, its largest gradient, and the largest difference.
    """
    sizes: dict[str, float] = {}
    worst: dict[str, float] = {}
    for name, f, shapes in CASES:
        inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
        for ours, theirs in gradients(leaf, f, *inputs):
            sizes[name] = max(sizes.get(name, 0.0), theirs.abs().max().item())
            worst[name] = max(worst.get(name, 0.0), (ours - theirs).abs().max().item())
    return [(name, sizes[name], worst[name]) for name in worst]


def train_modules(
    modules: Sequence[nn.Module], ours: Any, x: Tensor, y: Tensor, batches: Sequence[Tensor]
) -> None:
    """Train modules of PyTorch from the weights of our MLP, in its dtype, by SGD with momentum."""
    for module in modules:
        module.to(x.dtype)
        copy_parameters(ours.parameters(), module)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
        for batch in batches:
            loss = F.cross_entropy(module(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()


def largest_difference(ours: Iterable[Any], module: nn.Module) -> float:
    """Return the largest difference between the parameters of our MLP and those of a module."""
    pairs = zip(ours, like_ours(module), strict=True)
    return max((value.data - theirs).abs().max().item() for value, theirs in pairs)


def curves(
    activations: Mapping[str, Callable[[Any], Any]], leaf: Callable[[Tensor], Any]
) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """Return points z from −6 to 6 (n,), and each activation's values and slopes there, by name.

    The identity, which isn't an activation, is left out.
    """
    z = torch.linspace(-6, 6, 12_001, dtype=torch.float64)
    by_name = {}
    for name in (name for name in activations if name != "identity"):
        value = leaf(z)
        y = activations[name](value)
        y.sum().backward()
        by_name[name] = (y.data, value.grad)
    return z, by_name
