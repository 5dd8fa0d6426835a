"""Draw the figures of LLM08+."""

from collections.abc import Iterable
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import torch


def draw_rates(curves: dict[str, list[float]], warmup: int) -> Any:
    """Draw two curves of the learning rate's share of its peak, and the end of the warm-up."""
    fig, ax = plt.subplots()
    for (name, curve), style in zip(curves.items(), ("-", "--"), strict=True):
        ax.plot(curve, style, label=f"{name}: mean {mean(curve):.2f}")
    ax.axvline(warmup - 1, color="grey", ls=":")
    ax.text(warmup + 3, 0.03, "end of warm-up", color="grey")
    ax.set(xlabel="step of the optimizer", ylim=(0, 1.05), title="Learning rate, share of its peak")
    ax.legend()
    return fig


def draw_mistakes(watched: dict[str, list[list[float]]]) -> Any:
    """Draw the held-out loss of each loop by steps."""
    fig, ax = plt.subplots()
    colours = ["C6", *(f"C{n}" for n in range(6)), "grey"]  # C6 is the page's ink
    for i, (name, points) in enumerate(watched.items()):
        style: dict[str, Any] = {"color": colours[i], "ls": "-" if i < 4 else "--"}
        ax.plot(*zip(*points, strict=True), **style, lw=1.5, label=name)
    ax.set(xlabel="steps", yscale="log", title="Loss of held-out responses (nats per label)")
    ax.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    ax.minorticks_off()
    ax.legend(fontsize=9, ncols=2)
    return fig


def draw_padding(lengths: list[int], waste: dict[str, float]) -> Any:
    """Draw the lengths of rows, and the share of padding for each way of batching."""
    fig, (left, right) = plt.subplots(1, 2, width_ratios=(1.4, 1))
    left.hist(lengths, bins=range(min(lengths), max(lengths) + 2), align="left", rwidth=0.85)
    left.set(xlabel="tokens in a row", title=f"{len(lengths):,} rows (count)")
    shares = [100 * share for share in waste.values()]
    bars = right.bar(list(waste), shares, color=["C1", "C5", "C2"])
    right.bar_label(bars, fmt="%.1f")
    right.set(title="Padding (% of the places)")
    return fig


def draw_times(parts: Iterable[str], times: dict[str, list[float]]) -> Any:
    """Draw the share of each part in the time of a step.

    Args:
        parts: the names of the parts.
        times: for each way of training, the milliseconds of each part.
    """
    fig, ax = plt.subplots(figsize=(7.2, 3.0))
    left = torch.zeros(len(times))
    for i, name in enumerate(parts):
        shares = torch.tensor([100 * laps[i] / sum(laps) for laps in times.values()])
        ax.barh(list(times), shares, left=left, label=name)
        left += shares
    for i, laps in enumerate(times.values()):
        ax.text(101, i, f"{sum(laps):.0f} ms", va="center")
    ax.set(xlabel="share of the time (%)", xlim=(0, 115), title="Where the time of a step goes")
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.legend(ncols=5, fontsize=9, loc="upper center", bbox_to_anchor=(0.4, -0.25))
    return fig
