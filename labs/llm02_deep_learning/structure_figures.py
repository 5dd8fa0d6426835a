"""The pictures of LLM02: a matrix product, a broadcast, a computation graph, a network."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from labs.llm02_deep_learning.figures import INK, Drawn, number

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor

# Matrices


def results_of(lines: Sequence[str], x: Tensor) -> list[list[str]]:
    """Return a row for each of the lesson's lines of code on x: line, shape and numbers."""
    rows = []
    for line in lines:
        y = eval(line, {"torch": torch, "x": x})
        rows.append([line, str(tuple(y.shape)), str(y.tolist())])
    return rows


def draw_matrix(
    ax: Any, matrix: Tensor, left: float, title: str, shaded: Sequence[tuple[int, int]] = ()
) -> float:
    """Draw a matrix as a grid of numbers, vertically centred at 0; return its right edge.

    Args:
        ax: the axes, with a scale of 1 for each cell.
        matrix: (rows, columns).
        left: the left edge.
        title: the text above it.
        shaded: the cells to colour, as (row, column).
    """
    rows, columns = matrix.shape
    for i in range(rows):
        for j in range(columns):
            bottom = rows / 2 - i - 1
            colour = "C1" if (i, j) in shaded else "none"
            fill = Rectangle((left + j, bottom), 1, 1, facecolor=colour, alpha=0.3, lw=0)
            ax.add_patch(fill)
            ax.add_patch(Rectangle((left + j, bottom), 1, 1, fill=False, edgecolor=INK, lw=0.8))
            text = number(matrix[i, j])
            ax.text(left + j + 0.5, bottom + 0.5, text, ha="center", va="center")
    ax.text(left + columns / 2, rows / 2 + 0.2, title, ha="center", va="bottom")
    return left + columns


def _sign(ax: Any, place: float, sign: str) -> None:
    ax.text(place, 0, sign, ha="center", va="center", fontsize=16)


def _blank(ax: Any, width: float, height: float) -> None:
    ax.set(xlim=(-0.2, width + 0.2), ylim=(-height, height), aspect="equal")
    ax.axis("off")


def matmul_picture(a: Tensor, b: Tensor, row: int, column: int) -> Drawn:
    """Draw a @ b = y, with one row, one column and their entry shaded.

    Args:
        a: (n, k).
        b: (k, m).
        row: of a.
        column: of b.
    """
    fig, ax = plt.subplots(figsize=(7.2, 2.9))
    k = a.shape[1]
    edge = draw_matrix(ax, a, 0, f"a {tuple(a.shape)}", [(row, t) for t in range(k)])
    _sign(ax, edge + 0.5, "@")
    edge = draw_matrix(ax, b, edge + 1, f"b {tuple(b.shape)}", [(t, column) for t in range(k)])
    _sign(ax, edge + 0.5, "=")
    y = a @ b
    edge = draw_matrix(ax, y, edge + 1, f"y {tuple(y.shape)}", [(row, column)])
    terms = " + ".join(f"{number(a[row, t])}·{number(b[t, column])}" for t in range(k))
    ax.text(0, -k / 2 - 0.45, f"y[{row}, {column}] = {terms} = {number(y[row, column])}", va="top")
    _blank(ax, edge, k / 2 + 1.1)
    ax.set_title("An entry of a matrix product is a row times a column")
    caption = f"Row {row} of a and column {column} of b make the entry y[{row}, {column}]."
    alt = (
        "Three grids of numbers, a times b equals y; a row of a, a column of b and their entry of "
        "y are shaded, and the sum of the products stands below."
    )
    return fig, caption, alt


def unbroadcast_picture() -> Drawn:
    """Draw a bias (3,) that is added to each row of (2, 3), and the gradients of two inputs.

    The inputs are the bias, which has an axis less, and a column (2, 1), which is stretched.
    """
    x = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    bias = torch.tensor([[10.0, 20, 30]])
    g = torch.tensor([[0.5, -2, 1], [0.1, 3, 1]])
    first = [(i, 0) for i in range(2)]
    row = [(0, i) for i in range(3)]
    fig, axes = plt.subplots(3, 1, figsize=(7.2, 6.4))
    ax = axes[0]
    edge = draw_matrix(ax, x, 0, "x (2, 3)")
    _sign(ax, edge + 0.5, "+")
    edge = draw_matrix(ax, bias.expand(2, 3), edge + 1, "bias (3,), read twice", first)
    _sign(ax, edge + 0.5, "=")
    edge = draw_matrix(ax, x + bias, edge + 1, "y (2, 3)", first)
    _blank(ax, edge, 1.7)
    ax.set_title("Forward: each number of the bias is used in both rows")
    ax = axes[1]
    edge = draw_matrix(ax, g, 0, "gradient of y (2, 3)", first)
    ax.text(edge + 2, 0, "add both rows →", ha="center", va="center")
    draw_matrix(ax, g.sum(0, keepdim=True), edge + 4, "gradient of the bias (3,)", [(0, 0)])
    _blank(ax, 11, 1.7)
    ax.set_title("Backward: its gradient is the sum over both uses")
    ax = axes[2]
    edge = draw_matrix(ax, g, 0, "gradient of y (2, 3)", row)
    ax.text(edge + 2, 0, "add each row →", ha="center", va="center")
    draw_matrix(ax, g.sum(1, keepdim=True), edge + 4, "gradient of a column (2, 1)", [(0, 0)])
    _blank(ax, 11, 1.7)
    ax.set_title("Backward, for a column (2, 1): the sum over its three uses")
    caption = (
        "A bias of three numbers, added to two rows. Below: its gradient, and a column's, if the "
        "gradient of y has the numbers on the left."
    )
    alt = (
        "Above, a matrix plus a bias that is shown twice equals a matrix; in the middle, a matrix "
        "of gradients is summed over its rows into three numbers; below, each of its rows is "
        "summed into one number of a column."
    )
    return fig, caption, alt


# Computation graphs


def depths(graph: Mapping[str, Any]) -> dict[str, int]:
    """Return each value's column: results right of their inputs, leaves next to their first use.

    Args:
        graph: values by name, each after its inputs.
    """
    names = {value: name for name, value in graph.items()}
    depth = dict.fromkeys(graph, 0)
    for name, value in graph.items():
        if value.inputs:
            depth[name] = 1 + max(depth[names[source]] for source in value.inputs)
    for name, value in graph.items():
        if not value.inputs:
            users = [user for user, other in graph.items() if value in other.inputs]
            depth[name] = min((depth[user] for user in users), default=1) - 1
    return depth


def layout(graph: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return a place (column, row) for each value; the result is on the right, at row 0."""
    depth = depths(graph)
    place: dict[str, tuple[float, float]] = {}
    for column in sorted(set(depth.values()), reverse=True):
        members = [name for name in graph if depth[name] == column]
        wish = {}
        for name in members:
            value = graph[name]
            users = [user for user, other in graph.items() if value in other.inputs]
            rows = [place[user][1] for user in users]
            wish[name] = sum(rows) / len(rows) if rows else 0.0
        middle = sum(wish.values()) / len(wish)
        for i, name in enumerate(sorted(members, key=lambda name: wish[name])):
            place[name] = (float(column), middle + i - (len(members) - 1) / 2)
    return place


def _box(ax: Any, x: float, y: float, lines: Sequence[str], colour: str) -> None:
    box = FancyBboxPatch(
        (x - 0.33, y - 0.32), 0.66, 0.64, boxstyle="round,pad=0.02", edgecolor=colour, fill=False
    )
    ax.add_patch(box)
    for line, offset, ink in zip(lines, (0.19, 0.0, -0.2), (INK, INK, "C1"), strict=True):
        ax.text(x, y + offset, line, ha="center", va="center", fontsize=9, color=ink)


def draw_graph(graph: Mapping[str, Any]) -> Drawn:
    """Draw values as boxes with number and gradient, and an arrow from each input to its result.

    Args:
        graph: values by name, each after its inputs, with their gradients.
    """
    names = {value: name for name, value in graph.items()}
    place = {name: (x, -y) for name, (x, y) in layout(graph).items()}  # row 0 is the highest
    columns = max(x for x, _ in place.values()) + 1
    rows = [y for _, y in place.values()]
    height = max(rows) - min(rows) + 1
    fig, ax = plt.subplots(figsize=(7.2, 0.95 * height + 0.9))
    for name, value in graph.items():
        x, y = place[name]
        for copy, source in enumerate(value.inputs):
            twice = value.inputs.count(source) > 1
            bend = 0.5 * (1 - 2 * copy) if twice else 0.0
            ax.annotate(
                "",
                (x - 0.35, y),
                (place[names[source]][0] + 0.35, place[names[source]][1]),
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": INK,
                    "connectionstyle": f"arc3,rad={bend}",
                },
            )
        for source, slope, copy in _slopes(value):
            x0, y0 = place[names[source]]
            aside = 0.17 * (1 - 2 * copy) if value.inputs.count(source) > 1 else 0.14
            length = math.hypot(x - x0, y - y0)
            normal = ((y0 - y) / length, (x - x0) / length)  # to the left of the arrow
            middle_x = (x0 + x) / 2 + aside * normal[0]
            middle_y = (y0 + y) / 2 + aside * normal[1]
            text = f"·{number(slope)}"
            options: Any = {"color": "C1", "fontsize": 9, "ha": "center", "va": "center"}
            ax.text(middle_x, middle_y, text, **options)
        head = f"{name} = {' '.join(_formula(value, names))}" if value.inputs else name
        lines = [head, number(value.data), f"grad {number(value.grad)}"]
        _box(ax, x, y, lines, "C0" if value.inputs else "C2")
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(min(rows) - 0.5, max(rows) + 0.5))
    ax.axis("off")
    ax.set_title("Backward, each arrow multiplies the gradient by its orange number")
    caption = "The neuron of this section. Each box has a name, a number and a gradient."
    alt = (
        "Boxes for x, w, b, −t, h, s, y, e and L with their numbers and gradients, connected by "
        "arrows from left to right; two arrows lead from e to L."
    )
    return fig, caption, alt


def _slopes(value: Any) -> list[tuple[Any, float, int]]:
    """Return each input with the derivative with respect to it, and how often it came before."""
    slopes = zip(value.inputs, value.grad_fn(1.0), strict=True)
    return [
        (source, slope, value.inputs[:i].count(source)) for i, (source, slope) in enumerate(slopes)
    ]


def _formula(value: Any, names: Mapping[Any, str]) -> list[str]:
    sources = [names[source] for source in value.inputs]
    if len(sources) == 1:
        return [f"{value.operation}({sources[0]})"]
    return [sources[0], value.operation, sources[1]]


# Networks


def _unit_rows(shown: int) -> list[float]:
    """Return the heights of a layer's drawn units, with a gap in the middle of a long one."""
    gap = 1.0 if shown > 2 else 0.0
    return [shown / 2 - i - 0.5 + (gap if i < shown / 2 else -gap) / 2 for i in range(shown)]


def network_picture() -> Drawn:
    """Draw the 2-64-64-2 network of the spirals, and the numbers that one unit adds."""
    fig, ax = plt.subplots(figsize=(7.2, 4.2))
    columns = [_unit_rows(shown) for shown in (2, 6, 6, 2)]
    for i, (before, after) in enumerate(pairwise(columns)):
        for j, high in enumerate(after):
            chosen = (i, j) == (1, 1)
            style = (
                {"color": "C1", "lw": 1.8} if chosen else {"color": INK, "lw": 0.5, "alpha": 0.4}
            )
            for low in before:
                ax.plot((3 * i, 3 * i + 3), (low, high), zorder=2 if chosen else 1, **style)
    for i, rows in enumerate(columns):
        for j, y in enumerate(rows):
            colour = "C1" if (i, j) == (2, 1) else "C0"
            ax.plot(3 * i, y, "o", ms=14, color=colour, zorder=3)
        if len(rows) > 2:
            ax.text(3 * i, 0, "⋮", ha="center", va="center", fontsize=16)
    heads = ("input x\n(B, 2)", "64 units\n(B, 64)", "64 units\n(B, 64)", "logits\n(B, 2)")
    for i, head in enumerate(heads):
        ax.text(3 * i, 4, head, ha="center", va="bottom", fontsize=10)
    for i, shape in enumerate(("2 × 64", "64 × 64", "64 × 2")):
        ax.text(3 * i + 1.5, -4, f"xW + b\nW is {shape}", ha="center", va="top", fontsize=10)
    for i in (1, 2):
        ax.text(3 * i, -4, "relu", ha="center", va="top", fontsize=10, color="C2")
    ax.set(xlim=(-0.8, 9.8), ylim=(-5.3, 5.4))
    ax.axis("off")
    ax.set_title("A unit: the numbers before it, weighted by a column of W, plus b")
    caption = (
        "The network for the spirals, for a batch of B points. Each line is a weight. The orange "
        "ones are the column of W of one unit. Of 64 units six are drawn."
    )
    alt = (
        "Four columns of dots, 2, 64, 64 and 2, with lines from each dot to all dots of the next "
        "column; the lines into one dot are orange. Below stand the shapes of the weights."
    )
    return fig, caption, alt
