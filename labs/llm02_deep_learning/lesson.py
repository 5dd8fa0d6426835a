# %% [markdown]
# # LLM02 · Deep learning basics
# Tensors, an autograd engine that you write, and networks that learn by gradient descent.
#
# **You will be able to** work with tensors; find gradients by hand; write an autograd engine and an
# MLP; read the same MLP and a training loop in PyTorch; choose a learning rate. **Builds on**
# LLM01's softmax and standard errors, derivatives, the chain rule and matrix products. **Takes** 45
# minutes to read, two hours with the exercises, half a minute to run.

# %% Imports
import math
from collections.abc import Callable, Sequence
from functools import partial, partialmethod
from itertools import pairwise
from statistics import mean, median
from typing import Any

from labs.kit import Lab, Results, Run, on_one_thread
from labs.llm02_deep_learning import boundary, compare, figures, structure_figures, view_data
from labs.llm02_deep_learning.data import Sets, accuracy, batches_of, digit_sets, nearest_average
from labs.llm02_deep_learning.operations import cross_entropy, gelu_slope

import torch
import torch.nn.functional as F
from torch import Tensor, nn

lab = Lab("LLM02")

# %% [markdown]
# ## 1. Tensors
# A **tensor** is an array of numbers with a **shape**. A row of three numbers has one **axis** and
# the shape 3. A matrix of 2 rows and 3 columns has the shape 2 × 3, and 64 images of 8 × 8 pixels
# have the shape 64 × 8 × 8. Axes are counted from 0. Take as an example
#
# $$x = \begin{bmatrix} 0 & 1 & 2 \\ 3 & 4 & 5 \end{bmatrix}$$
#
# - **Create**: `torch.zeros`, `torch.arange`, `torch.tensor` of lists, `torch.randn` at random.
# - **Index**: `x[1]` is the row 3 4 5, `x[1, 2]` the number 5, and `x[:, 0]` the column 0 3.
# - **Reshape** to 3 × 2: the rows become 0 1, 2 3 and 4 5. The order of the numbers stays.
# - **Transpose**: `x.mT` swaps the last two axes. Its rows are 0 3, 1 4 and 2 5.
# - **Reduce**: a sum over axis 0 adds the rows: 3 5 7. `keepdim=True` keeps axis 0, with size 1.
# - **Combine**: `x + x` and `x * x` work element by element. The **matrix product** `a @ b` takes
#   rows of `a` times columns of `b`, $y_{ij} = \sum_k a_{ik} b_{kj}$.
# - **dtype**: all numbers of a tensor have one type. `int8` holds −128 to 127. `float32` is usual:
#   24 significant bits, about 7 digits, so $2^{24} + 1$ becomes $2^{24}$.
# - **device**: a tensor is in the memory of the CPU or of a GPU. `x.to` copies it to another.
#
# **Broadcasting**: PyTorch aligns two shapes at their last axes. It puts missing axes in front,
# with size 1, and **stretches** an axis of size 1 to the size of the other. So if 3 numbers are
# added to a 2 × 3 matrix, each is used twice. Other unequal sizes, such as 2 and 3, are an error.


# %% Small tensors: change these lines
@lab.experiment
def small_tensors_in_numbers(run: Run):
    """Lines of tensor code, each with the shape and the numbers that it returns.

    Predict: `int8` ends at 127. What is 127 + 1?
    """
    x = torch.arange(6).reshape(2, 3)
    lines = ["x", "x[1]", "x[1, 2]", "x[:, 0]", "x.reshape(3, 2)", "x.mT", "x.sum()", "x.sum(0)"]
    lines += ["x.sum(1, keepdim=True)", "x + x[0]", "x * x", "x @ x.reshape(3, 2)"]
    lines += ["torch.tensor(2.0**24) + 1", "torch.tensor(127, dtype=torch.int8) + 1"]
    run.table("Small tensors", ["", "shape", "numbers"], structure_figures.results_of(lines, x))
    figures.show(run, "matrix_product", structure_figures.matmul_picture(x, x.reshape(3, 2), 1, 0))
    return "127 + 1 is −128 in int8: the numbers wrap around."


# %% [markdown]
# ## 2. Derivatives on a graph
# Training makes one number small, the **loss** $L$. It depends on the network's **parameters**. The
# derivative $\partial L/\partial w$ says how fast $L$ changes when the parameter $w$ changes. All
# derivatives together are the **gradient**. Unless it is 0, a small step against it lowers $L$.
#
# Here is the smallest network, one **neuron** with one input $x$. It computes
# $y = \text{relu}(wx + b)$, where relu replaces a negative number by 0. The target is $t$ and the
# loss is $(y - t)^2$. Our engine has no minus, so it starts from the number $-t$. Take $x = 2$,
# $w = 3$, $b = -4$, $-t = -5$ and name every result:
#
# $$\begin{aligned}
# h &= w \cdot x = 6, & s &= h + b = 2, & y &= \text{relu}(s) = 2, \\
# e &= y + -t = -3, & L &= e \cdot e = 9
# \end{aligned}$$
#
# The values and their inputs form a **graph**. The **chain rule** says: multiply the derivatives
# along a path, and add over all paths. By the **gradient of a value** we mean the derivative of $L$
# with respect to it. Go backward from $L$, whose gradient is 1:
#
# - $L = e \cdot e$ uses $e$ twice. Each use contributes the other factor, $-3$. The sum is $-6$.
# - $e = y + -t$, and $y = s$ while $s > 0$. These derivatives are 1: $y$, $-t$ and $s$ get $-6$.
# - $s = h + b$ sends $-6$ to $h$ and to $b$.
# - $h = w \cdot x$ sends $-6 \cdot x = -12$ to $w$, and $-6 \cdot w = -18$ to $x$.
#
# So $\partial L/\partial w = -12$: for $w = 3.01$, $L$ should fall by 0.12. It falls by 0.1196.
#
# A program can do the same. Each `Value` remembers its inputs. Its function `grad_fn` gets the
# gradient $g$ of the value and returns a contribution to the gradient of each input. For a sum this
# is `lambda g: (g, g)`: if one input grows by 1, so does the sum, and each input gets $g \cdot 1$.
#
# One rule matters: **a value waits until all of its gradient has arrived.** Take $a = x \cdot x$,
# $c = a \cdot a$ and $L = a + c$ at $x = 1$. $L$ sends 1 to $a$ and 1 to $c$. Later $c$ sends
# $1 + 1 = 2$ to $a$, which then has 3 and sends $3 + 3 = 6$ to $x$. If $a$ sends its first 1 at
# once, $x$ has 2, and $a$ must send again when the 2 of $c$ arrives. If $a$ then sends all that it
# has, 3, $x$ gets $2 + 6 = 8$, which is wrong. If $a$ sends only the new 2, $x$ gets $2 + 4 = 6$.
# That is right but slow: after $n$ doublings `x + x` the leaf can get $2^n$ separate contributions.
#
# So visit a value only after all values that use it, in **topological order** from $L$ backward.
# Count how often each value is used: it is ready when a contribution has arrived from each use.
# Above, $c$ is used once, $a$ three times and $x$ twice. The view below shows these steps, as "a
# short and a long way". This is **reverse-mode automatic differentiation** (Linnainmaa 1970), for
# networks **backpropagation** (Rumelhart, Hinton & Williams 1986).


# %% A number that remembers
class Value:
    """A number, the inputs that made it, and the way back to their gradients.

    `grad_fn` maps this value's gradient to a contribution for each input. A leaf has no inputs.
    """

    def __init__(self, data: Any, inputs: Any = (), operation: str = "", grad_fn: Any = None):
        self.data = data
        self.inputs: tuple[Value, ...] = tuple(inputs)
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
        product = self.data * other.data
        return Value(product, (self, other), "×", lambda g: (g * other.data, g * self.data))

    def relu(self) -> "Value":
        slope = 1.0 if self.data > 0 else 0.0
        return Value(slope * self.data, (self,), "relu", lambda g: (g * slope,))

    @lab.exercise(
        level=3,
        hints=(
            "First walk from `self` to the leaves, visit each value once, and count its uses.",
            "Start with gradients = {self: 1.0} and ready = [self]. Call a ready grad_fn once.",
            "Add what it returns to its inputs' gradients. At the last use, an input is ready.",
        ),
    )
    def backward(self) -> None:
        """Add ∂self/∂v to `v.grad`, for each value v in the graph of self.

        Call each `grad_fn` once. Graphs can be deeper than Python's recursion limit. A second call
        adds to `grad` again, so store a pass's gradients elsewhere: a dict can have Values as keys.
        Gradients may be tensors that two inputs share: write a = a + b, not a += b.
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

    A central difference moves one input v by δ in both directions: (L(v + δ) − L(v − δ)) / 2δ.

    Predict: the target t rises from 5 to 5.01. By how much does the loss change?
    """
    numbers = {"x": 2.0, "w": 3.0, "b": -4.0, "t": 5.0}
    graph = neuron(**numbers)
    graph["L"].backward()
    figures.show(run, "graph", structure_figures.draw_graph(graph))
    slopes = compare.central_differences(lambda **moved: neuron(**moved)["L"].data, numbers, 1e-4)
    ours = [graph["x"].grad, graph["w"].grad, graph["b"].grad, -graph["−t"].grad]
    rows = list(zip(numbers, numbers.values(), ours, slopes, strict=True))
    run.table("Derivatives of L", ["", "value", "backward", "central difference"], rows)
    error = max(abs(a - b) for a, b in zip(ours, slopes, strict=True))
    because = "exact for a parabola; rounding by 2⁻⁵¹ · slope 18 ÷ δ = 8·10⁻¹¹; over twice this"
    run.check("largest difference", error, at_most=2e-10, because=because, decides=True)
    run.view("graph", "computation_graph", *view_data.graphs({"a neuron": graph}, Value))
    return f"∂L/∂t is {ours[3]:g}, so the loss changes by about {ours[3] / 100:g}."


# %% [markdown]
# ## 3. From numbers to tensors
# Let one value hold a tensor, so that a million parameters aren't a million `Value` objects. The
# gradient of a tensor $a$ has the shape of $a$: one derivative for each number. Write the entries
# of $a$ as one row, and those of $y = f(a)$ as another. The derivatives of each output with respect
# to each input make a matrix, the **Jacobian** $J_{ij} = \partial y_i/\partial a_j$. Going backward
# doesn't need $J$ itself. Given the gradient $g$ of $y$, the chain rule adds over all outputs:
#
# $$\frac{\partial L}{\partial a_j} = \sum_i g_i \frac{\partial y_i}{\partial a_j}$$
#
# This is $g^\top J$, the **vector-Jacobian product** (VJP). **An example**: let $y_1 = a_1 a_2$ and
# $y_2 = a_1 + a_2$ at $a_1 = 3$, $a_2 = 4$, with the gradient $g_1 = 1$, $g_2 = 10$. Then
#
# $$g^\top J = \begin{bmatrix} 1 & 10 \end{bmatrix} \begin{bmatrix} a_2 & a_1 \\ 1 & 1 \end{bmatrix}
# = \begin{bmatrix} 1 \cdot 4 + 10 \cdot 1 & 1 \cdot 3 + 10 \cdot 1 \end{bmatrix} = \begin{bmatrix}
# 14 & 13 \end{bmatrix}$$
#
# No VJP below stores its Jacobian. For `y = a @ b` with 64 × 64 matrices, the Jacobian with respect
# to `a` has 4096 × 4096 entries. Look at one number of `a` instead. Which outputs use it, and what
# do they multiply it by? In section 1's picture the 5 of `a` is in $y_{1,0}$, times 4, and in
# $y_{1,1}$, times 5. If these have the gradients 1 and 10, it gets $1 \cdot 4 + 10 \cdot 5 = 54$.
#
# **Broadcasting** uses a number several times. Several uses are several paths, and paths add. So
# sum the gradient over every axis that broadcasting added or stretched. A bias of shape 3 gets the
# sum of both rows, a column of shape 2 × 1 the sum of each row. The next experiment draws both.
#
# **Cross-entropy.** A classifier returns one number for each class, the **logits**, here $x$.
# LLM01's model is a classifier, too: its classes are the 49,152 tokens. The **softmax** turns
# logits into probabilities, $p_i = e^{x_i} / \sum_j e^{x_j}$. The loss of an example of class $t$
# is $-\ln p_t$. It is near 0 when the network is certain and right, and $\ln 10 = 2.3$ when it
# guesses evenly among ten classes. A **batch** is several examples. Its loss is their mean.
#
# For the logits 2, 1, 0 the probabilities are 0.665, 0.245, 0.090. If the second class is right,
# the loss is $-\ln 0.245 = 1.41$, and its gradient is 0.665, −0.755, 0.090. A step against it
# raises the second logit and lowers the others.


# %% What each operation sends back
@lab.exercise(
    level=2,
    hints=(
        "A number that was used n times gets n gradients, which add up.",
        "First sum over the leading axes that `shape` lacks, if any: sum(()) adds over all axes.",
        "Then sum each axis that has size 1 in `shape` but not in g, with keepdim=True.",
    ),
)
def unbroadcast(g: Tensor, shape: torch.Size) -> Tensor:
    """Sum g, the gradient of a broadcast result, to the shape before broadcasting."""
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

    If `a` or `b` was broadcast over leading axes, don't sum over them here: `apply` does.
    """
    return g @ b.mT, a.mT @ g


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


# Each operation's forward function and VJP, (g, y, *inputs) -> gradients; names with _ are unused.
OPERATIONS: dict[str, tuple[Callable, Callable]] = {
    "add": (torch.add, lambda g, _y, _a, _b: (g, g)),
    "mul": (torch.mul, lambda g, _y, a, b: (g * b, g * a)),
    "matmul": (torch.matmul, lambda g, _y, a, b: matmul_vjp(g, a, b)),
    "sum": (torch.sum, lambda g, _y, a: (g.expand_as(a),)),
    "sigmoid": (torch.sigmoid, lambda g, y, _a: (g * y * (1 - y),)),
    "tanh": (torch.tanh, lambda g, y, _a: (g * (1 - y**2),)),
    "relu": (torch.relu, lambda g, _y, a: (g * (a > 0),)),
    "gelu": (F.gelu, lambda g, _y, a: (g * gelu_slope(a),)),
    "cross_entropy": (cross_entropy, lambda g, _y, x, targets: (cross_entropy_vjp(g, x, targets),)),
}


# %% The engine on tensors
class TensorValue(Value):
    """A tensor that remembers its inputs. It inherits `backward` from `Value`.

    `a + b` calls `a.__add__(b)`, and this `a.apply("add", b)`: `partialmethod` filled in "add".
    `apply` computes `torch.add` and stores the VJP of "add" as the result's `grad_fn`.
    """

    def __init__(self, data: Any, *rest: Any):
        super().__init__(torch.as_tensor(data), *rest)

    def apply(self, name: str, *others: Any, **options: Any) -> "TensorValue":
        """Compute and record an operation. Plain inputs become leaves; options get no gradient."""
        forward, vjp = self.operations[name]
        values = [x if isinstance(x, TensorValue) else type(self)(x) for x in (self, *others)]
        tensors = [value.data for value in values]
        y = forward(*tensors, **options)

        def grad_fn(g: Any) -> list[Tensor]:
            g = torch.as_tensor(g, dtype=y.dtype)  # `backward` starts with the number 1.0
            gradients = vjp(g, y, *tensors, **options)
            return [unbroadcast(of_a, a.shape) for of_a, a in zip(gradients, tensors, strict=True)]

        return type(self)(y, values, name, grad_fn)

    operations: Any = OPERATIONS  # LLM02+ has a subclass with more of them
    __add__: Any = partialmethod(apply, "add")
    __mul__: Any = partialmethod(apply, "mul")
    __matmul__: Any = partialmethod(apply, "matmul")
    sum: Any = partialmethod(apply, "sum")
    sigmoid: Any = partialmethod(apply, "sigmoid")
    tanh: Any = partialmethod(apply, "tanh")
    relu: Any = partialmethod(apply, "relu")
    gelu: Any = partialmethod(apply, "gelu")

    def cross_entropy(self, targets: Tensor) -> "TensorValue":
        return self.apply("cross_entropy", targets=targets)


# %% Against PyTorch
@lab.experiment
def every_rule_equals_pytorchs(run: Run):
    """For each of our operations, our engine's gradients equal those of PyTorch's autograd.

    Predict: x has the shape 2 × 3, the bias 3. What is the bias's gradient for the sum of x + bias?
    """
    figures.show(run, "unbroadcast", structure_figures.unbroadcast_picture())
    rows = compare.each_rule(TensorValue)
    run.table("Ours minus PyTorch's", ["", "largest gradient", "largest difference"], rows)
    because = "float64 rounds each of a few operations by about 10⁻¹⁶"
    worst = max(difference for _, _, difference in rows)
    run.check("largest difference", worst, at_most=1e-12, because=because, decides=True)
    smallest = min(size for _, size, _ in rows)
    run.check("smallest “largest gradient”", smallest, at_least=1e-3, because="zeros agree, too")
    return "For a sum each entry of y has the gradient 1. Two rows use the bias: it gets 2, 2, 2."


# %% [markdown]
# ## 4. Activation functions
# A network is a stack of **layers**, each of which multiplies its input by a matrix. Between two
# layers an **activation function** acts on each number separately. Without it the stack computes no
# more than one layer, because two matrix products in a row are one: $x W_1 W_2 = x W$ with
# $W = W_1 W_2$. Biases don't change that. Four activations:
#
# - The **sigmoid** $\sigma(z) = 1/(1 + e^{-z})$ returns numbers from 0 to 1. Its derivative is
#   $\sigma(1 - \sigma)$, largest at $z = 0$, where it is $1/4$.
# - **tanh** returns numbers from −1 to 1. Its derivative is $1 - \tanh^2 z$, at most 1.
# - **ReLU**, $\max(0, z)$, has the derivative 1 above 0 and 0 below. At 0 we take 0.
# - **GELU**, a smooth ReLU, is $z$ times the probability $\Phi$ that a standard normal number is
#   below $z$ (Hendrycks & Gimpel 2016). Its derivative is $\Phi + z \varphi$ with the normal
#   density $\varphi$, at most 1.13.
#
# On the way back the gradient is multiplied by this derivative. Where a function is nearly flat
# over a range, it is **saturated**: at $z = 6$ only 0.0025 of the gradient passes the sigmoid.


# %% Activations and their derivatives
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": TensorValue.sigmoid,
    "tanh": TensorValue.tanh,
    "ReLU": TensorValue.relu,
    "GELU": TensorValue.gelu,
    "identity": lambda z: z,
}


@lab.experiment
def four_activations_and_their_slopes(run: Run):
    """Four activations and their derivatives, by our engine.

    Predict: is the derivative of GELU negative anywhere?
    """
    z, curves = compare.curves(ACTIVATIONS, TensorValue)
    figures.show(run, "activations", figures.draw_activations(z, curves))
    return f"GELU's derivative is negative below z = {z[curves['GELU'][1] < 0].max():.2f}."


# %% [markdown]
# ## 5. A network from these parts
# A **linear layer** computes $xW + b$. A batch $x$ has one row of $n$ numbers for each example, the
# **weights** $W$ have the shape $n \times m$, and the **bias** $b$ has $m$ numbers. The layer has
# $m$ **units**, one for each column of $W$. A **multi-layer perceptron**, MLP, stacks linear layers
# with an activation *between* them. None follows the last layer: its results are the logits. All
# other layers are **hidden**. Weights start at random: if all were equal, the units of a hidden
# layer would get equal gradients and stay equal to each other. The weights' standard deviation is
# $\text{gain} / \sqrt n$. The **gain** is $\sqrt 2$ with ReLU and GELU, else 1 (LLM03+).
#
# The **optimizer** moves each parameter $w$ against its gradient $g$. **Gradient descent** takes
# the step $w \leftarrow w - \eta g$. The **learning rate** $\eta$ sets its size. **Momentum** $\mu$
# uses a velocity $v$ in place of $g$. It remembers earlier gradients (Polyak 1964):
#
# $$v \leftarrow \mu v + g, \qquad w \leftarrow w - \eta v$$
#
# With $\mu = 0.9$ and a gradient that stays 1, the velocity is 1, 1.9, 2.71, … and approaches
# $1/(1 - \mu) = 10$. If the gradient is 1 and −1 in turn, it approaches
# $\pm 1/(1 + \mu) = \pm 0.53$. So the steps grow where gradients agree, and shrink where they
# alternate. With random batches, gradient descent is called **stochastic**, SGD.
#
# The **training loop** repeats five actions: take a batch, compute the loss, go backward, step,
# reset the gradients. Without the reset, the gradients of all batches would add up.
#
# **Watch it learn**: two spirals wind around each other, a class on each (Lang & Witbrock 1988). A
# network with two hidden layers of 64 units maps a point to two logits. Each batch is all 500
# points, and $\eta = 0.1$. On the **decision boundary** the network finds both classes equally
# likely. Without an activation it is straight. We compare with the best of all lines in 720
# directions, chosen on the unseen points. A trained line can be worse: it lowers the loss.


# %% Network, optimizer, loop
class MLP:
    """Linear layers with an activation between them; the parameters are leaves of our engine."""

    def __init__(self, *widths: int, activation: str = "ReLU", dtype: torch.dtype = torch.float32):
        self.activation = ACTIVATIONS[activation]
        gain = math.sqrt(2) if activation in ("ReLU", "GELU") else 1.0
        normal = [torch.randn(n, m, dtype=dtype) for n, m in pairwise(widths)]
        self.weights = [TensorValue(gain / math.sqrt(len(w)) * w) for w in normal]
        self.biases = [TensorValue(torch.zeros(m, dtype=dtype)) for m in widths[1:]]

    @lab.exercise(
        level=2,
        hints=(
            "A layer computes xW + b. Which operators of TensorValue record that?",
            "Start from TensorValue(x), and go through weights and biases together.",
            "Call self.activation between two layers: not before the first, not after the last.",
        ),
    )
    def __call__(self, x: Tensor) -> TensorValue:
        """Return the logits of a batch, (B, n) -> (B, m)."""
        y = TensorValue(x)  # a leaf; its gradient is computed, too, but not needed
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
            "Methods that end in _, such as mul_ and add_, change a tensor in place.",
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


# %% The boundary, step by step
@lab.experiment
def an_activation_bends_the_boundary(run: Run):
    """On two spirals our ReLU network is right on more unseen points than the best of many lines.

    Predict: guessing is right for half of the points. What does the best straight line reach?
    """
    watch = partial(boundary.watch, (MLP, Momentum, train))
    last = run.pick(tiny=600, small=2000, full=4000)
    trained = {"ReLU": [watch("ReLU", seed, last) for seed in run.seeds(3)]}
    trained["identity"] = [watch("identity", run.seed, last)]
    figures.show(run, "network", structure_figures.network_picture())
    figures.show(run, "spirals", figures.draw_boundaries(trained["ReLU"][0]))
    run.view("boundary", "decision_boundary", *view_data.boundaries(trained))
    lines = [result["line"] for result in trained["ReLU"]]
    relu = [result["accuracies"][-1] for result in trained["ReLU"]]
    because = "five standard errors: a point adds −1, 0 or 1 to the lead, so its variance is ≤ 1"
    lead = [a - b for a, b in zip(relu, lines, strict=True)]
    run.check("lead of ReLU", lead, at_least=5 / math.sqrt(2000), because=because, decides=True)
    run.measure("accuracy on unseen points, ReLU", relu)
    straight = trained["identity"][0]["accuracies"][-1]
    return f"Best line {lines[0]:.1%} right, trained line {straight:.1%}, ReLU {relu[0]:.1%}."


# %% [markdown]
# ## 6. The same network in PyTorch
# PyTorch's engine works like ours. A tensor that you create with `requires_grad=True` is a leaf,
# and operations on it record a graph. `loss.backward` adds to the `.grad` of the leaves only.
#
# A network is an **`nn.Module`**. Its `__init__` creates the layers, and its `forward` computes the
# result. Assigning a layer to an attribute registers its parameters, so `model.parameters` finds
# all of them. The optimizer never sees layers in a plain Python list: use an `nn.ModuleList`.
# **`nn.Sequential`** calls its layers one after another and needs no `forward`. `nn.Linear` stores
# $W^\top$ and starts with smaller weights (LLM03). **Try it**: write such a module and a loop.


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

    Predict: after 100 steps in float64, how far are our weights from PyTorch's?
    """
    (x, y), *_ = digit_sets("cpu", torch.float64)
    ours = MLP(64, 32, 10, dtype=torch.float64)
    theirs = (TorchMLP(64, 32, 10), sequential(64, 32, 10))
    batches = batches_of(64, len(y), 100)
    first = ours.weights[0].data.clone()
    compare.train_modules(theirs, ours, x, y, batches)  # as `train` does, in PyTorch
    train(ours, Momentum(ours.parameters(), 0.05), x, y, batches)
    because = "100 steps that round by 10⁻¹⁶ make 10⁻¹⁴, and a rounding may grow from step to step"
    differences = [compare.largest_difference(ours.parameters(), module) for module in theirs]
    run.check("largest difference", differences, at_most=1e-9, because=because, decides=True)
    moved = (ours.weights[0].data - first).abs().max()
    because = "a control: untrained weights would agree, too; a million times the bound above"
    run.check("largest move in the first layer", moved, at_least=1e-3, because=because)
    return f"Weights move by up to {moved:.2f}, and then differ by at most {max(differences):.0e}."


# %% [markdown]
# ## 7. A training loop under Accelerate
# The data are 1,797 handwritten digits of 8 × 8 pixels (Alpaydin & Kaynak 1998), split at random.
# The network learns from the **training set** of 1,237 digits. The **validation set** of 200 digits
# is for choices, such as a learning rate. The **test set** of 360 digits is used once, at the end,
# for no choice. The same 13 people wrote all parts, so it says little about new writers. One pass
# through the training set is an **epoch**, here without its last, incomplete batch.
#
# **Accelerate** runs one loop on a CPU, on a GPU, or as several processes, usually one for each
# GPU, in the precision that the run asks for. Three things differ from section 5's `train`:
#
# - `prepare` places the model and runs its forward pass in that precision. Weights stay float32.
# - `run.share` splits a batch among the processes. A `DataLoader` does so if `split_batches=True`.
# - `accelerator.backward(loss)` replaces `loss.backward()`: in fp16 it scales the loss (LLM08).
#
# **Which learning rate?** On the loss $w^2$, whose gradient is $2w$, gradient descent multiplies
# $w$ by $1 - 2\eta$. With $\eta = 0.01$ that is 0.98, and after 100 steps 13 % of $w$ is left. With
# 0.5 one step reaches the minimum. With 1.1 the factor is −1.2, and the loss grows without limit.
# Momentum of 0.9 moves the limit from 1 to 1.9 (LLM02+). For a network, try rates ten times apart,
# and choose on the validation set. The best of many *test* results would be too good by luck.
#
# A result needs a baseline: average the training images of each digit, and name the digit whose
# average is nearest. On one image, the two methods differ by 1 or −1 if exactly one of them errs,
# else by 0. With the error rates $e_1$ and $e_2$, exactly one errs on at most a share $e_1 + e_2$
# of the images. So the variance of the difference is at most $e_1 + e_2$, and the standard error of
# its mean at most $\sqrt{(e_1 + e_2)/360}$. LLM02+ compares digit by digit.


# %% The loop
def fit(run: Run, sets: Sets, lr: float, epochs: int, seed: int, hidden: int = 64):
    """Train a network on the first of the sets; return it, and the accuracies by epoch and set."""
    x, y = sets[0]
    torch.manual_seed(seed)
    model: nn.Module = sequential(64, hidden, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    model, optimizer = run.accelerator.prepare(model, optimizer)
    history = []
    for _ in range(epochs):
        for batch in batches_of(64, len(y), len(y) // 64):
            batch = run.share(batch).to(run.device)
            loss = F.cross_entropy(model(x[batch]), y[batch])
            run.accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            history.append([accuracy(model, images, labels) for images, labels in sets])
    return model, torch.tensor(history)


@lab.experiment
@on_one_thread
def the_loop_learns_to_read_digits(run: Run):
    """With the rate that validation chooses, the MLP reads more test digits than nearest averages.

    Predict: the network trains on 1,237 digits. How many of the 360 test digits does it miss?
    """
    rates = [10.0**i for i in range(-4, 2)]
    epochs = run.pick(tiny=15, small=30, full=60)
    *sets, (x, y) = digit_sets(run.device)  # training and validation sets; the test set
    trained = []
    for rate in run.progress(rates, "learning rates"):
        trained.append([fit(run, sets, rate, epochs, seed) for seed in run.seeds(3)])
    right = torch.tensor([[h[-1, 1] for _, h in by_seed] for by_seed in trained])  # (rates, seeds)
    best = int(right.mean(1).argmax())  # by h[-1, 1], validation accuracy after the last epoch
    figures.show(run, "learning_rates", figures.draw_sweep(rates, right, best))
    test = [accuracy(model, x, y) for model, _ in trained[best]]
    base = nearest_average()
    figures.show(run, "training", figures.draw_training([h for _, h in trained[best]], test, base))
    figures.show(run, "digits", figures.draw_digits(trained[best][0][0], x, y))
    run.measure("test accuracy", test)
    lead = mean(test) - base
    bound = 2 * math.sqrt((2 - mean(test) - base) / 360)
    because = "two standard errors, each at most √((e₁ + e₂)/360), however errors are related"
    run.measure("test accuracy's lead", lead, expect_at_least=bound, because=because, decides=True)
    return f"It misses {360 * (1 - median(test)):.0f} of 360 test digits, a median of three seeds."


# %% [markdown]
# ## What to remember
# - A gradient adds, over all paths, the product of the derivatives along the path. One pass in
#   topological order finds all gradients, and visits each value once.
# - An operation needs only its vector-Jacobian product. Broadcasting forward is a sum backward.
# - An activation makes a network more than one matrix. Where it saturates, gradients hardly pass.
# - A training loop is five lines. Language models learn by the same five, with tokens as classes.
# - Choose by validation accuracy, and report test accuracy.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Sum up in the numbers of this run."""
    test = results.value("the_loop_learns_to_read_digits", "test accuracy")
    same = results.verdict("our_network_equals_pytorchs") == "held"
    engine = "trained to the same weights as" if same else "did not train to the weights of"
    return f"Our engine {engine} PyTorch's. A PyTorch network reads {test:.1%} of the test digits."


# %% [markdown]
# **Read on**: Baydin et al. 2018, *Automatic differentiation in machine learning: a survey*. LLM02+
# goes deeper: rounding, depth, learning rates, failures without an error. Next is LLM03.

# %%
if __name__ == "__main__":
    lab.main()
