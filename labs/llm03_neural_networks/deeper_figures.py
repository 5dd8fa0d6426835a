"""The drawings of LLM03+: strides, a trap, twenty layers, slopes, a roofline.

Each function returns a figure, its caption and a text for readers who can't see it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from labs.llm03_neural_networks.costs import rounded
from labs.llm03_neural_networks.starts import Trained

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from torch import Tensor

Drawn = tuple[Any, str, str]  # figure, caption, alt text
Pairs = Sequence[tuple[float, float]]
SHOWN = (1, 5, 10, 20)  # layers with a histogram
VIEWS = {
    "x: (3, 4), strides (4, 1)": list(range(12)),
    "x.T: (4, 3), strides (1, 4)": [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11],
    "x[1:, ::2]: (2, 2), strides (4, 2), offset 4": [4, 6, 8, 10],
    "diagonal: (3,), stride (5,)": [0, 5, 10],
    "x[:, :1].expand(3, 4): (3, 4), strides (4, 0)": [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8],
}


def strides() -> Drawn:
    """Draw twelve places in memory, and which of them five tensors read, from first to last."""
    fig, ax = plt.subplots(figsize=(7.2, 5.2))
    for row, (title, places) in enumerate([("memory", range(12)), *VIEWS.items()]):
        y = -1.7 * row
        colour = f"C{row - 1}" if row else "C6"
        ax.text(0, y + 1.02, title, fontsize=10, va="bottom")
        for at, place in enumerate(places):
            box = Rectangle((at, y), 0.94, 0.94, ec=colour, lw=1.5)
            box.set(fc=colour, alpha=0.25 if row else 1, fill=bool(row))
            ax.add_patch(box)
            ax.text(at + 0.47, y + 0.44, str(place), ha="center", va="center")
    ax.text(12.4, 0.44, "place", va="center", fontsize=10)
    ax.text(12.4, -1.7 + 0.44, "places read,\nfirst to last", va="center", fontsize=10)
    ax.set(xlim=(-0.1, 15.8), ylim=(-8.7, 1.7), aspect="equal")
    ax.set_title("A view is another way to walk through the same memory")
    ax.axis("off")
    caption = "Twelve places in memory, and the places that five tensors read, first to last."
    alt = (
        "A row of twelve places, 0 to 11. Below it, what five tensors read: x reads 0, 1, 2 and so "
        "on; its transpose 0, 4, 8, 1, 5; a slice 4, 6, 8, 10; the diagonal 0, 5, 10; an expanded "
        "column reads 0, 4 and 8 four times each."
    )
    return fig, caption, alt


def trap(targets: Tensor, meant: Tensor, broken: Tensor) -> Drawn:
    """Draw predictions over targets, for targets (n, 1) as meant and (n,)."""
    fig, axes = plt.subplots(1, 2, sharey=True, figsize=(7.2, 3.6))
    titles = ("p (n, 1) − t (n, 1): learns", "p (n, 1) − t (n,): learns the mean")
    for ax, predictions, title in zip(axes, (meant, broken), titles, strict=True):
        ax.plot(targets, predictions[:, 0], "o", ms=3, alpha=0.6)
        ax.axline((0, 0), slope=1, color="C6", lw=1, ls=":")
        ax.set(xlabel="target", title=title)
    axes[0].set_ylabel("prediction after training")
    caption = "Predictions after 500 steps. Both trainings ran without a warning."
    alt = (
        "Two scatter plots of predictions over targets. As meant, the points are on the "
        "diagonal; with the axis missing, they are on a horizontal line."
    )
    return fig, caption, alt


def singular_values(
    before: Sequence[float],
    trained: Sequence[float],
    by_rank: Sequence[Sequence[float]],
    smallest: Sequence[float],
    seed: int,
) -> Drawn:
    """Draw the singular values of a layer, and its accuracy by how many of them are in use.

    Args:
        before: ten singular values at the start.
        trained: ten singular values of the trained layer.
        by_rank: accuracy with the 0 to 10 largest, for each seed.
        smallest: accuracy with the five smallest of nine, for each seed.
        seed: of the layer whose singular values are drawn.
    """
    fig, (values, shares) = plt.subplots(1, 2, figsize=(7.6, 3.6))
    ranks = range(1, 11)
    values.plot(ranks, trained, "C0o-")
    values.plot(ranks, before, "C3o-")
    values.text(4, trained[3] * 1.12, "trained", color="C0")
    values.text(1, before[0] + 0.05 * max(trained), "at the start", color="C3")
    values.set(xlabel="k", ylabel="k-th singular value", ylim=(0, None), xticks=[1, 4, 7, 10])
    values.set_title(f"Before and after training (seed {seed})", fontsize=11)
    for share in by_rank:
        shares.plot(range(11), [100 * value for value in share], "C2o-", ms=4, alpha=0.6)
    shares.plot([5] * len(smallest), [100 * share for share in smallest], "C1o", ms=5, mfc="none")
    shares.text(5.3, 100 * min(smallest), "the five smallest", color="C1", va="top")
    shares.axhline(80, color="C6", lw=1, ls=":")
    shares.set(xlabel="k, singular values in use", ylabel="test accuracy (%)", ylim=(0, 100))
    shares.set_xticks([0, 1, 3, 5, 7, 9])
    five = 100 * min(share[5] for share in by_rank)
    shares.set_title(f"The five largest read at least {math.floor(five)} %", fontsize=11)
    caption = (
        "Left: singular values of the centred rows, at the start and trained. Right: accuracy "
        "with the k largest of them, three seeds; the open points are the control, with the five "
        "smallest of the nine."
    )
    alt = (
        "Two panels: ten falling singular values, large after training and small before; "
        "accuracy that rises with the number of singular values and levels off. With the five "
        "smallest, open points are lower."
    )
    return fig, caption, alt


def histograms(samples: Mapping[str, Sequence[Tensor]]) -> Drawn:
    """Draw histograms of a few layers' outputs before the ReLU, a row for each start."""
    fig, axes = plt.subplots(len(samples), len(SHOWN), figsize=(7.6, 4.6), sharex="row")
    for i, (row, (start, by_layer)) in enumerate(zip(axes, samples.items(), strict=True)):
        reach = 4 * float(by_layer[0].std())
        edges = np.linspace(-reach, reach, 61)
        for ax, layer in zip(row, SHOWN, strict=True):
            counts, _ = np.histogram(by_layer[layer - 1].numpy(), edges)
            ax.stairs(counts / counts.max(), edges, fill=True, color=f"C{i}", alpha=0.7)
            ax.set(yticks=[], ylim=(0, 1.35))
            deviation = f"std {float(by_layer[layer - 1].std()):.2g}"
            ax.text(0.97, 0.8, deviation, transform=ax.transAxes, ha="right", fontsize=9)
            if i == 0:
                ax.set_title(f"layer {layer}", fontsize=11)
        row[0].set_ylabel(start)
    for ax in axes[-1]:
        ax.set_xlabel("output")
    fig.suptitle("Through 20 ReLU layers: only He's start keeps the numbers' size", fontsize=12)
    caption = (
        "256 samples, before the ReLU. Each row has the horizontal scale of its first layer. "
        "Each histogram is scaled to its own height."
    )
    alt = (
        "Three rows of four histograms, for layers 1, 5, 10 and 20. With He's start all four "
        "are about as wide; with the two others they become a spike."
    )
    return fig, caption, alt


def signal(measured: Mapping[str, Pairs], expected: Mapping[str, Pairs], seed: int) -> Drawn:
    """Draw RMS, and spread relative to RMS, over the layers: points measured, lines theory."""
    fig, axes = plt.subplots(1, 2, figsize=(7.8, 4.0))
    depth = len(next(iter(measured.values())))
    layers = range(1, depth + 1)
    for i, start in enumerate(measured):
        for pairs, look in ((measured[start], "o"), (expected[start], "-")):
            rms = [pair[0] for pair in pairs]
            share = [spread / size for size, spread in pairs]
            for ax, values in zip(axes, (rms, share), strict=True):
                ax.semilogy(layers, values, f"C{i}{look}", ms=9 - 2 * i)
        end = expected[start][-1][0]
        bare = "," in start  # its label has two lines, and its curve ends lowest
        name = start.replace(", ", ",\n")
        va = "bottom" if bare else "center"
        axes[0].text(depth + 1.4, end, name, color=f"C{i}", va=va)
    axes[1].text(depth, 0.5, "the others", ha="right", va="bottom")
    axes[1].text(depth - 8, 3e-5, "PyTorch", color="C2", ha="right")
    axes[0].set(xlabel="layer", ylabel="RMS", title="size of the numbers")
    axes[1].set(xlabel="layer", ylabel="spread ÷ RMS", title="share that differs between samples")
    for ax in axes:
        ax.set_xticks(range(0, depth + 1, 5))
    axes[0].set_xlim(0, depth + 12)
    fig.suptitle("PyTorch's biases keep a size, and drown what distinguishes samples", fontsize=12)
    caption = (
        f"20 ReLU layers. Points: measured, with seed {seed}; lines: theory. On the right, three "
        "starts have the same line, and nearly the same points."
    )
    alt = (
        "Two plots over 20 layers on log axes, the RMS of the activations and their spread "
        "across samples relative to it, for four initialisations."
    )
    return fig, caption, alt


def training(trained: Mapping[str, Sequence[Trained]]) -> Drawn:
    """Draw losses over the steps, and accuracy over the directions of layer 10, for each start."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.8, 4.0))
    colours = ("C0", "C1", "C2", "C3", "C6")
    for colour, (start, models) in zip(colours, trained.items(), strict=True):
        losses = np.mean([model.losses for model in models], axis=0)  # (steps,)
        smooth = losses.reshape(-1, 10).mean(1)
        left.plot(np.arange(len(smooth)) * 10 + 5, smooth, colour)
        used = [model.directions for model in models]
        shares = [100 * model.accuracy for model in models]
        right.plot(used, shares, colour + "o", label=start.replace("outputs", "\noutputs"))
    left.axhline(math.log(10), color="C6", lw=1, ls=":")
    left.text(300, math.log(10) * 1.02, "equal probabilities", fontsize=9, ha="right", va="bottom")
    left.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    right.set(xlabel="directions in layer 10", ylabel="test accuracy (%)", ylim=(0, 100))
    right.legend(loc="lower right", fontsize=9)
    fig.suptitle("Few directions in layer 10 go with few digits read", fontsize=12)
    caption = (
        "Twenty layers, 300 steps. Left: the loss, a mean of three seeds and ten steps. Right: a "
        "point for each seed. The colours are the same."
    )
    alt = (
        "Left, five falling curves of the loss over 300 steps, some of which begin with a flat "
        "part. Right, points of test accuracy over the number of directions, three for each start."
    )
    return fig, caption, alt


def slopes(sizes: Sequence[int], times: Sequence[float], small: float, large: float) -> Drawn:
    """Draw time over size, with the lines that were fitted to the first 3 and the last 4 points."""
    fig, ax = plt.subplots()
    ax.loglog(sizes, times, "C0o", base=10)
    for chosen, slope, colour in ((slice(0, 3), small, "C1"), (slice(-4, None), large, "C2")):
        x = np.array(sizes[chosen], dtype=float)
        y = np.array(times[chosen])
        line = np.exp(np.log(y).mean() + slope * (np.log(x) - np.log(x).mean()))
        ax.plot(x, line, colour, lw=2)
        side = "left" if colour == "C1" else "right"
        place = (x[1] * (1.3 if side == "left" else 0.8), line[1] * (0.6 if side == "left" else 1))
        ax.text(*place, f"slope {slope:.2f}", color=colour, ha=side, va="center")
    ax.set(xlabel="n, of n × n times n × n", ylabel="time (s)")
    ax.set_xticks(list(sizes), [f"{n:,}" for n in sizes])
    ax.minorticks_off()
    ax.set_title("On log-log axes the slope is the exponent")
    caption = "Square products in float32. Lines: fits to the three smallest and the four largest."
    alt = (
        "Points of time over size on log axes, flat at the left and steep at the right, with "
        "a fitted line at either end and its slope."
    )
    return fig, caption, alt


def roofline(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float], float, float]],
    inputs: Sequence[int],
) -> Drawn:
    """Draw rates over intensities for each dtype, with the roof of peak and bandwidth.

    Args:
        curves: by dtype: FLOPs per byte, FLOP/s, peak and bandwidth.
        inputs: the number of inputs of each point.
    """
    fig, ax = plt.subplots()
    gains = []
    for i, (name, (xs, rates, peak, bandwidth)) in enumerate(curves.items()):
        gains.append(f"{rounded(rates[-1] / rates[0])} in {name}")
        reach = np.geomspace(min(xs) / 1.5, max(xs) * 1.5, 200)
        roof = np.minimum(peak, reach * bandwidth) / 1e9
        ax.loglog(reach, roof, f"C{i}-", lw=1.5)
        ax.loglog(xs, [rate / 1e9 for rate in rates], f"C{i}o")
        ax.text(reach[-1], peak / 1e9 * 1.2, f"peak, {name}", color=f"C{i}", ha="right")
        corner = peak / bandwidth
        ax.plot(corner, peak / 1e9, f"C{i}s", ms=6, mfc="none")
        if not i:
            ax.text(corner, peak / 1e9 * 1.2, "corner", color=f"C{i}", ha="right")
            start = (xs[0] * corner) ** 0.5  # halfway up the slope
            place = (start / 1.3, start * bandwidth / 0.9e9)
            ax.text(*place, "bandwidth", ha="right", va="bottom")
        for at in (0, 4, len(inputs) - 1):
            label = f"{inputs[at]:,} input{'s' if inputs[at] > 1 else ''}"
            side = "center" if at else "left"  # the roof runs at the left of the first point
            if not i:
                ax.text(xs[at], rates[at] / 1.2e9, label, fontsize=9, va="top", ha=side)
    lowest = min(min(rates) for _, rates, _, _ in curves.values()) / 1e9
    highest = max(peak for _, _, peak, _ in curves.values()) / 1e9
    ax.set(xlabel="intensity (FLOPs per byte)", ylabel="GFLOP/s", ylim=(lowest / 3, highest * 2))
    ax.set_title("More inputs raise the rate; the roof only bounds it")
    caption = (
        "One square matrix with 1 to 1,024 inputs; on a CPU, by one thread. Lines: the roof, "
        "measured by separate products and reads. A square marks its corner. "
        f"Rate with {inputs[-1]:,} inputs ÷ rate with one: {', '.join(gains)}."
    )
    alt = (
        "Points of GFLOP/s over FLOPs per byte on log axes, beside a roof that rises as a line "
        "named bandwidth to a corner and is flat from there, at the peak."
    )
    return fig, caption, alt
