"""The drawings of LLM03 in which a matrix moves the plane.

Each public function but those that draw into a panel returns a figure, its caption and a text for
readers who can't see it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Polygon
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
