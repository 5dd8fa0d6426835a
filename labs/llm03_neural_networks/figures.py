"""The drawings of LLM03: stretched arrays, products, weights as pictures; see plane_figures, too.

Each public function but those that draw into a panel returns a figure, its caption and a text for
readers who can't see it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Rectangle
from torch import Tensor

Drawn = tuple[Any, str, str]  # figure, caption, alt text


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
