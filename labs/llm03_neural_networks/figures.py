"""The drawings of LLM03: moved planes, stretched arrays, products, weights as pictures.

Each public function but those that draw into a panel returns a figure, its caption and a text for
readers who can't see it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Polygon, Rectangle
from torch import Tensor

Matrix = Sequence[Sequence[float]]
Drawn = tuple[Any, str, str]  # figure, caption, alt text
LETTER = [[0.25, 0.15], [0.25, 0.85], [0.75, 0.85], [0.25, 0.85], [0.25, 0.5], [0.6, 0.5]]
SQUARE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
PALE = 0.35
LABELS = ("(0, 0)", "(0, 1)", "(1, 0)", "(1, 1)")  # corners of the unit square


def draw_plane(ax: Any, matrix: Matrix, title: str) -> None:
    """Draw a moved grid, the moved unit square with its letter, and the two columns as arrows."""
    m = np.array(matrix)
    along = np.array([-6, 6])
    for at in range(-6, 7):
        for line in (np.stack([along, along * 0 + at]), np.stack([along * 0 + at, along])):
            x, y = m @ line
            ax.plot(x, y, color="C0", lw=0.6, alpha=0.4)
    ax.add_patch(Polygon(np.array(SQUARE) @ m.T, fc="C1", ec="none", alpha=PALE))
    ax.plot(*(m @ np.array(LETTER).T), color="C6", lw=2)
    for column, colour in zip(m.T, ("C0", "C1"), strict=True):
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 2, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", column, (0, 0), arrowprops=arrow)
    ax.set(xlim=(-1.1, 2.3), ylim=(-0.7, 2.1), aspect="equal", xticks=[], yticks=[])
    ax.set_title(title, fontsize=11)
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def write_matrix(ax: Any, matrix: Matrix) -> None:
    """Write a matrix into the corner of a panel, its columns in the colours of the arrows."""
    for j, colour in enumerate(("C0", "C1")):
        for i in range(2):
            text = f"{matrix[i][j]:g}".replace("-", "−")
            place = (0.19 + 0.21 * j, 0.9 - 0.12 * i)
            looks: dict[str, Any] = {"color": colour, "ha": "right", "fontsize": 11}
            ax.text(*place, text, transform=ax.transAxes, weight="bold", **looks)


def movements(moves: Mapping[str, Matrix]) -> Drawn:
    """Draw what each matrix does to the plane, with its determinant."""
    fig, axes = plt.subplots(2, 3, figsize=(7.2, 4.7))
    for ax, (name, matrix) in zip(axes.flat, moves.items(), strict=True):
        determinant = round(float(np.linalg.det(np.array(matrix))), 2) + 0.0
        draw_plane(ax, matrix, f"{name}, det {determinant:g}".replace("-", "−"))
        write_matrix(ax, matrix)
        if name == "projection":
            ax.text(0.6, 0.2, "both columns", fontsize=9)
    fig.suptitle("The columns of a matrix are where the two unit vectors land", fontsize=12)
    caption = (
        "The unit square with a letter F in it, moved by six matrices. Arrows: the two columns."
    )
    alt = (
        "Six panels. Each shows a grid, the image of the unit square with an F in it and two "
        "arrows. The square is turned, sheared, stretched, mirrored, or flattened to a line."
    )
    return fig, caption, alt


def either_order(rotation: Matrix, shear: Matrix) -> Drawn:
    """Draw shear and rotation, one after another, in either order."""
    r = np.array(rotation)
    s = np.array(shear)
    fig, axes = plt.subplots(2, 3, figsize=(7.2, 4.7))
    start = np.eye(2)
    rows = (
        [("start", start), ("shear S", s), ("then rotation: RS", r @ s)],
        [("start", start), ("rotation R", r), ("then shear: SR", s @ r)],
    )
    for line, row in zip(axes, rows, strict=True):
        for ax, (name, matrix) in zip(line, row, strict=True):
            draw_plane(ax, matrix.tolist(), name)
    fig.suptitle("The order of two movements matters: RS is not SR", fontsize=12)
    caption = "The same two movements in either order."
    alt = (
        "Two rows of three panels. Above, an F is sheared and then rotated; below, it is "
        "rotated and then sheared. The last panels differ."
    )
    return fig, caption, alt


def _equation(ax: Any, parts: Sequence[Any], top: float, height: int) -> None:
    """Write signs, and arrays with their colours as cells, from left to right."""
    at = 0.0
    for part in parts:
        if isinstance(part, str):
            width = 0.8 + 0.3 * len(part)
            ax.text(at + width / 2 - 0.03, top - height / 2, part, ha="center", va="center")
            at += width
        else:
            numbers, colour = part
            at = _cells(ax, numbers, at, (1, 1), colour, top - (height - len(numbers)) / 2)


def two_readings() -> Drawn:
    """Draw w x + bias of the text's example as a sum of columns, and as rows times the input."""
    fig, axes = plt.subplots(2, 1, figsize=(7.2, 3.2))
    x = [[1], [2], [3]]
    bias = ([[10], [20]], "C6")
    y = ([[17], [21]], "C6")
    columns = ([[1], [0]], "C0"), ([[0], ["−1"]], "C1"), ([[2], [1]], "C2")
    first, second, third = columns
    parts = ["1 ×", first, "+ 2 ×", second, "+ 3 ×", third, "+", bias, "=", y]
    _equation(axes[0], parts, 0, 2)
    axes[0].set_title("By columns: input j adds its number times column j", fontsize=11)
    first, second = ([[1, 0, 2]], "C0"), ([[0, "−1", 1]], "C1")
    parts = [first, "·", (x, "C6"), "+ 10 = 17", "   ", second, "·", (x, "C6"), "+ 20 = 21"]
    _equation(axes[1], parts, 0, 3)
    axes[1].set_title("By rows: output i is row i times the input, plus its bias", fontsize=11)
    for ax, height in zip(axes, (2.2, 3.2), strict=True):
        ax.set(xlim=(-0.2, 20), ylim=(-height, 0.2), aspect="equal")
        ax.axis("off")
    fig.suptitle("Two ways to read a weight matrix, and both give 17 and 21", fontsize=12)
    caption = (
        "The example's weight, input and bias. Above, a colour for each column; below, each row."
    )
    alt = (
        "Above, three columns of numbers, times 1, 2 and 3, plus the bias make a column of 17 and "
        "21. Below, two rows of numbers times the input, plus 10 and 20, make 17 and 21."
    )
    return fig, caption, alt


def times(sizes: Sequence[int], seconds: Mapping[str, Sequence[float]]) -> Drawn:
    """Draw the time of a product over the size of its matrices, a line for each way."""
    fig, ax = plt.subplots()
    ends = sorted((values[-1], name) for name, values in seconds.items())
    lowest = 0.0
    for i, values in enumerate(seconds.values()):
        ax.loglog(sizes, values, f"C{i}o-")
    for end, name in ends:
        height = max(end, lowest * 2.2)  # labels of close lines stand apart
        colour = f"C{list(seconds).index(name)}"
        ax.text(sizes[-1] * 1.12, height, name, color=colour, va="center")
        lowest = height
    ax.set(xlabel="n, of n × n times n × n", ylabel="time (s)", xlim=(None, sizes[-1] * 2.6))
    ax.set_xticks(list(sizes), [str(n) for n in sizes])
    ax.minorticks_off()
    ax.set_title("The same product: Python's loops take by far the longest")
    caption = (
        "The fastest of several calls, on one thread of the CPU. Tensors are in float32; the loops "
        "use Python's floats. The broadcast sum first lays out n³ numbers."
    )
    alt = (
        "Four lines on log axes of time over the size of the matrices. Loops are far above "
        "the others and grow steadily; matmul is the lowest."
    )
    return fig, caption, alt


def pressed(rotation: Matrix) -> Drawn:
    """Draw a turned grid before and after a ReLU; one quadrant in another colour than the rest."""
    turn = torch.tensor(rotation)
    at = torch.linspace(-1.5, 1.5, 13)
    points = torch.cartesian_prod(at, at) @ turn.T  # (169, 2)
    stays = (points > 0).all(1)
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.7), sharex=True, sharey=True)
    long = torch.linspace(-1.5, 1.5, 61)
    titles = ("a grid in the plane", "after the ReLU")
    for ax, step, title in zip(axes, (torch.clone, torch.relu), titles, strict=True):
        for place in at:
            for line in ((long, place.expand(61)), (place.expand(61), long)):
                moved = step(torch.stack(line, 1) @ turn.T)  # (61, 2)
                ax.plot(*moved.T, color="C6", lw=0.6, alpha=0.3)
        for chosen, colour in ((~stays, "C1"), (stays, "C0")):
            ax.plot(*step(points[chosen]).T, "o", color=colour, ms=4)
        ax.set(aspect="equal", xlabel="x₁", xticks=[-1, 0, 1, 2], yticks=[-1, 0, 1, 2])
        ax.set_title(title, fontsize=11)
    axes[0].set_ylabel("x₂")
    fig.suptitle("A ReLU keeps one quadrant and presses the rest onto its edges", fontsize=12)
    caption = "A turned grid, before and after a ReLU. Blue: points with both numbers above 0."
    alt = (
        "Two panels. Left, a turned square of points, those with two positive numbers in blue. "
        "Right, the blue points are where they were; all others are on the two positive axes."
    )
    return fig, caption, alt


def bend(corners: Tensor, w1: Tensor) -> Drawn:
    """Draw the corners of the unit square in the plane, after w₁, and after w₁ and a ReLU.

    Args:
        corners: (4, 2), in the order of LABELS; the first and the last belong together.
        w1: (2, 2).
    """
    grid = torch.linspace(-0.5, 1.5, 9, dtype=corners.dtype)
    fig, axes = plt.subplots(1, 3, figsize=(8.4, 3.3))
    steps = (
        ("two inputs", "x", lambda x: x),
        ("after w₁: a line", "h", lambda x: x @ w1.T),
        ("after the ReLU: a corner", "h", lambda x: (x @ w1.T).relu()),
    )
    for ax, (title, name, step) in zip(axes, steps, strict=True):
        for at in grid:
            for ends in ((grid, at.expand(9)), (at.expand(9), grid)):
                ax.plot(*step(torch.stack(ends, 1)).T, color="C6", lw=0.6, alpha=0.25)
        moved = step(corners)
        for i, colour in enumerate(("C0", "C1", "C1", "C0")):
            ax.plot(*moved[i], "os"[colour == "C1"], color=colour, ms=9, zorder=3)
            label = LABELS[i]
            place = moved[i] + 0.12
            side = "left"
            if name == "h" and colour == "C0":  # both lie at the origin
                label = f"{LABELS[0]}, {LABELS[3]}" if i == 0 else ""
                place = moved[i] - torch.tensor([0.12, 0.35])
                side = "right"
            ax.text(*place, label, color=colour, fontsize=10, ha=side)
        ax.set(aspect="equal", xlabel=f"{name}₁", ylabel=f"{name}₂", title=title)
        ax.set(xlim=(-1.6, 1.9), ylim=(-1.6, 1.9), xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    axes[2].plot([-1.2, 1.7], [1.7, -1.2], "C2--", lw=2)
    axes[2].text(1.8, -1.5, "h₁ + h₂ = ½", color="C2", fontsize=10, ha="right")
    fig.suptitle("A bend turns a line into a corner, which a straight cut separates", fontsize=12)
    caption = (
        "The four corners of the unit square, and a grid. No straight line separates the blue from "
        "the orange corners; after the ReLU the dashed line does."
    )
    alt = (
        "Three panels. Left, four corners of a square in two colours, equal colours opposite. "
        "Middle, all on a falling line. Right, the line is bent to a corner; two points are at its "
        "tip, two on its arms, and a dashed line cuts between them."
    )
    return fig, caption, alt


def _cells(
    ax: Any, numbers: Any, left: float, copies: tuple[int, int], colour: str, top: float = 0
) -> float:
    """Draw an array as cells, with pale copies along either axis; return the right edge."""
    rows, columns = np.shape(numbers)
    for i in range(rows * copies[0]):
        for j in range(columns * copies[1]):
            copied = i >= rows or j >= columns
            box = Rectangle((left + j, top - i), 0.94, -0.94, ec=colour, lw=0 if copied else 1.6)
            box.set(fc=colour, alpha=0.12 if copied else 1, fill=copied)
            ax.add_patch(box)
            value = numbers[i % rows][j % columns]
            ink = {"color": "C6", "alpha": 0.55 if copied else 1}
            ax.text(left + j + 0.47, top - i - 0.49, value, ha="center", va="center", **ink)
    return left + columns * copies[1]


def _sum(ax: Any, a: Any, b: Any, shapes: str, title: str, fits: bool = True) -> None:
    """Draw a + b = result for two stretched matrices, and their shapes one below the other."""
    a = np.array(a)
    b = np.array(b)
    rows = max(len(a), len(b))
    columns = max(a.shape[1], b.shape[1])
    edge = 0.0
    for array, sign in ((a, "+"), (b, "=")):
        copies = (rows // array.shape[0], columns // array.shape[1]) if fits else (1, 1)
        edge = _cells(ax, array, edge, copies, "C0" if sign == "+" else "C1")
        ax.text(edge + 0.5, -rows / 2, sign if fits or sign == "+" else "", ha="center")
        edge += 1
    if fits:
        _cells(ax, a + b, edge, (1, 1), "C2")
    else:
        ax.text(edge - 4.8, -2.6, "error: 3 and 4 don't fit", va="center", color="C1")
    ax.text(13.2, -2, shapes, family="monospace", va="center", ha="right", linespacing=1.4)
    ax.set(xlim=(-0.2, 13.5), ylim=(-rows - 0.1, 0.1), aspect="equal")
    ax.set_title(title, fontsize=11)
    ax.axis("off")


def stretched_arrays() -> Drawn:
    """Draw three sums with their copies, and one whose shapes don't fit."""
    fig, axes = plt.subplots(2, 2, figsize=(8.4, 4.4))
    table = [[0, 0, 0], [10, 10, 10], [20, 20, 20], [30, 30, 30]]
    row = [[1, 2, 3]]
    column = [[0], [10], [20], [30]]
    _sum(axes[0, 0], table, row, "4 3\n  3\n───\n4 3", "(4, 3) + (3,): a row, repeated")
    tall = [[1], [2], [3], [4]]
    _sum(axes[0, 1], table, tall, "4 3\n4 1\n───\n4 3", "(4, 3) + (4, 1): a column, repeated")
    both = "(4, 1) + (3,): both are repeated"
    _sum(axes[1, 0], column, row, "4 1\n  3\n───\n4 3", both)
    short = [[1, 2, 3, 4]]
    _sum(axes[1, 1], table, short, "4 3\n  4\n───\n  ✗", "(4, 3) + (4,): an error", fits=False)
    fig.suptitle("Broadcasting uses an array again along an axis of size 1", fontsize=12)
    caption = (
        "Three sums and an error, with the numbers. Pale: numbers that broadcasting uses again."
    )
    alt = (
        "Four sums of small arrays of numbers. In three of them pale copies of a row, a "
        "column or both fill up an array; in the fourth, sizes 3 and 4 meet, and there is no "
        "result."
    )
    return fig, caption, alt


def _block(ax: Any, corner: tuple[float, float], sides: tuple[str, str], name: str, c: str) -> None:
    """Draw a matrix as a rectangle with its name and the names of its sides."""
    lengths = {"B": 1.6, "n": 2.2, "m": 1.1, "1": 0.35}
    height, width = (lengths[side] for side in sides)
    x, y = corner
    ax.add_patch(Rectangle((x, y - height / 2), width, height, fc=c, ec=c, alpha=0.25, lw=2))
    below = height / 2 + 0.35 if height < 0.5 else 0  # a name is taller than a row of 1
    ax.text(x + width / 2, y - below, name, ha="center", va="center", fontsize=13)
    ax.text(x - 0.12, y, sides[0], ha="right", va="center", style="italic")
    ax.text(x + width / 2, y + height / 2 + 0.08, sides[1], ha="center", style="italic")


def backward_shapes() -> Drawn:
    """Draw the products of forward and backward as rectangles with labelled sides."""
    fig, ax = plt.subplots(figsize=(7.2, 6.0))
    x = ("x", "Bn", "C0")
    g = ("g", "Bm", "C2")
    rows = (
        ("forward", "·+=", (x, ("wᵀ", "nm", "C1"), ("bias", "1m", "C3"), ("y", "Bm", "C2"))),
        ("back to x", "·=", (g, ("w", "mn", "C1"), ("dx", "Bn", "C0"))),
        ("back to w", "·=", (("gᵀ", "mB", "C2"), x, ("dw", "mn", "C1"))),
        ("back to bias", "·=", (("1", "1B", "C6"), g, ("dbias", "1m", "C3"))),
    )
    places = {"·": 2.5, "+": 4.9, "=": 7.1}
    starts = {"·": 3.4, "+": 5.6, "=": 7.9}  # of the block behind a sign
    for i, (title, signs, blocks) in enumerate(rows):
        y = -2.9 * i
        ax.text(-2.6, y, title, va="center")
        for sign in signs:
            ax.text(places[sign], y, sign, fontsize=15, ha="center", va="center")
        lefts = [0.0, *(starts[sign] for sign in signs)]
        for left, (name, sides, colour) in zip(lefts, blocks, strict=True):
            _block(ax, (left, y), (sides[0], sides[1]), name, colour)
    ax.set(xlim=(-2.7, 10.3), ylim=(-9.9, 1.5), aspect="equal")
    ax.set_title("A gradient has the shape of its tensor")
    ax.axis("off")
    caption = (
        "Forward and backward as products of matrices. A tensor, its transpose and its gradient "
        "have the same colour; g is the gradient of y. 1 is a row of ones."
    )
    alt = (
        "Four equations of rectangles, sides labelled B, n and m: x times w transposed, plus the "
        "bias, is y; g times w is dx; g transposed times x is dw; a row of ones times g is dbias."
    )
    return fig, caption, alt


def _picture(ax: Any, image: Tensor, most: float | None = None) -> Any:
    """Draw 64 numbers as a picture: ink in grey, or weights in red and blue up to `most`."""
    looks: dict[str, Any] = {"cmap": "Greys", "vmin": 0, "vmax": 1}
    if most is not None:
        looks = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    return ax.imshow(image.view(8, 8), **looks)


def rows_as_pictures(means: Tensor, weight: Tensor, blank: Tensor) -> Drawn:
    """Draw the mean image of each digit, (10, 64), above its row of the weight, (10, 64).

    Args:
        means: by digit.
        weight: by digit, minus the mean row.
        blank: (64,), whether a pixel is blank in all training images.
    """
    fig, axes = plt.subplots(4, 5, figsize=(7.2, 6.4))
    most = weight.abs().max().item()
    ink: Any = None
    weights: Any = None
    for digit in range(10):
        row = 2 * (digit // 5)
        column = digit % 5
        ink = _picture(axes[row, column], means[digit])
        weights = _picture(axes[row + 1, column], weight[digit], most)
        axes[row, column].set_title(str(digit), loc="center", fontsize=11)
        for pixel in blank.nonzero().flatten().tolist():
            corner = (pixel % 8 - 0.5, pixel // 8 - 0.5)
            axes[row + 1, column].add_patch(
                Rectangle(corner, 1, 1, fill=False, ec="#777777", lw=1.2)
            )
    fig.colorbar(ink, ax=axes, aspect=50, pad=0.02, location="left", label="mean ink")
    fig.colorbar(weights, ax=axes, aspect=50, pad=0.02, label="weight")
    fig.suptitle("Each row of the weights is a picture of what counts for its digit", fontsize=12)
    caption = (
        "The mean image of each digit, and below it the row of weights that recognises it, "
        "minus the mean row. Red: ink counts for the digit; blue: against it. Framed: pixels "
        "that are blank in every training image."
    )
    alt = (
        "Ten pairs of small pictures. Above, blurred digits 0 to 9; below, red and blue "
        "patterns that follow the strokes and the gaps of the digit."
    )
    return fig, caption, alt


def reading(image: Tensor, label: int, weight: Tensor, bias: Tensor) -> Drawn:
    """Draw how an image gets two logits: the right digit's, and the best of the others."""
    logits = weight @ image + bias
    others = logits.clone()
    others[label] = -torch.inf
    digits = (label, int(others.argmax()))
    most = weight.abs().max().item()
    fig, axes = plt.subplots(2, 3, figsize=(7.2, 4.9))
    drawn: Any = None
    for row, digit in zip(axes, digits, strict=True):
        product = weight[digit] * image
        _picture(row[0], image)
        _picture(row[1], weight[digit], most)
        drawn = _picture(row[2], product, most)
        row[0].set_title("image", fontsize=11)
        row[1].set_title(f"× row of {digit}", fontsize=11)
        total = f"= {product.sum():.1f}, logit {logits[digit]:.1f}".replace("-", "−")
        row[2].set_title(total, fontsize=11)
    fig.colorbar(drawn, ax=axes, pad=0.02, label="weight; product")
    fig.suptitle(f"How the layer reads a {label}: image times row, summed", fontsize=12)
    caption = (
        "The row of the right digit and of the next best, times the image. The sum of the "
        "product, and the bias, is the logit, up to the same constant for all digits."
    )
    alt = (
        "Two rows of three pictures: an image, a row of weights, their product. The products "
        "sum to two logits."
    )
    return fig, caption, alt


def ellipse(shear: Matrix) -> Drawn:
    """Draw the unit circle with the directions in V, and their images under the shear."""
    matrix = torch.tensor(shear, dtype=torch.float64)
    angles = torch.linspace(0, 2 * torch.pi, 181, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()])  # (2, 181)
    _, s, vt = torch.linalg.svd(matrix)
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.6), sharex=True, sharey=True)
    names = (("v₁", "v₂"), tuple(f"σ{'₁₂'[i]} = {s[i]:.2f}" for i in range(2)))
    for ax, m, labels in zip(axes, (torch.eye(2).double(), matrix), names, strict=True):
        ax.plot(*(m @ circle), color="C6", lw=1)
        for i in range(2):
            x, y = (m @ vt[i] * vt[0].sum().sign()).tolist()
            ax.plot([0, x], [0, y], f"C{i}", lw=2.5)
            side = ("center", "right")[i]
            ax.text(1.12 * x, 1.12 * y + 0.05, labels[i], color=f"C{i}", ha=side, va="bottom")
        ax.set(aspect="equal", xlim=(-2.1, 2.1), ylim=(-1.5, 1.7))
        ax.set(xticks=range(-2, 3), yticks=[-1, 0, 1], xlabel="first number")
    axes[0].set_ylabel("second number")
    axes[0].set_title("unit circle", fontsize=11)
    axes[1].set_title("its image under the shear", fontsize=11)
    fig.suptitle("Singular values: how far a matrix stretches two directions", fontsize=12)
    caption = (
        "The shear. Left: the directions that it stretches most and least. Right: where they land."
    )
    alt = (
        "Two panels: a circle with two perpendicular radii, and its image, an ellipse, with "
        "their images, the half-axes, of length 1.62 and 0.62."
    )
    return fig, caption, alt
