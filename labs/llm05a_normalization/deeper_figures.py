"""The figures of LLM05a+, each with its caption and a text for readers who can't see it."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from labs.llm05a_normalization.figures import COLOURS, INK, Drawn

import matplotlib.pyplot as plt
import numpy as np
from torch import Tensor


def tangent(x_hat: Tensor, g: Tensor, dx: Tensor) -> Drawn:
    """Draw the gradient at the output of RMSNorm, and what remains of it, at a point x̂."""
    fig, ax = plt.subplots(figsize=(5.4, 4.2))
    angle = np.linspace(-0.35, 1.75, 200)
    ax.plot(2**0.5 * np.cos(angle), 2**0.5 * np.sin(angle), color=INK, lw=0.8, alpha=0.6)
    start = (float(x_hat[0]), float(x_hat[1]))
    arrives = (float(x_hat[0] + g[0]), float(x_hat[1] + g[1]))
    remains = (float(x_hat[0] + dx[0]), float(x_hat[1] + dx[1]))
    arrow = {"arrowstyle": "-|>", "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
    for begin, end, color in (
        ((0.0, 0.0), start, INK),
        (start, arrives, "C0"),
        (start, remains, "C1"),
    ):
        ax.annotate("", end, begin, arrowprops={**arrow, "color": color})
    ax.plot(*zip(arrives, remains, strict=True), ":", color=INK)
    ax.text(start[0] / 2 - 0.2, start[1] / 2 + 0.08, "x̂", fontsize=12)
    ax.text(arrives[0] + 0.04, arrives[1], "g arrives", color="C0", fontsize=10, va="center")
    ax.text(remains[0], remains[1] - 0.06, "this remains", color="C1", fontsize=10, va="top")
    ax.set(aspect="equal", xlim=(-0.1, 2.6), ylim=(-0.1, 1.8))
    ax.set(xlabel="first entry", ylabel="second entry", title="No gradient along x̂ for ε = 0")
    caption = "x = (3, 5) and g = (1, 0), as in the text, before the division by r."
    alt = (
        "An arc with the vector x̂ from the origin to it. At its tip an arrow points right, the "
        "gradient g; a second one, what remains of it, is tangent to the arc."
    )
    return fig, caption, alt


def bfloat16_numbers(values: Tensor, at: float) -> Drawn:
    """Draw the bfloat16 numbers around a mean, and a row of values in that format, (d,)."""
    fig, ax = plt.subplots(figsize=(7.2, 2.4))
    low, high = at - 1.25, at + 1.75
    numbers = np.arange(np.ceil(2 * low), np.floor(2 * high) + 1) / 2  # 0.5 apart from 64 to 128
    ax.axhline(0, color=INK, lw=1)
    ax.plot(numbers, 0 * numbers, "|", color=INK, ms=22, mew=1.5)
    for number in numbers:
        share = float((values == number).float().mean())
        ax.text(number, -0.5, f"{number:g}", ha="center", va="top", fontsize=10)
        ax.text(number, 0.5, f"{share:.0%}", ha="center", va="bottom", fontsize=9, color="C0")
    ax.plot(at, 0, "o", color="C1", ms=9)
    ax.annotate(
        "the mean",
        (at, 0.1),
        (at, 1.2),
        ha="center",
        color="C1",
        arrowprops={"arrowstyle": "-|>", "color": "C1"},
    )
    ax.set(xlim=(low, high), ylim=(-1.1, 1.6), title=f"No bfloat16 number lies at {at:g}")
    ax.axis("off")
    caption = (
        "Ticks: the bfloat16 numbers around the mean. Blue: the share of a row's entries at each "
        "of them. The mean lies halfway between two ticks, and rounding moves it to one of them."
    )
    alt = "A number line with ticks 0.5 apart, and a dot for the mean halfway between two of them."
    return fig, caption, alt


def rungs(losses: Mapping[str, float]) -> Drawn:
    """Draw a bar for each loss, from the highest to the lowest."""
    fig, ax = plt.subplots(figsize=(7.2, 0.5 * len(losses) + 1.2))
    rows = sorted(losses.items(), key=lambda row: -row[1])
    for i, (name, loss) in enumerate(rows):
        ax.barh(i, loss, color="C1" if "bound" in name else "C0", height=0.6)
        ax.text(loss + 0.05, i, f"{loss:.3f}", va="center", fontsize=10)
    ax.set_yticks(range(len(rows)), [name for name, _ in rows])
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, 1.15 * rows[0][1]), xlabel="loss (nats)")
    ax.set_title("Without attention, no loss is below the bound", loc="left")
    ax.grid(visible=False)
    caption = "Losses on the same validation text. Orange marks the bound for tables."
    listed = "; ".join(f"{name} {loss:.3f}" for name, loss in rows)
    return fig, caption, f"Horizontal bars, in nats. {listed}."


def dot_products(table: Tensor) -> Drawn:
    """Draw the dot products of a table of positions, (T, d), with position 0."""
    fig, ax = plt.subplots(figsize=(7.2, 3.4))
    ax.plot((table @ table[0])[:129], lw=2)
    ax.set(xlabel="distance t − s", ylabel="dot product", ylim=(0, None))
    ax.set_title("The trend falls with the distance, with ripples")
    caption = "The dot product with position 0 for d = 64. From any other position it is the same."
    alt = "A line that falls from 32 at distance 0 to about 10 at 128, with waves."
    return fig, caption, alt


def differences(
    rows: Mapping[str, Sequence[float]],
    other: str,
    limits: Callable[[Sequence[float]], Sequence[float]],
) -> Drawn:
    """Draw a row for each arm: its difference to another arm for each seed, and the limits.

    Args:
        rows: the differences of the seeds by arm, in nats.
        other: the arm that was subtracted.
        limits: returns the lower and the upper limit of the mean of a row.
    """
    fig, ax = plt.subplots(figsize=(7.2, 0.6 * len(rows) + 1.4))
    for i, values in enumerate(rows.values()):
        ax.plot(limits(values), [i, i], "|-", color="C1", lw=2.5, ms=14, mew=2.5)
        ax.plot(values, [i] * len(values), "o", color="C0", mfc="none")
    ax.axvline(0, color=INK, ls=":", lw=1)
    ax.set_yticks(range(len(rows)), [f"{name} − {other}" for name in rows])
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel="difference of the validation loss (nats)")
    ax.set_title(f"Limits left of 0: better than {other}")
    count = len(next(iter(rows.values())))
    caption = (
        f"Circles: the differences of {count} seeds. Bars: the 95 % limits of their means. A bar "
        "that crosses the dotted line is inconclusive."
    )
    alt = f"{len(rows)} rows, each with {count} circles and a bar, and a dotted line at 0."
    return fig, caption, alt


def norm_times(
    widths: Sequence[int], ratios: Mapping[str, Sequence[Sequence[float]]], numbers: int
) -> Drawn:
    """Draw the time of LayerNorm relative to RMSNorm over the width.

    Args:
        widths: the widths of the vectors.
        ratios: the ratio of each pair of calls, by "name, direction" and width.
        numbers: the numbers that each call norms.
    """
    fig, axes = plt.subplots(1, 2, sharey=True, figsize=(7.2, 4.0))
    for ax, direction in zip(axes, ("forward", "with backward"), strict=True):
        rows = {name: row for name, row in ratios.items() if name.endswith(direction)}
        for i, (name, row) in enumerate(rows.items()):
            low, middle, high = np.quantile(np.array(row), (0.25, 0.5, 0.75), axis=1)
            error = (middle - low, high - middle)
            label = name.partition(",")[0]
            ax.errorbar(widths, middle, error, fmt="os"[i] + "-", capsize=4, label=label)
        ax.axhline(1, color=INK, ls=":", lw=1)
        ax.set(xscale="log", xlabel="width d", title=direction.capitalize())
        ax.set_xticks(widths, [f"{width:,}" for width in widths])
        ax.minorticks_off()
    most = max(float(np.median(row)) for rows in ratios.values() for row in rows)
    axes[0].set(ylabel="LayerNorm ÷ RMSNorm", ylim=(0, 1.5 * max(most, 1)))
    axes[0].legend(loc="upper left", ncols=2)
    fig.suptitle("Above the dotted line, RMSNorm is faster", x=0.01, ha="left", fontsize=12)
    caption = (
        f"Time of LayerNorm relative to RMSNorm, {numbers:,} numbers at a time, in float32. Lines: "
        "the median of 31 pairs; bars: their middle half."
    )
    alt = (
        "Two panels over the width, forward and with backward, each with a line for the norms "
        "by hand and one for PyTorch's, and a dotted line at 1."
    )
    return fig, caption, alt


def tables(
    sizes: Sequence[float],
    losses: Mapping[str, Any],
    smooth: Sequence[float],
    without: float,
    title: str,
    steps: int,
) -> Drawn:
    """Draw the loss over the size of a table of positions, a line for each kind.

    Args:
        sizes: the root mean square of the table at the start.
        losses: for each of two kinds, a row of seeds for each size; a dashed line joins the sizes.
        smooth: the seeds of the smooth table, which has the second size.
        without: the loss of the model without positions.
        title: the title of the figure.
        steps: of each training.
    """
    fig, ax = plt.subplots(figsize=(7.2, 4.2))
    for i, (kind, rows) in enumerate(losses.items()):
        seeds = np.array(rows)  # (sizes, seeds)
        shift = (0.95, 1.05)[i]  # so that equal means don't overlap
        places = [shift * size for size in sizes]
        ax.plot(places, seeds.mean(1), "o--", color=COLOURS[i], lw=1)
        ax.vlines(places, seeds.min(1), seeds.max(1), color=COLOURS[i], lw=5, alpha=0.3)
        ax.text(sizes[-1] * 1.15, seeds[-1].mean(), kind, color=COLOURS[i], va="center")
    ax.plot([sizes[1]] * 2, [min(smooth), max(smooth)], color=COLOURS[2], lw=5, alpha=0.3)
    ax.plot(sizes[1], mean(smooth), "d", color=COLOURS[2])
    ax.text(sizes[1] * 0.9, mean(smooth), "smooth", color=COLOURS[2], va="center", ha="right")
    ax.axhline(without, color=INK, ls=":", lw=1)
    ax.text(sizes[0] * 3, without, "no positions", fontsize=9, va="bottom")
    ax.set(xscale="log", xlim=(sizes[0] * 0.8, sizes[-1] * 3.5))
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
    ax.minorticks_off()
    ax.set(xlabel="size of the table at the start (RMS)", ylabel="validation loss (nats)")
    ax.set_title(title)
    caption = (
        f"Two blocks after {steps} steps at the learning rate 0.02. Points: means of "
        f"{len(smooth)} seeds, side by side if of equal size. Bars: lowest to highest seed. "
        "Dashed: nothing was measured between the two sizes. Dotted: the model without positions."
    )
    alt = (
        "The loss over the size of the table at the start: points with bars for random tables, "
        "sinusoids and a smooth table, and a dotted line for no positions."
    )
    return fig, caption, alt
