"""The figures of LLM02: maps, curves and digits; the others are in structure_figures."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from labs.llm02_deep_learning.boundary import MAP_SIZE, REACH
from labs.llm02_deep_learning.data import average_images

import matplotlib.pyplot as plt
import torch
from torch import Tensor

INK = "C6"
Drawn = tuple[Any, str, str]  # the figure, its caption, its alt text


def number(value: Any) -> str:
    """Return a number as text with a real minus sign: 6, −0.75."""
    return f"{float(value):.3g}".replace("-", "−")


def show(run: Any, name: str, drawn: Drawn) -> None:
    """Add a drawing to the page of the run, under this name."""
    fig, caption, alt = drawn
    run.figure(fig, name, caption, alt=alt)


def label_line(ax: Any, x: float, y: float, text: str, colour: str, **options: Any) -> None:
    """Write a line's name beside it, in its colour."""
    options = {"va": "center", "fontsize": 10, **options}
    ax.annotate(text, (x, y), xytext=(5, 0), textcoords="offset points", color=colour, **options)


def draw_activations(z: Tensor, curves: Mapping[str, tuple[Tensor, Tensor]]) -> Drawn:
    """Draw each activation in a panel with its derivative.

    Args:
        z: (n,).
        curves: the activation and its derivative at each z, by name.
    """
    fig, axes = plt.subplots(1, len(curves), figsize=(7.2, 3.2), sharex=True, sharey=True)
    for ax, (name, (value, slope)) in zip(axes, curves.items(), strict=True):
        ax.plot(z, value, "C0")
        ax.plot(z, slope, "C1--")
        ax.set(title=name, xlabel="z", ylim=(-1.2, 2.2), xlim=(-6, 6), xticks=(-6, 0, 6))
    axes[0].set_ylabel("value")
    axes[0].text(-5.7, 1.9, "activation", color="C0")
    axes[0].text(-5.7, 1.6, "derivative", color="C1")
    fig.suptitle(
        "Far from 0, the derivatives of sigmoid and tanh vanish", x=0.02, ha="left", fontsize=12
    )
    caption = "Four activations and their derivatives, by our engine."
    alt = (
        "Four panels with sigmoid, tanh, ReLU and GELU as solid lines and their derivatives as "
        "dashed lines."
    )
    return fig, caption, alt


def draw_boundary(ax: Any, p: Tensor, x: Tensor, y: Tensor, reach: float = REACH) -> Any:
    """Draw a map of p(class 1) and the points of both classes; return the image.

    Args:
        ax: the axes.
        p: (n, n), the first row is the lowest.
        x: points (N, 2).
        y: their classes (N,).
        reach: of the map, from the centre.
    """
    extent = (-reach, reach, -reach, reach)
    image = ax.imshow(p, extent=extent, origin="lower", cmap="RdBu_r", vmin=-0.7, vmax=1.7)
    for label, colour in enumerate(("C0", "C1")):
        ax.plot(*x[y == label].T, "o", ms=3.5, color=colour, mec="white", mew=0.4)
    ax.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    ax.grid(False)
    return image


def draw_boundaries(result: Mapping[str, Any], shown: Sequence[int] = (0, 6, 9, 11)) -> Drawn:
    """Draw maps of p(class 1) at four steps of a training, with a colour bar.

    Args:
        result: of `boundary.watch`.
        shown: the indices of the four steps.
    """
    fig, axes = plt.subplots(2, 2, figsize=(7.2, 6.6), sharex=True, sharey=True)
    image: Any = None
    for ax, i in zip(axes.flat, shown, strict=True):
        p = result["maps"][i].view(MAP_SIZE, MAP_SIZE)
        image = draw_boundary(ax, p, result["x"], result["y"])
        extent = (-REACH, REACH, -REACH, REACH)
        ax.contour(
            p, levels=[0.5], extent=extent, colors="#101010", linewidths=1
        )  # also on a dark page
        ax.set_title(
            f"step {result['steps'][i]}: loss {result['losses'][i]:.2f}, "
            f"{result['accuracies'][i]:.1%} right"
        )
    for ax in axes[1]:
        ax.set_xlabel("x₀")
    for ax in axes[:, 0]:
        ax.set_ylabel("x₁")
    bar = fig.colorbar(image, ax=axes, label="predicted probability of class 1", shrink=0.7)
    bar.ax.set_ylim(0, 1)
    fig.suptitle("A ReLU network learns to bend its boundary", x=0.02, ha="left", fontsize=13)
    caption = (
        "What a 2-64-64-2 network predicts during its training by our engine. The black line is "
        "its decision boundary. The loss is on the training points, the accuracy on unseen ones. "
        "At step 0 the network is untrained. A random boundary can be better than guessing here."
    )
    alt = (
        "Four maps of a plane with the points of two spirals at four training steps; from map to "
        "map the coloured regions follow the spirals more closely."
    )
    return fig, caption, alt


def apart(ends: Mapping[str, float], gap: float) -> dict[str, float]:
    """Return a height for each name near its value, from the highest down, at least a gap apart."""
    heights: dict[str, float] = {}
    lowest = math.inf
    for name in sorted(ends, key=lambda name: -ends[name]):
        lowest = min(ends[name], lowest - gap)
        heights[name] = lowest
    return heights


def draw_training(histories: Sequence[Tensor], test: Sequence[float], baseline: float) -> Drawn:
    """Draw training and validation accuracy by epoch for each seed, and test accuracy at the end.

    Args:
        histories: of each seed, (epochs, 2): accuracy in training and validation.
        test: the test accuracy of each seed.
        baseline: the test accuracy to compare with.
    """
    curves = torch.stack(list(histories))  # (seeds, epochs, 2)
    epochs = curves.shape[1]
    fig, ax = plt.subplots()
    for i, colour in ((0, "C0"), (1, "C1")):
        ax.plot(range(1, epochs + 1), curves[:, :, i].T, colour, lw=1)
    ax.plot([1.03 * epochs] * len(test), test, "C3s", ms=6, zorder=3)
    ax.plot((1, epochs), (baseline, baseline), "C2:")
    ends = {
        "training": curves[:, -1, 0].median().item(),
        "validation": curves[:, -1, 1].median().item(),
        "test, once:": torch.tensor(test).median().item(),
        "nearest average": baseline,
    }
    heights = apart(ends, 0.02)
    for name, colour in zip(ends, ("C0", "C1", "C3", "C2"), strict=True):
        label_line(ax, 1.05 * epochs, heights[name], f"{name} {ends[name]:.1%}", colour)
    step = max(1, epochs // 5)
    ax.set_xticks(range(step, epochs + 1, step))
    ax.set(xlabel="epoch", ylabel="accuracy", ylim=(0.7, 1.03), xlim=(1, 1.53 * epochs))
    ax.set_title("Accuracy on training digits is not accuracy on unseen ones")
    caption = (
        "Accuracy by epoch with the chosen learning rate, a line for each of three seeds; medians "
        "are named. The first epochs may be below the picture. Squares, right of the curves, and "
        "the dotted line are on the test digits."
    )
    alt = (
        "Line plot of accuracy over epochs for training and validation digits, with a square for "
        "each seed's test accuracy and a dotted line for nearest averages."
    )
    return fig, caption, alt


def draw_digits(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Drawn:
    """Draw a test image of each digit, the average training images, and misread test images.

    Args:
        model: maps images (B, 64) to logits (B, 10).
        x: the test images (n, 64).
        y: their digits (n,).
    """
    with torch.no_grad():
        read = model(x).argmax(-1).cpu()
    x, y = x.cpu(), y.cpu()
    examples = torch.stack([x[y == digit][0] for digit in range(10)])
    missed = (read != y).nonzero().flatten()[:10]
    names = [str(digit) for digit in range(10)]
    misread = [f"{y[i]}, read {read[i]}" for i in missed]
    rows = ((examples, names), (average_images(), names), (x[missed], misread))
    fig, axes = plt.subplots(3, 10, figsize=(7.2, 3.4))
    for line, (images, titles) in zip(axes, rows, strict=True):
        for ax in line:
            ax.axis("off")
        for ax, image, title in zip(line, images, titles, strict=False):
            ax.imshow(image.view(8, 8), cmap="gray_r", vmin=0, vmax=1)
            ax.set_title(title, fontsize=9, loc="center")
    fig.suptitle(
        "Ten digits, their averages, and digits that the network misreads",
        x=0.02,
        ha="left",
        fontsize=12,
    )
    caption = (
        "Above, a test image of each digit. In the middle, the average training images. Below, the "
        "first test images that the network of the first seed misreads, at most ten."
    )
    alt = (
        "Three rows of small images of 8 by 8 pixels: ten digits, ten blurred averages, and digits "
        "that the network misreads, each with the right digit and the one that was read."
    )
    return fig, caption, alt


def draw_sweep(rates: Sequence[float], right: Tensor, best: int) -> Drawn:
    """Draw validation accuracy over the learning rate, and mark the chosen rate.

    Args:
        rates: the learning rates.
        right: (rates, seeds): accuracy on the validation set.
        best: the index of the chosen rate.
    """
    fig, ax = plt.subplots()
    means = right.mean(1)
    draw_rates(ax, rates, right, "C1")
    ax.plot(rates[best], means[best], "C1o", ms=12, mfc="none", mew=1.5)
    ax.annotate(
        f"chosen: {rates[best]:.2g}",
        (rates[best], means[best]),
        xytext=(10, 6),
        textcoords="offset points",
        color="C1",
    )
    ax.text(rates[0], 0.94, "● each seed", color="C1")
    ax.text(rates[0], 0.86, "— mean", color="C1")
    ax.set_title(f"Of these rates, {rates[best]:.2g} reads most validation digits")
    caption = "Validation accuracy after equal steps for each learning rate, three seeds each."
    alt = (
        "Line plot of validation accuracy over the learning rate on a log scale: it rises to "
        "the chosen rate, which is circled, and falls at the largest rates."
    )
    return fig, caption, alt


def draw_rates(ax: Any, rates: Sequence[float], right: Tensor, colour: str) -> None:
    """Draw validation accuracy over the learning rate: a dot for each seed, and the mean.

    Args:
        ax: the axes.
        rates: the learning rates.
        right: (rates, seeds): accuracy on the validation set.
        colour: of dots and line.
    """
    if not ax.lines:
        ax.axhline(0.1, color="C2", ls=":")
        ax.text(1e-2, 0.04, "guessing", color="C2")
    ax.plot(rates, right.mean(1), colour, lw=1.5)
    ax.plot(rates, right, "o", color=colour, ms=4)
    ax.set_xscale("log")
    ax.set(xlabel="learning rate", ylabel="accuracy on validation digits", ylim=(0, 1.08))
