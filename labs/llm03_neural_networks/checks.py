"""Check the exercises of LLM03 and LLM03+.

References: PyTorch's operations, modules and autograd; shapes written out for `broadcast_shape`.
"""

from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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
    if watch.calls > 20:
        raise Mistake(
            f"your function made {watch.calls} calls of torch for a (5, 4) times (4, 3): lay out "
            "all products in one array by broadcasting, without a loop"
        )


class _Watch(TorchFunctionMode):
    """Count torch's functions, and note those that multiply matrices."""

    PRODUCTS = (
        *("matmul", "mm", "bmm", "__matmul__", "__rmatmul__", "einsum", "linear", "dot", "mv"),
        *("addmm", "addbmm", "baddbmm", "addmv", "inner", "vdot", "tensordot", "multi_dot"),
    )

    def __init__(self) -> None:
        """Start at zero."""
        super().__init__()
        self.calls = 0
        self.products: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count a call, then make it."""
        name = getattr(func, "__name__", "")
        self.calls += 1
        if name in self.PRODUCTS:
            self.products.add(name.strip("_"))
        return func(*args, **(kwargs or {}))


def _check_matmul(implementation: Function) -> _Watch:
    """Compare with torch's product, for square matrices first, so that the mistakes fit."""
    a = draw(4, 4)
    b = draw(4, 4, seed=1)
    _expect_product(implementation, a, b)
    a = draw(5, 4)
    b = draw(4, 3, seed=1)
    watch = _Watch()
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
        "the result is transposed: row i of a gives row i of the result": lambda: (
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
    expect_close(got, a @ b, "y[i, k] = Σⱼ a[i, j]·b[j, k]")


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
        got = layer(x)
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
        expect_close(got, F.linear(x, w, bias), "y[b, i] = Σⱼ w[i, j]·x[b, j] + bias[i]")
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
    """Compare with autograd, for one and for two batch axes."""
    for batch in ((7,), (2, 4)):
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
        hint = "which factor is transposed?" if g.dim() == 2 else "flatten all axes before the last"
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


@checks.proves("diagonal")
def diagonal(module: Any) -> None:
    """Compare with `torch.diagonal`, for strides of every kind; the result must be a view."""
    implementation = module.diagonal
    base = draw(6, 8)
    for x, name in (
        (draw(4, 4), "a square matrix"),
        (draw(3, 5), "3 rows of 5"),
        (draw(5, 3), "5 rows of 3: the diagonal is as long as the shorter axis"),
        (base[::2, ::3], "a slice with steps: ask x.stride() rather than compute from the shape"),
        (draw(3, 5).T, "a transpose: ask x.stride() rather than compute from the shape"),
        (draw(3, 1).expand(3, 4), "an expanded column, whose second stride is 0"),
        (base[2:, 1:], "a slice with an offset: as_strided uses x's offset if you give none"),
    ):
        try:
            got = implementation(x)
        except RuntimeError as error:
            raise Mistake(f"{name}: {error}; does it run over the end of the storage?") from error
        expect_close(got, torch.diagonal(x), name)
        if got.untyped_storage().data_ptr() != x.untyped_storage().data_ptr():
            raise Mistake("expected a view, got a copy: writing into a view changes x")


@checks.proves("attention_by_einsum")
def attention_by_einsum(module: Any) -> None:
    """Compare with PyTorch's attention, for fewer queries than keys."""
    implementation = module.attention_by_einsum
    q = draw(2, 5, 3, 4)
    k = draw(2, 7, 3, 4, seed=1)
    v = draw(2, 7, 3, 4, seed=2)
    try:
        got = implementation(q, k, v)
    except RuntimeError as error:
        raise Mistake(f"Tq = 5, Tk = 7: {error}; do q and k share a letter for T?") from error
    if isinstance(got, Tensor) and got.shape == (2, 3, 5, 4):
        raise Mistake("expected (B, Tq, H, D), got (B, H, Tq, D): check the order of the letters")
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D) each
    name_mistake(got, _mistakes_of_attention(q, k, v))
    want = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    expect_close(got, want, "softmax(QKᵀ/√D)V, for each head separately")


def _mistakes_of_attention(q: Tensor, k: Tensor, v: Tensor) -> Mistakes:
    """Return the results of mistakes, (B, T, H, D) each; q, k and v are (B, H, T, D)."""
    scores = q @ k.mT / 2  # (B, H, Tq, Tk); √D is 2

    def mixed(weights: Tensor, values: Tensor = v) -> Tensor:
        return (weights @ values).transpose(1, 2)

    return {
        "is the division by √D missing?": lambda: mixed((2 * scores).softmax(-1)),
        "is it divided by D, not by √D?": lambda: mixed((scores / 2).softmax(-1)),
        "does the softmax run over the queries? It runs over the keys, the last axis": lambda: (
            mixed(scores.softmax(-2))
        ),
        "does the softmax run over the heads? It runs over the keys, the last axis": lambda: mixed(
            scores.softmax(1)
        ),
        "is the softmax missing?": lambda: mixed(scores),
        "the weights mix keys: they must mix values": lambda: mixed(scores.softmax(-1), k),
        "all heads share one weight: the scores sum over h, so keep it in bhqk": lambda: mixed(
            scores.sum(1, keepdim=True).softmax(-1)
        ),
    }


@checks.proves("truncated")
def truncated(module: Any) -> None:
    """Compare with a sum of outer products, for wide and tall matrices and every rank."""
    implementation = module.truncated
    for shape in ((4, 7), (7, 4), (5, 5)):
        w = draw(*shape)
        u, s, vt = torch.linalg.svd(w, full_matrices=False)
        for k in (2, len(s), 0):
            try:
                got = implementation(w, k)
            except (RuntimeError, IndexError, ValueError) as error:
                message = f"w {shape}, k = {k}: {error}; is full_matrices=False missing?"
                raise Mistake(message) from error
            name_mistake(got, _mistakes_of_truncation(w, k) if k == 2 else {})
            want = torch.einsum("ik,k,kj->ij", u[:, :k], s[:k], vt[:k])
            expect_close(got, want, f"the {k} largest singular values of a {shape} matrix")


def _mistakes_of_truncation(w: Tensor, k: int) -> Mistakes:
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    last = len(s) - k
    square = w.shape[0] == w.shape[1]
    return {
        "all singular values are in use: keep the first k": lambda: w,
        "the k smallest are in use: torch sorts them, the largest first": lambda: (
            u[:, last:] * s[last:] @ vt[last:]
        ),
        "are the singular values missing? Scale each column of U by its own": lambda: (
            u[:, :k] @ vt[:k]
        ),
        "torch returns Vᵀ, not V: its first k rows are the directions": lambda: (
            u[:, :k] * s[:k] @ vt.T[:k] if square else w
        ),
        "the k largest are left out, not kept": lambda: w - u[:, :k] * s[:k] @ vt[:k],
    }


@checks.proves("loglog_slope")
def loglog_slope(module: Any) -> None:
    """Compare with power laws, whose exponent is known, and with a fit to points off a line."""
    implementation = module.loglog_slope
    xs = [1.0, 2.0, 4.0, 16.0]
    for exponent in (3.0, 0.5, -1.0, 0.0):
        got = implementation(xs, [5 * x**exponent for x in xs])
        if isinstance(got, Tensor) and got.dim() == 0:
            raise Mistake("expected a number, got a tensor: .item() makes one of it")
        if not isinstance(got, int | float) or isinstance(got, bool):
            raise Mistake(f"expected a number, got {type(got).__name__}")
        _check_slope(got, exponent, xs)
    xs = [10.0, 20.0, 30.0]
    ys = [1.0, 9.0, 10.0]
    got = implementation(xs, ys)
    u = torch.tensor(xs, dtype=torch.float64).log()
    v = torch.tensor(ys, dtype=torch.float64).log()
    ends = ((v[-1] - v[0]) / (u[-1] - u[0])).item()
    if abs(got - ends) < 1e-6:
        raise Mistake("that is the slope between the first and the last point: fit all of them")
    origin = ((u * v).sum() / u.square().sum()).item()
    if abs(got - origin) < 1e-6:
        raise Mistake("that is a line through the origin: subtract the means first")
    du = u - u.mean()
    want = ((du * (v - v.mean())).sum() / du.square().sum()).item()
    if not abs(got - want) < 1e-8:
        raise Mistake(f"expected {want:.4f} for points off a line, got {got:.4f}")


def _check_slope(got: float, exponent: float, xs: list[float]) -> None:
    """Check the slope of an exact power law, 5·xᵖ."""
    if abs(got - exponent) < 1e-8:
        return
    x = torch.tensor(xs, dtype=torch.float64)
    y = 5 * x**exponent
    means = (x - x.mean()).square().sum()
    plain = ((x - x.mean()) * (y - y.mean())).sum() / means
    half = ((x - x.mean()) * (y.log() - y.log().mean())).sum() / means
    if abs(got - plain) < 1e-6:
        raise Mistake("that is the slope on plain axes: take the logarithms first")
    if abs(got - half) < 1e-6:
        raise Mistake("only y is logarithmic: take the logarithm of x, too")
    if exponent and abs(got - 1 / exponent) < 1e-6:
        raise Mistake("x and y have changed places: the slope is Δ ln y over Δ ln x")
    raise Mistake(f"expected the slope {exponent} for y = 5·x^{exponent:g}, got {got:.4f}")
