# %% [markdown]
# # LLM02 · Deep learning basics
# Tensors, an autograd engine that you write, and a neural network that it trains.
#
# **You will be able to** work with tensors; draw the graph of a computation and find its gradients
# by hand; write an autograd engine and compare it with PyTorch's; build an MLP from it and from
# `nn.Module`; train it with Accelerate and choose a learning rate. **Builds on** derivatives, the
# chain rule and matrix products. **Takes** 45 minutes to read. At `tiny` it
# takes about 20 seconds of processor time.

# %% Imports
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from statistics import mean, median
from typing import Any

from labs.kit import Lab, Results, Run, on_one_thread, seconds_paired
from labs.llm02_deep_learning import figures, view_data
from labs.llm02_deep_learning.compare import CASES, copy_parameters, gradients, like_ours
from labs.llm02_deep_learning.data import (
    accuracy,
    batches_of,
    best_line,
    digits,
    nearest_average,
    spirals,
)

import torch
import torch.nn.functional as F
from torch import Tensor, nn

lab = Lab("LLM02")

# %% [markdown]
# ## 1. Tensors
# A **tensor** is an array of numbers with a **shape**. A row of three numbers has one **axis** and
# the shape 3. A matrix of 2 rows and 3 columns has the shape 2 × 3. A batch of 64 images of 8 × 8
# pixels has the shape 64 × 8 × 8. Axes are counted from 0. Take as an example
#
# $$x = \begin{bmatrix} 0 & 1 & 2 \\ 3 & 4 & 5 \end{bmatrix}$$
#
# - **Create**: `torch.zeros` and `torch.arange` make simple tensors, `torch.tensor` takes nested
#   lists, and `torch.randn` samples from a normal distribution.
# - **Index**: `x[1]` is the row 3 4 5, `x[1, 2]` the number 5, and `x[:, 0]` the column 0 3.
# - **Reshape** to 3 × 2: the rows become 0 1, 2 3 and 4 5. The order of the numbers stays.
# - **Reduce**: `x.sum()` is 15. A sum over axis 0 adds the rows and returns 3 5 7. With
#   `keepdim=True` the axis stays, with the size 1.
# - **Combine**: `x + x` and `x * x` work element by element. `a @ b` is the **matrix product**. Its
#   entry in row $i$ and column $j$ is row $i$ of `a` times column $j$ of `b`, summed over their
#   common index: $y_{ij} = \sum_k a_{ik} b_{kj}$.
# - **dtype**: all numbers of a tensor have one type. `int8` holds −128 to 127 and wraps around.
#   `float32`, the usual type of a network, has 24 significant bits, about 7 decimal digits.
# - **device**: a tensor is in the memory of the CPU or of a GPU, and `x.to` copies it from one to
#   the other. An operation needs all its inputs on one device.
#
# **Broadcasting**: tensors of different shapes can be added, too. Write the shapes below each
# other, aligned at the right. PyTorch adds missing axes on the left, and **stretches** an axis of
# size 1: it uses the same numbers again for each index. So a row of 3 numbers can be added to a
# matrix of 2 × 3, and each number of the row is used twice. LLM03 uses these rules. Here we need
# their gradient.


# %% A matrix product by its entries
def matmul_by_entries(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b from sums of rows times columns, (n, k) and (k, m) -> (n, m)."""
    rows = range(a.shape[0])
    columns = range(b.shape[1])
    return torch.stack([torch.stack([(a[i] * b[:, j]).sum() for j in columns]) for i in rows])


@lab.experiment
@on_one_thread
def a_matrix_product_is_rows_times_columns(run: Run):
    """Each entry of a matrix product is the sum over a row times a column.

    Predict: two matrices of 64 × 64. How many times faster than entry by entry is `@`?
    """
    x = torch.arange(6).reshape(2, 3)
    examples = {
        "x": x,
        "x[1]": x[1],
        "x[:, 0]": x[:, 0],
        "x.reshape(3, 2)": x.reshape(3, 2),
        "x.sum(0)": x.sum(0),
        "x.sum(1, keepdim=True)": x.sum(1, keepdim=True),
        "x * x": x * x,
        "x @ x.T": x @ x.T,
        "torch.tensor(127, dtype=torch.int8) + 1": torch.tensor(127, dtype=torch.int8) + 1,
        "torch.tensor(2.0**24) + 1": torch.tensor(2.0**24) + 1,
    }
    rows = [[code, str(tuple(y.shape)), str(y.tolist())] for code, y in examples.items()]
    run.table("Small tensors", ["", "shape", "numbers"], rows)
    a = torch.tensor([[1.0, 2, 0], [0, 1, 3]])
    b = torch.tensor([[1.0, 4], [2, 5], [3, 6]])
    fig, caption, alt = figures.matmul_picture(a, b, 1, 0)
    run.figure(fig, "matrix_product", caption, alt=alt)
    a = torch.randn(64, 64, dtype=torch.float64)
    b = torch.randn(64, 64, dtype=torch.float64)
    difference = matmul_by_entries(a, b) - a @ b
    run.agree("entry by entry minus @, 64 × 64", difference, decides=True)
    ours, library = seconds_paired(partial(matmul_by_entries, a, b), partial(torch.matmul, a, b), 9)
    ratio = median(ours) / median(library)
    run.measure("time entry by entry ÷ time of @", ratio, timed=True)
    return f"Here the ratio is of the order of {10 ** round(math.log10(ratio)):,}."


# %% [markdown]
# ## 2. Derivatives on a graph
# Training makes one number small, the **loss** $L$. It depends on the network's **parameters**. The
# derivative $\partial L/\partial w$ says how fast $L$ changes when the parameter $w$ changes. All
# derivatives together are the **gradient**. Unless it is 0, a small step against the gradient
# lowers the loss.
#
# Here is the smallest network, one **neuron** with one input $x$. It computes
# $y = \text{relu}(wx + b)$, where relu replaces a negative number by 0. The target is $t$ and the
# loss is $(y - t)^2$. Our engine has no minus, so it starts from the number $-t$. Take $x = 2$,
# $w = 3$, $b = -4$, $-t = -5$ and name every result:
#
# $$
# \begin{aligned}
# h &= w \cdot x = 6, & s &= h + b = 2, & y &= \text{relu}(s) = 2, \\
# e &= y + -t = -3, & L &= e \cdot e = 9
# \end{aligned}
# $$
#
# The values and their inputs form a **graph**. The **chain rule** says: multiply the derivatives
# along a path, and add over all paths. By the **gradient of a value** we mean the derivative of $L$
# with respect to it. Go backward from $L$, whose gradient is 1:
#
# - $L = e \cdot e$ uses $e$ twice. Each use contributes the other factor, $-3$. The sum is $-6$.
# - $e$ is the sum of $y$ and $-t$, and $y = s$ while $s > 0$. These derivatives are 1: $y$ and $s$
#   get $-6$.
# - $s = h + b$ sends $-6$ to $h$ and to $b$.
# - $h = w \cdot x$ sends $-6 \cdot x = -12$ to $w$, and $-6 \cdot w = -18$ to $x$.
#
# So $\partial L/\partial w = -12$. Check it: $w = 3.01$ gives $L = 8.8804$. That is 0.1196 lower,
# and $12 \cdot 0.01$ predicts 0.12.
#
# A program can do the same. Each `Value` remembers its inputs. It also has a function, `grad_fn`,
# that gets the gradient $g$ of the value and returns the gradients of its inputs. For a sum this is
# `lambda g: (g, g)`: if one input grows by 1, so does the sum, and each input gets $g \cdot 1$.
#
# One rule matters: **a value must wait until all of its gradient has arrived.** Take $a = x \cdot
# x$, $b = a \cdot a$ and $L = a + b$ at $x = 1$. $L$ sends 1 to $a$ and 1 to $b$. Later $b$ sends
# $1 + 1 = 2$ to $a$, which then has 3 and sends $3 + 3 = 6$ to $x$. If $a$ had passed on its first
# 1 at once, and nothing later, $x$ would have got 2, which is wrong. If $a$ passed on every part
# separately, the result would be right, but values that are used often would pass on many times.
# The view below shows this graph, too.
#
# So visit a value only after all values that use it. This is a **topological order**, from $L$
# backward. To find one, count how often each value is used. A value is ready when the number of
# contributions that have arrived equals the number of its uses. This is **reverse-mode automatic
# differentiation** (Linnainmaa 1970). Applied to networks, it is called **backpropagation**
# (Rumelhart, Hinton & Williams 1986).


# %% A number that remembers
class Value:
    """A number, the inputs that made it, and the way back to their gradients.

    `grad_fn` maps the gradient of this value to those of its inputs. A leaf has no inputs.
    """

    def __init__(
        self,
        data: Any,
        inputs: Sequence["Value"] = (),
        operation: str = "",
        grad_fn: Callable[[Any], Sequence[Any]] | None = None,
    ):
        self.data = data
        self.inputs = tuple(inputs)
        self.operation = operation
        self.grad_fn = grad_fn or (lambda _g: ())
        self.grad: Any = 0.0

    def __add__(self, other: "Value") -> "Value":
        return Value(self.data + other.data, (self, other), "+", lambda g: (g, g))

    @lab.exercise(
        level=1,
        hints=(
            "Look at __add__: a new Value needs the result, both inputs, a sign and a function.",
            "For y = a·b: how fast does y grow when a grows? And when b grows?",
            "dy/da is b and dy/db is a. The function multiplies each by g and returns both.",
        ),
    )
    def __mul__(self, other: "Value") -> "Value":
        """Return the product, with the operation "×" and the gradients of both factors."""
        return Value(
            self.data * other.data,
            (self, other),
            "×",
            lambda g: (g * other.data, g * self.data),
        )

    def relu(self) -> "Value":
        slope = 1.0 if self.data > 0 else 0.0
        return Value(slope * self.data, (self,), "relu", lambda g: (g * slope,))

    @lab.exercise(
        level=3,
        hints=(
            "First walk from `self` to the leaves, visit each value once, and count its uses.",
            "Keep the gradients in a dictionary that starts with {self: 1.0}; take a ready value, "
            "call its grad_fn once, and add each contribution to that input's gradient.",
            "An input is ready when its number of contributions equals its number of uses. Keep a "
            "list of ready values. Add the finished gradient to value.grad.",
        ),
    )
    def backward(self) -> None:
        """Add the derivative of this value to the `grad` of every value in its graph.

        Call each `grad_fn` once, when all of the value's gradient has arrived. Graphs can be deeper
        than Python's recursion limit.
        """
        uses: dict[Value, int] = {self: 0}
        unvisited: list[Value] = [self]
        while unvisited:
            for source in unvisited.pop().inputs:
                if source not in uses:
                    uses[source] = 0
                    unvisited.append(source)
                uses[source] += 1
        gradients: dict[Value, Any] = {self: 1.0}
        ready: list[Value] = [self]
        while ready:
            value = ready.pop()
            g = gradients[value]
            value.grad = value.grad + g
            for source, contribution in zip(value.inputs, value.grad_fn(g), strict=True):
                gradients[source] = gradients.get(source, 0.0) + contribution
                uses[source] -= 1
                if uses[source] == 0:
                    ready.append(source)


# %% A neuron's graph
def neuron(x: float, w: float, b: float, t: float) -> dict[str, Value]:
    """Return the values of L = (relu(w·x + b) − t)² by name; L is the last."""
    values = {"x": Value(x), "w": Value(w), "b": Value(b), "−t": Value(-t)}
    values["h"] = values["w"] * values["x"]
    values["s"] = values["h"] + values["b"]
    values["y"] = values["s"].relu()
    values["e"] = values["y"] + values["−t"]
    values["L"] = values["e"] * values["e"]
    return values


@lab.experiment
def one_backward_pass_finds_every_gradient(run: Run):
    """One backward pass through the neuron's graph finds what central differences find.

    A central difference moves one input by h in both directions: (L(x + h) − L(x − h)) / 2h.

    Predict: the target t rises from 5 to 5.01. By how much does the loss change?
    """
    numbers = {"x": 2.0, "w": 3.0, "b": -4.0, "t": 5.0}
    graph = neuron(**numbers)
    graph["L"].backward()
    fig, caption, alt = figures.draw_graph(graph)
    run.figure(fig, "graph", caption, alt=alt)
    h = 1e-4
    errors = []
    rows = []
    for name in numbers:
        high = neuron(**{**numbers, name: numbers[name] + h})["L"].data
        low = neuron(**{**numbers, name: numbers[name] - h})["L"].data
        slope = (high - low) / (2 * h)
        ours = -graph["−t"].grad if name == "t" else graph[name].grad
        errors.append(abs(slope - ours))
        rows.append([name, numbers[name], ours, slope])
    run.table("Derivatives of L", ["", "value", "backward", "central difference"], rows)
    because = "while s > 0, L is quadratic in each number; rounding: ten times 9·2⁻⁵²/h = 2·10⁻¹¹"
    run.check("largest difference", max(errors), at_most=2e-10, because=because, decides=True)
    because = "the gradients aren't 0"
    smallest = min(abs(ours) for _, _, ours, _ in rows)
    run.check("smallest |derivative|", smallest, at_least=1, because=because)
    graphs = {"a neuron": graph, **view_data.small_graphs(Value)}
    run.view("graph", "computation_graph", *view_data.graphs(graphs))
    slope = -graph["−t"].grad
    return f"The derivative by t is {slope:g}, so the loss changes by about {slope / 100:g}."


# %% [markdown]
# ## 3. From numbers to tensors
# A network with a million parameters should not have a million `Value` objects. So let one value
# hold a tensor. The gradient $\partial L/\partial a$ of a tensor $a$ has the shape of $a$: one
# derivative for each number.
#
# An operation $y = f(a)$ now has a derivative for each pair of an output and an input. This matrix
# $J_{ij} = \partial y_i/\partial a_j$ is the **Jacobian**. Going backward needs less. Given the
# gradient $g$ of $y$, the chain rule adds over all outputs:
#
# $$\frac{\partial L}{\partial a_j} = \sum_i g_i \frac{\partial y_i}{\partial a_j}$$
#
# This is $g^\top J$, the **vector-Jacobian product** (VJP).
#
# **An example.** Let $y_1 = a_1 a_2$ and $y_2 = a_1 + a_2$ at $a_1 = 3$, $a_2 = 4$, with the
# gradient $g_1 = 1$, $g_2 = 10$. Then
#
# $$
# \begin{bmatrix} 1 & 10 \end{bmatrix}
# \begin{bmatrix} a_2 & a_1 \\ 1 & 1 \end{bmatrix} =
# \begin{bmatrix} 1 & 10 \end{bmatrix}
# \begin{bmatrix} 4 & 3 \\ 1 & 1 \end{bmatrix} =
# \begin{bmatrix} 14 & 13 \end{bmatrix}
# $$
#
# No VJP below stores its Jacobian. That of a product of two 64 × 64 matrices would have 4096 rows
# and columns. Look at one number instead: in $y = ab$, the number $a_{ik}$ is in every $y_{ij}$ of
# its row, times $b_{kj}$. So its gradient is $\sum_j g_{ij} b_{kj}$, which is an entry of a matrix
# product again.
#
# **Broadcasting** uses a number several times. Several uses are several paths, and paths add. So
# the gradient must be summed over every axis that broadcasting added, and over every axis that it
# stretched.
#
# **Cross-entropy.** A classifier returns one number for each class, the **logits** $x$. The
# **softmax** makes them probabilities, $p_i = e^{x_i} / \sum_j e^{x_j}$. The loss of an example is
# $-\ln p_t$, where $t$ is its class. It is near 0 when the network is certain and right, and
# $\ln 10 = 2.3$ when the network guesses evenly among ten classes. The loss of a batch is the mean
# over its examples.
#
# For the logits 2, 1, 0 the probabilities are 0.665, 0.245, 0.090. If the second class is right,
# the loss is $-\ln 0.245 = 1.41$, and its gradient is 0.665, −0.755, 0.090. A step against it
# raises the second logit and lowers the others.


# %% What each operation sends back
@lab.exercise(
    level=2,
    hints=(
        "A number that was used n times gets n gradients, which add up.",
        "First sum over the leading axes that `shape` doesn't have.",
        "Then sum each axis that has size 1 in `shape` but not in g, with keepdim=True.",
    ),
)
def unbroadcast(g: Tensor, shape: torch.Size) -> Tensor:
    """Return the gradient of a tensor of this shape, from the gradient g of what it became."""
    added = g.ndim - len(shape)
    if added:
        g = g.sum(tuple(range(added)))
    stretched = [axis for axis, n in enumerate(shape) if n == 1 and g.shape[axis] != 1]
    return g.sum(stretched, keepdim=True) if stretched else g


@lab.exercise(
    level=2,
    hints=(
        "y_ij = Σ_k a_ik·b_kj. The number a_ik is in y_ij for every j: times what?",
        "Sum over those j. Each gradient is a matrix product with one factor transposed.",
        "For rectangular matrices only one way fits. Leading axes are a batch: transpose by .mT.",
    ),
)
def matmul_vjp(g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of a (…, n, k) and b (…, k, m), from g (…, n, m), that of a @ b.

    If leading axes were broadcast, the results may keep g's: `apply` sums over them.
    """
    return g @ b.mT, a.mT @ g


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of −ln p(target): logits (…, C), classes (…) -> ()."""
    log_p = logits.log_softmax(-1)
    return -log_p.gather(-1, targets[..., None]).mean()  # gather picks the target of each row


@lab.exercise(
    level=2,
    hints=(
        "The loss of one example is ln Σ_j exp(x_j) − x_t. Differentiate each part by x_i.",
        "The first part gives the softmax. The second gives −1 at the target and 0 elsewhere.",
        "The loss is a mean: divide by the number of targets. Multiply everything by g.",
    ),
)
def cross_entropy_vjp(g: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the gradient of the logits (…, C), from g, a number, that of `cross_entropy`."""
    p = logits.softmax(-1)
    return g * (p - F.one_hot(targets, p.shape[-1])) / targets.numel()


def gelu_slope(z: Tensor) -> Tensor:
    """Return the derivative of GELU, Φ(z) + z·φ(z)."""
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return torch.special.ndtr(z) + z * density


# For each operation its forward function and its VJP, (g, y, *inputs) -> gradients of the inputs.
OPERATIONS: dict[str, tuple[Callable, Callable]] = {
    "add": (torch.add, lambda g, _y, _a, _b: (g, g)),
    "mul": (torch.mul, lambda g, _y, a, b: (g * b, g * a)),
    "matmul": (torch.matmul, lambda g, _y, a, b: matmul_vjp(g, a, b)),
    "sum": (torch.sum, lambda g, _y, a: (g.expand_as(a),)),
    "sigmoid": (torch.sigmoid, lambda g, y, _a: (g * y * (1 - y),)),
    "tanh": (torch.tanh, lambda g, y, _a: (g * (1 - y**2),)),
    "relu": (torch.relu, lambda g, _y, a: (g * (a > 0),)),
    "gelu": (F.gelu, lambda g, _y, a: (g * gelu_slope(a),)),
    "cross_entropy": (
        cross_entropy,
        lambda g, _y, logits, targets: (cross_entropy_vjp(g, logits, targets),),
    ),
}


# %% The engine on tensors
def method(name: str) -> Callable[..., Any]:
    """Return an operation as a method of `TensorValue`."""
    return lambda self, *others, **options: apply(name, self, *others, **options)


class TensorValue(Value):
    """A tensor that remembers its inputs. It inherits `backward` from `Value`.

    `a + b` calls `a.__add__(b)`, and this `apply("add", a, b)`. `apply` computes `torch.add` and
    stores the VJP of "add" as the result's `grad_fn`.
    """

    def __init__(self, data: Any, *rest: Any):
        super().__init__(torch.as_tensor(data), *rest)

    __add__ = method("add")
    __mul__ = method("mul")
    __matmul__ = method("matmul")
    sum = method("sum")
    sigmoid = method("sigmoid")
    tanh = method("tanh")
    relu = method("relu")
    gelu = method("gelu")

    def cross_entropy(self, targets: Tensor) -> "TensorValue":
        return apply("cross_entropy", self, targets=targets)


def apply(name: str, *inputs: Any, **options: Any) -> TensorValue:
    """Compute an operation and record it. Plain tensors and numbers become leaves."""
    forward, vjp = OPERATIONS[name]
    values = [one if isinstance(one, TensorValue) else TensorValue(one) for one in inputs]
    tensors = [value.data for value in values]
    y = forward(*tensors, **options)

    def grad_fn(g: Any) -> list[Tensor]:
        g = torch.as_tensor(g, dtype=y.dtype)  # `backward` starts with the number 1.0
        gradients = vjp(g, y, *tensors, **options)
        return [unbroadcast(of_a, a.shape) for of_a, a in zip(gradients, tensors, strict=True)]

    return TensorValue(y, values, name, grad_fn)


# %% Against PyTorch
@lab.experiment
def every_rule_equals_pytorchs(run: Run):
    """For each of our operations, our engine's gradients equal those of PyTorch's autograd.

    Sums and products are compared with equal shapes and with three kinds of broadcasting.
    """
    fig, caption, alt = figures.unbroadcast_picture()
    run.figure(fig, "unbroadcast", caption, alt=alt)
    worst: dict[str, float] = {}
    sizes: dict[str, float] = {}
    for name, f, shapes in CASES:
        inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
        for ours, theirs in gradients(TensorValue, f, *inputs):
            error = (ours - theirs).abs().max().item()
            worst[name] = max(worst.get(name, 0.0), error)
            sizes[name] = max(sizes.get(name, 0.0), theirs.abs().max().item())
    rows = [[name, sizes[name], worst[name]] for name in worst]
    run.table("Ours minus PyTorch's", ["", "largest gradient", "largest difference"], rows)
    because = "float64 rounds each of a few operations by about 10⁻¹⁶"
    largest = max(worst.values())
    run.check("largest difference", largest, at_most=1e-12, because=because, decides=True)
    because = "the gradients aren't 0"
    smallest = min(sizes.values())
    run.check("smallest of the largest gradients", smallest, at_least=1e-3, because=because)


# %% [markdown]
# ## 4. Activation functions
# An **activation function** acts on each number separately, between the layers of a network.
# Without one, more layers don't help. Two matrix products in a row are one matrix product:
# $x W_1 W_2 = x W$ with $W = W_1 W_2$. Biases don't change that.
#
# Four activations and their derivatives:
#
# - The **sigmoid** $\sigma(z) = 1/(1 + e^{-z})$ returns numbers from 0 to 1. Its derivative is
#   $\sigma(1 - \sigma)$, largest at $z = 0$, where it is $1/4$.
# - **tanh** returns numbers from −1 to 1. Its derivative is $1 - \tanh^2 z$, at most 1.
# - **ReLU**, $\max(0, z)$, has the derivative 1 above 0 and 0 below.
# - **GELU** is $z$ times $\Phi$, the probability that a standard normal number is below $z$. It is
#   a smooth ReLU (Hendrycks & Gimpel 2016). Its derivative is $\Phi + z \varphi$ with the normal
#   density $\varphi$, and largest at $z = \sqrt 2$.
#
# On the way back the gradient is multiplied by this derivative. Where it is nearly 0, the function
# is **saturated** and hardly any gradient passes. At $z = 6$ the sigmoid's derivative is 0.0025,
# that of tanh 0.00002, that of ReLU still 1.


# %% Activations and their derivatives
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": TensorValue.sigmoid,
    "tanh": TensorValue.tanh,
    "ReLU": TensorValue.relu,
    "GELU": TensorValue.gelu,
    "identity": lambda z: z,
}


@lab.experiment
def derivatives_have_bounds(run: Run):
    """The largest derivative of each activation is that of theory, and only GELU's exceeds ReLU's.

    Predict: is the derivative of GELU negative anywhere?
    """
    z = torch.linspace(-6, 6, 12_001, dtype=torch.float64)
    curves: dict[str, tuple[Tensor, Tensor]] = {}
    for name in ("sigmoid", "tanh", "ReLU", "GELU"):
        value = TensorValue(z)
        y = ACTIVATIONS[name](value)
        y.sum().backward()
        curves[name] = (y.data, value.grad)
    fig, caption, alt = figures.draw_activations(z, curves)
    run.figure(fig, "activations", caption, alt=alt)
    h = 1e-5
    smooth = z.abs() > h  # ReLU has no derivative at 0
    steepest = (1 + math.erf(1)) / 2 + math.exp(-1) / math.sqrt(math.pi)  # Φ(√2) + √2·φ(√2)
    bounds = {"sigmoid": 0.25, "tanh": 1.0, "ReLU": 1.0, "GELU": steepest}
    errors = {}
    for name, bound in bounds.items():
        f = ACTIVATIONS[name]
        difference = (f(TensorValue(z + h)).data - f(TensorValue(z - h)).data) / (2 * h)
        errors[name] = (difference - curves[name][1])[smooth].abs().max().item()
        error = abs(curves[name][1].max() - bound)
        because = f"theory: {bound:.5g}; the grid of 0.001 misses a maximum by at most 5·10⁻⁸"
        what = f"{name}: largest derivative, difference from theory"
        run.check(what, error, at_most=1e-7, because=because, decides=True)
    because = "the difference is off by h²·|f‴|/6 and by rounding, both about 10⁻¹¹"
    worst = max(errors.values())
    run.check("derivatives minus central differences", worst, at_most=1e-9, because=because)
    steep = ", ".join(name for name, (_, slope) in curves.items() if slope.max() > 1)
    run.check("derivative above 1", steep, equals="GELU", because="theory", decides=True)
    negative = z[curves["GELU"][1] < 0]
    return f"GELU's derivative is negative below z = {negative.max():.2f}."


# %% [markdown]
# ## 5. A network from these parts
# A **linear layer** computes $xW + b$. A batch $x$ has one row of $n$ numbers for each example, the
# **weights** $W$ have the shape $n \times m$, and the **bias** $b$ has $m$ numbers. A **multi-layer
# perceptron**, MLP for short, stacks linear layers with an activation *between* them. The last
# layer has none, because its results are the logits. Weights start at random. With equal weights,
# all columns of a hidden layer's $W$ would get equal gradients, so all units would stay the same.
# Their size is about $1/\sqrt n$, and $\sqrt 2$ times that before ReLU. LLM03 and LLM03+ derive
# both.
#
# The **optimizer** moves each parameter $w$ against its gradient $g$. A **learning rate** $\eta$
# sets the size of the step. **Momentum** $\mu$ adds a velocity $v$, which remembers earlier
# gradients (Polyak 1964; this is PyTorch's form):
#
# $$v \leftarrow \mu v + g, \qquad w \leftarrow w - \eta v$$
#
# With $\mu = 0.9$ and a gradient that stays 1, the velocity is 1, 1.9, 2.71, … and approaches
# $1/(1 - \mu) = 10$. Gradients that change their sign cancel instead. Usually a batch is a random
# part of the data. The method is then called **stochastic gradient descent**, SGD.
#
# The **training loop** repeats five steps: take a batch, compute the loss, go backward, step, reset
# the gradients. Without the last step they would add up from batch to batch.


# %% Network, optimizer, loop
class MLP:
    """Linear layers with an activation between them; the parameters are leaves of our engine."""

    def __init__(self, *widths: int, activation: str = "ReLU", dtype: torch.dtype = torch.float32):
        self.activation = ACTIVATIONS[activation]
        gain = math.sqrt(2) if activation in ("ReLU", "GELU") else 1.0
        self.weights = []
        self.biases = []
        for n, m in pairwise(widths):
            weight = gain / math.sqrt(n) * torch.randn(n, m, dtype=dtype)
            self.weights.append(TensorValue(weight))
            self.biases.append(TensorValue(torch.zeros(m, dtype=dtype)))

    @lab.exercise(
        level=2,
        hints=(
            "Go through weights and biases together: y = y @ weight + bias.",
            "Start from TensorValue(x). The operators of TensorValue record the graph.",
            "Call self.activation between two layers: not before the first, not after the last.",
        ),
    )
    def __call__(self, x: Tensor) -> TensorValue:
        """Return the logits of a batch, (B, n) -> (B, m)."""
        y = TensorValue(x)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if i > 0:
                y = self.activation(y)
            y = y @ weight + bias  # (B, width of the layer)
        return y

    def parameters(self) -> list[TensorValue]:
        return [*self.weights, *self.biases]


class Momentum:
    """SGD with momentum, for the parameters of our engine."""

    def __init__(self, parameters: Sequence[Value], lr: float, momentum: float = 0.9):
        self.parameters = list(parameters)
        self.lr = lr
        self.momentum = momentum
        self.velocities = [torch.zeros_like(parameter.data) for parameter in self.parameters]

    @lab.exercise(
        level=2,
        hints=(
            "Each parameter has .data and .grad, and a velocity at the same index.",
            "The learning rate isn't part of the velocity: multiply by it at the end.",
            "velocity.mul_(momentum).add_(grad) changes it in place; then change parameter.data.",
        ),
    )
    def step(self) -> None:
        """Change each parameter's `data` and its velocity; leave the gradients as they are."""
        for parameter, velocity in zip(self.parameters, self.velocities, strict=True):
            velocity.mul_(self.momentum).add_(parameter.grad)
            parameter.data -= self.lr * velocity

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = 0.0


def train(model: MLP, optimizer: Momentum, x: Tensor, y: Tensor, batches: Sequence[Tensor]) -> None:
    """Run the training loop on our engine; each batch is a tensor of indices."""
    for batch in batches:
        loss = model(x[batch]).cross_entropy(y[batch])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


# %% [markdown]
# **Is the activation needed?** The test is a task that no straight line solves: two spirals (after
# Lang & Witbrock 1988). A network without activations is one linear layer, and its **decision
# boundary**, where both classes are equally likely, is a straight line. In a plane we can try
# lines in many directions and at every place, and pick the best one for the very points of the
# test. No network gets this advantage.


# %% Two spirals
MAP_SIZE = 40  # grid points along a side of a map


def boundary_maps(model: MLP) -> Tensor:
    """Return p(class 1) on the grid of a map, (MAP_SIZE²,)."""
    return model(figures.grid_points(MAP_SIZE)).data.softmax(-1)[:, 1]


def train_on_spirals(seed: int, activation: str, stops: Sequence[int]) -> dict[str, Any]:
    """Train a 2-64-64-2 network; return its maps and accuracies at some steps, and the data."""
    torch.manual_seed(seed)
    x, y = spirals(500)
    x_test, y_test = spirals(2000)
    model = MLP(2, 64, 64, 2, activation=activation)
    optimizer = Momentum(model.parameters(), 0.1)
    maps = []
    accuracies = []
    for start, stop in pairwise([0, *stops]):
        train(model, optimizer, x, y, [torch.arange(500)] * (stop - start))
        maps.append(boundary_maps(model))
        accuracies.append(accuracy(model, x_test, y_test))
    line = best_line(x_test, y_test)
    return {"x": x, "y": y, "maps": maps, "accuracies": accuracies, "line": line, "steps": stops}


@lab.experiment
def an_activation_bends_the_boundary(run: Run):
    """On two spirals, a ReLU network beats the best straight line; without activations it does not.

    Predict: guessing is right for half of the points. What does the best straight line reach?
    """
    last = run.pick(tiny=600, small=2000, full=4000)
    stops = [0, 10, 20, 40, 60, 80, 100, 150, 200, 300, 400, last]
    trained: dict[str, list[dict[str, Any]]] = {"ReLU": [], "identity": []}
    for seed in run.progress(run.seeds(3), "seeds"):
        for activation, runs in trained.items():
            runs.append(train_on_spirals(seed, activation, stops))
    fig, caption, alt = figures.draw_boundaries(trained["ReLU"][0], (0, 6, 9, 11), MAP_SIZE)
    run.figure(fig, "spirals", caption, alt=alt)
    run.view("boundary", "decision_boundary", *view_data.boundaries(trained, MAP_SIZE))
    lines = [result["line"] for result in trained["ReLU"]]
    relu = [result["accuracies"][-1] for result in trained["ReLU"]]
    identity = [result["accuracies"][-1] for result in trained["identity"]]
    run.measure("accuracy on unseen points, ReLU", relu)
    run.measure("accuracy on unseen points, no activation", identity)
    run.measure("accuracy of the best straight line", lines)
    lead = [a - b for a, b in zip(relu, lines, strict=True)]
    because = "five standard errors of the difference of two accuracies on 2,000 points"
    bound = 5 * math.sqrt(2 * 0.25 / 2000)
    run.check("ReLU minus the best line", lead, at_least=bound, because=because, decides=True)
    excess = [a - b for a, b in zip(identity, lines, strict=True)]
    because = "it is a straight line; the search over 720 directions may miss a few points"
    run.check(
        "no activation minus the best line", excess, at_most=0.005, because=because, decides=True
    )
    return (
        f"The best straight line reaches {median(lines):.1%}, ReLU {median(relu):.1%}. Training "
        f"without activations reaches {median(identity):.1%}: it lowers the cross-entropy, not the "
        "number of errors."
    )


# %% [markdown]
# ## 6. The same network in PyTorch
# PyTorch's engine works like ours. A tensor with `requires_grad=True` is a leaf. Operations on it
# record a graph. `loss.backward` fills `.grad` of the leaves only, where ours fills that of every
# value.
#
# A network is an **`nn.Module`**. Its `__init__` creates the layers, and its `forward` computes the
# result. Assigning a layer to an attribute registers its parameters, so `model.parameters` finds
# all of them. A plain Python list registers nothing, and no error says so. That is why a list of
# layers is an `nn.ModuleList`. **`nn.Sequential`** is a module that calls its layers one after
# another. For an MLP it saves writing `forward`.
#
# `nn.Linear` stores its weight with the shape $m \times n$, transposed compared to ours.


# %% nn.Module and nn.Sequential
class TorchMLP(nn.Module):
    """The same MLP as a module of PyTorch, with ReLU."""

    def __init__(self, *widths: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:  # (B, n) -> (B, m)
        for i, layer in enumerate(self.layers):
            if i > 0:
                x = x.relu()
            x = layer(x)
        return x


def sequential(*widths: int) -> nn.Sequential:
    """Return the same network from ready-made parts."""
    layers: list[nn.Module] = []
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return nn.Sequential(*layers[:-1])  # no activation after the last layer


@lab.experiment
def our_network_equals_pytorchs(run: Run):
    """From the same weights, our MLP, `nn.Module` and `nn.Sequential` train to the same weights.

    Predict: how many of the 16 digits of a float64 agree after 100 steps?

    All three read batches of 64 handwritten digits, in float64, by SGD with momentum.
    """
    x, y, x_test, y_test = digits()
    x = x.double()
    widths = (64, 32, 10)
    ours = MLP(*widths, dtype=torch.float64)
    start = [parameter.data.clone() for parameter in ours.parameters()]
    modules = {
        "nn.Module": TorchMLP(*widths).double(),
        "nn.Sequential": sequential(*widths).double(),
    }
    for module in modules.values():
        copy_parameters(ours.parameters(), module)
    logits = ours(x).data
    for name, module in modules.items():
        run.agree(f"logits before training, {name}", logits - module(x), decides=True)
    batches = batches_of(64, len(y), 100)
    train(ours, Momentum(ours.parameters(), 0.05), x, y, batches)
    differences = []
    for name, module in modules.items():
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
        for batch in batches:
            loss = F.cross_entropy(module(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        pairs = zip(ours.parameters(), like_ours(module), strict=True)
        difference = max((value.data - theirs).abs().max().item() for value, theirs in pairs)
        differences.append(difference)
        because = (
            "100 steps of rounding by 10⁻¹⁶, which may grow; a wrong rule changes 10⁻³ or more"
        )
        what = f"weights after 100 steps, {name}"
        run.check(what, difference, at_most=1e-9, because=because, decides=True)
    pairs = zip(ours.parameters(), start, strict=True)
    moved = max((value.data - before).abs().max().item() for value, before in pairs)
    because = "the training did change them"
    run.check("largest change of a weight", moved, at_least=0.1, because=because)
    right = accuracy(ours, x_test.double(), y_test)
    return (
        f"After 100 steps the weights differ by at most {max(differences):.0e}. Our network then "
        f"reads {right:.0%} of {len(y_test)} unseen digits."
    )


# %% [markdown]
# ## 7. A training loop under Accelerate
# The data are 1,797 handwritten digits of 8 × 8 pixels (Alpaydin & Kaynak 1998), split at random.
#
# - The **training set** of 1,237 digits is what the network learns from.
# - The **validation set** of 200 digits is for choices, such as that of a learning rate.
# - The **test set** of 360 digits is only looked at. The network doesn't learn from it, and nothing
#   is chosen by it.
#
# The same 13 people wrote all three parts. So the test accuracy is that on new digits of known
# writers, and says little about new writers. One pass through the training set is an **epoch**. We
# drop the last incomplete batch of each epoch.
#
# **Accelerate** runs the same loop on a CPU, a GPU or several processes, in the precision that the
# run asks for. Four things differ from a plain loop. `prepare` wraps model and optimizer: it places
# the model and sets its precision. `accelerator.backward` replaces `loss.backward`. Our `run.share`
# gives each process its part of the batch; usually `prepare` does so, with a data loader. Tensors
# of the data move to `run.device`.
#
# A result needs something to compare with. Ours needs no gradient descent: average the training
# images of each digit, and name the digit whose average is nearest. LLM02+ adds a network without
# activations to the comparison.


# %% The loop
@on_one_thread
def train_on_digits(run: Run, lr: float, epochs: int, seed: int) -> list[list[float]]:
    """Return training, validation and test accuracy of a 64-64-10 network after each epoch."""
    x, y, x_test, y_test = (tensor.to(run.device) for tensor in digits())
    n = len(y) - 200  # the rest is the validation set
    torch.manual_seed(seed)
    model: nn.Module = sequential(64, 64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    model, optimizer = run.accelerator.prepare(model, optimizer)
    parts = ((x[:n], y[:n]), (x[n:], y[n:]), (x_test, y_test))
    history = []
    for _ in range(epochs):
        for batch in batches_of(64, n, n // 64):
            batch = run.share(batch).to(run.device)
            loss = F.cross_entropy(model(x[batch]), y[batch])
            run.accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            history.append([accuracy(model, images, labels) for images, labels in parts])
    return history


@lab.experiment
def the_loop_learns_to_read_digits(run: Run):
    """After training under Accelerate, the MLP reads more unseen digits than nearest averages do.

    Predict: the network trains on 1,237 digits. How many of the 360 test digits does it miss?
    """
    epochs = run.pick(tiny=20, small=40, full=100)
    seeds = run.progress(run.seeds(3), "seeds")
    histories = torch.tensor([train_on_digits(run, 0.1, epochs, seed) for seed in seeds])
    base = nearest_average()
    fig, caption, alt = figures.draw_training(histories, base)
    run.figure(fig, "training", caption, alt=alt)
    training, _, test = histories[:, -1].T.tolist()
    run.measure("test accuracy", test)
    run.measure("nearest averages, test accuracy", base)
    lead = mean(test) - base
    bound = 2 * math.sqrt((2 - mean(test) - base) / 360)
    because = "two standard errors: a paired difference has at most the variance (e₁ + e₂)/360"
    what = "mean test accuracy minus that of nearest averages"
    run.measure(what, lead, expect_at_least=bound, because=because, decides=True)
    gap = [a - b for a, b in zip(training, test, strict=True)]
    run.measure("training accuracy minus test accuracy", gap)
    missed = 360 * (1 - mean(test))
    return f"It misses {missed:.0f} of 360 test digits, averaged over {len(test)} seeds."


# %% [markdown]
# **Which learning rate?** Take the loss $w^2$ and plain gradient descent. The gradient is $2w$, so
# a step multiplies $w$ by $1 - 2\eta$.
#
# - $\eta = 0.01$: each step multiplies $w$ by 0.98. After 100 steps 13 % is left.
# - $\eta = 0.5$: one step reaches the minimum.
# - $\eta = 1.1$: each step multiplies $w$ by −1.2. The loss grows without limit.
#
# A network has many directions with different curvatures. The steepest one limits the rate, and the
# flattest ones need a large rate. In practice one tries rates, in factors rather than in
# differences, and takes the best on the validation set. The best of many results on the *test* set
# would be too good by luck. The sweep uses momentum 0.9, with which a steady gradient moves a
# parameter ten times as far. So only the shape of the example carries over, and not its numbers.


# %% The learning-rate sweep
@lab.experiment
def a_learning_rate_can_be_too_small_or_too_large(run: Run):
    """The rate that validation chooses reads more test digits than the ends of the sweep.

    Predict: over how many factors of ten do the rates stretch that work about equally well?

    The sweep goes from 0.0001 to 10 in factors of √10, with three seeds for each rate.
    """
    rates = [10 ** (i / 2) for i in range(-8, 3)]
    epochs = run.pick(tiny=5, small=10, full=20)
    by_rate = []
    for rate in run.progress(rates, "learning rates"):
        by_rate.append([train_on_digits(run, rate, epochs, seed)[-1] for seed in run.seeds(3)])
    accuracies = torch.tensor(by_rate)  # (rates, seeds, 3)
    validation = accuracies[:, :, 1].mean(1)  # (rates,)
    best = int(validation.argmax())
    test = accuracies[:, :, 2]  # (rates, seeds)
    fig, caption, alt = figures.draw_sweep(rates, test.tolist(), validation.tolist())
    run.figure(fig, "learning_rates", caption, alt=alt)
    because = "five standard errors of the difference of two accuracies on 360 images"
    bound = 5 * math.sqrt(2 * 0.25 / 360)
    for name, end in (("smallest", 0), ("largest", -1)):
        lead = (test[best] - test[end]).tolist()
        what = f"test accuracy of the chosen rate minus the {name}"
        run.check(what, lead, at_least=bound, because=because, decides=True)
    run.measure("chosen learning rate", rates[best])
    near = [rates[i] for i, value in enumerate(validation) if value > validation[best] - 0.02]
    return (
        f"After {epochs} epochs validation chooses {rates[best]:.2g}. Rates from {min(near):.2g} "
        f"to {max(near):.2g} are within 2 points of it."
    )


# %% [markdown]
# ## What to remember
# - A gradient is a sum over paths of products along each. One backward pass in topological order
#   finds all of them, because it visits each value once, however many paths lead through it.
# - An operation needs only its vector-Jacobian product. Broadcasting forward is a sum backward.
# - An activation makes a network more than one matrix. Where its derivative is nearly 0, hardly any
#   gradient passes.
# - A training loop is five lines. Compare training and test accuracy, and try learning rates in
#   factors.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Sum up in the numbers of this run."""
    line = results.value("an_activation_bends_the_boundary", "accuracy of the best straight line")
    relu = results.value("an_activation_bends_the_boundary", "accuracy on unseen points, ReLU")
    test = results.value("the_loop_learns_to_read_digits", "test accuracy")
    rate = results.value("a_learning_rate_can_be_too_small_or_too_large", "chosen learning rate")
    same = results.verdict("our_network_equals_pytorchs") == "held"
    engine = "trained to the same weights as" if same else "did not train to the weights of"
    return (
        f"Our engine {engine} PyTorch's. On two spirals it reached {relu:.1%} of unseen points; "
        f"the best straight line reached {line:.1%} (medians). Under Accelerate the network reads "
        f"{test:.1%} of the test digits. In the sweep, the validation set chose the learning rate "
        f"{rate:.2g}."
    )


# %% [markdown]
# **Read on**: Baydin et al. 2018, *Automatic differentiation in machine learning: a survey* ·
# Goodfellow, Bengio & Courville 2016, *Deep Learning*, chapter 6. LLM02+ goes deeper: what rounding
# does to gradients, what depth does to them, and failures that raise no error. Next is LLM03: what
# a layer does to space, and how its weights should start.

# %%
if __name__ == "__main__":
    lab.main()
