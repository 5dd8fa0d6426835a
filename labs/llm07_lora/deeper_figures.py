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
    ax.text(ranks[-1], ranks[-1], " same sign everywhere: r", color="grey", va="center")
    ax.text(ranks[-1], ranks[-1] ** 0.5, " independent signs: √r", color="grey", va="center")
    ax.text(ranks[-1], relative[-1], " measured", color="C0", va="center")
    ax.set_xticks(ranks, [str(rank) for rank in ranks])
    ax.set_yticks((1, 10), ("1", "10"))
    ax.minorticks_off()
    ax.set(xlabel="rank r, at α = 2r", ylabel="change of the logits ÷ rank 1", xlim=(0.9, 600))
    ax.set_title("At fixed α/r, a larger rank takes a larger first step")
    caption = (
        "The first step of Adam on glass: how far the logits move, relative to rank 1. Mean of "
        "three seeds."
    )
    alt = "The measured line, beside two dotted ones: r and the root of r."
    run.figure(fig, "first_steps", caption, alt=alt)


def best_rates(
    run: Run,
    ranks: Sequence[int],
    curves: Mapping[str, Mapping[float, float]],
    best: Mapping[str, float],
) -> None:
    """Draw the loss by rate for each rank, and the best rates by rank beside two laws."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.6))
    for i, (name, curve) in enumerate(curves.items()):
        left.plot(list(curve), list(curve.values()), "o-", color=f"C{i}")
        place = list(curve.items())[-1]
        left.annotate(name, place, (6, 0), textcoords="offset points", color=f"C{i}", va="center")
    left.set(xscale="log", xlabel="learning rate", ylabel="loss (nats per token)")
    left.set_xticks((0.0025, 0.005, 0.01, 0.02, 0.04), ("0.0025", "0.005", "0.01", "0.02", "0.04"))
    left.margins(x=0.2)
    left.set_title("Loss on validation rows", fontsize=11)
    first = next(iter(best.values()))
    for power, label in ((0.5, "1/√r"), (1, "1/r")):
        line = [first / (rank / ranks[0]) ** power for rank in ranks]
        right.plot(ranks, line, color="grey", ls=":")
        right.text(ranks[-1], line[-1], f" {label}", color="grey", va="center")
    right.plot(ranks, list(best.values()), "C0o-")
    right.text(ranks[-1], list(best.values())[-1], " measured", color="C0", va="bottom")
    right.set(xscale="log", yscale="log", xlabel="rank r, at α = 2r", ylabel="best rate")
    right.set_xticks(ranks, [str(rank) for rank in ranks])
    right.set_yticks((0.001, 0.003, 0.01, 0.03), ("0.001", "0.003", "0.01", "0.03"))
    right.set_xlim(0.9, 45)
    right.set_title("Best rate by rank", fontsize=11)
    for ax in (left, right):
        ax.minorticks_off()
    caption = (
        "Glass on plays. Left: the rates tried for each rank. Right: the lowest points of "
        "parabolas through the best and its neighbours, beside 1/√r and 1/r."
    )
    alt = "Left, a curve of points for each rank; right, a falling line beside two laws."
    run.figure(fig, "best_rates", caption, alt=alt)


def arms(
    run: Run,
    counts: Mapping[str, int],
    losses: Mapping[str, Sequence[float]],
    untouched: float,
) -> None:
    """Draw each arm's losses over its number of trained numbers; three seeds each."""
    fig, ax = plt.subplots()
    left = {"r = 1, MLP": (-9, -4), "r = 2, attention": (4, 9)}  # right of these are other arms
    for i, (name, values) in enumerate(losses.items()):
        ax.plot([counts[name]] * len(values), values, "o", color=f"C{i}")
        place = (counts[name], mean(values))
        shift = left.get(name, (9, -4))
        ha = "right" if name in left else "left"
        ax.annotate(name, place, shift, textcoords="offset points", ha=ha)
    ax.axhline(untouched, color="grey", ls=":")
    ax.text(1100, untouched, "untouched", va="top", color="grey")
    ax.set(xscale="log", xlim=(1000, 4e6), xlabel="trained numbers")
    ax.set(ylabel="loss on plays (nats per token)")
    ax.set_title("Every adapter learns, with fewer trained numbers than full")
    caption = "What each arm of glass reaches on plays, three seeds."
    alt = "Groups of three points, one group for each arm, over the trained numbers."
    run.figure(fig, "arms", caption, alt=alt)


def spectrum(
    run: Run,
    shares: Mapping[str, Tensor],
    short: Mapping[int, Sequence[float]],
    lora: Mapping[int, Sequence[float]],
    levels: Mapping[str, float],
) -> None:
    """Draw the share of squares in the first directions, and the loss that they reach."""
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
    left.set_title("Squares in the first directions", fontsize=11)
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
    right.set_title("Loss with r directions", fontsize=11)
    for ax in (left, right):
        ax.minorticks_off()
    caption = (
        "Full fine-tuning's update of glass. Left: the band covers all kinds of layers with 128 "
        "directions. The dotted line has down_proj's shape. Random matrices of q_proj's and "
        "o_proj's shape have 21 % instead of 14 % in 8 directions. Right: means of three seeds; "
        "embeddings and norms are glass's in all."
    )
    alt = "Left, a band above a dotted curve; right, two falling lines between two levels."
    run.figure(fig, "spectrum", caption, alt=alt)


def forgetting(
    run: Run,
    learned: Mapping[str, Sequence[float]],
    forgot: Mapping[str, Sequence[float]],
    curves: Mapping[str, Sequence[tuple[float, float]]],
) -> None:
    """Draw what each arm forgets over what it learns, three seeds, and parts of one update."""
    fig, ax = plt.subplots()
    for i, (name, values) in enumerate(learned.items()):
        ax.plot(values, forgot[name], "o", color=f"C{i}")
        line = [(0.0, 0.0), *curves[name]]
        ax.plot(*zip(*line, strict=True), ".-", color=f"C{i}", lw=1, ms=4)
        place = (mean(values), max(forgot[name]))
        shift = ({"r = 1": -18, "r = 4": -16}.get(name, 0), 10)
        ax.annotate(name, place, shift, textcoords="offset points", color=f"C{i}", ha="center")
    ax.set(xlabel="learned: fall of the loss on plays (nats per token)")
    top = max(max(values) for values in forgot.values())
    ax.set(ylabel="forgotten: rise on glass's own text (nats)", ylim=(0, 1.2 * top))
    ax.margins(x=0.15)
    ax.set_xlim(left=0)
    ax.set_title("The last part of an update teaches little and forgets much")
    caption = (
        "Large points: three seeds of each arm. Lines: 0, 25, 50, 75 and 100 % of the update of "
        "the first seed. Compare arms straight above each other, and far from the ends of their "
        "lines: near its end, an update forgets much and teaches little."
    )
    alt = "Groups of three points, a colour for each arm, and a rising curve to each group."
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
    ax.set_title("The 16 levels are dense where weights are frequent")
    caption = "A matrix of glass in blocks of 64, without each block's largest, and the levels."
    alt = "A bell-shaped histogram with 16 vertical lines, denser in the middle."
    run.figure(fig, "four_bits", caption, alt=alt)


def memory(run: Run, table: Sequence[Sequence[Any]]) -> None:
    """Draw the parts of a step's memory; rows are name, count, three parts and their sum."""
    fig, ax = plt.subplots(figsize=(7.2, 3.2))
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
    ax.set(xlabel="MiB", xlim=(0, 1.2 * left), ylim=(len(table) - 0.5, -0.6))
    ax.set_title("LoRA shrinks gradients and moments, four bits shrink weights")
    caption = (
        "Weights and moments are counted. A base of four bits takes 4.5 bits a weight in linear "
        "layers. Forward and backward are measured for the first two bars. The third bar has "
        "LoRA's, without the restored matrices. Forward and backward is a peak: with full, most "
        "activations are already freed when it comes, so don't subtract the gradients from it."
    )
    alt = "Three stacked bars, full fine-tuning, LoRA, and LoRA on four bits."
    run.figure(fig, "memory", caption, alt=alt)


def dora(run: Run) -> None:
    """Draw the worked row: W's, LoRA's and DoRA's, as arrows."""
    fig, ax = plt.subplots(figsize=(7.2, 3.0))
    arrows = {
        "W: (3, 4), length 5": ((3, 4), "C0", (-2.7, 1.3), "left"),
        "LoRA: (12, 5), length 13": ((12, 5), "C1", (0.15, 0), "left"),
        "DoRA, m = 5: (4.6, 1.9)": ((60 / 13, 25 / 13), "C2", (0.1, -0.75), "left"),
    }
    for label, ((x, y), colour, (dx, dy), ha) in arrows.items():
        looks = {"arrowstyle": "->", "color": colour, "lw": 2.5, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (x, y), (0, 0), arrowprops=looks)
        ax.text(x + dx, y + dy, label, color=colour, ha=ha)
    update = {"arrowstyle": "->", "color": "grey", "ls": ":", "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (12, 5), (3, 4), arrowprops=update)
    ax.text(6.6, 4.75, "update (9, 1)", color="grey", ha="center")
    angles = np.linspace(0, np.pi / 2, 60)
    ax.plot(5 * np.cos(angles), 5 * np.sin(angles), color="grey", lw=0.8)
    ax.text(5.05, 0.15, "length 5", color="grey", fontsize=9)
    ax.set(xlim=(-1.5, 18), ylim=(0, 6), aspect="equal", xlabel="first weight")
    ax.set_ylabel("second weight")
    ax.set_title("DoRA has the direction of LoRA and a length of its own, m")
    caption = (
        "The update turns the row (3, 4) and makes it longer. DoRA takes the new direction and a "
        "length m, which is trained apart. At first m is W's own length."
    )
    alt = "Three arrows from 0: W's row, LoRA's longer one, and DoRA's, as long as W's row."
    run.figure(fig, "dora", caption, alt=alt)


def merge(run: Run, weight: Tensor, delta: Tensor, dtype: Any) -> None:
    """Draw what a merge in a dtype changes each weight by, over what it should."""
    fig, ax = plt.subplots(figsize=(7.2, 3.6))
    before = weight.to(dtype).float()
    after = (before + delta).to(dtype).float()
    wanted = (delta / before.abs()).flatten()[:4000].numpy()
    got = ((after - before) / before.abs()).flatten()[:4000].numpy()
    ax.plot(100 * wanted, 100 * got, ".", ms=2, color="C0")
    ax.axline((0, 0), slope=1, color="grey", ls=":")
    half = 100 / 512
    ax.axvspan(-half, half, color="C1", alpha=0.25, lw=0)
    ax.text(half, -2.2, "  always vanishes", color="C1")
    ax.set(xlabel="ΔW, in % of the weight", ylabel="change of the merged weight (%)")
    ax.set(xlim=(-2.5, 2.5), ylim=(-2.5, 2.5))
    ax.set_title("bfloat16 rounds each merged weight, and small changes vanish")
    caption = (
        "Weights of one layer of glass: the change that a trained adapter asks for, and the change "
        "after rounding to bfloat16. On the dotted line nothing would be lost. Most changes are "
        "larger and lie outside."
    )
    alt = "A cloud of points around the diagonal; near 0 they lie at 0, further out in steps."
    run.figure(fig, "merge", caption, alt=alt)
