"""Check the exercises of LLM02; others are in network_checks, those of LLM02+ in deeper_checks.

References: derivatives that are known for small graphs, PyTorch's autograd for the backward passes.
"""

import math
from collections.abc import Callable
from itertools import permutations
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake
from labs.llm02_deep_learning import deeper_checks, network_checks
from labs.llm02_deep_learning.guarded import call, limited

import torch
import torch.nn.functional as F
from torch import Tensor

checks = Checks()

Function = Callable[..., Any]
Shape = tuple[int, ...]
Mistakes = dict[str, Callable[[], Tensor]]


@checks.proves("Value.__mul__")
def value_mul(module: Any) -> None:
    """Compare the product, its inputs and its rule with those of 3 · (−2)."""
    a = module.Value(3.0)
    b = module.Value(-2.0)
    product = a * b
    if not isinstance(product, module.Value):
        raise Mistake(f"expected a Value, got {type(product).__name__}: wrap the result")
    if product.data != -6.0:
        raise Mistake(f"expected 3 · (−2) = −6 as its data, got {product.data}")
    if tuple(product.inputs) == (b, a):
        raise Mistake("the inputs are in the wrong order: the second argument is (self, other)")
    if tuple(product.inputs) != (a, b):
        raise Mistake("the inputs aren't recorded: the second argument of Value is (self, other)")
    if product.operation != "×":
        raise Mistake(f"expected the operation '×', got {product.operation!r}")
    _check_rule_of_product(product.grad_fn(10.0))
    square = a * a
    if tuple(square.grad_fn(10.0)) != (30.0, 30.0):
        raise Mistake("for a · a, each of the two uses sends back g · a")


def _check_rule_of_product(got: Any) -> None:
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Mistake("expected grad_fn to return two gradients: first of self, then of other")
    known = {
        (30.0, -20.0): "the gradients are swapped: dy/da is b, so self gets g · other.data",
        (-2.0, 3.0): "g is missing: multiply each derivative by the gradient of the product",
        (10.0, 10.0): "that is the rule of the sum: a factor's derivative is the other factor",
        (8.0, 13.0): "the chain rule multiplies g by the derivative; it doesn't add them",
    }
    if tuple(got) in known:
        raise Mistake(known[tuple(got)])
    if tuple(got) != (-20.0, 30.0):
        raise Mistake(f"expected the gradients (−20, 30) for g = 10, a = 3, b = −2, got {got}")


def _node(module: Any, data: Any, *slopes: tuple[Any, float], calls: list[Any]) -> Any:
    """Return a value with known derivatives with respect to its inputs; it records each call."""

    def grad_fn(g: Any) -> tuple[Any, ...]:
        calls.append(g)
        return tuple(g * slope if slope != 1 else g for _, slope in slopes)

    return module.Value(data, tuple(source for source, _ in slopes), "f", grad_fn)


@checks.proves("Value.backward")
def value_backward(module: Any) -> None:
    """Compare with known derivatives: several paths, an order, a second call, a deep graph."""
    _check_two_paths(module)
    _check_order(module)
    _check_second_backward(module)
    _check_shared_tensors(module)
    calls: list[Any] = []
    last = x = module.Value(1.0)
    for _ in range(40):
        last = _node(module, 0.0, (last, 1.0), (last, 1.0), calls=calls)
    limited(last.backward)
    if x.grad != 2.0**40:
        raise Mistake(f"40 doublings have the derivative 2⁴⁰ = {2.0**40:g}, got {x.grad}")
    last = x = module.Value(1.0)
    for _ in range(3000):
        last = _node(module, 0.0, (last, 1.0), calls=calls)
    limited(last.backward)
    if x.grad != 1.0:
        raise Mistake(f"a chain of 3,000 sums has the derivative 1, got {x.grad}")


def _check_two_paths(module: Any) -> None:
    """Check z = x·y + x at x = 2, y = 3."""
    calls: list[Any] = []
    x = module.Value(2.0)
    y = module.Value(3.0)
    p = _node(module, 6.0, (x, 3.0), (y, 2.0), calls=calls)
    z = _node(module, 8.0, (p, 1.0), (x, 1.0), calls=calls)
    z.backward()
    if x.grad in (1.0, 3.0):
        raise Mistake(
            "x is used twice, and only one contribution arrived: add contributions, for paths add"
        )
    if z.grad != 1.0:
        raise Mistake(f"the grad of the result itself is 1, got {z.grad}")
    got = (x.grad, y.grad, p.grad)
    if got == (0.0, 0.0, 0.0):
        raise Mistake("no value but the result has a grad: add each finished gradient to it")
    if p.grad == 0.0:
        raise Mistake("results between leaves and end have a grad, too, not leaves alone")
    if got != (4.0, 2.0, 1.0):
        raise Mistake(f"for z = x·y + x at x = 2, y = 3 expected 4 and 2, got {x.grad}, {y.grad}")


def _check_order(module: Any) -> None:
    """Check a value with a short and a long way to the result, in both orders of the inputs."""
    for flipped in (False, True):
        calls: list[Any] = []
        others: list[Any] = []
        a = module.Value(1.0)
        shared = _node(module, 1.0, (a, 10.0), calls=calls)
        middle = _node(module, 1.0, (shared, 1.0), calls=others)
        middle = _node(module, 1.0, (middle, 1.0), calls=others)
        ways = [(shared, 1.0), (middle, 1.0)]
        end = _node(module, 2.0, *(ways[::-1] if flipped else ways), calls=others)
        limited(end.backward)
        if len(calls) > 1:
            raise Mistake(
                f"a value that is used twice passed its gradient on {len(calls)} times: it must "
                "wait until all contributions have arrived, and call its grad_fn once"
            )
        if calls == [1.0]:
            raise Mistake(
                "a value passed its gradient on before all contributions had arrived: it is ready "
                "only when every value that uses it has sent its part"
            )
        if a.grad != 20.0:
            raise Mistake(f"two paths with the product 10 make the derivative 20, got {a.grad}")


def _check_second_backward(module: Any) -> None:
    calls: list[Any] = []
    x = module.Value(3.0)
    middle = _node(module, 3.0, (x, 1.0), calls=calls)
    square = _node(module, 9.0, (middle, 3.0), (middle, 3.0), calls=calls)
    square.backward()
    square.backward()
    if x.grad == 6.0:
        raise Mistake("a second backward must add to grad, as PyTorch does, and not replace it")
    if x.grad != 12.0:
        raise Mistake(
            f"two backward passes through x² at x = 3 make the grad 12, got {x.grad}: keep the "
            "gradients of a pass apart from .grad, which still holds those of the first"
        )


def _check_shared_tensors(module: Any) -> None:
    """Check that contributions that are one tensor aren't changed in place."""
    one = torch.ones(2)
    for order in permutations(range(3)):
        calls: list[Any] = []
        x = module.Value(one)
        y = module.Value(one)
        both = _node(module, one, (x, 1.0), (y, 1.0), calls=calls)  # sends one tensor to both
        others = [_node(module, one, (leaf, 1.0), calls=calls) for leaf in (x, y)]
        inputs = [(both, *others)[i] for i in order]
        total = module.Value(torch.ones(()), inputs, "f", lambda g: [g * one for _ in range(3)])
        total.backward()
        if not all(torch.equal(torch.as_tensor(leaf.grad), 2 * one) for leaf in (x, y)):
            raise Mistake(
                "+= changes a tensor in place, and two inputs of a sum share one: write a = a + b"
            )


@checks.proves("unbroadcast")
def unbroadcast(module: Any) -> None:
    """Compare with autograd's gradient through `expand`, for every kind of broadcasting."""
    for source, result in (
        ((3, 1), (3, 4)),
        ((4,), (2, 3, 4)),
        ((2, 3, 4), (2, 3, 4)),
        ((1, 3, 1), (5, 3, 2)),
        ((1, 4), (2, 1, 4)),
        ((), (2, 3)),
        ((1,), (1,)),
    ):
        _check_unbroadcast(module.unbroadcast, source, result)


def _check_unbroadcast(implementation: Function, source: Shape, result: Shape) -> None:
    def sum_to_source(g: Tensor) -> Any:
        return implementation(g, torch.Size(source))

    g = draw(*result)
    x = torch.zeros(source, dtype=torch.float64, requires_grad=True)
    want = torch.autograd.grad(x.expand(result), x, g)[0]
    passed = g.clone()
    hint = "if there is no axis to sum over, return g: g.sum(()) sums over all axes"
    got = call(sum_to_source, hint, g=passed)
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
    if got.numel() == 1 < math.prod(source):
        raise Mistake("every axis was summed: for an empty list of axes, sum adds over all of them")
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
                got = got.sum_to_size(want.shape)  # as `TensorValue.apply` does
            reason = f"the gradient of {factor}: which elements of g does an element of it reach?"
            expect_close(got, want, reason)


def _two_gradients(implementation: Function, g: Tensor, a: Tensor, b: Tensor) -> tuple[Any, Any]:
    hint = "which factor has to be transposed? Transpose the last two axes of a batch only, by .mT"
    got = call(implementation, hint, g=g, a=a, b=b)
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
    got = call(implementation, hint, g=g, logits=x, targets=targets)
    name_mistake(got, _mistakes_of_cross_entropy(g, x, targets, want))
    expect_close(got, want, "for one row the loss is log Σeˣ − x_target")
    large = torch.tensor([[1000.0, -1000.0]])
    got = implementation(torch.tensor(1.0), large, torch.tensor([1]))
    reason = "logits of ±1,000: e¹⁰⁰⁰ overflows, but logits.softmax(-1) stays finite (LLM02+)"
    expect_close(got, torch.tensor([[1.0, -1.0]]), reason)


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


checks.proves("MLP.__call__")(network_checks.mlp_call)
checks.proves("Momentum.step")(network_checks.momentum)
for _check in (
    deeper_checks.log_softmax,
    deeper_checks.log_softmax_vjp,
    deeper_checks.unreached,
):
    checks.proves(_check.__name__)(_check)
