"""Check the exercises of LLM02.

References: PyTorch's autograd for the backward passes, its `log_softmax` and `optim.SGD`, and
networks whose unreached parameters are known for `unreached`.
"""

import sys
from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake

import torch
import torch.nn.functional as F
from torch import Tensor, nn

checks = Checks()

Function = Callable[..., Any]
Shape = tuple[int, ...]
Mistakes = dict[str, Callable[[], Tensor]]


@checks.proves("unbroadcast")
def unbroadcast(module: Any) -> None:
    """Compare with autograd's gradient through `expand`, for every kind of broadcasting."""
    implementation = module.unbroadcast
    for source, result in (
        ((3, 1), (3, 4)),
        ((4,), (2, 3, 4)),
        ((2, 3, 4), (2, 3, 4)),
        ((1, 3, 1), (5, 3, 2)),
        ((1, 4), (2, 1, 4)),
        ((), (2, 3)),
        ((1,), (1,)),
    ):
        g = draw(*result)
        x = torch.zeros(source, dtype=torch.float64, requires_grad=True)
        want = torch.autograd.grad(x.expand(result), x, g)[0]
        passed = g.clone()
        got = implementation(passed, torch.Size(source))
        if not torch.equal(passed, g):
            raise Mistake("your function changed g, which other code may still need")
        _name_shape(got, source, result)
        name_mistake(got, _mistakes_of_unbroadcast(g, want) if source != result else {})
        reason = (
            f"a source {source} that was broadcast to {result}: sum every axis that was stretched, "
            "and no other"
        )
        expect_close(got, want, reason)


def _name_shape(got: Any, source: Shape, result: Shape) -> None:
    if not isinstance(got, Tensor) or got.shape == source:
        return
    if got.shape == result:
        raise Mistake(f"expected the shape {source} of the source, got {result}, as g came in")
    if got.ndim > len(source):
        raise Mistake("leading axes that the source lacks are still there: sum them away")
    if got.ndim < len(source):
        raise Mistake("an axis of size 1 is gone: sum it with keepdim=True")


def _mistakes_of_unbroadcast(g: Tensor, want: Tensor) -> Mistakes:
    uses = g.numel() / want.numel()
    first = g[(0,) * (g.ndim - want.ndim)][tuple(slice(size) for size in want.shape)]
    return {
        "expected a sum, got the mean: a value that was used n times gets the sum of n gradients": (
            lambda: want / uses
        ),
        "that is the gradient of one copy: the gradients of all copies add up": lambda: first,
    }


@checks.proves("matmul_vjp")
def matmul_vjp(module: Any) -> None:
    """Compare with autograd, for square matrices, a batch, and one matrix for a batch."""
    implementation = module.matmul_vjp
    square = [draw(3, 3, seed=seed) for seed in range(3)]
    batch = [draw(2, 3, 5), draw(2, 3, 4, seed=1), draw(2, 4, 5, seed=2)]
    one_matrix = [batch[0], batch[1][0], batch[2]]
    for g, a, b in (square, batch, one_matrix):
        leaves = [x.clone().requires_grad_() for x in (a, b)]
        wants = torch.autograd.grad(leaves[0] @ leaves[1], leaves, g)
        gradients = _two_gradients(implementation, g, a, b)
        if g is square[0]:
            _name_mistakes_of_matmul(*gradients, g, a, b)
        for gradient, want, factor in zip(gradients, wants, "ab", strict=True):
            got = gradient
            if isinstance(got, Tensor) and got.shape == g.shape[:-2] + want.shape[-2:]:
                got = got.sum_to_size(want.shape)  # as `Value.backward` does
            reason = f"the gradient of {factor}: which elements of g does an element of it reach?"
            expect_close(got, want, reason)


def _call(implementation: Function, hint: str, **inputs: Tensor) -> Any:
    """Return the result of the implementation; an error for these shapes is a mistake.

    Raises:
        Mistake: with the error, the shapes and `hint`.
    """
    try:
        return implementation(*inputs.values())
    except (RuntimeError, IndexError) as error:
        shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in inputs.items())
        reason = str(error).splitlines()[0]
        raise Mistake(f"your function raised {reason!r} for {shapes}: {hint}") from error


def _two_gradients(implementation: Function, g: Tensor, a: Tensor, b: Tensor) -> tuple[Any, Any]:
    hint = "which factor has to be transposed? Transpose the last two axes of a batch only, by .mT"
    got = _call(implementation, hint, g=g, a=a, b=b)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Mistake("expected a tuple of two gradients: first of a, then of b")
    return got[0], got[1]


def _name_mistakes_of_matmul(of_a: Any, of_b: Any, g: Tensor, a: Tensor, b: Tensor) -> None:
    if equals(of_a, a.mT @ g) and equals(of_b, g @ b.mT):
        raise Mistake("the two gradients are swapped: the gradient of a comes first")
    missing = "a factor isn't transposed: the shapes fit only because the matrices are square"
    order = "the factors are in the wrong order: the shapes fit only because they are square"
    elements = "that is a product of elements: an element of a reaches an entire row of g"
    name_mistake(of_a, {missing: lambda: g @ b, order: lambda: b.mT @ g, elements: lambda: g * b})
    name_mistake(of_b, {missing: lambda: a @ g, order: lambda: g @ a.mT, elements: lambda: g * a})


@checks.proves("log_softmax")
def log_softmax(module: Any) -> None:
    """Compare with PyTorch's, for one to three axes and for logits of ±1,000."""
    implementation = module.log_softmax
    x = draw(3, 5)
    passed = x.clone()
    hint = "each row has a separate maximum and a separate sum: keepdim=True"
    got = _call(implementation, hint, x=passed)
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
        got = _call(implementation, hint, x=x)
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


@checks.proves("cross_entropy_vjp")
def cross_entropy_vjp(module: Any) -> None:
    """Compare with autograd through `F.cross_entropy`, with two leading axes."""
    implementation = module.cross_entropy_vjp
    x = draw(2, 3, 4)
    targets = torch.tensor([[0, 3, 1], [2, 2, 0]])
    g = torch.tensor(0.7, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    loss = F.cross_entropy(leaf.flatten(0, 1), targets.flatten())
    want = torch.autograd.grad(loss, leaf, g)[0]
    hint = "there may be any number of leading axes, and the last axis holds the classes"
    got = _call(implementation, hint, g=g, logits=x, targets=targets)
    name_mistake(got, _mistakes_of_cross_entropy(g, x, targets, want))
    expect_close(got, want, "for one row the loss is log Σeˣ − x_target")
    large = torch.tensor([[1000.0, -1000.0]])
    got = implementation(torch.tensor(1.0), large, torch.tensor([1]))
    expect_close(got, torch.tensor([[1.0, -1.0]]), "logits of ±1,000: e¹⁰⁰⁰ overflows")


def _mistakes_of_cross_entropy(g: Tensor, x: Tensor, targets: Tensor, want: Tensor) -> Mistakes:
    p = x.softmax(-1)
    hot = F.one_hot(targets, 4)
    return {
        "g is missing: the loss may be part of something larger": lambda: want / g,
        "the loss is a mean over the targets: divide by their number": lambda: want * 6,
        "divided by the number of logits: the mean is over targets": lambda: want / 4,
        "divided by the first axis alone: the mean is over all targets": lambda: want * 3,
        "divided by the number of classes: the mean is over targets": lambda: want * 6 / 4,
        "the sign is wrong: a gradient points uphill": lambda: -want,
        "that is the softmax alone: the target's logit lowers the loss": lambda: g * p / 6,
        "that is the target's part alone: log Σeˣ has slopes too": lambda: -g * hot / 6,
        "expected the softmax, got the logits": lambda: g * (x - hot) / 6,
        "that is the slope towards p, not towards the logits": lambda: -g * hot / p / 6,
    }


RATES = (0.1, 0.1, 0.02, 0.02, 0.02, 0.02)  # the learning rate changes
MISSING = (0, 3)  # steps for which the second parameter has no gradient


@checks.proves("Momentum.step")
def momentum(module: Any) -> None:
    """Compare six steps with those of `torch.optim.SGD`."""
    mine = [nn.Parameter(draw(2, 3)), nn.Parameter(draw(4, seed=1))]
    theirs = [nn.Parameter(draw(2, 3)), nn.Parameter(draw(4, seed=1))]
    optimizer = module.Momentum(mine, 0.1, 0.9)
    reference = torch.optim.SGD(theirs, 0.1, 0.9)
    for i, rate in enumerate(RATES):
        gradients = [draw(2, 3, seed=10 + i), None if i in MISSING else draw(4, seed=20 + i)]
        optimizer.lr = rate
        reference.param_groups[0]["lr"] = rate
        for parameters in (mine, theirs):
            for parameter, g in zip(parameters, gradients, strict=True):
                parameter.grad = None if g is None else g.clone()
        _step(optimizer, i in MISSING)
        reference.step()
        if any(a.shape != b.shape for a, b in zip(mine, theirs, strict=True)):
            raise Mistake("a parameter has another shape after the step")
        _expect_gradients(mine, gradients)
        if i == 0:
            continue  # from the second step on, every mistake has a different result
        name_mistake(mine[0].detach(), _mistakes_of_momentum(i + 1))
        for parameter, want in zip(mine, theirs, strict=True):
            reason = f"step {i + 1}: v ← μ·v + g, then w ← w − η·v, where there is a gradient"
            expect_close(parameter.detach(), want.detach(), reason)


def _step(optimizer: Any, missing: bool) -> None:
    try:
        optimizer.step()
    except (TypeError, AttributeError) as error:
        if not missing or "NoneType" not in str(error):
            raise
        raise Mistake(
            f"a parameter whose grad is None must stay as it is; step raised {error}"
        ) from error


def _expect_gradients(parameters: list[nn.Parameter], gradients: list[Any]) -> None:
    for parameter, g in zip(parameters, gradients, strict=True):
        if (parameter.grad is None) != (g is None):
            raise Mistake("step must leave the gradients alone: another method clears them")
        if parameter.grad is None:
            continue
        if not torch.equal(parameter.grad, g):
            raise Mistake("step changed a gradient: store the velocity in separate memory")
        parameter.grad.zero_()  # as optimizers do that clear in place


def _mistakes_of_momentum(steps: int) -> Mistakes:
    """Return where the first parameter is after `steps` steps, by mistake."""

    def end(rule: Callable[..., tuple[Any, Any]]) -> Tensor:
        w = draw(2, 3)
        v = torch.zeros(2, 3, dtype=torch.float64)
        for i, rate in enumerate(RATES[:steps]):
            w, v = rule(w, v, draw(2, 3, seed=10 + i), rate)
        return w

    def by_velocity(velocity: Callable[..., Tensor]) -> Tensor:
        return end(lambda w, v, g, lr: (w - lr * velocity(v, g), velocity(v, g)))

    right = by_velocity(lambda v, g: 0.9 * v + g)
    ends = {
        "nothing moves: w = w − … makes a new tensor; change parameter.data": draw(2, 3),
        "the sign is wrong: a step goes against the gradient": end(
            lambda w, v, g, lr: (w + lr * (0.9 * v + g), 0.9 * v + g)
        ),
        "the gradient is damped: v ← μ·v + g has no factor of 1 − μ": by_velocity(
            lambda v, g: 0.9 * v + 0.1 * g
        ),
        "that is Nesterov's step: Polyak's moves by the velocity alone": end(
            lambda w, v, g, lr: (w - lr * (g + 0.9 * (0.9 * v + g)), 0.9 * v + g)
        ),
        "there is no momentum: keep the velocity for the next step, in memory separate from the "
        "gradient": end(lambda w, v, g, lr: (w - lr * g, v)),
        "each gradient comes one step late: update the velocity first, then the parameter": end(
            lambda w, v, g, lr: (w - lr * v, 0.9 * v + g)
        ),
        "the learning rate is inside the velocity: when it changes, old gradients keep the old "
        "rate": end(lambda w, v, g, lr: (w - (0.9 * v + lr * g), 0.9 * v + lr * g)),
        "the gradient decays at once: v ← μ·v + g, not μ·(v + g)": by_velocity(
            lambda v, g: 0.9 * (v + g)
        ),
    }
    # Some mistakes make no difference in the first steps; later steps show them.
    return {message: lambda x=x: x for message, x in ends.items() if not equals(x, right)}


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


@checks.proves("unreached")
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
        got = _limited(implementation, loss, untracked)
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
    got = _limited(implementation, loss, net)
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


MOST_LINES = 200_000  # a walk that visits each operation once runs about ten lines for each


def _limited(implementation: Function, *arguments: Any) -> Any:
    """Call the implementation, and stop it after more lines of Python than a walk can need."""
    lines = 0
    before = sys.gettrace()

    def count(_frame: Any, event: str, _argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        if lines > MOST_LINES:
            raise Mistake(
                "your function walks every path separately, of which there are 3³⁰, or never ends: "
                "remember which operations it has seen"
            )
        return count

    sys.settrace(count)
    try:
        return implementation(*arguments)
    except RecursionError as error:
        raise Mistake(
            "the graph is deeper than Python's recursion limit: keep a list of operations to visit"
        ) from error
    finally:
        sys.settrace(before)
