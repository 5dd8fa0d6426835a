"""Check the exercises of LLM03; those of LLM03+ are in deeper_checks.

References: PyTorch's operations, modules and autograd; shapes written out for `broadcast_shape`.
"""

from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake
from labs.llm03_neural_networks import deeper_checks
from labs.llm03_neural_networks.watch import Watch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

checks = Checks()

Function = Callable[..., Any]
Shape = tuple[int, ...]
Mistakes = dict[str, Callable[[], Tensor]]


@checks.proves("matmul_loops")
def matmul_loops(module: Any) -> None:
    """Compare with torch's product; the products themselves are the learner's."""
    _check_matmul(module.matmul_loops)


@checks.proves("matmul_broadcast")
def matmul_broadcast(module: Any) -> None:
    """Compare with torch's product; there must be no loop over the numbers."""
    watch = _check_matmul(module.matmul_broadcast)
    advice = "lay out all products in one array by broadcasting, without a loop"
    if watch.lists:
        raise Mistake(f"your function calls {', '.join(sorted(watch.lists))}: {advice}")
    if watch.calls > 20:
        times = f"{watch.calls} calls of torch for a (5, 4) times (4, 3)"
        raise Mistake(f"your function made {times}: {advice}")


def _check_matmul(implementation: Function) -> Watch:
    """Compare with torch's product, for square matrices first, so that the mistakes fit."""
    a = draw(4, 4)
    b = draw(4, 4, seed=1)
    _expect_product(implementation, a, b)
    a = draw(5, 4)
    b = draw(4, 3, seed=1)
    watch = Watch()
    with watch:
        got = _product(implementation, a, b)
    if watch.products:
        names = ", ".join(sorted(watch.products))
        raise Mistake(f"your function calls {names}, which multiplies matrices: write it yourself")
    expect_close(got, a @ b, "a is (5, 4), b is (4, 3): the result is (5, 3)")
    _expect_product(implementation, draw(1, 3), draw(3, 6, seed=1))
    got = _product(implementation, draw(2, 3).float(), draw(3, 2, seed=1).float())
    expect_close(got, (draw(2, 3) @ draw(3, 2, seed=1)).float(), "the result has the dtype of a")
    return watch


def _expect_product(implementation: Function, a: Tensor, b: Tensor) -> None:
    before = [a.clone(), b.clone()]
    got = _product(implementation, a, b)
    if not (torch.equal(a, before[0]) and torch.equal(b, before[1])):
        raise Mistake("your function changed its input: += and functions with a _ work in place")
    square = a.shape == b.shape
    mistakes: Mistakes = {
        "b is transposed: a row of a meets a column of b, not a row": lambda: (
            a @ b.T if square else a
        ),
        "the result is transposed: row r of a gives row r of the result": lambda: (
            (a @ b).T if square else a
        ),
        "that is the product number by number, without a sum": lambda: a * b if square else a,
        "summed over the wrong axis: the axis of n, in the middle, must go": lambda: (
            (a[:, :, None] * b).sum(-1) if square else a
        ),
        "the sum is a mean: don't divide": lambda: a @ b / a.shape[1],
        "a sum has a term too few: the last j is missing": lambda: a[:, :-1] @ b[:-1],
    }
    name_mistake(got, mistakes)
    expect_close(got, a @ b, "y[r, i] = Σⱼ a[r, j]·b[j, i]")


def _product(implementation: Function, a: Tensor, b: Tensor) -> Any:
    try:
        got = implementation(a, b)
    except (RuntimeError, IndexError, ValueError) as error:
        shapes = f"a {tuple(a.shape)} and b {tuple(b.shape)}"
        message = f"{shapes}: {error}; the loops or axes are those of B, m and n: which is which?"
        raise Mistake(message) from error
    if isinstance(got, Tensor) and got.dim() == 3:
        raise Mistake(
            f"the result has the shape {tuple(got.shape)}: these are the products; sum over n"
        )
    if isinstance(got, Tensor) and got.shape == (a.shape[0], a.shape[1]) != (len(a), b.shape[1]):
        raise Mistake("summed over the wrong axis: the axis of n, in the middle, must go")
    return got


@checks.proves("broadcast_shape")
def broadcast_shape(module: Any) -> None:
    """Compare with shapes written out here; None stands for a ValueError."""
    implementation = module.broadcast_shape
    for a, b, want, mistake in (
        ((2, 3), (2, 3), (2, 3), "equal shapes stay as they are"),
        ((4, 3), (4,), None, "are they aligned at the left? The last axes must fit each other"),
        ((4, 3), (3,), (4, 3), "are they aligned at the right?"),
        ((3,), (4, 3), (4, 3), "the shorter shape may come first"),
        ((4,), (4, 1), (4, 4), "a missing axis counts as 1, and an axis of 1 is stretched"),
        ((8, 1, 6), (7, 1), (8, 7, 6), "either shape may be stretched, each axis separately"),
        ((2, 5), (), (2, 5), "a single number, of shape (), fits everything"),
        ((5, 1), (1, 0), (5, 0), "1 is stretched to 0 too: take the other size, not the larger"),
        ((0, 3), (1, 3), (0, 3), "1 is stretched to 0 too: take the other size, not the larger"),
        ((5, 2), (5, 0), None, "2 and 0 are neither equal nor 1"),
        ((2, 6), (2, 3), None, "6 is twice 3, but only 1 is stretched"),
    ):
        got = _shape_or_none(implementation, a, b)
        if got != want:
            shapes = f"{a} and {b}"
            raise Mistake(f"expected {_name(want)} for {shapes}, got {_name(got)}; {mistake}")


def _name(shape: Shape | None) -> str:
    return "a ValueError" if shape is None else str(shape)


def _shape_or_none(implementation: Function, a: Shape, b: Shape) -> Shape | None:
    """Return the result for two shapes; None for a ValueError.

    Raises:
        Mistake: if the implementation raises another error or returns something else.
    """
    try:
        got = implementation(a, b)
    except ValueError:
        return None
    except Exception as error:
        raise Mistake(
            f"your function raised {type(error).__name__} ({error}) for {a} and {b}; shapes may "
            "differ in length, and shapes that don't fit are ValueErrors"
        ) from error
    if not isinstance(got, tuple) or not all(isinstance(size, int) for size in got):
        raise Mistake(f"expected a tuple of sizes or a ValueError for {a} and {b}, got {got!r}")
    return tuple(got)


@checks.proves("Linear.reset_parameters")
def reset_parameters(module: Any) -> None:
    """Check range, mean and spread of many samples, and that each parameter is filled in place."""
    torch.manual_seed(0)
    try:
        layer = module.Linear(100, 400)
    except RuntimeError as error:
        raise Mistake(
            f"{error}: a parameter is changed in place under torch.no_grad() only"
        ) from error
    before = (layer.weight, layer.bias)
    with torch.no_grad():
        layer.weight.fill_(7)
        layer.bias.fill_(7)
    layer.reset_parameters()
    if (layer.weight is not before[0]) or (layer.bias is not before[1]):
        raise Mistake(
            "your function replaces a parameter: an optimizer has the old one, so fill it in place"
        )
    for name, tensor in (("weight", layer.weight), ("bias", layer.bias)):
        if not isinstance(tensor, nn.Parameter):
            raise Mistake(f"{name} is no longer an nn.Parameter: fill it in place")
        _check_uniform(name, tensor.detach().double())
    torch.manual_seed(0)
    first = module.Linear(8, 4).weight.detach().clone()
    torch.manual_seed(0)
    if not torch.allclose(nn.Linear(8, 4).weight.detach(), first, rtol=0, atol=1e-6):
        raise Mistake("with the same seed nn.Linear has other weights: sample the weight first")


def _check_uniform(name: str, x: Tensor) -> None:
    """Check that the numbers are uniform between −0.1 and 0.1: 100 inputs, 400 outputs."""
    if (x == 7).any():
        raise Mistake(f"the {name} isn't filled: reset_parameters must set weight and bias")
    if (x == 0).all():
        raise Mistake(f"the {name} is all 0: sample it, too, between −1/√n and 1/√n")
    largest = x.abs().max().item()
    if largest > 0.1 + 1e-6:
        if abs(x.std() - 0.1) < 0.015:
            raise Mistake(f"the {name} is normal with std 1/√n: sample it uniformly")
        raise Mistake(f"the {name} reaches {largest:.2g} for 100 inputs, but 1/√100 is 0.1")
    if x.min() > -largest / 2:
        raise Mistake(f"the {name} is never below {x.min():.2g}: sample between −1/√n and 1/√n")
    if largest < 0.045:
        raise Mistake(f"the {name} reaches {largest:.2g} only: the bound is 1/√n, not 1/n")
    if largest < 0.07:
        raise Mistake(f"the {name} reaches {largest:.2g} only: n is the number of inputs")
    if abs(x.std() - 0.1 / 3**0.5) > 0.006:
        raise Mistake(f"the {name} isn't uniform: its std is {x.std():.3f}, expected 0.058")


@checks.proves("Linear.forward")
def linear_forward(module: Any) -> None:
    """Compare with `F.linear`, for square matrices first, so that the mistakes fit the shapes."""
    layer = _layer(module, 4, 4)
    w = layer.weight
    bias = layer.bias
    x = draw(4, 4)
    before = x.clone()
    with torch.no_grad():
        watch = Watch()
        with watch:
            got = layer(x)
        if "linear" in watch.names:
            raise Mistake("F.linear is this exercise: write the product and the bias yourself")
        if not torch.equal(x, before):
            raise Mistake("your function changed its input: += works in place")
        if not torch.equal(w, draw(4, 4, seed=1)):
            raise Mistake("your function changed the weight")
        mistakes: Mistakes = {
            "w is (m, n): is the transpose missing?": lambda: x @ w + bias,
            "is the bias missing?": lambda: x @ w.T,
            "the bias is added along the batch: each output has a bias, not each input": lambda: (
                x @ w.T + bias[:, None]
            ),
            "expected (B, m), got the transpose, (m, B)": lambda: w @ x.T + bias[:, None],
        }
        name_mistake(got, mistakes)
        expect_close(got, F.linear(x, w, bias), "y[r, i] = Σⱼ w[i, j]·x[r, j] + bias[i]")
        for shape in ((7, 5), (2, 7, 5), (5,)):
            _forward_of_shape(_layer(module, 5, 3), shape)
    _check_that_gradients_flow(_layer(module, 5, 3))


def _layer(module: Any, inputs: int, outputs: int) -> Any:
    """Return a layer of the learner's class, in float64, with parameters that are known."""
    layer = module.Linear(inputs, outputs).double()
    with torch.no_grad():
        layer.weight.copy_(draw(outputs, inputs, seed=1))
        layer.bias.copy_(draw(outputs, seed=2))
    return layer


def _forward_of_shape(layer: Any, shape: Shape) -> None:
    x = draw(*shape)
    try:
        got = layer(x)
    except (RuntimeError, IndexError, ValueError) as error:
        message = f"x {shape} and w (3, 5): {error}; any number of axes may come before n"
        raise Mistake(message) from error
    want = F.linear(x, layer.weight, layer.bias)
    expect_close(got, want, f"x is {shape}, w is (3, 5)")


def _check_that_gradients_flow(layer: Any) -> None:
    y = layer(draw(2, 5))
    if not y.requires_grad:
        raise Mistake("no gradient reaches the parameters: use self.weight itself, not .data")
    y.sum().backward()
    if layer.weight.grad is None or layer.bias.grad is None:
        raise Mistake("no gradient reaches weight or bias: use both as they are, not .data")


@checks.proves("linear_backward")
def linear_backward(module: Any) -> None:
    """Compare with autograd, for one, two and no batch axes."""
    for batch in ((7,), (2, 4), ()):
        w = draw(3, 5, seed=2)
        g = draw(*batch, 3)
        x = draw(*batch, 5, seed=1)
        before = [tensor.clone() for tensor in (x, w, g)]
        got = _three_gradients(module.linear_backward, x, w, g)
        if not all(torch.equal(old, new) for old, new in zip(before, (x, w, g), strict=True)):
            raise Mistake("your function changed x, w or g: functions with a _ work in place")
        leaves = [t.clone().requires_grad_() for t in (x, w, w[:, 0])]
        wants = torch.autograd.grad(F.linear(*leaves), leaves, g)
        if equals(got[0], wants[1]) or equals(got[1], wants[0]):
            raise Mistake("the order is dx, dw, dbias")
        if batch:
            name_mistake(got[1], _mistakes_of_dw(g, x))
            name_mistake(got[2], _mistakes_of_dbias(g))
        reasons = (
            "dx = g w, of the shape of x",
            "dw = gᵀ x, of the shape of w",
            "dbias is the sum of g",
        )
        for gradient, want, reason in zip(got, wants, reasons, strict=True):
            expect_close(gradient, want, reason)


def _three_gradients(function: Function, x: Tensor, w: Tensor, g: Tensor) -> tuple[Any, ...]:
    try:
        got = function(x, w, g)
    except (RuntimeError, IndexError, ValueError) as error:
        hints = {
            1: "one input has no batch axis: reshape(-1, n) makes a batch of one",
            2: "which factor is transposed?",
        }
        hint = hints.get(g.dim(), "flatten all axes before the last")
        shapes = f"g {tuple(g.shape)}, x {tuple(x.shape)}, w {tuple(w.shape)}"
        raise Mistake(f"{shapes}: {error}; {hint}") from error
    if not isinstance(got, tuple) or len(got) != 3:
        name = f"{len(got)} values" if isinstance(got, tuple) else f"a {type(got).__name__}"
        raise Mistake(f"expected a tuple of dx, dw and dbias, got {name}")
    return got


def _mistakes_of_dw(g: Tensor, x: Tensor) -> Mistakes:
    rows = g.reshape(-1, g.shape[-1])
    inputs = x.reshape(-1, x.shape[-1])
    return {
        "is dw transposed? It has the shape of w, (m, n)": lambda: inputs.T @ rows,
        "is dw averaged over the batch? If the loss is a mean, g contains the factor already": (
            lambda: rows.T @ inputs / len(rows)
        ),
        "there is a dw for each sequence: all of them used w, so add them up": lambda: (
            g.mT @ x if g.dim() > 2 else g
        ),
    }


def _mistakes_of_dbias(g: Tensor) -> Mistakes:
    return {
        "is dbias averaged over the batch? It is summed": lambda: g.flatten(0, -2).mean(0),
        "dbias is summed over the first axis only: sum over all axes before the last": lambda: (
            g.sum(0) if g.dim() > 2 else g[0]
        ),
        "dbias has the shape of g: the bias was stretched over the batch, so sum over it": (
            lambda: g
        ),
    }


for _check in (
    deeper_checks.diagonal,
    deeper_checks.attention_by_einsum,
    deeper_checks.relu_step,
    deeper_checks.intensity,
):
    checks.proves(_check.__name__)(_check)
