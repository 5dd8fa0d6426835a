"""The drawings of LLM03: moved planes, stretched arrays, products, weights as pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Polygon, Rectangle
from torch import Tensor

Matrix = Sequence[Sequence[float]]
LETTER = [[0.25, 0.15], [0.25, 0.85], [0.75, 0.85], [0.25, 0.85], [0.25, 0.5], [0.6, 0.5]]
SQUARE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
PALE = 0.35


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


def movements(moves: Mapping[str, Matrix]) -> Any:
    """Draw what each matrix does to the plane, with its determinant."""
    fig, axes = plt.subplots(2, 3, figsize=(7.2, 4.7))
    for ax, (name, matrix) in zip(axes.flat, moves.items(), strict=True):
        determinant = round(float(np.linalg.det(np.array(matrix))), 2) + 0.0
        draw_plane(ax, matrix, f"{name}, det {determinant:g}".replace("-", "−"))
    fig.suptitle("A matrix moves the plane: its columns are where the axes land", fontsize=12)
    return fig


def either_order(rotation: Matrix, shear: Matrix) -> Any:
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
    return fig


def times(sizes: Sequence[int], seconds: Mapping[str, Sequence[float]]) -> Any:
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
    return fig


def _cells(ax: Any, numbers: Any, left: float, copies: tuple[int, int], colour: str) -> float:
    """Draw an array as cells, with pale copies along either axis; return the right edge."""
    rows, columns = np.shape(numbers)
    for i in range(rows * copies[0]):
        for j in range(columns * copies[1]):
            copied = i >= rows or j >= columns
            box = Rectangle((left + j, -i), 0.94, -0.94, ec=colour, lw=0 if copied else 1.6)
            box.set(fc=colour, alpha=0.12 if copied else 1, fill=copied)
            ax.add_patch(box)
            value = numbers[i % rows][j % columns]
            ink = {"color": "C6", "alpha": 0.55 if copied else 1}
            ax.text(left + j + 0.47, -i - 0.49, value, ha="center", va="center", **ink)
    return left + columns * copies[1]


def _sum(ax: Any, a: Any, b: Any, title: str, fits: bool = True) -> None:
    """Draw a + b = result for two matrices of numbers, each stretched to the common shape."""
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
        ax.text(edge + 0.2, -rows / 2, "error:\n3 and 4\ndon't fit", va="center", color="C1")
    ax.set(xlim=(-0.2, 12.2), ylim=(-rows - 0.1, 0.1), aspect="equal")
    ax.set_title(title, fontsize=11)
    ax.axis("off")


def stretched_arrays() -> Any:
    """Draw three sums with their copies, and one whose shapes don't fit."""
    fig, axes = plt.subplots(2, 2, figsize=(7.8, 4.6))
    table = [[0, 0, 0], [10, 10, 10], [20, 20, 20], [30, 30, 30]]
    row = [[1, 2, 3]]
    column = [[0], [10], [20], [30]]
    _sum(axes[0, 0], table, row, "(4, 3) + (3,): a row, repeated")
    _sum(axes[0, 1], table, [[1], [2], [3], [4]], "(4, 3) + (4, 1): a column, repeated")
    _sum(axes[1, 0], column, row, "(4, 1) + (3,): both are repeated")
    _sum(axes[1, 1], table, [[1, 2, 3, 4]], "(4, 3) + (4,): an error", fits=False)
    fig.suptitle("Broadcasting repeats an array along an axis of size 1", fontsize=12)
    return fig


def _block(ax: Any, corner: tuple[float, float], sides: tuple[str, str], name: str, c: str) -> None:
    """Draw a matrix as a rectangle with its name and the names of its sides."""
    lengths = {"B": 1.6, "n": 2.2, "m": 1.1}
    height, width = (lengths[side] for side in sides)
    x, y = corner
    ax.add_patch(Rectangle((x, y - height / 2), width, height, fc=c, ec=c, alpha=0.25, lw=2))
    ax.text(x + width / 2, y, name, ha="center", va="center", fontsize=13)
    ax.text(x - 0.12, y, sides[0], ha="right", va="center", style="italic")
    ax.text(x + width / 2, y + height / 2 + 0.08, sides[1], ha="center", style="italic")


def backward_shapes() -> Any:
    """Draw the products of forward and backward as rectangles with labelled sides."""
    fig, ax = plt.subplots(figsize=(7.2, 4.8))
    rows = [
        ("forward", ("x", "Bn", "C0"), ("wᵀ", "nm", "C1"), ("y", "Bm", "C2")),
        ("backward", ("g", "Bm", "C2"), ("w", "mn", "C1"), ("dx", "Bn", "C0")),
        ("backward", ("gᵀ", "mB", "C2"), ("x", "Bn", "C0"), ("dw", "mn", "C1")),
    ]
    for i, (title, *blocks) in enumerate(rows):
        y = -2.9 * i
        ax.text(-2.6, y, title, va="center")
        for x, sign, (name, sides, colour) in zip(
            (0, 3.4, 6.8), ("·", "=", ""), blocks, strict=True
        ):
            _block(ax, (x, y), (sides[0], sides[1]), name, colour)
            ax.text(x + 2.65, y, sign, fontsize=15, ha="center", va="center")
    ax.set(xlim=(-2.7, 9.3), ylim=(-7.4, 1.5), aspect="equal")
    ax.set_title("A gradient has the shape of its tensor, so only one order fits")
    ax.axis("off")
    return fig


def rows_as_pictures(means: Tensor, weight: Tensor) -> Any:
    """Draw the mean image of each digit, (10, 64), above its row of the weight, (10, 64)."""
    fig, axes = plt.subplots(2, 10, figsize=(7.8, 2.6))
    most = weight.abs().max().item()
    for digit in range(10):
        ink = axes[0, digit].imshow(means[digit].view(8, 8), cmap="Greys", vmin=0, vmax=1)
        looks = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
        weights = axes[1, digit].imshow(weight[digit].view(8, 8), **looks)
        axes[0, digit].set_title(str(digit), loc="center", fontsize=11)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
    axes[0, 0].set_ylabel("mean")
    axes[1, 0].set_ylabel("weights")
    fig.colorbar(ink, ax=axes[0, :], pad=0.01, label="ink")
    fig.colorbar(weights, ax=axes[1, :], pad=0.01, label="weight")
    fig.suptitle("Each row of the weights is a picture of what counts for its digit", fontsize=12)
    return fig


def singular_values(
    shear: Matrix,
    before: Sequence[float],
    trained: Sequence[float],
    by_rank: Sequence[Sequence[float]],
) -> Any:
    """Draw a circle's image, the singular values of a layer, and its accuracy by their number."""
    fig, (ellipse, values, shares) = plt.subplots(1, 3, figsize=(8.4, 3.4))
    matrix = torch.tensor(shear, dtype=torch.float64)
    angles = torch.linspace(0, 2 * torch.pi, 181, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()])  # (2, 181)
    ellipse.plot(*circle, color="C6", lw=1, ls=":")
    ellipse.plot(*(matrix @ circle), color="C0")
    u, s, _ = torch.linalg.svd(matrix)
    for i in range(2):
        x, y = (u[:, i] * s[i]).tolist()
        ellipse.plot([0, x], [0, y], f"C{i + 1}", lw=2)
        label = f"σ{'₁₂'[i]} = {s[i]:.2f}"
        ellipse.text((1.2, -1.1)[i], (1.45, 1.15)[i], label, color=f"C{i + 1}", ha="center")
    ellipse.set(aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1], xlim=(-1.9, 1.9))
    ellipse.set_ylim(-1.6, 1.9)
    ellipse.set_title("Circle → ellipse", fontsize=11)
    ranks = range(1, 11)
    values.plot(ranks, trained, "C0o-")
    values.plot(ranks, before, "C3o-")
    values.text(4, trained[3] * 1.12, "trained, centred", color="C0")
    values.text(1, before[0] + 0.05 * max(trained), "at the start", color="C3")
    values.set(xlabel="k", ylabel="k-th singular value", ylim=(0, None), xticks=[1, 4, 7, 10])
    values.set_title("Nine count, the tenth is 0", fontsize=11)
    for share in by_rank:
        shares.plot(range(11), [100 * one for one in share], "C2o-", ms=4, alpha=0.6)
    shares.set(xlabel="singular values in use", ylabel="test accuracy (%)", ylim=(0, 100))
    shares.set_xticks([0, 3, 6, 9])
    shares.set_title("Accuracy by rank", fontsize=11)
    return fig
