"""Draw the figures of LLM08+."""

import math
from collections.abc import Iterable
from itertools import pairwise
from statistics import mean
from typing import Any

from labs.kit import Run

import matplotlib.pyplot as plt
import torch


def draw_rates(curves: dict[str, list[float]]) -> Any:
    """Draw two curves of the learning rate's share of its peak, by steps."""
    fig, ax = plt.subplots(figsize=(7.2, 3.0))
    places = ((0.4, 0.84), (0.06, 0.12))  # right of the first curve, left of the second
    for i, ((name, curve), (x, y)) in enumerate(zip(curves.items(), places, strict=True)):
        ax.plot(curve, color=f"C{i}")
        ax.text(x * len(curve), y, f"{name}:\nmean {mean(curve):.2f}", color=f"C{i}")
    title = "Moved by each batch, the rate falls too early"
    ax.set(xlabel="step of the optimizer", ylabel="share of the peak", ylim=(0, 1.1), title=title)
    return fig


def draw_mistakes(watched: dict[str, list[list[float]]], right: list[list[list[float]]]) -> Any:
    """Draw the held-out loss of each loop by steps, four in a panel.

    Args:
        watched: the points of each loop, by its letter.
        right: the points of the right loop with each of its seeds; a band shows their range.
    """
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.8), sharey=True)
    fig.suptitle("Which loops look like the right one, whose three seeds are grey?")
    loops = list(watched.items())
    times = [step for step, _ in right[0]]
    heights = [[value for _, value in points] for points in right]
    low = [min(values) for values in zip(*heights, strict=True)]
    high = [max(values) for values in zip(*heights, strict=True)]
    for ax, part in zip(axes, (loops[:4], loops[4:]), strict=True):
        ax.fill_between(times, low, high, color="grey", alpha=0.35, lw=0)
        ends = spread_out([math.log(points[-1][1]) for _, points in part], 0.22)
        for i, ((name, points), end) in enumerate(zip(part, ends, strict=True)):
            steps, values = zip(*points, strict=True)
            ax.plot(steps, values, color=f"C{i}", lw=1.5)
            ax.text(1.03 * steps[-1], math.exp(end), name, color=f"C{i}", va="center", fontsize=9)
        ax.set(xlabel="steps", yscale="log", xlim=(0, 1.15 * times[-1]))
        ax.set_xticks([tick for tick in ax.get_xticks() if tick <= times[-1]])
        ax.set_yticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
        ax.minorticks_off()
    axes[0].set_ylabel("held-out loss (nats per label)")
    return fig


def spread_out(places: list[float], gap: float) -> list[float]:
    """Move labels up until neighbours are at least `gap` apart."""
    moved = list(places)
    order = sorted(range(len(places)), key=lambda i: places[i])
    for below, above in pairwise(order):
        moved[above] = max(moved[above], moved[below] + gap)
    return moved


def draw_float16(batches: list[int], plain: list[float], scaled: list[float]) -> Any:
    """Draw the share of a gradient's mass that float16 loses, by the labels of the batch."""
    fig, ax = plt.subplots(figsize=(7.2, 3.4))
    for name, shares, colour in (("unscaled", plain, "C1"), ("loss × 2¹⁶", scaled, "C0")):
        ax.plot(batches, [100 * share for share in shares], "o-", color=colour)
        ax.text(1.25 * batches[-1], 100 * shares[-1], name, color=colour, va="center")
    ax.set(xscale="log", xlabel="labels in the batch", ylabel="mass lost (%)")
    ax.set(xlim=(batches[0] / 1.5, 8 * batches[-1]), title="The larger the batch, the more is lost")
    return fig


def draw_padding(lengths: list[int], waste: dict[str, float]) -> Any:
    """Draw the lengths of rows, and the share of padding for each way of batching."""
    fig, (left, right) = plt.subplots(1, 2, width_ratios=(1.4, 1))
    left.hist(lengths, bins=range(min(lengths), max(lengths) + 2), align="left", rwidth=0.85)
    title = f"{min(lengths)} to {max(lengths)} tokens…"
    left.set(xlabel="tokens in a row", ylabel=f"rows, of {len(lengths):,}", title=title)
    shares = [100 * share for share in waste.values()]
    bars = right.bar(list(waste), shares, color=["C1", "C5", "C2"])
    right.bar_label(bars, fmt="%.1f")
    right.set_ylim(0, 1.12 * max(shares))
    right.set(title="…so batches have padding", ylabel="padding (% of the places)")
    return fig


def draw_times(parts: Iterable[str], times: dict[str, list[float]]) -> Any:
    """Draw the time of each part of a step, a bar for each way of training.

    Args:
        parts: the names of the parts.
        times: for each of two ways, the milliseconds of each part.
    """
    fig, ax = plt.subplots(figsize=(7.2, 3.8))
    places = torch.arange(len(list(parts)))
    for way, (name, laps) in enumerate(times.items()):
        bars = ax.barh(places + 0.4 * way, laps, height=0.36, label=name)
        ax.bar_label(bars, fmt="%.1f", padding=3)
    longest = max(max(laps) for laps in times.values())
    ours, theirs = (laps[-1] for laps in times.values())
    title = f"Our AdamW takes {ours / theirs:.1f} times as long as the fused one"
    ax.set(xlabel="time (ms)", xlim=(0, 1.15 * longest), title=title)
    ax.set_yticks(places + 0.2, list(parts))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.legend(loc="lower right")
    return fig


def show_mistakes(
    run: Run, watched: dict[str, list[list[float]]], right: list[list[list[float]]]
) -> None:
    """Show the curves of eight loops, by letters, and the range of the right loop's seeds."""
    run.figure(
        draw_mistakes(watched, right),
        "mistakes",
        "The held-out responses' loss of eight loops, and the range of the right loop's three "
        "seeds, in both panels. None of the mistakes raises an error.",
        alt="Line plot of the held-out loss over steps on a log scale, in two panels with four "
        "loops each. A grey band shows the range of the right loop's seeds.",
    )


def show_rates(run: Run, curves: dict[str, list[float]]) -> None:
    """Show the schedule, counted in steps and moved by each batch."""
    run.figure(
        draw_rates(curves),
        "rate",
        "Warm-up and cosine; and the same curve when each of two batches moves it.",
        alt="Line plot of the learning rate over steps: a rise, then a cosine that falls to a "
        "floor; the curve that each batch moves falls twice as fast.",
    )


def show_float16(run: Run, batches: list[int], plain: list[float], scaled: list[float]) -> None:
    """Show the mass that float16 loses in batches of different sizes."""
    run.figure(
        draw_float16(batches, plain, scaled),
        "float16",
        "The share of a gradient's mass that becomes 0 in float16. All points are of one text with "
        "64 labels, its gradients divided as in larger batches.",
        alt="Line plot of the lost share over the number of labels: unscaled it rises steeply, and "
        "with loss scaling it stays near 0.",
    )


def show_times(run: Run, stages: Iterable[str], times: dict[str, list[float]]) -> None:
    """Show the parts of a step's time."""
    run.figure(
        draw_times(stages, times),
        "time",
        "A step of the small model takes 32 rows. Times are this machine's. All parts but the "
        "optimizer do the same work in both, so their differences are noise.",
        alt="Bars of the milliseconds of collating, forward, backward, clipping and the optimizer, "
        "a pair for each: one with our AdamW, one with the fused one.",
    )


def show_padding(run: Run, lengths: list[int], waste: dict[str, float]) -> None:
    """Show the lengths of rows and the padding of three ways of batching them."""
    run.figure(
        draw_padding(lengths, waste),
        "lengths",
        "How long rows are, and what three ways of batching them waste.",
        alt="A histogram of the number of tokens in a row, and three bars of the share of padding.",
    )
