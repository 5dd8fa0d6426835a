"""Draw the figures of LLM08 and LLM08+."""

from collections.abc import Iterable
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import torch


def draw_rates(curves: dict[str, list[float]], warmup: int) -> Any:
    """Draw the learning rate's share of its peak, step by step, and the end of the warm-up."""
    fig, ax = plt.subplots()
    for (name, curve), style in zip(curves.items(), ("-", "--"), strict=True):
        ax.plot(curve, style, label=f"{name}: mean {mean(curve):.2f}")
    ax.axvline(warmup - 1, color="grey", ls=":")
    ax.text(warmup + 3, 0.03, "end of warm-up", color="grey")
    ax.set(xlabel="step of the optimizer", ylim=(0, 1.05), title="Learning rate, share of its peak")
    ax.legend()
    return fig


def draw_mask(mask: torch.Tensor, lengths: list[int]) -> Any:
    """Draw the attention mask of a pack, (T, T), and the borders of its documents.

    Args:
        mask: True where a query may look at a key.
        lengths: the tokens of each document.
    """
    fig, ax = plt.subplots(figsize=(4.6, 4.6))
    ax.imshow(mask, cmap="Blues", vmin=0, vmax=1.6)
    ends = torch.tensor(lengths).cumsum(0).tolist()
    for number, (end, length) in enumerate(zip(ends, lengths, strict=True), 1):
        ax.axhline(end - 0.5, color="grey", lw=0.4)
        ax.axvline(end - 0.5, color="grey", lw=0.4)
        ax.text(end + 0.5, end - length / 2, f"document {number}", va="center", fontsize=8)
    ax.set(xlabel="key", ylabel="query", title="Each token sees its own document")
    ax.grid(visible=False)
    return fig


def draw_training(losses: list[float], watched: list[list[float]]) -> Any:
    """Draw the training loss of each step, and the held-out loss after some of them."""
    fig, ax = plt.subplots()
    ax.plot(range(1, len(losses) + 1), losses, lw=0.8, color="C0")
    steps, values = zip(*watched, strict=True)
    ax.plot(steps, values, "o-", color="C1")
    ax.text(steps[1], 1.15 * values[1], "held-out answers", color="C1")
    ax.text(steps[0] / 5, 0.75 * min(losses[: int(steps[0])]), "training", color="C0", va="top")
    ax.set(xlabel="step", yscale="log", title="Loss (nats per label)")
    ax.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    ax.minorticks_off()
    return fig


def draw_mistakes(watched: dict[str, list[list[float]]]) -> Any:
    """Draw the held-out loss of each loop by steps."""
    fig, ax = plt.subplots()
    colours = ["C6", *(f"C{n}" for n in range(6)), "grey"]  # C6 is the page's ink
    for i, (name, points) in enumerate(watched.items()):
        style: dict[str, Any] = {"color": colours[i], "ls": "-" if i < 4 else "--"}
        ax.plot(*zip(*points, strict=True), **style, lw=1.5, label=name)
    ax.set(xlabel="steps", yscale="log", title="Loss of held-out answers (nats per label)")
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


def draw_fit(losses: list[float], before: float, after: float, rows: int) -> Any:
    """Draw the training loss, step by step, and the loss on other rows before and after it.

    Args:
        losses: of each step (nats per label).
        before: the loss on rows that aren't trained on, before the training.
        after: the same after the training.
        rows: the number of rows in a step.
    """
    fig, ax = plt.subplots()
    ax.plot(range(1, len(losses) + 1), losses, "o-", label="in training")
    ax.plot([0, len(losses)], [before, after], "s", ms=9, label="rows not seen")
    ax.set(xlabel=f"steps of {rows} rows", title="Loss (nats per label)")
    ax.legend()
    return fig
