"""What proves the parts of LLM02 right. References: PyTorch's autograd, kernels and optimizer."""

import sys
from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake

import torch
import torch.nn.functional as F
from torch import Tensor, nn

checks = Checks()

Function = Callable[..., Any]


@checks.proves("unbroadcast")
def unbroadcast(module: Any) -> None:
    implementation = module.unbroadcast
    for source, whole in (
        ((3, 1), (3, 4)),
        ((4,), (2, 3, 4)),
        ((2, 3, 4), (2, 3, 4)),
        ((1, 3, 1), (5, 3, 2)),
        ((1, 4), (2, 1, 4)),
        ((), (2, 3)),
        ((1,), (1,)),
    ):
        g, x = draw(*whole), torch.zeros(source, dtype=torch.float64, requires_grad=True)
        want = torch.autograd.grad(x.expand(whole), x, g)[0]
        given = g.clone()
        got = implementation(given, torch.Size(source))
        if not torch.equal(given, g):
            raise Mistake("your function changed g, which others may still need")
        _name_shape(got, source, whole)
        name_mistake(got, _mistakes_of_unbroadcast(g, want) if source != whole else {})
        what = f"a source {source} that was broadcast to {whole}"
        expect_close(got, want, f"{what}: is every axis summed that was grown, and no other?")


def _name_shape(got: Any, source: tuple[int, ...], whole: tuple[int, ...]) -> None:
    if not isinstance(got, Tensor) or got.shape == source:
        return
    if got.shape == whole:
        raise Mistake(f"g came back as it was, {whole}: its source had the shape {source}")
    if got.ndim > len(source):
        raise Mistake("leading axes that the source lacks are still there: sum them away whole")
    if got.ndim < len(source):
        raise Mistake("an axis of size 1 is gone: sum it with keepdim=True")


def _mistakes_of_unbroadcast(g: Tensor, want: Tensor) -> dict[str, Callable[[], Tensor]]:
    n = g.numel() / want.numel()
    first = g[(0,) * (g.ndim - want.ndim)][tuple(slice(size) for size in want.shape)]
    return {
        "that is the mean: what was used n times gets the sum of n gradients": lambda: want / n,
        "that is one copy's gradient: those of all copies add up": lambda: first,
    }


@checks.proves("matmul_vjp")
def matmul_vjp(module: Any) -> None:
    implementation = module.matmul_vjp
    square = [draw(3, 3, seed=seed) for seed in range(3)]
    batch = [draw(2, 3, 5), draw(2, 3, 4, seed=1), draw(2, 4, 5, seed=2)]
    for g, a, b in (square, batch, [batch[0], batch[1][0], batch[2]]):
        leaves = [x.clone().requires_grad_() for x in (a, b)]
        wants = torch.autograd.grad(leaves[0] @ leaves[1], leaves, g)
        pair = _two_gradients(implementation, g, a, b)
        if g is square[0]:
            _name_mistakes_of_matmul(*pair, g, a, b)
        for one, want, of in zip(pair, wants, "ab", strict=True):
            if isinstance(one, Tensor) and one.shape == g.shape[:-2] + want.shape[-2:]:
                one = one.sum_to_size(want.shape)  # what `backward` does
            expect_close(one, want, f"the gradient of {of}: which g's does an element of it meet?")


def _called(implementation: Function, hint: str, **inputs: Tensor) -> Any:
    """What the part returns; that it can't cope with these shapes is a mistake of its own."""
    try:
        return implementation(*inputs.values())
    except (RuntimeError, IndexError) as error:
        shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in inputs.items())
        reason = str(error).splitlines()[0]
        raise Mistake(f"it raised {reason!r} for {shapes}: {hint}") from error


def _two_gradients(implementation: Function, g: Tensor, a: Tensor, b: Tensor) -> tuple[Any, Any]:
    hint = "which factor has to be transposed? Of a batch the last two axes alone, with .mT"
    got = _called(implementation, hint, g=g, a=a, b=b)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Mistake("two gradients were expected, as a tuple: a's and b's")
    return got[0], got[1]


def _name_mistakes_of_matmul(of_a: Any, of_b: Any, g: Tensor, a: Tensor, b: Tensor) -> None:
    if equals(of_a, a.mT @ g) and equals(of_b, g @ b.mT):
        raise Mistake("the two gradients are swapped: a's comes first")
    missing = "a factor isn't transposed: for square matrices that fits, and is wrong"
    turned = "the factors stand in the wrong order: for square matrices that fits, and is wrong"
    elements = "that is a product of elements: an element of a meets a whole row of g"
    name_mistake(of_a, {missing: lambda: g @ b, turned: lambda: b.mT @ g, elements: lambda: g * b})
    name_mistake(of_b, {missing: lambda: a @ g, turned: lambda: g @ a.mT, elements: lambda: g * a})


@checks.proves("log_softmax")
def log_softmax(module: Any) -> None:
    implementation = module.log_softmax
    x, hint = draw(3, 5), "each row has its own largest and its own sum: keepdim=True"
    given = x.clone()
    got = _called(implementation, hint, x=given)
    if not torch.equal(given, x):
        raise Mistake("your function changed its input: -= works in place")
    top = x.amax(-1, keepdim=True)
    mistakes = {
        "that is the softmax: the logarithm is missing": lambda: x.softmax(-1),
        "the sign: log p is never above 0": lambda: -x.log_softmax(-1),
        "is the sum over the last axis? This one is over the first": lambda: x.log_softmax(0),
        "one sum over everything: each row has its own": lambda: x - x.exp().sum().log(),
        "the largest is subtracted, but log Σeˣ isn't": lambda: x - top,
        "the largest is subtracted from x, but not inside the sum": lambda: (
            x - top - x.logsumexp(-1, keepdim=True)
        ),
    }
    name_mistake(got, mistakes)
    expect_close(got, x.log_softmax(-1), "log(eˣ / Σeˣ) = x − log Σeˣ")
    for shape in ((4,), (2, 3, 4)):
        x, hint = draw(*shape), "the last axis is -1, however many there are"
        got = _called(implementation, hint, x=x)
        expect_close(got, x.log_softmax(-1), f"x of shape {shape}: {hint}")
    _large_logits(implementation)


def _large_logits(implementation: Function) -> None:
    x = torch.tensor([[1000.0, 999.0, -1000.0], [-1000.0, -1001.0, -1000.0]])
    got = implementation(x)
    if isinstance(got, Tensor) and not torch.isfinite(got).all():
        alone = torch.stack([implementation(row) for row in x])
        if torch.isfinite(alone).all():
            raise Mistake(
                "the largest of all rows is subtracted: in a row far below it Σeˣ is still 0"
            )
        raise Mistake(
            "NaN or infinity for logits of ±1,000: e¹⁰⁰⁰ is no float, e⁻¹⁰⁰⁰ is 0; subtract each "
            "row's largest first, and never take the logarithm of a softmax"
        )
    what = "logits of ±1,000: an epsilon or a clamp hides the infinity, and is wrong"
    expect_close(got, x.log_softmax(-1), what, 1e-3)


@checks.proves("cross_entropy_vjp")
def cross_entropy_vjp(module: Any) -> None:
    implementation = module.cross_entropy_vjp
    x, targets = draw(2, 3, 4), torch.tensor([[0, 3, 1], [2, 2, 0]])
    g, leaf = torch.tensor(0.7, dtype=torch.float64), x.clone().requires_grad_()
    loss = F.cross_entropy(leaf.flatten(0, 1), targets.flatten())
    want = torch.autograd.grad(loss, leaf, g)[0]
    hint = "there may be any number of leading axes, and the last one holds the classes"
    got = _called(implementation, hint, g=g, logits=x, targets=targets)
    p, hot = x.softmax(-1), F.one_hot(targets, 4)
    mistakes = {
        "g is missing: the loss may be part of something larger": lambda: want / g,
        "the loss is a mean over the targets: divide by their number": lambda: want * 6,
        "divided by the number of logits: the mean is over targets": lambda: want / 4,
        "divided by the first axis alone: the mean is over all targets": lambda: want * 3,
        "divided by the number of classes: the mean is over targets": lambda: want * 6 / 4,
        "the sign: this way the loss falls, but a gradient points uphill": lambda: -want,
        "that is the softmax alone: the target's logit lowers the loss": lambda: g * p / 6,
        "that is the target's part alone: log Σeˣ has slopes too": lambda: -g * hot / 6,
        "the logits stand where their softmax should": lambda: g * (x - hot) / 6,
        "that is the slope towards p, not towards the logits": lambda: -g * hot / p / 6,
    }
    name_mistake(got, mistakes)
    expect_close(got, want, "for one row the loss is log Σeˣ − x_target")
    large, one = torch.tensor([[1000.0, -1000.0]]), torch.tensor(1.0)
    got = implementation(one, large, torch.tensor([1]))
    expect_close(got, torch.tensor([[1.0, -1.0]]), "logits of ±1,000: e¹⁰⁰⁰ is no float")


RATES = (0.1, 0.1, 0.02, 0.02, 0.02, 0.02)  # the learning rate changes
MISSING = (0, 3)  # steps for which the second parameter has no gradient


@checks.proves("Momentum.step")
def momentum(module: Any) -> None:
    """Six steps beside torch.optim.SGD's."""
    implementation = module.Momentum
    mine, theirs = ([nn.Parameter(draw(2, 3)), nn.Parameter(draw(4, seed=1))] for _ in range(2))
    optimizer, reference = implementation(mine, 0.1, 0.9), torch.optim.SGD(theirs, 0.1, 0.9)
    for i, rate in enumerate(RATES):
        gradients = [draw(2, 3, seed=10 + i), None if i in MISSING else draw(4, seed=20 + i)]
        optimizer.lr = reference.param_groups[0]["lr"] = rate
        for group in (mine, theirs):
            for parameter, g in zip(group, gradients, strict=True):
                parameter.grad = None if g is None else g.clone()
        _step(optimizer, i in MISSING)
        reference.step()
        if any(a.shape != b.shape for a, b in zip(mine, theirs, strict=True)):
            raise Mistake("a parameter has another shape after the step")
        _gradients_are_as_they_were(mine, gradients)
        if i == 0:
            continue  # from the second step on each way to go wrong is another
        name_mistake(mine[0].detach(), _mistakes_of_momentum(i + 1))
        for one, want in zip(mine, theirs, strict=True):
            what = f"step {i + 1}: v ← μ·v + g, then w ← w − η·v, where there is a gradient"
            expect_close(one.detach(), want.detach(), what)


def _step(optimizer: Any, missing: bool) -> None:
    try:
        optimizer.step()
    except (TypeError, AttributeError) as error:
        if not missing or "NoneType" not in str(error):
            raise
        raise Mistake(
            f"a parameter whose grad is None must be left as it is; step raised {error}"
        ) from error


def _gradients_are_as_they_were(parameters: list[nn.Parameter], gradients: list[Any]) -> None:
    for parameter, g in zip(parameters, gradients, strict=True):
        if (parameter.grad is None) != (g is None):
            raise Mistake("step must leave the gradients alone: clearing is another method's work")
        if parameter.grad is None:
            continue
        if not torch.equal(parameter.grad, g):
            raise Mistake("step changed a gradient: a velocity needs memory of its own")
        parameter.grad.zero_()  # as optimizers do that clear in place


def _mistakes_of_momentum(steps: int) -> dict[str, Callable[[], Tensor]]:
    """Where the first parameter is after so many steps, by each way to go wrong."""

    def end(rule: Callable[..., tuple[Any, Any]]) -> Tensor:
        w, v = draw(2, 3), torch.zeros(2, 3, dtype=torch.float64)
        for i, rate in enumerate(RATES[:steps]):
            w, v = rule(w, v, draw(2, 3, seed=10 + i), rate)
        return w

    def by_velocity(velocity: Callable[..., Tensor]) -> Tensor:
        return end(lambda w, v, g, lr: (w - lr * velocity(v, g), velocity(v, g)))

    right = by_velocity(lambda v, g: 0.9 * v + g)
    ends = {
        "nothing moves: w = w − … makes a new tensor; change parameter.data": draw(2, 3),
        "the sign: a step goes against the gradient": end(
            lambda w, v, g, lr: (w + lr * (0.9 * v + g), 0.9 * v + g)
        ),
        "the gradient isn't damped: v ← μ·v + g, without a factor of 1 − μ": by_velocity(
            lambda v, g: 0.9 * v + 0.1 * g
        ),
        "that is Nesterov's step: this one moves by the velocity alone": end(
            lambda w, v, g, lr: (w - lr * (g + 0.9 * (0.9 * v + g)), 0.9 * v + g)
        ),
        "no momentum: does the velocity outlast the step, in memory of its own?": end(
            lambda w, v, g, lr: (w - lr * g, v)
        ),
        "each gradient comes one step late: first the velocity, then the parameter": end(
            lambda w, v, g, lr: (w - lr * v, 0.9 * v + g)
        ),
        "the learning rate is inside the velocity: when it changes, old steps keep the old": end(
            lambda w, v, g, lr: (w - (0.9 * v + lr * g), 0.9 * v + lr * g)
        ),
        "the gradient decays at once: v ← μ·v + g, not μ·(v + g)": by_velocity(
            lambda v, g: 0.9 * (v + g)
        ),
    }
    # Some make no difference in the first steps; later ones tell them.
    return {m: lambda x=x: x for m, x in ends.items() if not equals(x, right)}


class _Net(nn.Module):
    """Two layers, and one that isn't used; `between` is done to what the first gives."""

    def __init__(self, between: Function) -> None:
        super().__init__()
        self.unused, self.first, self.second = (nn.Linear(3, 3) for _ in range(3))
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x))).square().mean()


UNUSED, FIRST, SECOND = (
    [f"{name}.weight", f"{name}.bias"] for name in ("unused", "first", "second")
)


@checks.proves("unreached")
def unreached(module: Any) -> None:
    implementation = module.unreached
    _names(implementation, _Net(lambda z: z), UNUSED, "only the unused layer isn't reached")
    cut = _Net(lambda z: z.detach())
    _names(implementation, cut, UNUSED + FIRST, "a layer before .detach() isn't reached")
    cut.first.requires_grad_(False)
    _names(implementation, cut, UNUSED, "a frozen parameter (requires_grad False) wants none")
    stale = _Net(lambda z: z)
    stale(torch.ones(2, 3)).backward()
    stale.between = lambda z: z.detach()
    what = "the grads of an earlier backward prove nothing about this loss"
    _names(implementation, stale, UNUSED + FIRST, what)
    _names(implementation, _Net(_tripled), UNUSED, "values that are used several times")
    _names(implementation, _Net(_deep), UNUSED, "a graph of 3,000 operations")
    untracked = _Net(lambda z: z)
    with torch.no_grad():
        loss = untracked(torch.ones(2, 3))
    what = "a loss without a graph (its grad_fn is None) reaches nothing"
    try:
        got = _limited(implementation, loss, untracked)
    except AttributeError as error:
        raise Mistake(f"{what}; it raised {error}") from error
    _name_list(got, UNUSED + FIRST + SECOND, untracked, what)


def _tripled(z: Tensor) -> Tensor:
    for _ in range(30):
        z = (z + z + z) / 3  # 3³⁰ paths
    return z


def _deep(z: Tensor) -> Tensor:
    for _ in range(3000):
        z = z + 1
    return z


def _names(implementation: Function, net: _Net, want: list[str], what: str) -> None:
    before = [None if one.grad is None else one.grad.clone() for one in net.parameters()]
    loss = net(torch.ones(2, 3))
    got = _limited(implementation, loss, net)
    for old, one in zip(before, net.parameters(), strict=True):
        same = one.grad is None if old is None else torch.equal(old, one.grad)
        if not same:
            raise Mistake("it went backward: the parameters' gradients aren't as they were")
    _name_list(got, want, net, what)
    try:
        loss.backward()
    except RuntimeError as error:
        raise Mistake("the graph is spent: loss.backward() must work afterwards") from error


def _name_list(got: Any, want: list[str], net: _Net, what: str) -> None:
    if not isinstance(got, list) or not all(isinstance(one, str) for one in got):
        raise Mistake(f"a list of names was expected, {type(got).__name__} came: {got!r:.60}")
    if got == want:
        return
    if sorted(got) == sorted(want):
        raise Mistake(f"the right names in another order: the module's is {want}")
    everything = [name for name, one in net.named_parameters() if one.requires_grad]
    if got == [name for name in everything if name not in want]:
        raise Mistake("these are the parameters that are reached: wanted are the others")
    raise Mistake(f"{what}: {want} was expected, {got} came")


MOST_LINES = 200_000  # a walk that takes each operation once runs through some ten for each


def _limited(implementation: Function, *arguments: Any) -> Any:
    """Call it, and give up where it runs through more lines of Python than a walk can need."""
    lines, before = 0, sys.gettrace()

    def count(_frame: Any, event: str, _argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        if lines > MOST_LINES:
            raise Mistake(
                "it takes every path anew, of which there are 3³⁰, or never ends: remember what "
                "was seen"
            )
        return count

    sys.settrace(count)
    try:
        return implementation(*arguments)
    except RecursionError as error:
        raise Mistake(
            "the graph is deeper than Python's recursion: keep a list of what is still to visit"
        ) from error
    finally:
        sys.settrace(before)
