# %% [markdown]
# # LLM02 · Deep learning basics
# Tensors and what their numbers can't hold, autograd built by hand, and what training needs.
#
# **You will be able to** say where a tensor's elements lie and what its numbers can't hold; write
# the backward pass of any operation, and prove it equal to PyTorch's; train a network with an
# engine you have read to the end; tell why a deep one may not learn, and find a layer that was cut
# off. **Builds on** derivatives, the chain rule, matrix products. **Takes** an hour and a half to
# read, half a minute to run (`tiny`, 2 cores; `small` twice as long, `full` about four times;
# less than 1 GB of memory).

# %% Imports
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from itertools import accumulate, count, pairwise
from statistics import mean, median
from typing import Any

from labs.kit import Lab, Results, Run, assets
from labs.llm02_deep_learning.random_graphs import STEPS, follow, random_graph

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

lab = Lab("LLM02")

# %% [markdown]
# ## 1. A row of numbers and a way to walk it
# Memory is one long row. A **tensor** is such a row, its **storage**, with a shape, an offset and a
# **stride** for each axis: how many numbers to step over to get to the next element along it.
# Element $[i, j]$ stands at
#
# $$\text{offset} + i \cdot \text{stride}_0 + j \cdot \text{stride}_1$$
#
# A fresh 4×6 tensor has the strides `(6, 1)`, so its element $[2, 3]$ is number
# $2 \cdot 6 + 3 \cdot 1 = 15$ of the row, counted from 0.
#
# To transpose it no number has to move: swap shape and strides. The result is a **view**, the same
# memory walked differently. Slices are views too (`x[:, ::2]` doubles a stride), and a stride of 0
# repeats a number without storing it again. Views are free, and shared: who writes into one writes
# into the other. `reshape` makes a view where strides can express the new shape, and quietly copies
# where they can't; `view` raises instead.


# %% 1. Strides
def by_strides(storage: Tensor, offset: int, shape: Any, strides: Any) -> Tensor:
    """Pick [i, j, …] out of a row of numbers, at offset + i·stride₀ + j·stride₁ + …"""
    index = torch.tensor(offset)
    for n, stride in zip(shape, strides, strict=True):
        index = index[..., None] + stride * torch.arange(n)  # one axis more
    return storage[index]


@lab.experiment
def views_only_walk_differently(run: Run):
    """Transposes, slices, diagonals and repeats move no number: they walk the same ones.

    Predict: `x.T.reshape(24)`, for x of 4×6: a view or a copy?
    """
    x, rows, wrong = torch.arange(24).view(4, 6), [], 0
    for name, view in {
        "x": x,
        "x.T": x.T,
        "x[1:, ::2]": x[1:, ::2],
        "x.diagonal()": x.diagonal(),
        "x[0].expand(3, 6)": x[0].expand(3, 6),
        "x.unfold(1, 3, 1)": x.unfold(1, 3, 1),  # windows of three neighbours
        "x.reshape(24)": x.reshape(24),
        "x.T.reshape(24)": x.T.reshape(24),
    }.items():
        shared = view.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
        where = int(view.storage_offset()), tuple(view.shape), view.stride()
        wrong += shared and not torch.equal(by_strides(x.flatten(), *where), view)
        rows.append([name, *where, "view" if shared else "copy"])
    run.table("Out of one row of 24", ["", "offset", "shape", "strides", ""], rows)
    name = "views that offset and strides don't give"
    run.check(name, wrong, at_most=0, because="exact", decides=True)
    copies = [name for name, *_, kind in rows if kind == "copy"]
    because = "column by column memory is walked 0, 6, 12, 18, 1: no single stride does that"
    copied = " ".join(copies)
    run.check("copies", copied, equals="x.T.reshape(24)", because=because, decides=True)
    x.T[5, 0] = 100
    name = "x[0, 5] after x.T[5, 0] = 100"
    run.check(name, x[0, 5].item(), equals=100, because="shared", decides=True)


# %% [markdown]
# ## 2. What a number can't hold
# A floating-point number is $\pm\text{1.}b_1 b_2 \ldots \cdot 2^e$, stored as a sign, some bits for
# the exponent $e$ and $p - 1$ bits $b_1 b_2 \ldots$; with the leading 1, which needs no storing,
# that makes $p$ **significand** bits. From $2^e$ up to $2^{e+1}$ there are $2^{p-1}$ such numbers,
# $2^{e-p+1}$ apart; the spacing above 1, $\varepsilon = 2^{1-p}$, is the **machine epsilon**.
# Arithmetic rounds to the nearest of them, a tie to the one whose last bit is 0 (IEEE 754), so it
# errs by up to half a spacing.
#
# float32 has $p = 24$, so that $2^{24} + 1$ is $2^{24}$ again. bfloat16 is the upper half of a
# float32: the same range, $p = 8$. float16 has $p = 11$ and ends at 65,504. (Integers wrap around:
# in int8, 127 + 1 is −128.)
#
# Training adds many small steps to a weight. Add 0.001 to 1 in bfloat16: above 1 the spacing is
# $2^{-7} = 0.0078$, and what is below half of that, $2^{-8} = 0.0039$, is rounded away, each time
# anew. In general no step below $2^{-9}|w|$ changes a bfloat16 weight $w$, and each above
# $2^{-8}|w|$ does: that is half the spacing, seen from both ends of a stretch $2^e$ to $2^{e+1}$.
# Remedies: keep the weights in float32 (**master weights**, Micikevicius et al. 2018); keep what an
# addition lost and make up for it in the next (**compensated summation**, Kahan 1965); or round up
# or down by chance, so that the *mean* is right (**stochastic rounding**, Gupta et al. 2015).


# %% 2. Small updates
@lab.experiment
def short_floats_lose_small_updates(run: Run):
    """In bfloat16, 1,000 additions of 0.001 to 1.0 leave 1.0; in float32 they make 2.

    Predict: 0.001 is too small to move 1.0. Which bfloat16 number is the smallest that does?
    """
    single, half, short = torch.float32, torch.float16, torch.bfloat16
    kinds = [torch.finfo(dtype) for dtype in (single, half, short, torch.float8_e4m3fn)]
    rows = [[i.dtype, 1 - int(math.log2(i.eps)), i.eps, f"{i.max:.3g}", i.tiny] for i in kinds]
    run.table("Floats", ["", "p", "ε", "largest", "smallest with all p bits"], rows)

    (fig, ax), ends = plt.subplots(), {}
    for dtype in (single, half, short):
        name, step = str(dtype).removeprefix("torch."), torch.full((1000,), 0.001, dtype=dtype)
        path = [x.item() for x in accumulate(step, initial=torch.ones((), dtype=dtype))]
        ax.plot(path, label=name)
        ends[name] = path[-1]
    ax.set(xlabel="additions of 0.001", ylabel="sum", title="1.0 and a thousand small steps")
    ax.legend()
    run.figure(
        fig,
        "small_updates",
        "The same thousand additions in three formats.",
        alt="Line plot of a sum over 1,000 additions of 0.001, one line each for float32, "
        "float16 and bfloat16.",
    )

    because = "0.001 is less than 2⁻⁸, half the spacing"
    run.check("bfloat16", ends["bfloat16"], equals=1.0, because=because, decides=True)
    because = "1,000 times 2⁻²⁴, half the spacing below 2; and 0.001 itself is rounded"
    off = abs(ends["float32"] - 2)
    run.check("float32, off 2", off, at_most=1001 * 2**-24, because=because, decides=True)
    numbers = torch.arange(1, 127 * 128, dtype=torch.int16).view(short)  # all between 0 and 1
    moving = numbers[1 + numbers > 1].min().item()
    because = "2⁻⁸ is a tie, which 1.0 wins, for its last bit is 0; this is the next one"
    run.check("smallest that moves 1.0", moving, equals=2**-8 * (1 + 2**-7), because=because)
    return (
        f"In float16 the sum is {ends['float16']:.3f}: 0.001 becomes one spacing, 2⁻¹⁰ = 0.00098."
    )


# %% [markdown]
# ## 3. Slopes, by trying
# Training makes one number small, the **loss** $L$, which is a function of all the network's
# parameters. Its **gradient** holds the slope $\partial L/\partial w$ for each parameter $w$; a
# small step against it lowers the loss fastest. The plainest way to a slope is to try, by the
# **central difference**
#
# $$f'(x) \approx \frac{f(x + h) - f(x - h)}{2h}$$
#
# But with which $h$?
#
# By Taylor's formula it is off by about $h^2|f^{(3)}|/6$, with $f^{(3)}$ the third derivative, so
# $h$ should be small. But $f$ comes rounded, off by up to $\varepsilon|f|$, and two such errors are
# divided by $2h$: up to $\varepsilon|f|/h$, so $h$ should be large. The sum of both is least where
# its derivative in $h$ is zero:
#
# $$
# \begin{aligned}
# -\frac{\varepsilon|f|}{h^2} + \frac{h|f^{(3)}|}{3} &= 0, \quad\text{so} \\
# h^* &= \left(\frac{3\varepsilon|f|}{|f^{(3)}|}\right)^{1/3}
# \end{aligned}
# $$
#
# For $e^x$, $|f| = |f^{(3)}|$: in float64, with $\varepsilon = 2^{-52} = 2.2 \cdot 10^{-16}$,
# $h^* = 8.7 \cdot 10^{-6}$. There some ten of sixteen digits are right, and no $h$ gives more. (For
# $e^{x/s}$, $|f|/|f^{(3)}|$ is $s^3$, and $h^*$ is $s$ times as large: the best step also depends
# on how slowly $f$ changes.)
#
# So a gradient takes two losses *for each parameter*, and is rough. All slopes together, exact but
# for rounding, cost a few times *one* loss (Baur & Strassen 1983). §4 builds what finds them.


# %% 3. Finite differences
def difference_errors(dtype: torch.dtype, steps: Tensor) -> Tensor:
    """The median relative error, over 1,024 points, of eˣ's slope by each step."""
    # Points and steps are multiples of powers of two: x ± h is exact, only f is rounded.
    x, errors = torch.arange(512, 1536, dtype=dtype) / 1024, []
    true = x.double().exp()  # eˣ is its own slope
    for h in steps.tolist():
        slope = ((x + h).exp() - (x - h).exp()) / (2 * h)
        errors.append(((slope.double() - true) / true).abs().median())
    return torch.stack(errors)


@lab.experiment
def a_difference_has_a_best_step(run: Run):
    """A central difference is best near h* = (3ε·|f|/|f‴|)^(1/3), and worse on both sides of it.

    Predict: float32 has less than half of float64's digits. How much larger is its best step?
    """
    (fig, ax), found = plt.subplots(), {}
    for colour, name, last in (("C0", "float64", 45), ("C1", "float32", 20)):
        dtype, steps = getattr(torch, name), 0.5 ** torch.arange(last + 1).double()
        eps, errors = torch.finfo(dtype).eps, difference_errors(dtype, steps)
        theory, best = (3 * eps) ** (1 / 3), int(errors.argmin())
        found[name] = steps[best].item()
        because = "h* takes the worst rounding, the usual is less; and steps are powers of two"
        ratio = found[name] / theory
        run.check(
            f"{name}: best step / h*",
            ratio,
            at_least=0.25,
            at_most=4,
            because=because,
            decides=True,
        )
        worse = [errors[best + k] / errors[best] for k in (-5, 5)]
        because = "by the two terms 341 and 21 times, from h*"
        what = f"{name}: error at 32 h and h/32"
        run.check(what, worse, at_least=8, because=because, decides=True)
        for side, i, k, want in (("above", 3, 5, 2), ("below", -1, -9, -1)):
            power = math.log(errors[i] / errors[k]) / math.log(steps[i] / steps[k])
            what, because = f"{name}: error {side} h*, as h to the", "h²·|f‴|/6 or ε·|f|/h"
            run.check(what, power, at_least=want - 0.1, at_most=want + 0.1, because=because)
        ax.loglog(steps, errors, f"{colour}o", ms=4, label=name)
        ax.loglog(steps, steps**2 / 6, "grey", lw=1)
        ax.loglog(steps, eps / steps, f"{colour}--", lw=1)
        ax.loglog(theory, 1.5 * eps / theory, "k*", ms=9)
    ax.set(xlabel="step h", ylabel="relative error of the slope", ylim=(1e-13, 10))
    ax.set_title("A large step bends, a small one rounds")
    ax.legend()
    caption = "Median error (dots), Taylor's term (line), worst rounding (dashed); h* (stars)."
    run.figure(
        fig,
        "best_step",
        caption,
        alt="Plot on log scales of the slope's relative error over the step h, for float64 "
        "and float32: each falls and rises again around a star at the best step.",
    )
    double, single = found.values()
    return (
        f"The best step is {double:.1e} in float64, {single / double:,.0f} times that in float32."
    )


# %% [markdown]
# ## 4. Slopes, by remembering
# If $b$ changes 3 times as fast as $a$, and $c$ 4 times as fast as $b$, then $c$ changes 12 times
# as fast as $a$: that is the chain rule. If several ways lead from $a$ to $c$, their slopes *add*.
# So the slope is **the sum over all paths of the product along each**. Each number need only
# remember what it was made of, and the slope towards that: 1 and 1 for a sum, the other factor for
# a product.
#
# Two paths lead from $z = xy + x$ back to $x$: through the product, with slope $y$, and straight,
# with slope 1. At $x = 2$, $y = 3$ therefore $\partial z/\partial x = y + 1 = 4$, and
# $\partial z/\partial y = x = 2$.


# %% 4. A number that remembers
class Number:
    """A number, and what it was made of: pairs of a number and the slope towards it."""

    def __init__(self, value: float, made_of: tuple = ()):
        self.value, self.made_of, self.slope = value, made_of, 0.0

    def __add__(self, other: "Number") -> "Number":
        return Number(self.value + other.value, ((self, 1.0), (other, 1.0)))

    def __mul__(self, other: "Number") -> "Number":
        return Number(self.value * other.value, ((self, other.value), (other, self.value)))

    def backward(self, product: float = 1.0) -> None:
        """Walk every path from here; `product` is that of the slopes on the way."""
        self.slope += product
        for number, slope in self.made_of:
            number.backward(product * slope)


# %% [markdown]
# It is right, and useless: double a number thirty times, `x = x + x`, and there are $2^{30}$ paths.
# But all paths through a value share what comes after it. So let a value wait until *all* slopes
# into it are summed, and only then go on from it, once. What uses a value is made later, so there
# is a simple order: **the youngest first**. This is **reverse-mode automatic differentiation**
# (Linnainmaa 1970; for networks **backpropagation**, Rumelhart, Hinton & Williams 1986; survey:
# Baydin et al. 2018).
#
# Now tensors. The slopes $\partial y_i/\partial a_j$ of an operation $y = f(a)$, for all pairs of
# elements, are its **Jacobian** $J$. Nobody stores it: that of a product of two 64×64 matrices
# towards one of them has $4096^2$ entries. To go back we need only this: given
# $g = \partial L/\partial y$, of $y$'s shape, what is $\partial L/\partial a$? By the chain rule
#
# $$\frac{\partial L}{\partial a_j} = \sum_i g_i \frac{\partial y_i}{\partial a_j}$$
#
# This is $g^\top J$, the **vector-Jacobian product** (VJP). Of the elementwise $y = ab$ it is $gb$
# towards $a$ and $ga$ towards $b$. (The **Jacobian-vector product** $Jv$ goes the other way, from
# inputs to outputs: *forward mode*. It is cheap for one input and many outputs. We have one output,
# the loss, and up to billions of inputs.)
#
# **Broadcasting** uses a number several times, where its tensor has size 1 along an axis or lacks a
# leading one. Several uses are several paths, and paths add.
#
# The last operation is a classifier's loss. Its answers $x$, one **logit** for each of $C$ classes,
# become probabilities by the **softmax**,
#
# $$p_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$$
#
# The loss is the **cross-entropy** $-\ln p_\text{target}$, averaged over all answers, in **nats**:
# 0 if it is sure and right, $\ln 10 = 2.3$ if it guesses evenly among ten. It is one operation
# here, and not an exp, a division and a log: where $p$ was rounded to 0, its log would be
# $-\infty$.


# %% 5. What each operation sends back
@lab.exercise(
    level=1,
    hints=(
        "A number that was used n times gets n gradients: they add up.",
        "First sum away the leading axes that `shape` lacks.",
        "Then sum, with keepdim=True, each axis that has size 1 in `shape` and another in g.",
    ),
)
def unbroadcast(g: Tensor, shape: torch.Size) -> Tensor:
    """From g, the gradient of what was broadcast, that of its source, which has this shape."""
    g = g.sum(list(range(g.ndim - len(shape)))) if g.ndim > len(shape) else g
    grown = [axis for axis, n in enumerate(shape) if n == 1 != g.shape[axis]]
    return g.sum(grown, keepdim=True) if grown else g


@lab.exercise(
    level=2,
    hints=(
        "y_ij = Σ_k a_ik·b_kj: a_ik is in y_ij for every j. Times what, and summed over what?",
        "Both are matrix products with one factor transposed; only one way fits the shapes.",
        "Leading axes are a batch: transpose the last two alone, with .mT.",
    ),
)
def matmul_vjp(g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For y = a @ b and its gradient g: those of a (…, n, k) and b (…, k, m).

    Where leading axes were broadcast they may have g's, for `backward` sums them back.
    """
    return g @ b.mT, a.mT @ g


@lab.exercise(
    level=1,
    hints=(
        "log(eˣ / Σeˣ) = x − log Σeˣ. What is e¹⁰⁰⁰ in floating point? And log e⁻¹⁰⁰⁰?",
        "The same number off all of x leaves the answer as it is. Which number is safe?",
        "The row's largest: then no term of the sum is above e⁰ = 1, and one is equal to it.",
    ),
)
def log_softmax(x: Tensor) -> Tensor:
    """log(eˣ / Σeˣ) over the last axis, also where eˣ is too large or too small for a float."""
    x = x - x.amax(-1, keepdim=True)
    return x - x.exp().sum(-1, keepdim=True).log()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean of −log p(target): logits (…, C), targets (…), whole numbers below C -> ()."""
    return -log_softmax(logits).gather(-1, targets[..., None]).mean()


@lab.exercise(
    level=2,
    hints=(
        "For one row the loss is log Σeˣ − x_target. What is its slope towards each x?",
        "The first part has the softmax, the second −1 at the target and 0 elsewhere.",
        "Of N rows the loss is the mean: divide by N. And g multiplies everything.",
    ),
)
def cross_entropy_vjp(g: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """For `cross_entropy` and its gradient g, a number: that of the logits (…, C)."""
    p = log_softmax(logits).exp()
    return g * (p - F.one_hot(targets, p.shape[-1])) / targets.numel()


# For each operation how to compute it, and its VJP: from g, the answer y and the inputs to one
# gradient for each input. "_" stands for what isn't needed.
OPERATIONS: dict[str, tuple[Callable, Callable]] = {
    "add": (torch.add, lambda g, *_: (g, g)),
    "sub": (torch.sub, lambda g, *_: (g, -g)),
    "mul": (torch.mul, lambda g, _, a, b: (g * b, g * a)),
    "div": (torch.div, lambda g, y, _, b: (g / b, -g * y / b)),
    "pow": (torch.pow, lambda g, _, a, exponent: (g * exponent * a ** (exponent - 1),)),
    "matmul": (torch.matmul, lambda g, _, a, b: matmul_vjp(g, a, b)),
    "exp": (torch.exp, lambda g, y, _: (g * y,)),
    "log": (torch.log, lambda g, _, a: (g / a,)),
    "tanh": (torch.tanh, lambda g, y, _: (g * (1 - y**2),)),
    "sigmoid": (torch.sigmoid, lambda g, y, _: (g * y * (1 - y),)),
    "relu": (torch.relu, lambda g, _, a: (g * (a > 0),)),
    "sum": (torch.sum, lambda g, _, a: (g.expand_as(a),)),
    "reshape": (torch.reshape, lambda g, _, a, **_shape: (g.reshape(a.shape),)),
    "transpose": (lambda a: a.mT, lambda g, *_: (g.mT,)),
    "cross_entropy": (cross_entropy, lambda g, _, x, targets: (cross_entropy_vjp(g, x, targets),)),
}


# %% 6. The engine
def method(name: str) -> Callable:
    """An operation as a method: `a + b` calls `a.__add__(b)`, and that `apply("add", a, b)`."""
    return lambda self, *others: apply(name, self, *others)


class Value:
    """A tensor that remembers what it was made of. A leaf, made of nothing, gets a `grad`."""

    clock = count()

    def __init__(self, data: Any, parents: tuple = (), vjp: Callable | None = None):
        self.data = torch.as_tensor(data)
        self.parents = parents
        self.vjp: Any = vjp  # a leaf has none
        self.grad: Any = None
        self.born = next(Value.clock)

    def backward(self) -> None:
        """Add to each leaf's `grad` the slope of this number, of shape (), towards it."""
        waiting = {self: torch.ones_like(self.data)}  # values reached, and their gradients so far
        while waiting:
            value = max(waiting, key=lambda one: one.born)  # all that use it are younger, so done
            g = waiting.pop(value)
            if not value.parents:
                value.grad = g if value.grad is None else value.grad + g
                continue
            for parent, share in zip(value.parents, value.vjp(g), strict=True):
                share = unbroadcast(share, parent.data.shape)
                waiting[parent] = waiting[parent] + share if parent in waiting else share

    __add__, __sub__, __mul__ = method("add"), method("sub"), method("mul")
    __truediv__, __matmul__ = method("div"), method("matmul")
    exp, log, sum = method("exp"), method("log"), method("sum")
    tanh, sigmoid, relu = method("tanh"), method("sigmoid"), method("relu")
    mT = property(method("transpose"))

    def __pow__(self, exponent: float) -> "Value":
        return apply("pow", self, exponent=exponent)

    def reshape(self, shape: tuple[int, ...]) -> "Value":
        return apply("reshape", self, shape=shape)

    def cross_entropy(self, targets: Tensor) -> "Value":
        return apply("cross_entropy", self, targets=targets)


def apply(name: str, *inputs: Any, **how: Any) -> Value:
    """Compute, and remember how to go back. Plain tensors and numbers become leaves, too."""
    parents = tuple(one if isinstance(one, Value) else Value(one) for one in inputs)
    compute, vjp = OPERATIONS[name]
    tensors = [one.data for one in parents]
    y = compute(*tensors, **how)
    return Value(y, parents, lambda g: vjp(g, y, *tensors, **how))


# %% 7. Against PyTorch
@lab.experiment
def own_autograd_is_pytorchs(run: Run):
    """Our engine's gradients equal PyTorch's on 200 random graphs of all its operations.

    Each has four leaves, numbers up to tensors (2, 3, 4), some of whose axes are broadcast, and
    twelve steps on any two of what there is so far. All results add to one number, so that paths
    meet: a value that a step uses is used by the sum as well.
    """
    chance, errors, sizes, used = random.Random(run.seed), [], [], Counter()
    for _ in run.progress(range(200), "graphs"):
        shapes, steps = random_graph(chance)
        tensors: list[Any] = [
            torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes
        ]
        values = [Value(x.detach()) for x in tensors]
        follow(steps, values).backward()
        follow(steps, tensors).backward()
        errors += [(a.grad - b.grad).abs().max() for a, b in zip(values, tensors, strict=True)]
        sizes += [x.grad.abs().max().item() for x in tensors]
        used.update(name for name, *_ in steps)
    because = "each operation rounds by about 10⁻¹⁶ of its values; those stay below some thousands"
    run.check("largest difference", max(errors), at_most=1e-10, because=because, decides=True)
    run.check("median gradient", median(sizes), at_least=0.1, because="the partner: they aren't 0")
    because = f"2,400 steps of {len(STEPS)} kinds make 171 ± 13 each"
    run.check("fewest uses of a step", min(used.values()), at_least=100, because=because)


# %% [markdown]
# ## 5. A network and its loop
# A **linear layer** computes $xW + b$: a batch `(B, n)` times weights `(n, m)` plus a bias `(m,)`,
# which is broadcast over the batch. A **multi-layer perceptron** (MLP) stacks them, with an
# elementwise nonlinear function, the **activation**, between; its answers are logits. Weights start
# at random, for two units with the same weights in and out would get the same gradients and stay
# the same; §6 says how large.
#
# **An optimizer's step** moves each parameter $w$ against its gradient $g$. With **momentum**
# $\mu$, a velocity $v$ remembers earlier gradients (Polyak 1964; here as PyTorch has it, with a
# learning rate $\eta$):
#
# $$v \leftarrow \mu v + g, \qquad w \leftarrow w - \eta v$$
#
# Under a steady gradient $v$ grows to $g \cdot (1 + \mu + \mu^2 + \ldots) = g/(1 - \mu)$, for
# $\mu = 0.9$ tenfold; where gradients change their signs, they cancel. As each batch is a random
# part of all, this is **stochastic gradient descent** (SGD); once through all of them is an
# **epoch**.
#
# The **loop**: take a batch, compute the loss, go backward, step, clear the gradients (or they add
# up). It learns 1,797 digits of 8×8 pixels (Alpaydin & Kaynak 1998): on 1,437 it is trained, 360
# are kept to test. A guess is right for a tenth. A baseline without training: average the images of
# each class, and name the class of the nearest average. (The same thirteen people wrote both parts,
# which flatters all methods.)


# %% 8. Network, optimizer, loop
class Momentum:
    """v ← μ·v + g, then w ← w − η·v: for Values, and for PyTorch's parameters as well."""

    def __init__(self, parameters: Iterable[Any], lr: float, momentum: float = 0.9):
        self.parameters, self.lr, self.momentum = list(parameters), lr, momentum
        self.velocities = [torch.zeros_like(one.data) for one in self.parameters]

    @lab.exercise(
        level=2,
        hints=(
            "Each parameter has .data, .grad, and at the same index a velocity of its own.",
            "The learning rate stays out of the velocity: it multiplies it at the end.",
            "Where the gradient is None, leave both parameter and velocity as they are.",
        ),
    )
    def step(self) -> None:
        """Change each parameter's `data` and its velocity in place; leave the gradients alone."""
        for parameter, velocity in zip(self.parameters, self.velocities, strict=True):
            if parameter.grad is not None:
                velocity.mul_(self.momentum).add_(parameter.grad)
                parameter.data -= self.lr * velocity

    def clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


ACTIVATIONS: dict[str, tuple[Callable, float]] = {  # with the gain of the weights before it
    "sigmoid": (Value.sigmoid, 1.0),
    "tanh": (Value.tanh, 1.0),
    "ReLU": (Value.relu, math.sqrt(2)),
    "identity": (lambda z: z, 1.0),
}


class MLP:
    """Layers x·W + b, activations between; b is 0, W normal with standard deviation gain/√n."""

    def __init__(self, activation: str, *widths: int, dtype: torch.dtype = torch.float32):
        self.activation, gain = ACTIVATIONS[activation]
        draws = [torch.randn(n, m, dtype=dtype) / math.sqrt(n) for n, m in pairwise(widths)]
        self.weights = [Value(gain * draw) for draw in draws]
        self.biases = [Value(torch.zeros(m, dtype=dtype)) for m in widths[1:]]

    def __call__(self, x: Tensor) -> Value:  # (B, n) -> (B, m)
        y = Value(x)
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            y = (self.activation(y) if i else y) @ w + b
        return y

    def parameters(self) -> list[Value]:
        return [*self.weights, *self.biases]


def train(model: MLP, optimizer: Momentum, x: Tensor, y: Tensor, batches: Iterable[Tensor]) -> None:
    """The loop, on our engine; a batch is given by its indices."""
    for batch in batches:
        model(x[batch]).cross_entropy(y[batch]).backward()
        optimizer.step()
        optimizer.clear()


def batches_of(size: int, n: int, steps: int) -> list[Tensor]:
    """Indices into n examples for so many batches: all in random order, then all anew."""
    rounds = -(-steps // (n // size))
    orders = [torch.randperm(n)[: n // size * size].view(-1, size) for _ in range(rounds)]
    return list(torch.cat(orders)[:steps])


def accuracy(model: Callable, x: Tensor, y: Tensor) -> float:
    """The share of x (B, n) whose largest logit is that of its class, y (B,)."""
    return (model(x).data.argmax(-1) == y).float().mean().item()


@cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images (1437, 64) from 0 to 1 and labels (1437,) to train on, and 360 of each to test."""
    images, labels = assets.digits()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images, labels = images.flatten(1)[order], labels[order]
    return images[:1437], labels[:1437], images[1437:], labels[1437:]


@cache
def nearest_average() -> float:
    """The accuracy, on the test digits, of naming the class of the nearest average image."""
    x, y, x_test, y_test = digits()
    averages = torch.stack([x[y == c].mean(0) for c in range(10)])
    return accuracy(lambda z: -torch.cdist(z, averages), x_test, y_test)


def reads_digits(seed: int, steps: int, lr: float, activation: str, *widths: int) -> float:
    """Train an MLP of ours on digits -> its accuracy on those kept to test."""
    x, y, x_test, y_test = digits()
    torch.manual_seed(seed)
    model = MLP(activation, *widths)
    train(model, Momentum(model.parameters(), lr), x, y, batches_of(64, len(y), steps))
    return accuracy(model, x_test, y_test)


# %% 9. The engine trains
@lab.experiment
def own_engine_learns_to_read(run: Run):
    """Our engine trains networks that read digits; and without activations they read as well.

    Predict: with the identity for activation, how many fewer of 360 unseen digits does it read?
    """
    steps, found, because = run.pick(tiny=300, small=1000, full=3000), {}, "nearest averages"
    for name in ("ReLU", "tanh", "identity"):
        seeds = run.progress(run.seeds(3), f"{name}, seeds")
        found[name] = [reads_digits(seed, steps, 0.05, name, 64, 64, 64, 10) for seed in seeds]
        least = nearest_average()
        run.check(f"accuracy, {name}", found[name], at_least=least, because=because, decides=True)
    lead, bound = mean(found["ReLU"]) - mean(found["identity"]), 2 * math.sqrt(0.96 * 0.04 / 360)
    because = "two standard errors of an accuracy of 0.96 on 360 images"
    name = "ReLU's lead, either way"
    run.measure(name, abs(lead), expect_at_most=bound, because=because, decides=True)
    more = "no more" if abs(lead) <= bound else "more"
    return (
        f"Of 360, ReLU reads {360 * lead:+.1f} more than the identity: {more} than chance explains."
    )


# %% [markdown]
# ## 6. Depth
# A gradient passes a layer backward in two steps: times the activation's slope at each element, and
# times $W^\top$. Let the entries of $W$ be independent, of variance $\text{gain}^2/n$, and all
# layers $n$ wide. Then $W^\top$ multiplies the mean square by $\text{gain}^2$, and the slopes by
# the mean of theirs. So each layer changes the gradient's size, its root mean square (RMS), by the
# factor
#
# $$\text{gain} \cdot \sqrt{\text{E}\left[f'(z)^2\right]}$$
#
# and $L$ layers change it by that factor to the power $L$.
#
# The **sigmoid** $\sigma(z) = 1/(1 + e^{-z})$ has the slope $\sigma(1 - \sigma)$, at most $1/4$:
# with gain 1, the nineteen of them between twenty layers leave less than
# $4^{-19} = 4 \cdot 10^{-12}$ (**vanishing gradients**: Hochreiter 1991, Bengio et al. 1994; by
# layer: Glorot & Bengio 2010). **ReLU**, $\max(0, z)$, has slope 1 for half of its inputs and 0 for
# the rest: a mean square of ½. So gain $\sqrt 2$ makes the factor 1, forward and backward, at any
# depth: **Kaiming initialisation** (He et al. 2015). That is a mean over draws of $W$; in one draw
# the logarithm of the squared size strays by about $\sqrt{5L/n}$ (Hanin & Nica 2020).
#
# **tanh** has slope 1 at 0 and less elsewhere, so with gain 1 its gradients shrink on their way
# back. But its signal shrinks on the way forward, by about as much; a weight's gradient is the
# product of the signal before and the gradient behind, and stays nearly even. **GELU**,
# $z\,\Phi(z)$ with the normal distribution $\Phi$ and its density $\varphi$ (Hendrycks & Gimpel
# 2016), is a smooth ReLU whose slope passes 1: it is steepest where the second derivative
# $\varphi(z)\,(2 - z^2)$ is 0, at $z = \sqrt 2$.


# %% 10. Activations
@lab.experiment
def slopes_have_bounds(run: Run):
    """A sigmoid's slope is at most 1/4, tanh's and ReLU's at most 1; GELU's passes 1.

    Predict: is the slope of GELU negative anywhere?
    """
    fig, axes = plt.subplots(1, 2, sharex=True)
    z, shown = torch.linspace(-5, 5, 10_001, dtype=torch.float64), {}
    functions = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "ReLU": torch.relu, "GELU": F.gelu}
    for name, f in functions.items():
        shown[name] = torch.func.vmap(torch.func.grad(f))(z)  # the slope at each z
        axes[0].plot(z, f(z), label=name)
        axes[1].plot(z, shown[name])
    axes[0].set(xlabel="z", title="activation", ylim=(-1.2, 3))
    axes[1].set(xlabel="z", title="its slope")
    axes[0].legend()
    run.figure(
        fig,
        "activations",
        "Four activations and their slopes.",
        alt="Two line plots of sigmoid, tanh, ReLU and GELU: the functions on the left, their "
        "slopes on the right.",
    )
    steepest = (1 + math.erf(1)) / 2 + math.exp(-1) / math.sqrt(math.pi)  # Φ(√2) + √2·φ(√2)
    for name, top in {"sigmoid": 0.25, "tanh": 1, "ReLU": 1, "GELU": steepest}.items():
        off, because = shown[name].max() - top, f"{top:.5g}; z goes in steps of 0.001"
        what = f"{name}: largest slope, off theory"
        run.check(what, abs(off), at_most=1e-6, because=because, decides=True)
    return f"GELU's slope is negative below z = {z[shown['GELU'] < 0].max():.2f}."


# %% 11. Depth
def gradients_by_layer(activation: str, depth: int, width: int) -> list[float]:
    """The RMS of the gradient of each layer's weights, untrained, for 64 normal inputs."""
    model = MLP(activation, *[width] * (depth + 1))
    (model(torch.randn(64, width)) * torch.randn(64, width)).sum().backward()
    return [w.grad.square().mean().sqrt().item() for w in model.weights]


@lab.experiment
def depth_kills_sigmoid_gradients(run: Run):
    """Through twenty sigmoid layers hardly a gradient comes back; through Kaiming's ReLU it does.

    Predict: each sigmoid divides it by 4 at least. What is left of it at the first layer?
    """
    depth, width, found = 20, run.pick(tiny=256, small=512, full=1024), {}
    fig, ax = plt.subplots()
    for name, colour in (("sigmoid", "C0"), ("tanh", "C1"), ("ReLU", "C2")):
        found[name] = []
        for seed in run.seeds(3):
            torch.manual_seed(seed)
            sizes = gradients_by_layer(name, depth, width)
            found[name].append(sizes[0] / sizes[-1])
            label = name if seed == run.seed else None
            ax.semilogy(range(1, depth + 1), sizes, f"{colour}o-", ms=3, lw=0.7, label=label)
    ax.set(xlabel="layer, from the input", ylabel="RMS gradient of its weights")
    ax.set(title="How much gradient arrives", xticks=range(2, depth + 1, 3))
    ax.legend()
    run.figure(
        fig,
        "depth",
        f"{depth} untrained layers, {width} wide, three seeds each.",
        alt="Line plot of the gradient's RMS over 20 layers on a log scale, one line each for "
        "sigmoid, tanh and ReLU.",
    )
    because = "4⁻¹⁹, and the last layer's input is at least half the size of the first's"
    ratios, most = found["sigmoid"], 2 * 0.25**19
    run.check("sigmoid: first / last", ratios, at_most=most, because=because, decides=True)
    off = [abs(math.log(ratio)) for ratio in found["ReLU"]]
    bound = 5 * math.sqrt(5 * depth / width) / 2
    because = "theory says 0, give or take √(5L/n)/2; five of these"
    run.check("ReLU: |log(first / last)|", off, at_most=bound, because=because, decides=True)
    run.measure("tanh: first / last", found["tanh"])
    deep = [64] * 10 + [10]
    sigmoid, relu = (
        [reads_digits(seed, 300, 0.02, name, *deep) for seed in run.seeds(3)]
        for name in ("sigmoid", "ReLU")
    )
    run.measure("ten layers of sigmoid: accuracy after 300 steps", sigmoid, expect_at_most=0.2)
    run.measure("ten layers of ReLU: accuracy after 300 steps", relu, expect_at_least=0.9)
    return (
        f"Ten layers learn to read {median(sigmoid):.0%} of digits with sigmoid, "
        f"{median(relu):.0%} with ReLU."
    )


# %% [markdown]
# ## 7. Why not straight
# Without activations depth is in vain:
#
# $$
# \begin{aligned}
# & (x W_1 + b_1) W_2 + b_2 \\
# &\quad = x (W_1 W_2) + (b_1 W_2 + b_2)
# \end{aligned}
# $$
#
# This is one linear layer again, and a linear layer parts two classes by a straight line. On two
# spirals (after Lang & Witbrock 1988) that is of little use. How little can be told exactly: in a
# plane one can try lines of all directions, at all places.


# %% 12. Two spirals
def spirals(n: int, turns: float = 2.0) -> tuple[Tensor, Tensor]:
    """Points (n, 2) on two arms, evenly over the disc, and which arm each is on (n,)."""
    radius, arm = torch.rand(n).sqrt(), torch.randint(2, (n,))
    angle = 2 * math.pi * turns * radius + math.pi * arm
    points = radius[:, None] * torch.stack((angle.cos(), angle.sin()), 1)
    return points + 0.02 * torch.randn(n, 2), arm


def best_line(x: Tensor, y: Tensor, directions: int = 720) -> float:
    """The accuracy of the best straight line between x (n, 2) of class 0 and 1, y (n,)."""
    angle = math.pi * torch.arange(directions) / directions
    order = (x @ torch.stack((angle.cos(), angle.sin()))).argsort(0)  # (n, directions)
    lead = (2 * y - 1)[order].cumsum(0)  # ones less zeros, before each place for a line
    return ((lead - lead[-1] / 2).abs().max() / len(y)).item() + 0.5  # whichever way round


def draw_decision(ax: Any, model: MLP, x: Tensor, y: Tensor) -> None:
    line = torch.linspace(-1.15, 1.15, 200)
    grid = torch.cartesian_prod(line, line).flip(1)  # row by row, x before y
    p = model(grid).data.softmax(-1)[:, 1].view(200, 200)
    ax.imshow(p, extent=(-1.15, 1.15) * 2, origin="lower", cmap="RdBu_r", vmin=-0.5, vmax=1.5)
    for arm, colour in enumerate(("C0", "C1")):
        ax.plot(*x[y == arm].T, "o", ms=3, color=colour, mec="white", mew=0.3)
    ax.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    ax.grid(False)


@lab.experiment
def a_nonlinearity_is_needed(run: Run):
    """On two spirals a network without activations stays near chance; with ReLU it parts them.

    Predict: an accuracy of 0.5 is chance. What does the best of all lines get?
    """
    lines, found = [], {"ReLU": [], "identity": []}
    stops = run.pick(tiny=[0, 100, 200, 800], small=[0, 100, 200, 2000], full=[0, 100, 200, 4000])
    fig, axes = plt.subplots(2, 2, figsize=(7.2, 7.4))
    for seed in run.progress(run.seeds(3), "seeds"):
        torch.manual_seed(seed)
        (x, y), (x_test, y_test) = spirals(500), spirals(2000)
        lines.append(best_line(x_test, y_test))
        for name, ends in found.items():
            model = MLP(name, 2, 64, 64, 2)
            optimizer = Momentum(model.parameters(), 0.1)
            for ax, start, stop in zip(axes.flat, [0, *stops], stops, strict=False):
                train(model, optimizer, x, y, [torch.arange(500)] * (stop - start))
                right = accuracy(model, x_test, y_test)
                if name == "ReLU" and seed == run.seed:
                    draw_decision(ax, model, x, y)
                    ax.set_title(f"step {stop}: {right:.0%} of unseen points")
            ends.append(right)
    run.figure(
        fig,
        "spirals",
        "What a 2-64-64-2 ReLU network says during training, by our engine.",
        alt="Four maps of a plane with the points of two spirals, at four steps of the "
        "training; the background shows the class that the network predicts there.",
    )
    because = "chance is 0.5; seeds stray by less than 0.01"
    run.check("ReLU", found["ReLU"], at_least=0.95, because=because, decides=True)
    because = "its lead over chance is half of ReLU's at most"
    run.check("the best of all lines", lines, at_most=0.7, because=because)
    over = [a - b for a, b in zip(found["identity"], lines, strict=True)]
    because = "it is a line; 720 directions may miss the very best by a few points"
    run.check("identity, less the best line", over, at_most=0.005, because=because)
    because = "near chance, were a line of no use at all"
    ends = found["identity"]
    run.measure("identity", ends, expect_at_most=0.55, because=because, decides=True)
    turns = {f"turns: {n}": best_line(*spirals(4000, n)) for n in (1, 2, 4, 8, 16)}
    run.table("The best line", list(turns), [list(turns.values())])
    straight, line = median(found["identity"]), median(lines)
    return (
        f"The best line gets {line:.1%}, for it cuts off the outermost half-turn; the more turns "
        f"there are, the less that counts. The identity gets {straight:.1%}: training makes the "
        "loss small, which isn't the number of errors."
    )


# %% [markdown]
# ## 8. The whole loop, under Accelerate
# From here on the engine is PyTorch's, which works like ours, with more operations and on any
# machine. **Accelerate** (Gugger et al. 2022) puts the model where the accelerator is, lets several
# processes share a batch, and computes in the precision that the run asked for: products in
# bfloat16, say, while the weights stay in float32 (§2). The loop stays, but for three places:
# `prepare` takes model and optimizer, `accelerator.backward` takes the loss, and each process takes
# its share of the batch. The optimizer is AdamW (Loshchilov & Hutter 2019): momentum, divided for
# each weight by the size of its recent gradients, and weights that decay a little.
#
# A good accuracy needs a partner that is bad: the same training with the labels dealt out at random
# among the images (as in Zhang et al. 2017). Were that accuracy good too, it would be measured
# wrongly.


# %% 13. Accelerate
def train_on(run: Run, model: nn.Module, labels: Tensor, epochs: int) -> tuple[Tensor, float]:
    """Train on digits with these labels -> each epoch's mean loss, the accuracy on unseen ones."""
    x, _, x_test, y_test = (t.to(run.device) for t in digits())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model, optimizer = run.accelerator.prepare(model, optimizer)
    y, losses = labels.to(run.device), torch.zeros(epochs)
    for epoch in run.progress(range(epochs), "epochs"):
        batches = batches_of(64, len(y), len(y) // 64)
        for batch in batches:
            batch = run.share(batch).to(run.device)
            loss = F.cross_entropy(model(x[batch]), y[batch])
            run.accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses[epoch] += loss.detach().cpu() / len(batches)
    with torch.no_grad():
        return losses, accuracy(model, x_test, y_test)


@lab.experiment
def accelerate_runs_the_loop(run: Run):
    """Under Accelerate the loop learns to read digits, on float32 weights, whatever the precision.

    Predict: with labels dealt out at random, does the training loss fall, too?
    """
    epochs, kinds, y = run.pick(tiny=20, small=40, full=100), set(), digits()[1]
    (fig, ax), found, losses = plt.subplots(), {"true labels": [], "dealt out": []}, {}
    for seed in run.seeds(3):
        torch.manual_seed(seed)
        ways = (y, "C0"), (y[torch.randperm(len(y))], "C1")
        for name, (labels, colour) in zip(found, ways, strict=True):
            model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
            losses[name], right = train_on(run, model, labels, epochs)
            found[name].append(right)
            kinds |= {str(one.dtype).removeprefix("torch.") for one in model.parameters()}
            label = name if seed == run.seed else None
            ax.plot(range(1, epochs + 1), losses[name], colour, label=label)
    ax.axhline(math.log(10), color="grey", ls=":", label="an even guess, log 10")
    ax.set(xlabel="epoch", ylabel="training loss (nats)", title="Both losses fall")
    ax.set_xticks(range(0, epochs + 1, epochs // 4))
    ax.legend()
    run.figure(
        fig,
        "training",
        "Digits under Accelerate, three seeds each.",
        alt="Line plot of the training loss over epochs, with true and with shuffled labels; "
        "a dotted line marks ln 10.",
    )
    because = "nearest averages, untrained"
    right, least = found["true labels"], nearest_average()
    run.check("accuracy, true", right, at_least=least, because=because, decides=True)
    because = "chance is 0.1; even one random label for each class would stray by 0.095 only"
    run.check("accuracy, dealt out", found["dealt out"], at_most=0.4, because=because)
    because = "whatever the precision"
    run.check("weights", " ".join(kinds), equals="float32", because=because, decides=True)
    first, *_, last = losses["dealt out"].tolist()
    run.measure("dealt out: the last epoch's loss over the first's", last / first, expect_at_most=1)
    return (
        f"With labels at random the training loss went from {first:.2f} to {last:.2f} nats, and "
        f"{median(found['dealt out']):.0%} of unseen digits were read: only unseen ones tell."
    )


# %% [markdown]
# ## 9. The layer that was cut off
# There is a failure that raises nothing. What went through `.detach()`, `.data`, `torch.no_grad()`,
# a list or NumPy has forgotten what it was made of. The loss is as before and backward runs, but
# all layers before the cut stay as they were drawn. The loss doesn't tell: it falls, for the layers
# *behind* the cut make do with what random ones give them.
#
# The graph tells. `loss.grad_fn` is the operation that made the loss. Its `next_functions` are
# pairs: the operation that made an input (None where no gradient is wanted), and which of its
# outputs that was. A loss without a graph has None for `grad_fn`. The walk ends at operations that
# have a `variable`, the parameter to whose `.grad` they add.


# %% 14. Find the cut
@lab.exercise(
    level=3,
    hints=(
        "Walk from loss.grad_fn along next_functions, and collect each `variable` you meet.",
        "What is used twice is met twice: without a set of what was seen, 2ⁿ paths are walked.",
        "Graphs can be deeper than Python's recursion: keep a list of what is still to visit.",
    ),
)
def unreached(loss: Tensor, module: nn.Module) -> list[str]:
    """Names of parameters that require a gradient and get none from `loss`, in module order.

    It leaves graph and gradients as they are: `loss.backward()` works afterwards.
    """
    reached: set[int] = set()
    seen: set[Any] = {None}
    waiting: list[Any] = [loss.grad_fn]
    while waiting:
        operation = waiting.pop()
        if operation not in seen:
            seen.add(operation)
            reached.add(id(getattr(operation, "variable", None)))
            waiting += [made_by for made_by, _ in operation.next_functions]
    wanted = [(name, one) for name, one in module.named_parameters() if one.requires_grad]
    return [name for name, one in wanted if id(one) not in reached]


def three_layers(between: Callable[[Tensor], Tensor]) -> nn.Sequential:
    """A network for digits; `between` is done to what its second layer gives."""
    first, second, third = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
    for layer in (first, second, third):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def hook(_layer: nn.Module, _inputs: Any, z: Tensor) -> Tensor:
        return between(z)  # it takes the place of the layer's answer

    second.register_forward_hook(hook)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)


@lab.experiment
def a_cut_off_layer_raises_nothing(run: Run):
    """A detached layer raises no error and the loss still falls; the graph tells which one it is.

    Predict: two of three layers stay random. How many of ten digits are read all the same?
    """
    (x, y, x_test, y_test), rows = digits(), []
    before = ["0.weight", "0.bias", "2.weight", "2.bias"]  # 1 and 3 are the activations
    for name, between, cut_off in (
        ("intact", lambda z: z, []),
        ("z.detach()", lambda z: z.detach(), before),
        ("z.new_tensor(z.tolist())", lambda z: z.new_tensor(z.tolist()), before),
        ("clamp under no_grad", torch.no_grad()(lambda z: z.clamp(-9, 9)), before),
    ):
        torch.manual_seed(run.seed)
        model, losses = three_layers(between), []
        found = unreached(F.cross_entropy(model(x), y), model)
        shown, want = (", ".join(names) or "none" for names in (found, cut_off))
        because = "what is before the cut"
        run.check(f"{name}: not reached", shown, equals=want, because=because, decides=True)
        # Without Accelerate: with several processes it would notice (DistributedDataParallel).
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for batch in batches_of(64, len(y), run.pick(tiny=440, small=880, full=2200)):
            loss = F.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        right = accuracy(model, x_test, y_test)
        rows.append([name, losses[0], mean(losses[-20:]), right])
    run.table("Trained alike", ["", "first loss", "last 20 losses", "accuracy"], rows)
    fallen = [last / first for _, first, last, _ in rows]
    because = "it halves, and all seems well (with a cut, at tiny, seeds give 0.24 to 0.34)"
    run.check("last losses / the first", fallen, at_most=0.5, because=because, decides=True)
    (*_, whole), (*_, cut) = rows[:2]
    run.measure("accuracy that the cut costs", whole - cut, expect_at_least=0.02)
    return (
        f"With two random layers of three it reads {cut:.0%} of unseen digits; intact {whole:.0%}."
    )


# %% [markdown]
# ## What surprised
# A falling loss shows that something is being fitted; not that it is what you meant, nor that
# every layer takes part.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Say what surprised, in the numbers of this run."""
    line = results.value("a_nonlinearity_is_needed", "the best of all lines")
    lead = results.value("own_engine_learns_to_read", "ReLU's lead, either way")
    same = results.verdict("own_engine_learns_to_read") == "held"
    activation = "need no activation" if same else "are read otherwise with an activation"
    random_labels = "dealt out: the last epoch's loss over the first's"
    dealt_out = results.value("accelerate_runs_the_loop", random_labels)
    cut_off = max(results.values("a_cut_off_layer_raises_nothing", "last losses / the first"))
    return (
        f"The best line through the spirals, with {line:.1%} right, is no guess: it cuts off the "
        f"outermost half-turn. Digits, with which every course shows networks, {activation}: the "
        f"share that a linear network reads differs by {lead:.1%}. And the training loss went to "
        f"{dealt_out:.2f} of what it was for labels dealt out at random, and to {cut_off:.2f} for "
        "a network of which two layers in three are random."
    )


# %% [markdown]
# **Read on**: Baydin et al. 2018, *Automatic differentiation in machine learning: a survey* ·
# Goldberg 1991, *What every computer scientist should know about floating-point arithmetic* ·
# Glorot & Bengio 2010 and He et al. 2015 on depth · Micikevicius et al. 2018, *Mixed precision
# training*. Next is LLM03: what a layer does, four ways, and how it should begin.

# %%
if __name__ == "__main__":
    lab.main()
