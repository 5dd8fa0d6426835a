"""Check the exercises of LLM02+.

References: PyTorch's `log_softmax` and its autograd, and networks whose unreached parameters are
known.
"""

from collections.abc import Callable
from typing import Any

from labs.kit import Mistake, draw, expect_close, name_mistake
from labs.llm02_deep_learning.guarded import call, limited

import torch
from torch import Tensor, nn

Function = Callable[..., Any]
Mistakes = dict[str, Callable[[], Tensor]]


def log_softmax(module: Any) -> None:
    """Compare with PyTorch's, for one to three axes and for logits of ±1,000."""
    implementation = module.log_softmax
    x = draw(3, 5)
    passed = x.clone()
    hint = "each row has a separate maximum and a separate sum: keepdim=True"
    got = call(implementation, hint, x=passed)
    if not torch.equal(passed, x):
        raise Mistake("your function changed its input: -= works in place")
    top = x.amax(-1, keepdim=True)
    mistakes: Mistakes = {
        "that is the softmax: the logarithm is missing": lambda: x.softmax(-1),
        "the sign is wrong: log p is never above 0": lambda: -x.log_softmax(-1),
        "expected the sum over the last axis, got the sum over the first": lambda: x.log_softmax(0),
        "there is one sum over everything: each row needs a separate sum": lambda: (
            x - x.exp().sum().log()
        ),
        "the maximum is subtracted, but log Σeˣ isn't": lambda: x - top,
        "the maximum is subtracted from x, but not inside the sum": lambda: (
            x - top - x.logsumexp(-1, keepdim=True)
        ),
    }
    name_mistake(got, mistakes)
    expect_close(got, x.log_softmax(-1), "log(eˣ / Σeˣ) = x − log Σeˣ")
    for shape in ((4,), (2, 3, 4)):
        x = draw(*shape)
        hint = "the last axis is -1, for any number of axes"
        got = call(implementation, hint, x=x)
        expect_close(got, x.log_softmax(-1), f"x of shape {shape}: {hint}")
    _large_logits(implementation)


def _large_logits(implementation: Function) -> None:
    x = torch.tensor([[1000.0, 999.0, -1000.0], [-1000.0, -1001.0, -1000.0]])
    got = implementation(x)
    if isinstance(got, Tensor) and not torch.isfinite(got).all():
        by_row = torch.stack([implementation(row) for row in x])
        if torch.isfinite(by_row).all():
            raise Mistake(
                "the maximum of all rows is subtracted: in a row far below it Σeˣ is still 0"
            )
        raise Mistake(
            "NaN or infinity for logits of ±1,000: e¹⁰⁰⁰ overflows and e⁻¹⁰⁰⁰ is 0; subtract each "
            "row's maximum first, and never take the logarithm of a softmax"
        )
    reason = "logits of ±1,000: an epsilon or a clamp hides the infinity, but the value is wrong"
    expect_close(got, x.log_softmax(-1), reason, 1e-3)


def log_softmax_vjp(module: Any) -> None:
    """Compare with PyTorch's autograd, for square matrices first, then for other shapes."""
    implementation = module.log_softmax_vjp
    y = draw(4, 4).log_softmax(-1)
    g = draw(4, 4, seed=1)
    passed = g.clone()
    hint = "each row has a separate sum of g: keepdim=True"
    got = call(implementation, hint, g=passed, y=y)
    if not torch.equal(passed, g):
        raise Mistake("your function changed g: other operations may use it, so no -= in place")
    p = y.exp()
    name_mistake(got, _mistakes_of_vjp(g, y, p))
    reason = "a number x_k gets g_k − p_k·Σᵢ gᵢ, with the sum over its row"
    expect_close(got, _vjp_of_pytorch(g, y), reason)
    for shape in ((5,), (3, 5), (2, 3, 4)):
        y = draw(*shape, seed=2).log_softmax(-1)
        g = draw(*shape, seed=3)
        got = call(implementation, hint, g=g, y=y)
        expect_close(got, _vjp_of_pytorch(g, y), f"shape {shape}: sum over the last axis, -1")


def _vjp_of_pytorch(g: Tensor, y: Tensor) -> Tensor:
    x = y.clone().requires_grad_()  # the log-softmax of a log-softmax is the same
    (gradient,) = torch.autograd.grad(x.log_softmax(-1), x, g)
    return gradient


def _mistakes_of_vjp(g: Tensor, y: Tensor, p: Tensor) -> Mistakes:
    total = g.sum(-1, keepdim=True)
    return {
        "that is g itself: x_k also lowers every y of its row, by p_k": lambda: g,
        "the part of x_k's own y is missing: add g": lambda: -p * total,
        "the sign is wrong: where x_k grows, every y of its row falls by p_k": lambda: (
            g + p * total
        ),
        "each g is multiplied by its own p: all g of a row count, so sum them first": lambda: (
            g - p * g
        ),
        "y is the logarithm of p: the factor is p = y.exp()": lambda: g - y * total,
        "the sum runs over the first axis: rows are separate, so sum over the last": lambda: (
            g - p * g.sum(0, keepdim=True)
        ),
        "there is one sum over everything: each row needs a separate sum": lambda: g - p * g.sum(),
        "Σg isn't 1 in general: it is only if g belongs to one output": lambda: g - p,
        "is keepdim=True missing? The sum of row i must meet row i": lambda: g - p * g.sum(-1),
        "that is the VJP of the softmax, not of its logarithm": lambda: (
            p * (g - (p * g).sum(-1, keepdim=True))
        ),
    }


class _Net(nn.Module):
    """Two layers, and one that isn't used; `between` changes the output of the first."""

    def __init__(self, between: Function) -> None:
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x))).square().mean()


UNUSED = ["unused.weight", "unused.bias"]
FIRST = ["first.weight", "first.bias"]
SECOND = ["second.weight", "second.bias"]


def unreached(module: Any) -> None:
    """Compare with the known names, on networks that are cut, frozen, deep and full of paths."""
    implementation = module.unreached
    intact = _Net(lambda z: z)
    _check_names(implementation, intact, UNUSED, "only the unused layer isn't reached")
    cut = _Net(lambda z: z.detach())
    reason = "a layer before .detach() isn't reached"
    _check_names(implementation, cut, UNUSED + FIRST, reason)
    cut.first.requires_grad_(False)
    reason = "a frozen parameter (requires_grad False) needs no gradient"
    _check_names(implementation, cut, UNUSED, reason)
    stale = _Net(lambda z: z)
    stale(torch.ones(2, 3)).backward()
    stale.between = lambda z: z.detach()
    reason = "the grads of an earlier backward prove nothing about this loss"
    _check_names(implementation, stale, UNUSED + FIRST, reason)
    _check_names(implementation, _Net(_tripled), UNUSED, "values that are used several times")
    _check_names(implementation, _Net(_deep), UNUSED, "a graph of 3,000 operations")
    _check_without_graph(implementation)


def _check_without_graph(implementation: Function) -> None:
    untracked = _Net(lambda z: z)
    with torch.no_grad():
        loss = untracked(torch.ones(2, 3))
    reason = "a loss without a graph (its grad_fn is None) reaches nothing"
    try:
        got = limited(implementation, loss, untracked)
    except AttributeError as error:
        raise Mistake(f"{reason}; your function raised {error}") from error
    _expect_names(got, UNUSED + FIRST + SECOND, untracked, reason)


def _tripled(z: Tensor) -> Tensor:
    for _ in range(30):
        z = (z + z + z) / 3  # 3³⁰ paths
    return z


def _deep(z: Tensor) -> Tensor:
    for _ in range(3000):
        z = z + 1
    return z


def _check_names(implementation: Function, net: _Net, want: list[str], reason: str) -> None:
    parameters = list(net.parameters())
    before = [None if one.grad is None else one.grad.clone() for one in parameters]
    loss = net(torch.ones(2, 3))
    got = limited(implementation, loss, net)
    for old, parameter in zip(before, parameters, strict=True):
        if not _same_gradient(parameter.grad, old):
            raise Mistake("your function went backward: the parameters' gradients have changed")
    _expect_names(got, want, net, reason)
    try:
        loss.backward()
    except RuntimeError as error:
        raise Mistake("the graph is used up: loss.backward() must work afterwards") from error


def _same_gradient(now: Tensor | None, before: Tensor | None) -> bool:
    if now is None or before is None:
        return now is before
    return torch.equal(now, before)


def _expect_names(got: Any, want: list[str], net: _Net, reason: str) -> None:
    if not isinstance(got, list) or not all(isinstance(name, str) for name in got):
        raise Mistake(f"expected a list of names, got {type(got).__name__}: {got!r:.60}")
    if got == want:
        return
    if sorted(got) == sorted(want):
        raise Mistake(f"the names are right, but in another order: the module's is {want}")
    trainable = [name for name, one in net.named_parameters() if one.requires_grad]
    if got == [name for name in trainable if name not in want]:
        raise Mistake("expected the parameters that aren't reached, got those that are")
    raise Mistake(f"expected {want}, got {got}; {reason}")
