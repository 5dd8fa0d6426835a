"""Draw the figures of LLM08+."""

from collections.abc import Iterable
from statistics import mean
from typing import Any

from labs.kit import Run
from labs.llm08_training.training import EVERY, Trained, in_groups

import matplotlib.pyplot as plt
import torch
from matplotlib.lines import Line2D


def draw_rates(curves: dict[str, list[float]]) -> Any:
    """Draw two curves of the learning rate's share of its peak, by steps."""
    fig, ax = plt.subplots(figsize=(7.2, 3.0))
    places = ((0.4, 0.84), (0.06, 0.12))  # right of the first curve, left of the second
    for i, ((name, curve), (x, y)) in enumerate(zip(curves.items(), places, strict=True)):
        ax.plot(curve, color=f"C{i}")
        ax.text(x * len(curve), y, f"{name}:\nmean {mean(curve):.2f}", color=f"C{i}")
    title = "Moved by each micro-batch, the rate falls too early"
    ax.set(xlabel="step of the optimizer", ylabel="share of the peak", ylim=(0, 1.1), title=title)
    return fig


def draw_mistakes(loops: dict[str, Trained], others: list[list[list[float]]]) -> Any:
    """Draw the training loss and the responses' loss of each loop by steps, a panel for each.

    Args:
        loops: the training of each loop, by its letter.
        others: the held-out loss of the right loop's other seeds, a thin line for each.
    """
    # narrow enough for a phone, which shows 294 points
    fig, axes = plt.subplots(4, 2, figsize=(4.0, 7.2), sharex=True, sharey=True)
    fig.suptitle("Which mistakes can you recognise?")
    for ax, (letter, trained) in zip(axes.flat, loops.items(), strict=True):
        for points in others:
            ax.plot(*zip(*points, strict=True), color="grey", lw=1)
        own = [mean(part) for part in in_groups(trained.losses, EVERY)]
        ax.plot([EVERY * i for i in range(1, len(own) + 1)], own, "--", color="C1")
        ax.plot(*zip(*trained.watched, strict=True), color="C0", lw=2)
        ax.set_yscale("log")
        ax.set_yticks([0.1, 0.5, 2, 10], ["0.1", "0.5", "2", "10"])
        ax.minorticks_off()
        ax.text(0.05, 0.08, letter, transform=ax.transAxes, size=14)
    names = [
        ("C0", "-", "responses' loss, held out"),
        ("C1", "--", "training loss, own labels"),
        ("grey", "-", "responses' loss, right, two other seeds"),
    ]
    lines = [Line2D([], [], color=colour, ls=style, label=name) for colour, style, name in names]
    fig.legend(handles=lines, loc="outside lower center")
    fig.supylabel("loss (nats per label)", size=11)
    for ax in axes[-1]:
        ax.set_xlabel("steps")
    return fig


def draw_float16(batches: list[int], plain: list[float], scaled: list[float], little: float) -> Any:
    """Draw the share of a gradient's mass that float16 loses, by the labels of the batch.

    Args:
        batches: numbers of labels.
        plain: the shares that are lost.
        scaled: the shares that are lost at a scale of 2¹⁶.
        little: the share that counts as little.
    """
    fig, ax = plt.subplots(figsize=(4.0, 4.2))  # for a phone, too
    for name, shares, colour in (("no scale", plain, "C1"), ("loss × 2¹⁶", scaled, "C0")):
        ax.plot(batches, shares, "o-", color=colour)
        ax.text(batches[0] / 4, 30 * shares[0], name, color=colour)
    for i in (0, 3, -1):
        ax.text(batches[i], plain[i] / 2, f"{100 * plain[i]:.2g} %", ha="center", va="top")
    ax.text(batches[-1], scaled[-1] / 5, f"{100 * scaled[-1]:.2g} %", ha="center", va="top")
    right = 8 * batches[-1]
    ax.axhline(little, color="grey", ls="--")
    name = f"little: {100 * little:.1g} %"
    ax.text(right, little / 1.5, name, color="grey", ha="right", va="top")
    shares = [1, 1e-2, 1e-4, 1e-6, 1e-8]
    ax.set(xscale="log", yscale="log", xlabel="labels in the mean", ylabel="share of the mass lost")
    ax.set_yticks(shares, ["100 %", "1 %", "0.01 %", "10⁻⁴ %", "10⁻⁶ %"])
    ax.minorticks_off()
    ax.set(xlim=(batches[0] / 8, right), ylim=(1e-8, 3))
    ax.set_xticks([2**6, 2**12, 2**19], ["64", "4,096", "524,288"])
    ax.set_title(f"With {batches[-1]:,} labels\n{100 * plain[-1]:.0f} % of the mass is lost")
    return fig


def draw_stream(drawn: list[int], buffer: int) -> Any:
    """Draw where each row of a file comes in a shuffled stream, and how early it could come.

    Args:
        drawn: the row's number in the file, in the order of the stream.
        buffer: rows of the shuffle buffer.
    """
    fig, ax = plt.subplots(figsize=(7.2, 4.4))
    ax.plot(drawn, range(len(drawn)), ".", color="C0", ms=3)
    ends = [buffer - 1, len(drawn) - 1]
    ax.plot(ends, [end - buffer + 1 for end in ends], color="C1")
    ax.text(0.72 * len(drawn), 0.45 * len(drawn), f"{buffer - 1} places\nearly", color="C1")
    late = max(place - number for place, number in enumerate(drawn))
    title = f"No row comes {buffer} places early, but one comes {late} places late"
    ax.set(xlabel="place in the file", ylabel="place in the shuffled stream", title=title)
    return fig


def draw_padding(lengths: list[int], waste: dict[str, float], bound: float) -> Any:
    """Draw the lengths of rows, the share of padding for each way of batching, and packs' bound."""
    fig, (left, right) = plt.subplots(1, 2, width_ratios=(1.4, 1))
    left.hist(lengths, bins=range(min(lengths), max(lengths) + 2), align="left", rwidth=0.85)
    title = f"{min(lengths)} to {max(lengths)} tokens…"
    left.set(xlabel="tokens in a row", ylabel=f"rows, of {len(lengths):,}", title=title)
    shares = [100 * share for share in waste.values()]
    bars = right.bar(list(waste), shares, color=["C1", "C5", "C2"])
    right.bar_label(bars, fmt="%.1f")
    right.plot([1.55, 2.45], [100 * bound] * 2, color="C6", ls="--")
    right.text(2, 100 * bound + 1, "bound", ha="center")
    right.set_ylim(0, 1.12 * max(shares))
    for ax in (left, right):
        ax.set_axisbelow(True)
        ax.grid(axis="x", visible=False)
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
    ours = next(iter(times.values()))
    title = f"The backward pass takes {ours[2]:.1f} of {sum(ours):.1f} ms"
    ax.set(xlabel="time (ms)", xlim=(0, 1.15 * longest), title=title)
    ax.set_yticks(places + 0.2, list(parts))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.legend(loc="lower right")
    return fig


def show_mistakes(run: Run, loops: dict[str, Trained], others: list[list[list[float]]]) -> None:
    """Show the losses of eight loops, by letters, and the right loop's two other seeds."""
    run.figure(
        draw_mistakes(loops, others),
        "mistakes",
        "Eight loops, one of them right. Thin lines are the right loop's responses' loss with two "
        "other seeds; a third seed may lie above or below both. Training losses are means over 25 "
        "steps, and comparable only where the labels are the same.",
        alt="Eight panels, A to H, with the loss over steps on a log scale: a dashed curve of the "
        "training loss, a solid one of the held-out responses' loss, and two thin grey ones.",
    )


def show_rates(run: Run, curves: dict[str, list[float]]) -> None:
    """Show the schedule, counted in steps and moved by each batch."""
    run.figure(
        draw_rates(curves),
        "rate",
        "Warm-up and cosine; and the same curve if each of a step's two micro-batches moves it.",
        alt="Line plot of the learning rate over steps: a rise, then a cosine that falls to a "
        "floor; the curve that each micro-batch moves falls twice as fast.",
    )


def show_float16(
    run: Run, batches: list[int], plain: list[float], scaled: list[float], little: float
) -> None:
    """Show the mass that float16 loses in batches of different sizes."""
    run.figure(
        draw_float16(batches, plain, scaled, little),
        "float16",
        "The share of the mass of the logits' gradient that becomes 0 in float16. All points are "
        "of one text with 64 labels, its gradient divided as in larger batches.",
        alt="Log-log plot of the lost share of the mass over the number of labels: it rises from "
        "0.2 to over 10 percent; with loss scaling it stays far below half a percent.",
    )


def show_stream(run: Run, drawn: list[int], buffer: int) -> None:
    """Show where the rows of one file come in a shuffled stream."""
    run.figure(
        draw_stream(drawn, buffer),
        "stream",
        f"One file of {len(drawn):,} rows through a shuffle buffer of {buffer}. Each point is a "
        "row. No row lies below the line; far above it, a row comes late.",
        alt="Scatter plot of the place in the stream over the place in the file: points lie above "
        "a diagonal line, most near it, some far above.",
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


def show_padding(run: Run, lengths: list[int], waste: dict[str, float], bound: float) -> None:
    """Show the lengths of rows and the padding of three ways of batching them."""
    run.figure(
        draw_padding(lengths, waste, bound),
        "lengths",
        "How long rows are, and what three ways of batching them waste. The bound: each pack "
        "but the last has no room for a shortest row.",
        alt="A histogram of the number of tokens in a row, and three bars of the share of padding.",
    )
