# %% [markdown]
# # LLM03 · Neural network fundamentals
# A linear layer from every side: as geometry, as code, as a module, and as pictures.
#
# **You will be able to** read a matrix as a movement of the plane; multiply matrices in four ways;
# predict the shape of a broadcast sum; write `Linear` with its initialisation and its backward
# pass; and see what a trained weight matrix has learned. **Builds on** LLM02, which explains
# gradients, the softmax and training. **Takes** 45 minutes to read, half a minute to run (`tiny`, 2
# cores).

# %% Imports
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from labs.kit import Lab, Results, Run, tolerance
from labs.kit.measure import peak_bytes
from labs.llm03_neural_networks import figures, shapes, view_data
from labs.llm03_neural_networks.costs import best_in_turn, product_flops, rounded
from labs.llm03_neural_networks.digits import (
    accuracy,
    check_blank_pixels,
    mean_images,
    split_digits,
)
from labs.llm03_neural_networks.plane import MOVES, ROTATION, SHEAR, area
from labs.llm03_neural_networks.shapes import Shape

import torch
import torch.nn.functional as F
from torch import Tensor, nn

lab = Lab("LLM03")
FLOAT32 = tolerance(torch.float32)

# %% [markdown]
# ## 1. A matrix moves the plane
# A point of the plane is a pair of numbers. A 2 × 2 matrix times a point is another point:
#
# $$
# \begin{pmatrix} a & b \\ c & d \end{pmatrix} \begin{pmatrix} x_1 \\ x_2 \end{pmatrix}
# = x_1 \begin{pmatrix} a \\ c \end{pmatrix} + x_2 \begin{pmatrix} b \\ d \end{pmatrix}
# $$
#
# So the matrix moves every point of the plane. The point $x_1 = 1$, $x_2 = 0$ lands on the first
# column, and the point $x_1 = 0$, $x_2 = 1$ on the second. **The columns are where the two unit
# vectors land.** Every other point takes $x_1$ steps along the first column and $x_2$ steps along
# the second. Grid lines therefore stay straight, parallel and evenly spaced, unless they all fall
# on one line. The origin stays where it is. Such a map is called *linear*: the image of a sum is
# the sum of the images, and the image of a multiple is the same multiple of the image.
#
# An example is the **shear**, which pushes each point sideways by its height:
#
# $$
# \begin{pmatrix} 1 & 1 \\ 0 & 1 \end{pmatrix} \begin{pmatrix} 2 \\ 3 \end{pmatrix}
# = 2 \begin{pmatrix} 1 \\ 0 \end{pmatrix} + 3 \begin{pmatrix} 1 \\ 1 \end{pmatrix}
# = \begin{pmatrix} 5 \\ 3 \end{pmatrix}
# $$
#
# Two numbers summarise such a movement. The **determinant** $ad - bc$ is the factor of every area;
# it is negative if the plane is mirrored. The **rank** is the number of dimensions that are left.
# The projection in the figure has rank 1: the plane lands on a line, and the determinant is 0. No
# matrix can undo it, because many points land on the same point.
#
# **A product of matrices is one movement after another.** To multiply a point by $AB$, multiply it
# by $B$ first and the result by $A$. The order matters, and the area factors multiply:
# $\det AB = \det A \cdot \det B$.
#
# In code a batch of points is a matrix with a point in each *row*. So the matrix stands on the
# right, transposed: `x @ a.T` moves every row of `x`. First $B$, then $A$ is `x @ b.T @ a.T`.
# `nn.Linear` does the same.


# %% 1. A matrix moves the plane
DOUBLE: dict[str, Any] = {"dtype": torch.float64}


def move(points: Tensor, matrix: Tensor) -> Tensor:
    """Move each row of `points`, (B, 2), by a matrix, (2, 2)."""
    return points @ matrix.T


@lab.experiment
def a_product_is_one_movement_after_another(run: Run):
    """Moving points by B and then by A equals moving them once by AB, and area factors multiply.

    Predict: a rotation by 37° and a shear. Does it matter which comes first?
    """
    square = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]], **DOUBLE)
    pairs = torch.randn(200, 2, 2, 2, **DOUBLE)  # 200 pairs of matrices
    points = torch.randn(50, 2, **DOUBLE)
    moved = torch.stack([move(move(points, b), a) - move(points, a @ b) for a, b in pairs])
    run.agree("200 random pairs: by B, then by A − by AB", moved, decides=True)
    areas = torch.stack([area(move(square, a @ b)) - (a.det() * b.det()).abs() for a, b in pairs])
    run.agree("area of the moved unit square − |det A|·|det B|", areas, decides=True)
    rotation = torch.tensor(ROTATION, **DOUBLE)
    shear = torch.tensor(SHEAR, **DOUBLE)
    gap = (rotation @ shear - shear @ rotation).abs().max().item()
    because = "by hand: RS has the rows (0.8 0.2) and (0.6 1.4), SR (1.4 0.2) and (0.6 0.8)"
    run.check("rotation and shear in either order, difference", gap, at_least=0.59, because=because)
    run.figure(
        figures.movements(MOVES),
        "plane",
        "The unit square with a letter F in it, moved by six matrices. Arrows: the two columns.",
        alt="Six panels. Each shows a grid, the image of the unit square with an F in it and two "
        "arrows. The square is turned, sheared, stretched, mirrored, or flattened to a line.",
    )
    run.figure(
        figures.either_order(ROTATION, SHEAR),
        "order",
        "The same two movements in either order.",
        alt="Two rows of three panels. Above, an F is sheared and then rotated; below, it is "
        "rotated and then sheared. The last panels differ.",
    )
    run.view("plane", "plane", *view_data.plane(MOVES))
    corner = torch.ones(2, **DOUBLE)
    first = (rotation @ shear @ corner).tolist()
    second = (shear @ rotation @ corner).tolist()
    return (
        f"The point (1, 1) lands on ({first[0]:.1f}, {first[1]:.1f}) if the shear comes first, and "
        f"on ({second[0]:.1f}, {second[1]:.1f}) if the rotation does."
    )


# %% [markdown]
# ## 2. A linear layer, four ways
# A **linear layer** does the same with $n$ inputs and $m$ outputs, and then adds a shift, the
# **bias**. Its **weight** $w$ is an $m \times n$ matrix with one row for each output. A batch $x$
# of $B$ inputs is $B \times n$, and the output $y$ is $B \times m$:
#
# $$y_{bi} = \sum_j w_{ij}\, x_{bj} + \text{bias}_i$$
#
# An example with $n = 3$ inputs and $m = 2$ outputs, for one input, written as a column:
#
# $$
# \begin{pmatrix} 1 & 0 & 2 \\ 0 & -1 & 1 \end{pmatrix}
# \begin{pmatrix} 1 \\ 2 \\ 3 \end{pmatrix} + \begin{pmatrix} 10 \\ 20 \end{pmatrix}
# = \begin{pmatrix} 17 \\ 21 \end{pmatrix}
# $$
#
# The first output is $1 \cdot 1 + 0 \cdot 2 + 2 \cdot 3 + 10 = 17$. There are two ways to read a
# weight matrix, and both give this sum. **Column $j$ is what input $j$ adds to all outputs**, as in
# section 1. **Row $i$ is what output $i$ takes from all inputs**: the output is the dot product of
# the row and the input, plus the bias.
#
# Two linear layers in a row are a single linear layer with the weight $w_2 w_1$, for one movement
# after another is a movement. An activation function between them lets two layers compute more than
# one.
#
# The sum is a matrix product, $x w^\top$. Each of its $Bm$ numbers takes $n$ multiplications and
# about as many additions. That makes $2Bmn$ floating-point operations, or **FLOPs**; the bias adds
# only $Bm$. There are four ways to write a product of two matrices $a$ and $b$, of $B \times n$ and
# $n \times m$ numbers:
#
# - **Loops** run over rows, columns, and the $n$ terms of each sum. Only single numbers are
#   multiplied.
# - **Broadcast and sum** lays out all $Bnm$ products in one array, then sums over the middle axis.
#   The array has $n$ times as many numbers as the result.
# - **Einsum** names the axes: `bn,nm->bm`. A letter that stands in both inputs is matched. A letter
#   that the result lacks is summed over.
# - **Matmul**, `a @ b`, calls a library that was tuned for the processor.


# %% 2. Four ways
@lab.exercise(
    level=1,
    hints=(
        "Three loops: over the rows of a, over the columns of b, and over the terms of a sum.",
        "The number in row i and column k is the sum of a[i, j] · b[j, k] over all j.",
        "a.tolist() and b.tolist() are fast to index. Make a tensor of the sums at the end.",
    ),
)
def matmul_loops(a: Tensor, b: Tensor) -> Tensor:
    """Multiply (B, n) by (n, m), number by number; return (B, m)."""
    left = a.tolist()
    right = b.tolist()
    rows = []
    for row in left:
        sums = [0.0] * b.shape[1]
        for k in range(b.shape[1]):
            for j in range(b.shape[0]):
                sums[k] += row[j] * right[j][k]
        rows.append(sums)
    return torch.tensor(rows, dtype=a.dtype).view(a.shape[0], b.shape[1])


@lab.exercise(
    level=2,
    hints=(
        "Make both arrays (B, n, m) by broadcasting: which axis does each of them lack?",
        "a[:, :, None] has the shape (B, n, 1). b, (n, m), is stretched over the first axis.",
        "Multiply them, then sum over the axis of n: (…).sum(1).",
    ),
)
def matmul_broadcast(a: Tensor, b: Tensor) -> Tensor:
    """Multiply (B, n) by (n, m): all products in one array, then one sum; return (B, m)."""
    products = a[:, :, None] * b  # (B, n, 1) · (n, m) -> (B, n, m)
    return products.sum(1)  # (B, m)


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "loops": matmul_loops,
    "broadcast": matmul_broadcast,
    "einsum": partial(torch.einsum, "bn,nm->bm"),
    "matmul": torch.matmul,
}


@lab.experiment
def four_ways_give_the_same_numbers(run: Run):
    """Loops, a broadcast sum, einsum and matmul give the same product, exactly for integers.

    Predict: two 64 × 64 matrices. How many times as long as matmul do Python's loops take?
    """
    x = torch.tensor([[1, 2, 3]], **DOUBLE)
    w = torch.tensor([[1, 0, 2], [0, -1, 1]], **DOUBLE)
    bias = torch.tensor([10, 20], **DOUBLE)
    a = torch.randint(-9, 10, (32, 64))
    b = torch.randint(-9, 10, (64, 48))
    exact = (a @ b).double()  # of integers
    x32 = torch.randn(32, 64)
    w32 = torch.randn(64, 48) / 8  # the sums are of order 1
    a = a.double()
    b = b.double()
    for name, way in WAYS.items():
        y = (way(x, w.T) + bias).tolist()
        run.check(f"{name}: the example by hand", y, equals=[[17.0, 21.0]])
        off = way(a, b) - exact
        run.agree(f"{name}, integers in float64 − the exact product", off, decides=True)
        off = way(x32, w32).double() - x32.double() @ w32.double()
        run.agree(f"{name}, normal numbers: float32 − float64", off, FLOAT32)
    second = torch.randn(8, 48) / 7
    off = x32 @ w32 @ second.T - x32 @ (second @ w32.T).T
    run.agree("two layers − one with the weight w₂w₁", off, FLOAT32)
    held = peak_bytes(lambda: matmul_broadcast(a, b))
    result = 8 * 32 * 48  # bytes
    because = "an array of (B, n, m), n = 64 times the result"
    run.check(
        "broadcast: bytes in use ÷ bytes of the result", held / result, at_least=64, because=because
    )
    sizes = run.pick(tiny=[8, 16, 32, 64], small=[8, 16, 32, 64, 128], full=[8, 32, 64, 128, 192])
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for n in run.progress(sizes, "products"):
        matrices = torch.randn(2, n, n)
        for name, time in best_in_turn({w: partial(WAYS[w], *matrices) for w in WAYS}, 3).items():
            times[name].append(time)
    ratio = times["loops"][-1] / times["matmul"][-1]
    run.measure("largest size: loops ÷ matmul, time", ratio, timed=True)
    run.figure(
        figures.times(sizes, times),
        "times",
        "The fastest of several calls, on one thread of the CPU in float32. The broadcast sum "
        "first lays out n³ numbers.",
        alt="Four lines on log axes of time over the size of the matrices. Loops are far above the "
        "others and grow steadily; einsum and matmul are the lowest.",
    )
    return (
        f"For {sizes[-1]} × {sizes[-1]} these loops take {rounded(ratio)} times as long as matmul."
    )


# %% [markdown]
# ## 3. Broadcasting stretches arrays
# `x + y` adds number by number, so the shapes must fit. They need not be equal: **broadcasting**
# uses an array as if it were repeated along an axis, until it is as long as the other. No copy is
# made in memory. The figure shows the repeated numbers in a pale colour. The rule is NumPy's:
#
# - Write the two shapes one below the other, *aligned at the right*.
# - A missing axis on the left counts as 1.
# - On each axis, two sizes fit if they are equal or if one of them is 1. A size of 1 is stretched
#   to the other size. Anything else is an error.
#
# An example: `(4, 1)` and `(3,)`. The second becomes `(1, 3)`. The first axis is 4 and 1, the
# second 1 and 3, so the result has the shape `(4, 3)`. An axis of size 0 is empty, and 1 against 0
# gives 0: take the *other* size, not the larger one.
#
# **The trap**: shapes that fit need not mean what you want. Predictions of shape `(n, 1)` minus
# targets of shape `(n,)` give an `(n, n)` array of every prediction minus every target. There is no
# error. In training the loss goes down as if all were well, but the model learns to predict the
# mean of all targets. LLM03+ measures it. `F.mse_loss` warns of two different shapes; your own
# formula doesn't.


# %% 3. The rule
@lab.exercise(
    level=2,
    hints=(
        "Align at the right: which size does a missing axis on the left count as?",
        "Pad the shorter shape with ones on its left. Then go through both, axis by axis.",
        "If one size is 1, take the other; equal sizes stay; anything else is a ValueError.",
    ),
)
def broadcast_shape(a: Shape, b: Shape) -> Shape:
    """Return the shape of x + y for x of shape `a` and y of shape `b`.

    Raises:
        ValueError: if they don't fit.
    """
    axes = max(len(a), len(b))
    long_a = (1,) * (axes - len(a)) + tuple(a)
    long_b = (1,) * (axes - len(b)) + tuple(b)
    sizes = []
    for m, n in zip(long_a, long_b, strict=True):
        if m != n and 1 not in (m, n):
            raise ValueError(f"{a} and {b} don't fit: {m} and {n}")
        sizes.append(n if m == 1 else m)
    return tuple(sizes)


@lab.experiment
def the_rule_gives_pytorchs_shapes(run: Run):
    """For twelve pairs of shapes and 2,000 random ones, the rule gives PyTorch's shape or error.

    Predict: the shapes of twelve sums. (4, 3) + (3,); (4, 3) + (4,); (4, 3) + (4, 1);
    (4,) + (4, 1); (2, 5) + (); (8, 1, 6) + (7, 1); (2, 3, 4) + (2, 4); (2, 3, 4) + (2, 1, 4);
    (5, 1) + (1, 0); (5, 2) + (5, 0); (2, 9, 50, 50) + (2, 1, 1, 50); (2, 9, 50, 50) + (2, 50).
    Which four are errors?
    """
    ours = shapes.shapes_or_errors(broadcast_shape, shapes.TWELVE)
    theirs = shapes.shapes_or_errors(shapes.pytorchs_shape, shapes.TWELVE)
    rows = [[*pair, mine, its] for pair, mine, its in zip(shapes.TWELVE, ours, theirs, strict=True)]
    run.table("Twelve sums", ["a", "b", "by the rule", "PyTorch"], rows)
    equal = shapes.count_equal(ours, theirs)
    run.check("of the twelve, equal to PyTorch's", equal, equals=12, decides=True)
    wrong = [f"{a} + {b}" for a, b, _, its in rows if its == "error"]
    pairs = shapes.random_pairs(2000)
    ours = shapes.shapes_or_errors(broadcast_shape, pairs)
    theirs = shapes.shapes_or_errors(shapes.pytorchs_shape, pairs)
    equal = shapes.count_equal(ours, theirs)
    run.check("of 2,000, equal to PyTorch's", equal, equals=2000, decides=True)
    errors = theirs.count("error")
    because = "neither errors nor shapes are rare among them"
    run.check("errors, and shapes", [errors, 2000 - errors], at_least=200, because=because)
    run.figure(
        figures.stretched_arrays(),
        "broadcasting",
        "Three sums and an error, with the numbers. Pale: numbers that broadcasting uses again.",
        alt="Four sums of small arrays of numbers. In three of them pale copies of a row, a column "
        "or both fill up an array; in the fourth, sizes 3 and 4 meet, and there is no result.",
    )
    return f"Errors: {'; '.join(wrong)}."


# %% [markdown]
# ## 4. `Linear` as a module
# A layer needs its numbers between calls: the weight and the bias. An `nn.Module` stores them as
# **parameters**, tensors that the optimizer may change. `model.parameters` finds them, also inside
# modules inside modules, and `model.state_dict` returns them by name. A checkpoint of a model is
# this dictionary, in a file.
#
# Three methods make a linear layer. `__init__` allocates the tensors. `reset_parameters` fills them
# with random numbers, the **initialisation**. `forward` computes the output; `layer(x)` calls it.
# The class below also has a `backward`, which section 5 explains. Write it then.
#
# **How large should the random numbers be?** An output sums $n$ products. If the inputs are
# independent with variance 1, and the weights have the variance $s^2$, the sum has the variance
# $n s^2$. Weights of variance 1 would make outputs $\sqrt n$ times as large as the inputs. For
# outputs as large as the inputs, choose $s = 1/\sqrt n$.
#
# PyTorch's `nn.Linear` has the right dependence on $n$ and a smaller factor. It samples weight and
# bias uniformly between $-1/\sqrt n$ and $1/\sqrt n$. A uniform number between $-c$ and $c$ has the
# variance $c^2/3$, so the output has the variance $\frac{1}{3} + \frac{1}{3n}$, and outputs are
# 0.58 times as large as inputs. PyTorch's code calls it `kaiming_uniform_` with $a = \sqrt 5$; no
# argument like ours stands behind that factor. LLM03+ shows what it does to a signal in twenty
# layers.


# %% 4. Linear
class Linear(nn.Module):
    """A linear layer like `nn.Linear`: y = x wᵀ + bias, with weight (m, n) and bias (m,).

    Args:
        inputs: n.
        outputs: m.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        """Allocate the parameters, then initialise them."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    @lab.exercise(
        level=2,
        hints=(
            "The bound depends on n, the number of inputs: which axis of the weight is that?",
            "Fill the parameters that exist, in place: tensor.uniform_(low, high).",
            "Under torch.no_grad(), weight first: self.weight.uniform_(-bound, bound), then bias.",
        ),
    )
    def reset_parameters(self) -> None:
        """Fill weight, then bias, in place, uniformly between −1/√n and 1/√n for n inputs."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        with torch.no_grad():  # else autograd refuses to change a leaf in place
            self.weight.uniform_(-bound, bound)
            self.bias.uniform_(-bound, bound)

    @lab.exercise(
        level=1,
        hints=(
            "Which axis of the weight must meet the last axis of x? A product sums last × first.",
            "The weight is (m, n), so x needs its transpose. The bias, (m,), broadcasts.",
            "x @ self.weight.T + self.bias, which takes any number of axes before the last.",
        ),
    )
    def forward(self, x: Tensor) -> Tensor:
        """Return x wᵀ + bias: (..., n) -> (..., m)."""
        return x @ self.weight.T + self.bias

    @lab.exercise(
        level=2,
        hints=(
            "Each gradient has the shape of its tensor: dx (..., n), dw (m, n), dbias (m,).",
            "All axes before the last are batch, and each row of them used w: flatten, then sum.",
            "g @ w; then, with both flattened to two axes, g.T @ x; and the sum of the rows of g.",
        ),
    )
    def backward(self, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of the loss with respect to x, weight and bias.

        Args:
            x: the inputs of `forward`, (..., n).
            g: the gradient with respect to its output, (..., m).
        """
        inputs = x.reshape(-1, x.shape[-1])  # (..., n) -> (B, n)
        rows = g.reshape(-1, g.shape[-1])  # (..., m) -> (B, m)
        return g @ self.weight, rows.T @ inputs, rows.sum(0)


@lab.experiment
@torch.no_grad()
def our_module_replaces_the_librarys(run: Run):
    """With the same seed our `Linear` starts as `nn.Linear` does, and each loads the other's state.

    Predict: which names and shapes does the `state_dict` of `Linear(48, 32)` have?
    """
    torch.manual_seed(run.seed)
    ours = Linear(48, 32)
    torch.manual_seed(run.seed)
    theirs = nn.Linear(48, 32)
    other = nn.Linear(48, 32)
    x = torch.randn(7, 5, 48)
    named = {name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()}
    run.check("state_dict", named, equals={"weight": (32, 48), "bias": (32,)}, decides=True)
    for name, tensor in theirs.state_dict().items():
        off = ours.state_dict()[name] - tensor
        run.agree(f"start, same seed: {name} − nn.Linear's", off, FLOAT32, decides=True)
    gap = (ours.weight - other.weight).abs().max()
    because = "two samples from ±0.144 differ by 0.05 somewhere among 1,536"
    run.check("another seed: largest difference of weights", gap, at_least=0.05, because=because)
    ours.load_state_dict(other.state_dict())
    off = ours(x) - other(x)
    run.agree("after load_state_dict: ours − nn.Linear's", off, FLOAT32, decides=True)
    theirs.load_state_dict(ours.state_dict())
    run.agree("loaded back: nn.Linear's − ours", theirs(x) - ours(x), FLOAT32, decides=True)
    y = Linear(4096, 256)(torch.randn(256, 4096))
    because = "√(1/3 + 1/(3n)) = 0.577; its standard error over 256 × 256 outputs is below 0.002"
    name = "4,096 inputs of variance 1: std of the outputs"
    run.check(name, y.std(), at_least=0.567, at_most=0.587, because=because)
    large = (torch.randn(256, 4096) @ torch.randn(4096, 64)).std().item()
    shapes_of = ", ".join(f"{name} {shape}" for name, shape in named.items())
    return (
        f"The state_dict has {shapes_of}. With 4,096 inputs, weights of variance 1 make outputs "
        f"with a standard deviation of {large:.0f}; `Linear` makes {y.std().item():.2f}."
    )


# %% [markdown]
# ## 5. The backward pass of `Linear`
# Training needs the gradient of the loss with respect to every parameter. LLM02 built autograd from
# the backward passes of single operations, a matrix product and `unbroadcast` among them. `Linear`
# is both at once; what is new is a batch with any number of axes. We write $dx$ for
# $\partial\text{loss}/\partial x$, and so on.
#
# `backward` gets $g = \partial\text{loss}/\partial y$, which has the shape of $y$. It returns the
# gradients with respect to $x$, $w$ and the bias. Take one weight, $w_{ij}$. It stands in the
# output $y_{bi}$ of every input $b$, multiplied by $x_{bj}$. If $w_{ij}$ grows by a small
# $\varepsilon$, the output grows by $\varepsilon x_{bj}$ and the loss by
# $\varepsilon g_{bi} x_{bj}$. So the gradient of $w_{ij}$ is the sum of $g_{bi} x_{bj}$ over the
# batch. The same for all three:
#
# $$
# \begin{aligned}
# dx_{bj} &= \sum_i g_{bi} w_{ij} \\
# dw_{ij} &= \sum_b g_{bi} x_{bj} \\
# d\text{bias}_i &= \sum_b g_{bi}
# \end{aligned}
# $$
#
# As products these are $dx = g w$ and $dw = g^\top x$. The figure shows the shapes. While $B$, $n$
# and $m$ differ, only one order of the factors fits. In a square layer, $n = m$, a wrong transpose
# raises no error: shapes that fit need not mean what you want. The bias was broadcast over the
# batch, so its gradient is summed over the batch.
#
# Take the example of section 2, and let $g$ be 1 for the first output and 10 for the second:
#
# $$
# \begin{aligned}
# dx &= \begin{pmatrix} 1 & 10 \end{pmatrix}
# \begin{pmatrix} 1 & 0 & 2 \\ 0 & -1 & 1 \end{pmatrix}
# = \begin{pmatrix} 1 & -10 & 12 \end{pmatrix} \\
# dw &= \begin{pmatrix} 1 \\ 10 \end{pmatrix} \begin{pmatrix} 1 & 2 & 3 \end{pmatrix}
# = \begin{pmatrix} 1 & 2 & 3 \\ 10 & 20 & 30 \end{pmatrix}
# \end{aligned}
# $$
#
# $dx$ and $dw$ take $2Bmn$ FLOPs each. **In FLOPs, backward costs twice what forward costs.** The
# first layer of a network doesn't need $dx$, so there it costs the same.


# %% 5. Backward
@lab.experiment
def the_backward_by_hand_is_autograds(run: Run):
    """The three gradients by hand equal autograd's, for a batch with two axes.

    Predict: the same batch is given twice over. Which of dx, dw and dbias doubles?
    """
    layer = Linear(48, 32).double()
    x = torch.randn(8, 5, 48, **DOUBLE, requires_grad=True)
    y = layer(x)
    g = torch.randn_like(y)
    ours = layer.backward(x, g)
    theirs = torch.autograd.grad(y, (x, layer.weight, layer.bias), g)
    for name, mine, its in zip(("dx", "dw", "dbias"), ours, theirs, strict=True):
        run.agree(f"{name} − autograd's", mine - its, decides=True)
    because = "each is a sum of 40 normal numbers"
    run.check("largest of dbias", ours[2].abs().max(), at_least=1, because=because)
    twice = layer.backward(torch.cat((x, x)), torch.cat((g, g)))
    ratios = [(twice[i].norm() / ours[i].norm()).item() for i in (1, 2)]
    run.check(
        "batch given twice: dw and dbias ÷ before", ratios, at_least=2 - 1e-9, at_most=2 + 1e-9
    )
    run.agree("batch given twice: each half of dx − dx", twice[0].view(2, *x.shape) - ours[0])
    forward = product_flops(lambda: layer(x))
    run.check("forward: FLOPs", forward, equals=2 * 40 * 48 * 32, because="2Bmn")
    backward = product_flops(lambda: layer.backward(x, g))
    run.check("backward ÷ forward, FLOPs", backward / forward, equals=2.0)
    run.figure(
        figures.backward_shapes(),
        "backward",
        "Forward and backward as products of matrices. Equal colours mark equal shapes; 1 is a row "
        "of ones.",
        alt="Four equations of rectangles, sides labelled B, n and m: x times w transposed is y; "
        "g times w is dx; g transposed times x is dw; a row of ones times g is dbias.",
    )
    x = torch.randn(512, 512)
    square = Linear(512, 512)
    with torch.no_grad():
        times = best_in_turn({"f": lambda: square(x), "b": lambda: square.backward(x, x)})
    run.measure("512 × 512: backward ÷ forward, time", times["b"] / times["f"], timed=True)
    return (
        f"dw grows by a factor of {ratios[0]:.2f}, dbias by {ratios[1]:.2f}, for they sum over the "
        "batch. dx is the same, twice."
    )


# %% [markdown]
# ## 6. What a weight matrix has learned
# Now train one: a single layer that reads digits. An image has 8 × 8 pixels between 0 and 1, so
# $n = 64$; there is an output for each digit, so $m = 10$. The digit with the largest output, or
# **score**, wins. The loss is the cross-entropy of LLM02, whose gradient with respect to the scores
# is the softmax minus 1 at the right digit, divided by the number of images, for the loss is a
# mean. From there on, your `backward` does the work, and each step moves the parameters by 0.2
# times their gradient. Autograd is off.
#
# **A row of the weight has one number for each pixel, so it is a picture**. To get a score,
# multiply the row by the image, pixel by pixel, and sum. The figure does this for one image and two
# rows.
#
# **Only differences between rows matter.** If all scores grow by the same number, the softmax stays
# the same. So the same picture, added to all rows, changes nothing. We subtract from each row the
# mean of all rows. Training leaves that mean alone, because the gradients of the ten scores sum to
# zero. Then ink counts for the digit where its row is positive, and against it where the row is
# negative.
#
# And look at $dw = g^\top x$ again. A pixel that is blank in every image has $x_{bj} = 0$, so its
# weights never change. They still are what `reset_parameters` made them.


# %% 6. A trained layer
@torch.no_grad()
def train_classifier(run: Run, seed: int) -> tuple[Linear, Linear]:
    """Train a layer on digits by our own backward pass; return it and its start."""
    x, y, _, _ = split_digits(run, seed)
    torch.manual_seed(seed)
    layer = Linear(64, 10).to(run.device)
    start = Linear(64, 10).to(run.device)
    start.load_state_dict(layer.state_dict())
    targets = F.one_hot(y, 10)  # (B, 10)
    for _ in range(run.pick(tiny=500, small=1000, full=2000)):
        g = (layer(x).softmax(-1) - targets) / len(x)  # (B, 10)
        _, dw, dbias = layer.backward(x, g)
        layer.weight.sub_(0.2 * dw)  # in place
        layer.bias.sub_(0.2 * dbias)
    return layer, start


def centred(w: Tensor) -> Tensor:
    """Subtract from each row of w the mean of all rows."""
    return w - w.mean(0)


@lab.experiment
@torch.no_grad()
def a_row_recognises_its_digit(run: Run):
    """After training, the mean image of each digit gets its largest score from its own row.

    Predict: which pixels of the row for 0 will be the most negative?
    """
    trained = []
    untrained = []
    accuracies = []
    for seed in run.seeds(3):
        layer, start = train_classifier(run, seed)
        x, y, test_x, test_y = split_digits(run, seed)
        means = mean_images(x, y)  # (10, 64)
        for scores, right in ((layer(means), trained), (start(means), untrained)):
            right.append(int((scores.argmax(-1) == torch.arange(10).to(run.device)).sum()))
        accuracies.append(accuracy(layer(test_x), test_y))
        if seed == run.seed:
            check_blank_pixels(run, x, layer, start)
            w = centred(layer.weight).cpu()  # (10, 64)
            rows = figures.rows_as_pictures(means.cpu(), w, x.amax(0).cpu() == 0)
            reading = figures.reading(test_x[0].cpu(), int(test_y[0]), w, layer.bias.cpu())
            centre = w[0].view(8, 8)[3:5, 3:5].mean()
            run.measure("row of 0: mean weight of the four pixels in the middle", centre)
    run.check("after training: own row of 10", trained, equals=[10] * 3, decides=True)
    because = "half; mean images share most ink, so a random layer picks nearly one digit for all"
    run.check("at the start: own row of 10", untrained, at_most=5, because=because, decides=True)
    run.measure("accuracy on test images, three seeds", accuracies)
    run.figure(
        rows,
        "rows",
        "The mean image of each digit, and below it the row of weights that recognises it, minus "
        "the mean row. Red: ink counts for the digit; blue: against it. Framed: blank pixels.",
        alt="Ten pairs of small pictures. Above, blurred digits 0 to 9; below, red and blue "
        "patterns that follow the strokes and the gaps of the digit.",
    )
    run.figure(
        reading,
        "reading",
        "The row of the right digit and of the next best, times the image. The sum of the product, "
        "and the bias, is the score, up to the same constant for all digits.",
        alt="Two rows of three pictures: an image, a row of weights, their product. The products "
        "sum to two scores.",
    )
    return (
        f"The hole of the 0 counts against ink: its four pixels weigh {centre:.2f} on average. "
        f"The layer reads {min(accuracies):.0%} to {max(accuracies):.0%} of the test images."
    )


# %% [markdown]
# ### Singular values: how much of the matrix is used
# Back to the plane. A matrix takes the unit circle to an ellipse, as the figure shows. The two
# half-axes of the ellipse are the **singular values** $\sigma_1 \ge \sigma_2$: the largest and the
# smallest factor by which the matrix stretches a vector. The view of section 1 shows them as the
# two stretches. The shear of section 1 has $\sigma_1 = 1.62$ and $\sigma_2 = 0.62$; their product
# is the area factor, 1. A projection flattens the circle to a line, so $\sigma_2 = 0$. **The rank
# is the number of singular values that are not 0.**
#
# Every matrix has them: $w = U S V^\top$, the **singular value decomposition**. It reads an input
# along the directions in $V$, drawn on the circle. It stretches each by a singular value in $S$,
# and writes it along the directions in $U$, drawn in the ellipse. Our $10 \times 64$ matrix has
# ten. If you keep the $k$ largest and set the others to 0, you get a matrix of rank $k$: of all
# such matrices the closest to $w$, by the sum of squared differences (Eckart & Young 1936). LLM07
# uses low rank to fine-tune large models cheaply.
#
# The centred rows sum to zero, so one of the ten follows from the others, and at least one singular
# value is 0. How many of the other nine does the layer need?


# %% 6. Singular values
@lab.exercise(
    level=2,
    hints=(
        "torch.linalg.svd(w, full_matrices=False) returns U, the singular values, and Vᵀ.",
        "Only the first k columns of U, k values, and k rows of Vᵀ are needed.",
        "u[:, :k] * s[:k] scales the columns of U; then @ vt[:k].",
    ),
)
def truncated(w: Tensor, k: int) -> Tensor:
    """Return the matrix of rank k closest to w: its k largest singular values, the others 0."""
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    return u[:, :k] * s[:k] @ vt[:k]


@lab.experiment
@torch.no_grad()
def half_of_the_directions_read_most_digits(run: Run):
    """With about half of its singular values the layer reads most images that it reads with all.

    Predict: how many of the nine directions does the layer need to read 80 % of the test images?
    """
    by_rank: list[list[float]] = []
    same: list[float] = []
    for seed in run.seeds(3):
        layer, start = train_classifier(run, seed)
        _, _, x, y = split_digits(run, seed)
        x = x.double()
        w = centred(layer.weight.double())  # (10, 64)
        scores = [x @ truncated(w, k).T + layer.bias for k in range(11)]  # (360, 10) each
        by_rank.append([accuracy(scores_k, y) for scores_k in scores])
        right = [scores_k.argmax(-1) == y for scores_k in scores]  # (360,) each
        same.append(((right[5] & right[10]).sum() / right[10].sum()).item())
        if seed == run.seed:
            p = (x @ layer.weight.double().T + layer.bias).softmax(-1)
            run.agree(
                "rank 9 of the centred rows: probabilities − before", scores[9].softmax(-1) - p
            )
            change = (scores[8].softmax(-1) - p).abs().max()
            because = "the ninth singular value isn't 0; rounding is a billion times smaller"
            run.check("rank 8: largest change", change, at_least=1e-3, because=because)
            values = torch.linalg.svdvals(w).tolist()
            before = torch.linalg.svdvals(centred(start.weight.double())).tolist()
    because = "“most”: three quarters; with no direction at all it would be about a tenth"
    name = "of the images read with all: share read with five of nine directions"
    run.measure(name, same, expect_at_least=0.75, because=because, decides=True)
    run.measure("accuracy with five directions, three seeds", [shares[5] for shares in by_rank])
    run.figure(
        figures.ellipse(SHEAR),
        "ellipse",
        "The shear of section 1. Left: the two directions in V. Right: where they land.",
        alt="Two panels: a circle with two perpendicular radii, and its image, an ellipse, with "
        "their images, the half-axes, of length 1.62 and 0.62.",
    )
    run.figure(
        figures.singular_values(before, values, by_rank),
        "singular_values",
        "Left: singular values of the centred rows, at the start and trained. Right: accuracy with "
        "the k largest of them, three seeds.",
        alt="Two panels: ten falling singular values, large after training and small before; "
        "accuracy that rises with the number of singular values and levels off.",
    )
    needed = [next(k for k in range(11) if shares[k] >= 0.8) for shares in by_rank]
    counts = ", ".join(map(str, needed))
    return f"For 80 % of the test images the three layers need {counts} of their nine directions."


# %% [markdown]
# ## What to remember
# - The columns of a matrix are where the unit vectors land. A product is one movement after
#   another.
# - Rank is how many dimensions are left; singular values are how far each is stretched.
# - Align shapes at the right; sizes fit if they are equal or one is 1. Check shapes before you
#   trust a loss.
# - `Linear`: forward is $x w^\top + \text{bias}$; backward is $gw$, $g^\top x$ and the sum of $g$.
# - A row of a weight matrix lives in the space of the inputs, so you can look at it.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Return what surprised, in the numbers of this run."""
    ways = "four_ways_give_the_same_numbers"
    ratio = results.value(ways, "largest size: loops ÷ matmul, time")
    shares = results.values("a_row_recognises_its_digit", "accuracy on test images, three seeds")
    five = results.values(
        "half_of_the_directions_read_most_digits", "accuracy with five directions, three seeds"
    )
    return (
        "## What surprised\n\n"
        f"Python's loops took {rounded(ratio)} times as long as the library for the same product. "
        f"A single matrix, trained by gradients of one line each, reads {min(shares):.0%} to "
        f"{max(shares):.0%} of the test images, and with five of its nine directions "
        f"{min(five):.0%} to {max(five):.0%}."
    )


# %% [markdown]
# **Read on**: Strang, *Introduction to Linear Algebra*, for the geometry · Eckart & Young 1936,
# *The approximation of one matrix by another of lower rank* · NumPy's page on broadcasting ·
# Alpaydin & Kaynak 1998, for the digits. LLM03+ goes deeper: memory layout, twenty layers, and the
# time of a product. Next is LLM04, tokenization.

# %%
if __name__ == "__main__":
    lab.main()
