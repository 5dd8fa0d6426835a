"""The drawings of LLM07+.

Each public function draws a figure and puts it into the report of a run.
"""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from labs.kit import Run

import matplotlib.pyplot as plt
import numpy as np
from torch import Tensor


def first_steps(run: Run, ranks: Sequence[int], changes: Sequence[float]) -> None:
    """Draw how much the logits change in the first step, by rank, between two laws."""
    fig, ax = plt.subplots(figsize=(7.2, 3.6))
    relative = [change / changes[0] for change in changes]
    ax.loglog(ranks, ranks, color="grey", ls=":")
    ax.loglog(ranks, [rank**0.5 for rank in ranks], color="grey", ls=":")
    ax.loglog(ranks, relative, "C0o-")
    ax.text(ranks[-1], ranks[-1], " all tokens agree: r", color="grey", va="center")
    ax.text(ranks[-1], ranks[-1] ** 0.5, " none agree: √r", color="grey", va="center")
    ax.text(ranks[-1], relative[-1], " measured", color="C0", va="center")
    ax.set_xticks(ranks, [str(rank) for rank in ranks])
    ax.set_yticks((1, 10), ("1", "10"))
    ax.minorticks_off()
    ax.set(xlabel="rank r, at α = 2r", ylabel="change of the logits ÷ rank 1", xlim=(0.9, 300))
    ax.set_title("At fixed α/r a larger rank takes a larger first step")
    caption = "The first step of Adam on glass: how far the logits move, relative to rank 1."
    alt = "A rising line between two dotted ones, r and the root of r."
    run.figure(fig, "first_steps", caption, alt=alt)


def arms(
    run: Run,
    counts: Mapping[str, int],
    losses: Mapping[str, Sequence[float]],
    untouched: float,
    scratch: float,
) -> None:
    """Draw each arm's losses over its number of trained numbers; three seeds each."""
    fig, ax = plt.subplots()
    for i, (name, values) in enumerate(losses.items()):
        ax.plot([counts[name]] * len(values), values, "o", color=f"C{i}")
        place = (counts[name], mean(values))
        ax.annotate(name, place, (9, -4), textcoords="offset points", color=f"C{i}")
    ax.axhline(untouched, color="grey", ls=":")
    ax.text(4200, untouched, "untouched", va="top", color="grey")
    ax.set(xscale="log", xlim=(4000, 4e6), xlabel="trained numbers")
    ax.set(ylabel="loss on plays (nats per token)")
    ax.set_title("In all layers, few numbers do more than many in q and v")
    caption = (
        "What each arm of glass reaches on plays, three seeds. A model from scratch ends at "
        f"{scratch:.2f}, off the scale."
    )
    alt = "Groups of three points: the more trained numbers, the lower the loss, but for q and v."
    run.figure(fig, "arms", caption, alt=alt)


def spectrum(
    run: Run,
    shares: Mapping[str, Tensor],
    short: Mapping[int, Sequence[float]],
    lora: Mapping[int, Sequence[float]],
    levels: Mapping[str, float],
) -> None:
    """Draw the squares that the first directions hold, and the loss that they keep."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.8))
    layers = [values for name, values in shares.items() if name != "random" and len(values) == 128]
    low = np.min([values.numpy() for values in layers], axis=0)
    high = np.max([values.numpy() for values in layers], axis=0)
    directions = range(1, 1 + len(low))
    left.fill_between(directions, 100 * low, 100 * high, color="C0", alpha=0.5)
    left.plot(directions, 100 * shares["random"].numpy(), color="grey", ls=":")
    left.text(11, 70, "ΔW of the layers", color="C0", ha="right")
    left.text(14, 12, "random matrix", color="grey")
    left.set(xscale="log", xlabel="directions", ylabel="share of the squares (%)")
    left.set_xticks((1, 8, 128), ("1", "8", "128"))
    left.set_title("Its squares spread over many directions", fontsize=11)
    highest = max(mean(values[1]) for values in (short, lora))
    for colour, marker, values, name in (
        ("C0", "o-", short, "full, cut to r directions"),
        ("C1", "s-", lora, "LoRA of rank r"),
    ):
        ranks = list(values)
        middle = [mean(losses) for losses in values.values()]
        right.plot(ranks, middle, marker, color=colour)
        above = 6 if middle[0] == highest else -20  # the upper line's label stands above it
        place = (ranks[0], middle[0])
        right.annotate(
            name, place, (6, above), textcoords="offset points", color=colour, fontsize=9
        )
    for name, level in levels.items():
        right.axhline(level, color="grey", ls=":")
        right.text(1, level, name, color="grey", va="bottom", fontsize=9)
    right.set(xscale="log", xlabel="r", ylabel="loss on plays (nats per token)")
    right.set_xticks((1, 4, 8, 16), ("1", "4", "8", "16"))
    right.set_title("A few do most of the work", fontsize=11)
    for ax in (left, right):
        ax.minorticks_off()
    caption = (
        "Full fine-tuning's update of glass. Left: the band covers all kinds of layers with 128 "
        "directions. Right: means of three seeds; embeddings and norms are glass's in all."
    )
    alt = "Left, a band above a dotted curve; right, two falling lines between two levels."
    run.figure(fig, "spectrum", caption, alt=alt)


def forgetting(
    run: Run, learned: Mapping[str, Sequence[float]], forgot: Mapping[str, Sequence[float]]
) -> None:
    """Draw what each arm forgets over what it learns, three seeds."""
    fig, ax = plt.subplots()
    for i, (name, values) in enumerate(learned.items()):
        ax.plot(values, forgot[name], "o", color=f"C{i}")
        place = (mean(values), max(forgot[name]))
        ax.annotate(name, place, (0, 8), textcoords="offset points", color=f"C{i}", ha="center")
    ax.set(xlabel="learned: fall of the loss on plays (nats per token)")
    top = max(max(values) for values in forgot.values())
    ax.set(ylabel="forgotten: rise on its own text (nats)", ylim=(0, 1.2 * top))
    ax.margins(x=0.15)
    ax.set_title("Adapters forget, too")
    caption = "Further right: more learned. Lower: less forgotten. Three seeds each."
    alt = "Groups of three points, a colour for each arm, all well above 0."
    run.figure(fig, "forgetting", caption, alt=alt)


def four_bits(run: Run, levels: Tensor, weight: Tensor) -> None:
    """Draw the 16 levels over the distribution of weights, relative to their block's largest."""
    fig, ax = plt.subplots(figsize=(7.2, 3.4))
    blocks = weight.detach().reshape(-1, 64)
    relative = (blocks / blocks.abs().amax(1, keepdim=True)).flatten()
    ax.hist(relative.numpy(), bins=80, range=(-0.995, 0.995), color="C0", alpha=0.6)
    top = ax.get_ylim()[1]
    ax.vlines(levels.numpy(), 0, 0.16 * top, color="C1", lw=2)
    ax.text(0.66, 0.45 * top, "the 16 levels", color="C1")
    ax.text(0.25, 0.8 * top, "weights", color="C0")
    ax.set(xlabel="weight ÷ largest of its block", ylabel="number of weights")
    ax.set_title("More levels where weights are frequent")
    caption = "A matrix of glass in blocks of 64, without each block's largest, and the levels."
    alt = "A bell-shaped histogram with 16 vertical lines, denser in the middle."
    run.figure(fig, "four_bits", caption, alt=alt)


def memory(run: Run, table: Sequence[Sequence[Any]]) -> None:
    """Draw the parts of a step's memory; rows are name, count, three parts and their sum."""
    fig, ax = plt.subplots(figsize=(7.2, 2.8))
    names = ("weights", "forward and backward", "AdamW's moments")
    for y, row in enumerate(table):
        left = 0.0
        for i, part in enumerate(row[2:5]):
            ax.barh(y, part, 0.55, left=left, color=f"C{i}")
            left += part
        ax.text(left + 15, y, f"{left:,.0f} MiB", va="center")
    left = 0.0
    for i, name in enumerate(names):
        part = table[0][2 + i]
        ax.text(left + part / 2, -0.42, name, color=f"C{i}", ha="center", fontsize=9)
        left += part
    ax.set_yticks(range(len(table)), [row[0] for row in table])
    ax.set(xlabel="MiB", xlim=(0, 1.2 * left), ylim=(1.5, -0.6))
    ax.set_title("Memory shrinks, but weights and activations stay")
    caption = "Memory of one training step, in float32: weights and moments counted, rest measured."
    alt = "Two stacked bars, full fine-tuning and LoRA; LoRA lacks the moments and the gradients."
    run.figure(fig, "memory", caption, alt=alt)
