# %% [markdown]
# # LLM03 · Neural network fundamentals
# A linear layer from every side: as geometry, as code, as a module, and as pictures.
#
# **You will be able to** read a matrix as a movement of the plane; say what a ReLU does between two
# layers; predict the shape of a broadcast sum. You will multiply matrices in four ways, write
# `Linear` with its backward pass, and look at what a trained weight matrix has learned. **Builds
# on** LLM02: gradients, the softmax, training. **Takes** 45 minutes without the exercises, ten
# seconds to run (`tiny`, 2 cores).

# %% Imports
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from labs.kit import Lab, Results, Run, tolerance
from labs.kit.measure import peak_bytes
from labs.llm03_neural_networks import digits, figures, plane_figures, shapes, view_data
from labs.llm03_neural_networks.costs import best_in_turn, product_flops, rounded, time_products
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
# vectors land.** To find where another point lands, go $x_1$ times along the first column, then
# $x_2$ times along the second. Grid lines therefore stay straight, parallel and evenly spaced,
# unless they all fall on one line. The origin stays where it is. Such a map $f$ is called *linear*:
# $f(x + y) = f(x) + f(y)$, and $f(cx) = c\,f(x)$ for every number $c$.
#
# An example is the **shear**, which pushes each point sideways by its height:
#
# $$
# \begin{pmatrix} 1 & 1 \\ 0 & 1 \end{pmatrix} \begin{pmatrix} 2 \\ 3 \end{pmatrix}
# = 2 \begin{pmatrix} 1 \\ 0 \end{pmatrix} + 3 \begin{pmatrix} 1 \\ 1 \end{pmatrix}
# = \begin{pmatrix} 5 \\ 3 \end{pmatrix}
# $$
#
# Another is the **rotation** with the columns $(0.8, 0.6)$ and $(-0.6, 0.8)$. It turns the plane by
# 37°. Its columns are perpendicular and have the length 1, so by Pythagoras it keeps all lengths.
# The **identity** has the columns $(1, 0)$ and $(0, 1)$ and moves nothing.
#
# **Areas grow by the factor $|ad - bc|$**, the area of the parallelogram that the unit square
# becomes. The number $ad - bc$ is the **determinant**; where it is negative, the plane is also
# mirrored. The **rank** is the number of dimensions that are left. The projection in the first
# figure below has rank 1: the plane lands on a line, and $ad - bc = 0$. No matrix can undo that.
#
# **A product of matrices is one movement after another.** To multiply a point by $AB$, multiply it
# by $B$ first and the result by $A$. The order matters. The determinants multiply:
# $\det AB = \det A \cdot \det B$.
#
# How far does a matrix stretch a vector? The image of the unit circle is an ellipse. The lengths of
# its half-axes are the **singular values** $\sigma_1 \ge \sigma_2$, the largest and the smallest
# stretch. The shear has $\sigma_1 = 1.62$ and $\sigma_2 = 0.62$; their product, 1, is its area
# factor. The rotation, whose area factor is also 1, has $\sigma_1 = \sigma_2 = 1$. A projection has
# $\sigma_2 = 0$. **The rank is the number of singular values that are not 0.**
#
# In code a batch of points is a matrix with a point in each *row*. As $(Ax)^\top = x^\top A^\top$,
# the matrix stands on the right, transposed: `x @ a.T` moves every row of `x`. First $B$, then $A$
# is `x @ b.T @ a.T`. `nn.Linear` also computes `x @ w.T`, and adds a bias.


# %% 1. A matrix moves the plane
DOUBLE: dict[str, Any] = {"dtype": torch.float64}


def move(points: Tensor, matrix: Tensor) -> Tensor:
    """Move each row of `points`, (N, 2), by a matrix, (2, 2)."""
    return points @ matrix.T


@lab.experiment
def a_product_is_one_movement_after_another(run: Run):
    """On 200 random pairs, moving by B and then A equals moving by AB, and area factors multiply.

    Predict: shear the point (1, 1), then rotate it by 37°. Where does it land? In the other order?
    """
    square = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]], **DOUBLE)
    pairs = torch.randn(200, 2, 2, 2, **DOUBLE)  # 200 pairs of matrices
    points = torch.randn(50, 2, **DOUBLE)
    moved = torch.stack([move(move(points, b), a) - move(points, a @ b) for a, b in pairs])
    run.agree("by B, then by A − by AB", moved, decides=True)
    areas = torch.stack([area(move(square, a @ b)) - (a.det() * b.det()).abs() for a, b in pairs])
    run.agree("area of the moved unit square − |det A|·|det B|", areas, decides=True)
    rotation = torch.tensor(ROTATION, **DOUBLE)
    shear = torch.tensor(SHEAR, **DOUBLE)
    gap = (rotation @ shear - shear @ rotation).abs().max().item()
    because = "by hand: RS has the rows (0.8 0.2) and (0.6 1.4), SR (1.4 0.2) and (0.6 0.8)"
    run.check("rotation and shear in either order, difference", gap, at_least=0.59, because=because)
    angles = torch.linspace(0, 2 * math.pi, 3601, **DOUBLE)
    lengths = move(torch.stack((angles.cos(), angles.sin()), 1), shear).norm(dim=1)
    off = torch.stack((lengths.max(), lengths.min())) - torch.linalg.svdvals(shear)
    because = "directions 0.1° apart miss the largest and the smallest stretch by less"
    run.agree("shear: stretches of 3,600 directions − σ₁, σ₂", off, 1e-5, because=because)
    fig, caption, alt = plane_figures.movements(MOVES)
    run.figure(fig, "plane", caption, alt=alt)
    fig, caption, alt = plane_figures.either_order(ROTATION, SHEAR)
    run.figure(fig, "order", caption, alt=alt)
    fig, caption, alt = plane_figures.ellipse(SHEAR)
    run.figure(fig, "ellipse", caption, alt=alt)
    run.view("plane", "plane", *view_data.plane(MOVES))
    ends = [(m @ torch.ones(2, **DOUBLE)).tolist() for m in (rotation @ shear, shear @ rotation)]
    first, second = (f"({x:.1f}, {y:.1f})" for x, y in ends)
    return f"The point (1, 1) lands on {first} if the shear comes first, else on {second}."


# %% [markdown]
# ## 2. A linear layer, four ways
# LLM02's linear layer computed $xW + \text{bias}$ with $W$ of $n \times m$ numbers. `nn.Linear`
# stores the transpose, and from here on so do we: the weight $w$ is $m \times n$, with a row for
# each output. From here on $B$ is a number, the size of the batch: $x$ is $B \times n$, the output
# $y$ is $B \times m$. For row $r$ of the batch, output $i$ is
#
# $$y_{ri} = \sum_j w_{ij}\, x_{rj} + \text{bias}_i$$
#
# Here are $n = 3$ and $m = 2$, for a batch of one, with $x$ and $y$ written as columns:
#
# $$
# \begin{pmatrix} 1 & 0 & 2 \\ 0 & -1 & 1 \end{pmatrix}
# \begin{pmatrix} 1 \\ 2 \\ 3 \end{pmatrix} + \begin{pmatrix} 10 \\ 20 \end{pmatrix}
# = \begin{pmatrix} 17 \\ 21 \end{pmatrix}
# $$
#
# The figure reads this weight in two ways. **Input $j$ adds $x_j$ times column $j$ to the
# outputs**, as in section 1. **Row $i$ makes output $i$**: its dot product with $x$, plus the bias.
#
# For a batch the sums are a matrix product, $x w^\top$. Each of its $Bm$ numbers takes $n$
# multiplications and about as many additions. That makes $2Bmn$ floating-point operations, or
# **FLOPs**; the bias adds only $Bm$. Here are four ways to write a product of two matrices $a$ and
# $b$, of $B \times n$ and $n \times m$ numbers. For a layer, $a$ is $x$ and $b$ is $w$ transposed.
#
# - **Loops** run over rows, columns, and the $n$ terms of each sum.
# - **Broadcast and sum** lays out all $Bnm$ products in one array, then sums over the middle axis.
#   The array is $n$ times as large as the result. An index `None` adds an axis of size 1: for $n$
#   numbers $v$, `v[:, None]` is `(n, 1)`. Shapes are aligned at the right. An axis that is missing
#   or has the size 1 is stretched: `(B, n, 1)` times `(n, m)` gives `(B, n, m)`. More in section 4.
# - **Einsum** names the axes: `rj,ji->ri` is the sum of $a_{rj} b_{ji}$ over $j$. A letter that
#   stands in both inputs is matched. A letter that the result lacks is summed over.
# - **Matmul**, `a @ b`, calls a library that was tuned for the processor.


# %% 2. Four ways
@lab.exercise(
    level=1,
    hints=(
        "Three loops: over the rows of a, over the columns of b, and over the terms of a sum.",
        "The number in row r and column i is the sum of a[r, j] · b[j, i] over all j.",
        "a.tolist() and b.tolist() are fast to index. Make a tensor of the sums at the end.",
    ),
)
def matmul_loops(a: Tensor, b: Tensor) -> Tensor:
    """Multiply (B, n) by (n, m), number by number; return (B, m)."""
    right = b.tolist()
    y = [[0.0] * b.shape[1] for _ in range(len(a))]
    for r, row in enumerate(a.tolist()):
        for i in range(b.shape[1]):
            for j in range(b.shape[0]):
                y[r][i] += row[j] * right[j][i]
    return torch.tensor(y, dtype=a.dtype)


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
    "einsum": partial(torch.einsum, "rj,ji->ri"),
    "matmul": torch.matmul,
}


@lab.experiment
def four_ways_give_the_same_numbers(run: Run):
    """Four ways to multiply give the same product, in float64 exactly for small integers.

    Predict: two 64 × 64 matrices. How many times as long as matmul do Python's loops take?
    """
    x = torch.tensor([[1, 2, 3]], **DOUBLE)
    w = torch.tensor([[1, 0, 2], [0, -1, 1]], **DOUBLE)
    bias = torch.tensor([10, 20], **DOUBLE)
    a = torch.randint(-9, 10, (32, 64))
    b = torch.randint(-9, 10, (64, 48))
    exact = (a @ b).double()  # of integers
    a = a.double()
    b = b.double()
    x32 = torch.randn(32, 64)
    w32 = torch.randn(64, 48) / 8  # the sums are of order 1
    for name, way in WAYS.items():
        y = (way(x, w.T) + bias).tolist()
        run.check(f"{name}: the example by hand", y, equals=[[17.0, 21.0]])
        off = way(a, b) - exact
        because = "float64 is exact for integers below 2⁵³"
        run.agree(f"{name}, integers − the exact product", off, 0, because=because, decides=True)
        off = way(x32, w32).double() - x32.double() @ w32.double()
        run.agree(f"{name}, float32 inputs − the product in float64", off, FLOAT32)
    ratio = peak_bytes(lambda: matmul_broadcast(a, b)) / (8 * 32 * 48)
    because = "an array of (B, n, m), n = 64 times the result"
    run.check("broadcast: memory ÷ that of the result", ratio, at_least=64, because=because)
    sizes = run.pick(tiny=[8, 16, 32, 64], small=[8, 16, 32, 64, 128], full=[8, 32, 64, 128, 192])
    times = time_products(WAYS, run.progress(sizes, "products"))
    at = sizes.index(64)
    ratio = times["loops"][at] / times["matmul"][at]
    run.measure("64 × 64: loops ÷ matmul, time", ratio, timed=True)
    fig, caption, alt = figures.two_readings()
    run.figure(fig, "readings", caption, alt=alt)
    fig, caption, alt = figures.times(sizes, times)
    run.figure(fig, "times", caption, alt=alt)
    return f"For 64 × 64 these loops take {rounded(ratio)} times as long as matmul."


# %% [markdown]
# ## 3. A bend between two layers
# LLM02 put a ReLU between its layers, because linear layers in a row are one linear layer: one
# movement after another is a movement. What does a ReLU do to the plane? It replaces numbers below
# 0 by 0. One quadrant stays, and all other points are pressed onto its edges. **A ReLU bends.**
#
# An example is XOR, "one or the other, but not both": the output should be 1 if exactly one of two
# inputs is 1. Opposite corners of the unit square belong together. No straight line separates the
# two pairs, as the end of this section shows. Two small layers without biases:
#
# $$
# w_1 = \begin{pmatrix} 1 & -1 \\ -1 & 1 \end{pmatrix}, \qquad
# w_2 = \begin{pmatrix} 1 & 1 \end{pmatrix}, \qquad
# w_2 w_1 = \begin{pmatrix} 0 & 0 \end{pmatrix}
# $$
#
# Without a bend they are a single layer of weight 0: every input gets the output 0. With a ReLU
# between them the output is the sum of $\text{ReLU}(x_1 - x_2)$ and $\text{ReLU}(x_2 - x_1)$. That
# is $|x_1 - x_2|$: at the four corners 0, 1, 1, 0, as it should be. In the second figure $w_1$
# flattens the square to a line. The ReLU bends this line to a corner. $(0, 0)$ and $(1, 1)$ land on
# its tip, and the two others on its arms. Now a straight cut separates them.
#
# A single linear layer can't do this, even with a bias. In the middle between two points its output
# is the mean of its outputs at both. $(0, 0)$ and $(1, 1)$ have the same middle as $(0, 1)$ and
# $(1, 0)$, so the outputs of both pairs have the same sum. XOR needs the sum $0 + 0 = 0$ for the
# first pair and $1 + 1 = 2$ for the second. A cut at a threshold $c$ can't help: one pair would
# need a sum below $2c$, the other a sum above $2c$.


# %% 3. A bend
@lab.experiment
def a_bend_keeps_two_layers_apart(run: Run):
    """With a ReLU between them two linear layers compute XOR; without it they can't, nor can one.

    Predict: which output does the best single layer, by least squares, give at each corner?
    """
    corners = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], **DOUBLE)
    xor = torch.tensor([0, 1, 1, 0], **DOUBLE)
    w1 = torch.tensor([[1, -1], [-1, 1]], **DOUBLE)
    w2 = torch.ones(1, 2, **DOUBLE)
    collapsed = (corners @ w1.T @ w2.T).flatten().tolist()
    run.check("XOR by two layers, nothing between", collapsed, equals=[0.0] * 4)
    bent = ((corners @ w1.T).relu() @ w2.T).flatten().tolist()
    run.check("XOR by two layers, ReLU between", bent, equals=xor.tolist(), decides=True)
    inputs = torch.cat((corners, torch.ones(4, 1)), 1)  # the last weight is a bias
    best = inputs @ torch.linalg.lstsq(inputs, xor[:, None]).solution  # (4, 1)
    because = "opposite corners have the same middle, so no weight helps: the mean is the best"
    run.agree("XOR by the best single layer − ½", best - 0.5, because=because, decides=True)
    fig, caption, alt = plane_figures.pressed(ROTATION)
    run.figure(fig, "pressed", caption, alt=alt)
    fig, caption, alt = plane_figures.bend(corners, w1)
    run.figure(fig, "bend", caption, alt=alt)
    outputs = ", ".join(f"{value:.2f}" for value in best.flatten().tolist())
    return f"The best single layer returns {outputs} at the four corners: it can't tell them apart."


# %% [markdown]
# ## 4. Broadcasting stretches arrays
# `x + y` adds number by number, so the shapes must fit. They need not be equal: **broadcasting**
# repeats an array along an axis until it is as long as the other. It copies neither input. Only the
# *result* is stored in full: in section 2 this was the array of $Bnm$ products. The figure shows
# the repeated numbers in a pale colour. The rule is NumPy's:
#
# - Write the two shapes one below the other, *aligned at the right*.
# - A missing axis on the left counts as 1.
# - On each axis, two sizes fit if they are equal or if one of them is 1. A size of 1 is stretched
#   to the other size. Anything else is an error.
#
# An example: `(4, 1)` and `(3,)`. The second becomes `(1, 3)`. The first axis is 4 and 1, the
# second 1 and 3, so the result has the shape `(4, 3)`. An axis of size 0 is empty. The sizes 1 and
# 0 fit and give 0: where one size is 1, take the *other* size, not the larger one.
#
# **The trap**: shapes that fit need not mean what you want. Predictions of shape `(n, 1)` minus
# targets of shape `(n,)` give an `(n, n)` array of every prediction minus every target. There is no
# error. With the mean squared error the model learns to predict the mean of the targets, and the
# loss falls no lower than their variance. If a loss stops there, print both shapes. `F.mse_loss`
# warns of two different shapes; your own formula doesn't. LLM03+ measures what the trap costs.


# %% 4. The rule
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
    rows = shapes.compare(broadcast_shape, shapes.TWELVE)
    run.table("Twelve sums", ["a", "b", "by the rule", "PyTorch"], rows)
    name = "of the twelve, equal to PyTorch's"
    run.check(name, shapes.count_equal(rows), equals=12, decides=True)
    wrong = [f"{a} + {b}" for a, b, _, its in rows if its == "error"]
    rows = shapes.compare(broadcast_shape, shapes.random_pairs(2000))
    name = "of 2,000, equal to PyTorch's"
    run.check(name, shapes.count_equal(rows), equals=2000, decides=True)
    errors = sum(its == "error" for *_, its in rows)
    because = "neither is rare: at least a tenth of the pairs"
    name = "of 2,000, the rarer of errors and shapes"
    run.check(name, min(errors, 2000 - errors), at_least=200, because=because)
    fig, caption, alt = figures.stretched_arrays()
    run.figure(fig, "broadcasting", caption, alt=alt)
    return f"Errors: {'; '.join(wrong)}."


# %% [markdown]
# ## 5. `Linear` as a module
# LLM02 built networks from `nn.Linear`. Now you build it. Weight and bias are of the type
# `nn.Parameter`. A module registers a parameter that is its attribute: `model.parameters()` lists
# it for the optimizer, and `model.state_dict()` returns it by name. A checkpoint is this dictionary
# in a file. In the layer below, `__init__` allocates both tensors, `reset_parameters` fills them
# with random numbers, the **initialisation**, and `forward` computes the output.
#
# **How large should the random numbers be?** An output sums $n$ products $w_j x_j$. Say the inputs
# are fixed numbers with a mean square of 1. Only the weights are random: independent, with mean 0
# and variance $s^2$. A product then has mean 0 and variance $s^2 x_j^2$. Variances of independent
# terms add, and the $x_j^2$ add up to $n$. So the sum has the variance $n s^2$. Weights of variance
# 1 would make outputs $\sqrt n$ times as large as the inputs. For outputs as large as the inputs,
# choose $s = 1/\sqrt n$. This is LLM02's gain of 1.
#
# PyTorch's `nn.Linear` also divides by $\sqrt n$. It samples weight and bias uniformly between
# $-1/\sqrt n$ and $1/\sqrt n$. A uniform number between $-c$ and $c$ has the variance $c^2/3$, so
# these weights are $\sqrt 3$ times smaller. The output has the variance
# $\frac{1}{3} + \frac{1}{3n}$: for large $n$, outputs are 0.58 times as large as inputs. PyTorch's
# code calls `kaiming_uniform_` with $a = \sqrt 5$, another way to write the range $\pm 1/\sqrt n$.
# You will write PyTorch's version, so that your layer can replace `nn.Linear` number by number.
# LLM03+ compares starts in twenty layers, and derives the gain $\sqrt 2$.


# %% 5. Linear
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
    torch.manual_seed(run.seed + 1)
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
    shapes_of = ", ".join(f"{name} {shape}" for name, shape in named.items())
    return f"The state_dict has {shapes_of}. Outputs are {y.std():.2f} times the inputs' size."


# %% [markdown]
# ## 6. The backward pass of `Linear`
# LLM02 found what a matrix product $y = ab$ sends back. Let $g$ be $\partial L/\partial y$. Then
# $a$ gets $g b^\top$, and $b$ gets $a^\top g$. In `Linear`, $a$ is $x$ and $b$ is $w^\top$. So $x$
# gets $gw$, and $w^\top$ gets $x^\top g$. The weight itself gets the transpose of that, $g^\top x$.
# The bias was stretched over the batch, so its gradient is a sum over the batch. We write $dx$ for
# $\partial L/\partial x$, and so on. Number by number:
#
# $$
# \begin{aligned}
# dx &= g w, & dx_{rj} &= \sum_i g_{ri} w_{ij} \\
# dw &= g^\top x, & dw_{ij} &= \sum_r g_{ri} x_{rj} \\
# & & d\text{bias}_i &= \sum_r g_{ri}
# \end{aligned}
# $$
#
# **New here: one weight serves several batch axes of $x$**, for example texts and the tokens of
# each. All rows along these axes used the same weight and bias: both sums over $r$ run over all.
# The figure shows the shapes. While $B$, $n$ and $m$ differ, only one product of the two factors
# has the right shape. In a square layer, $n = m$, a wrong transpose raises no error.
#
# Take the example of section 2 with a second input. Let $x$ and $g$ be
#
# $$
# x = \begin{pmatrix} 1 & 2 & 3 \\ 0 & 1 & 0 \end{pmatrix}, \qquad
# g = \begin{pmatrix} 1 & 10 \\ 2 & 0 \end{pmatrix}
# $$
#
# Each row of $g$ makes a row of $dx$. Both rows add to $dw$ and to $d\text{bias}$. If the loss is a
# mean, its $g$ contains the division by the size of the batch.
#
# $$
# \begin{aligned}
# dx &= g \begin{pmatrix} 1 & 0 & 2 \\ 0 & -1 & 1 \end{pmatrix}
# = \begin{pmatrix} 1 & -10 & 12 \\ 2 & 0 & 4 \end{pmatrix} \\
# dw &= \begin{pmatrix} 1 & 2 \\ 10 & 0 \end{pmatrix} x
# = \begin{pmatrix} 1 & 4 & 3 \\ 10 & 20 & 30 \end{pmatrix}, \qquad
# d\text{bias} = \begin{pmatrix} 3 & 10 \end{pmatrix}
# \end{aligned}
# $$
#
# $dx$ and $dw$ take $2Bmn$ FLOPs each. **In FLOPs, backward costs twice what forward costs.** The
# first layer of a network doesn't need $dx$, so there backward costs as much as forward.


# %% 6. Backward
@lab.exercise(
    level=2,
    hints=(
        "Each gradient has the shape of its tensor: dx (..., n), dw (m, n), dbias (m,).",
        "All axes before the last are batch, and each row of them used w: flatten, then sum.",
        "g @ w; then, with both flattened to two axes, g.T @ x; and the sum of the rows of g.",
    ),
)
def linear_backward(x: Tensor, w: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the loss with respect to x, the weight w and the bias.

    Args:
        x: the inputs of `forward`, (..., n), with any number of batch axes or none.
        w: the weight, (m, n).
        g: the gradient with respect to the output, (..., m).
    """
    inputs = x.reshape(-1, x.shape[-1])  # (..., n) -> (B, n)
    rows = g.reshape(-1, g.shape[-1])  # (..., m) -> (B, m)
    return g @ w, rows.T @ inputs, rows.sum(0)


@lab.experiment
def the_backward_by_hand_is_autograds(run: Run):
    """The three gradients by hand equal autograd's, for a batch with two axes.

    Predict: the same batch is given twice over, with the same g. Which of dx, dw and dbias doubles?
    """
    layer = Linear(48, 32).double()
    w = layer.weight.detach()
    x = torch.randn(8, 5, 48, **DOUBLE, requires_grad=True)
    y = layer(x)
    g = torch.randn_like(y)
    ours = linear_backward(x, w, g)
    theirs = torch.autograd.grad(y, (x, layer.weight, layer.bias), g)
    for name, mine, its in zip(("dx", "dw", "dbias"), ours, theirs, strict=True):
        run.agree(f"{name} − autograd's", mine - its, decides=True)
    because = "each is a sum of 40 normal numbers"
    run.check("largest of dbias", ours[2].abs().max(), at_least=1, because=because)
    twice = linear_backward(torch.cat((x, x)), w, torch.cat((g, g)))
    ratios = [(twice[i].norm() / ours[i].norm()).item() for i in (1, 2)]
    for i, name in ((1, "dw"), (2, "dbias")):
        run.agree(f"batch given twice: {name} − twice the {name} before", twice[i] - 2 * ours[i])
    run.agree("batch given twice: each half of dx − dx", twice[0].view(2, *x.shape) - ours[0])
    fig, caption, alt = figures.backward_shapes()
    run.figure(fig, "backward", caption, alt=alt)
    x, w, g = torch.randn(3, 512, 512)
    calls = {"forward": lambda: x @ w.T, "backward": lambda: linear_backward(x, w, g)}
    forward, backward = (product_flops(call) for call in calls.values())
    run.measure("512 × 512: backward ÷ forward, FLOPs as PyTorch counts them", backward / forward)
    forward, backward = best_in_turn(calls).values()
    run.measure("512 × 512: backward ÷ forward, time", backward / forward, timed=True)
    growth = f"dw grows by a factor of {ratios[0]:.2f} and dbias by {ratios[1]:.2f}"
    return f"With the same g, {growth}; each half of dx is as before."


# %% [markdown]
# ## 7. What a weight matrix has learned
# Now train a single layer on 1,437 of LLM02's digits. The other 360 are the test images. An image
# has 8 × 8 pixels between 0 and 1, so $n = 64$; there is an output for each digit, so $m = 10$. The
# outputs are logits, and the digit with the largest wins. The loss is the mean cross-entropy over
# the images. LLM02 found its gradient with respect to the logits: the softmax, minus 1 at the right
# digit, divided by the number of images. Your `linear_backward` does the rest, without autograd.
# Each of the 500 steps (`tiny`) subtracts 0.2 times the gradient over all training images.
#
# **A row of the weight has one number for each pixel, so it is a picture**. To get a logit,
# multiply row and image pixel by pixel, sum, and add the bias, as in the second figure below.
#
# **Only differences between rows matter.** If all logits grow by the same number, the softmax stays
# the same. So adding the same picture to all rows changes no probability. We subtract from each row
# the mean of all rows. Training never changes this mean, because the gradients of the ten logits
# sum to zero: it is a leftover of the random start. Ink counts for the digit where its row is
# positive, and against it where negative. The centred rows sum to zero, so the rank is at most 9.
#
# A pixel that is blank in every training image has $x_{rj} = 0$. As $dw = g^\top x$, its weights
# stay as `reset_parameters` left them. If a new image has ink there, they add noise.
#
# Is gradient descent worth it? LLM02's baseline needs none: it picks the digit whose mean training
# image $\mu$ is nearest. Now $-|x - \mu|^2 = 2\mu \cdot x - |\mu|^2 - |x|^2$, and $|x|^2$ is the
# same for all ten digits. So it is a linear layer, too. Its rows are $2\mu$, its biases $-|\mu|^2$.


# %% 7. A trained layer
@torch.no_grad()
def train_classifier(run: Run, seed: int) -> tuple[Linear, Linear]:
    """Train a layer on digits by our own backward pass; return it and its start."""
    x, y, _, _ = digits.split_digits(run, seed)
    torch.manual_seed(seed)
    layer = Linear(64, 10).to(run.device)
    start = Linear(64, 10).to(run.device)
    start.load_state_dict(layer.state_dict())
    targets = F.one_hot(y, 10)  # (B, 10)
    for _ in range(run.pick(tiny=500, small=1000, full=2000)):
        g = (layer(x).softmax(-1) - targets) / len(x)  # (B, 10)
        _, dw, dbias = linear_backward(x, layer.weight, g)
        layer.weight.sub_(0.2 * dw)  # in place
        layer.bias.sub_(0.2 * dbias)
    return layer, start


@lab.experiment
@torch.no_grad()
def a_row_recognises_its_digit(run: Run):
    """Ink in the hole of a 0 counts against 0; a mean image has its largest logit at its own digit.

    Predict: which pixels of the row for 0 will be the most negative?
    """
    trained = []
    untrained = []
    accuracies = []
    nearest = []
    holes = []
    for seed in run.seeds(3):
        layer, start = train_classifier(run, seed)
        x, y, test_x, test_y = digits.split_digits(run, seed)
        means = digits.mean_images(x, y)  # (10, 64)
        trained.append(digits.own_logits(layer(means)))
        untrained.append(digits.own_logits(start(means)))
        accuracies.append(digits.accuracy(layer(test_x), test_y))
        nearest.append(digits.accuracy(-torch.cdist(test_x, means), test_y))
        holes.append(digits.darkest_in_the_middle(digits.centred(layer.weight)[0]))
        if seed == run.seed:
            digits.check_blank_pixels(run, x, layer, start)
            w = digits.centred(layer.weight).cpu()  # (10, 64)
            rows = figures.rows_as_pictures(means.cpu(), w, x.amax(0).cpu() == 0)
            reading = figures.reading(test_x[0].cpu(), int(test_y[0]), w, layer.bias.cpu())
    name = "of the ten mean images, largest logit at their own digit"
    run.check(f"{name}, trained", trained, equals=[10] * 3, decides=True)
    because = "ten independent picks would get 1 right on average, six or more in 1 case of 7,000"
    run.check(f"{name}, at the start", untrained, at_most=5, because=because, decides=True)
    name = "row of 0: of its four most negative pixels, in the middle"
    because = "the hole of the 0; a random row would have a quarter of a pixel there"
    run.check(name, holes, at_least=3, because=because, decides=True)
    run.measure("accuracy on test images, three seeds", accuracies)
    run.measure("accuracy of the nearest mean image", nearest)
    rank = int(torch.linalg.matrix_rank(w))
    because = "the rows sum to zero, which leaves nine dimensions"
    run.check("rank of the ten centred rows", rank, equals=9, because=because)
    for name, (fig, caption, alt) in (("rows", rows), ("reading", reading)):
        run.figure(fig, name, caption, alt=alt)
    return (
        f"Of the four most negative pixels in the row for 0, in three layers, {sum(holes)} of 12 "
        f"are in the middle. The layers read {digits.percent(accuracies)} of the test images, the "
        f"nearest mean image reads {digits.percent(nearest)}."
    )


# %% [markdown]
# ## What to remember
# - The columns of a matrix are where the unit vectors land. A product is one movement after
#   another. Rank is how many dimensions are left; singular values are the stretches.
# - A ReLU bends the plane, so that two layers can compute what no single layer can.
# - Align shapes at the right; sizes fit if equal or if one is 1. Check shapes, then trust a loss.
# - `Linear`: forward is $x w^\top + \text{bias}$; backward is $gw$, $g^\top x$ and the sum of $g$.
# - A row of a weight has a number for each input. If the inputs are pixels, the row is a picture.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Return what surprised, in the numbers of this run."""
    name = "64 × 64: loops ÷ matmul, time"
    ratio = results.value("four_ways_give_the_same_numbers", name)
    rows = "a_row_recognises_its_digit"
    shares = results.values(rows, "accuracy on test images, three seeds")
    nearest = results.values(rows, "accuracy of the nearest mean image")
    return (
        "## What surprised\n\n"
        f"Python's loops took {rounded(ratio)} times as long as the library for the same product "
        "of two 64 × 64 matrices. A single layer, trained with two gradients and no autograd, "
        f"reads {digits.percent(shares)} of the test images. The nearest mean image, without "
        f"gradient descent, reads {digits.percent(nearest)}."
    )


# %% [markdown]
# **Read on**: Strang, *Introduction to Linear Algebra*, on linear transformations and the SVD ·
# [NumPy: Broadcasting](https://numpy.org/doc/stable/user/basics.broadcasting.html) · Alpaydin &
# Kaynak 1998, for the digits. Next is LLM03+, strides and twenty layers, or LLM04, tokenization.

# %%
if __name__ == "__main__":
    lab.main()
