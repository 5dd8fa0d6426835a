"""What the comparisons of our engine with PyTorch need: operations for both, and parameters."""

from collections.abc import Callable, Iterable
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
