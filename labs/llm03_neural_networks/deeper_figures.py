"""The drawings of LLM03+: strides, a trap, histograms of twenty layers, slopes, a roofline."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from torch import Tensor

Pairs = Sequence[tuple[float, float]]
SHOWN = (1, 5, 10, 20)  # layers with a histogram
VIEWS = {
    "x: (3, 4), strides (4, 1)": list(range(12)),
    "x.T: (4, 3), strides (1, 4)": [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11],
    "x[1:, ::2]: (2, 2), strides (4, 2)": [4, 6, 8, 10],
    "diagonal: (3,), stride (5,)": [0, 5, 10],
}


def strides() -> Any:
    """Draw twelve cells of memory, and in which order four views read them."""
    fig, ax = plt.subplots(figsize=(7.2, 4.4))
    for row, (title, places) in enumerate([("memory", []), *VIEWS.items()]):
        y = -1.7 * row
        colour = f"C{row - 1}" if row else "C6"
        ax.text(0, y + 1.02, title, fontsize=10, va="bottom")
        for place in range(12):
            read = not row or place in places
            box = Rectangle((place, y), 0.94, 0.94, ec=colour, lw=1.5 if read else 0.3)
            box.set(fc=colour, alpha=0.25 if read and row else 1, fill=bool(read and row))
            ax.add_patch(box)
            if read:
                order = places.index(place) + 1 if row else place
                ax.text(place + 0.47, y + 0.44, str(order), ha="center", va="center")
    ax.text(12.4, 0.44, "place", va="center", fontsize=10)
    ax.text(12.4, -1.7 + 0.44, "read 1st, 2nd, …", va="center", fontsize=10)
    ax.set(xlim=(-0.1, 16.2), ylim=(-7, 1.7), aspect="equal")
    ax.set_title("A view is another way to walk through the same memory")
    ax.axis("off")
    return fig


def trap(targets: Tensor, meant: Tensor, broken: Tensor) -> Any:
    """Draw predictions over targets, for targets (n, 1) as meant and (n,)."""
    fig, axes = plt.subplots(1, 2, sharey=True, figsize=(7.2, 3.6))
    titles = ("p (n, 1) − t (n, 1): learns", "p (n, 1) − t (n,): learns the mean")
    for ax, predictions, title in zip(axes, (meant, broken), titles, strict=True):
        ax.plot(targets, predictions[:, 0], "o", ms=3, alpha=0.6)
        ax.axline((0, 0), slope=1, color="C6", lw=1, ls=":")
        ax.set(xlabel="target", title=title)
    axes[0].set_ylabel("prediction after training")
    return fig


def histograms(samples: Mapping[str, Sequence[Tensor]]) -> Any:
    """Draw histograms of a few layers' outputs before the ReLU, a row for each start."""
    fig, axes = plt.subplots(len(samples), len(SHOWN), figsize=(7.6, 4.6), sharex="row")
    for i, (row, (start, by_layer)) in enumerate(zip(axes, samples.items(), strict=True)):
        reach = 4 * float(by_layer[0].std())
        edges = np.linspace(-reach, reach, 61)
        for ax, layer in zip(row, SHOWN, strict=True):
            counts, _ = np.histogram(by_layer[layer - 1].numpy(), edges)
            ax.stairs(counts / counts.max(), edges, fill=True, color=f"C{i}", alpha=0.7)
            ax.set(yticks=[], ylim=(0, 1.1))
            if i == 0:
                ax.set_title(f"layer {layer}", fontsize=11)
        row[0].set_ylabel(start)
    for ax in axes[-1]:
        ax.set_xlabel("output")
    fig.suptitle("Through 20 ReLU layers: only He's start keeps the numbers' size", fontsize=12)
    return fig


def signal(measured: Mapping[str, Pairs], expected: Mapping[str, Pairs]) -> Any:
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
        axes[0].text(depth + 0.8, end, start.replace(", ", ",\n"), color=f"C{i}", va="center")
    axes[1].text(depth, 0.5, "the others", ha="right", va="bottom")
    axes[1].text(depth - 5, 3e-5, "PyTorch", color="C2", ha="right")
    axes[0].set(xlabel="layer", ylabel="RMS", title="The size of the numbers")
    axes[1].set(xlabel="layer", ylabel="spread ÷ RMS", title="What distinguishes inputs")
    for ax in axes:
        ax.set_xticks(range(0, depth + 1, 5))
    axes[0].set_xlim(0, depth + 12)
    return fig


def slopes(sizes: Sequence[int], times: Sequence[float], small: float, large: float) -> Any:
    """Draw time over size, with the lines that were fitted to the first 3 and the last 4 points."""
    fig, ax = plt.subplots()
    ax.loglog(sizes, times, "C0o", base=10)
    for chosen, slope, colour in ((slice(0, 3), small, "C1"), (slice(-4, None), large, "C2")):
        x = np.array(sizes[chosen], dtype=float)
        y = np.array(times[chosen])
        line = np.exp(np.log(y).mean() + slope * (np.log(x) - np.log(x).mean()))
        ax.plot(x, line, colour, lw=2)
        side = "left" if colour == "C1" else "right"
        place = (x[1] * (1.25 if side == "left" else 0.8), line[1])
        ax.text(*place, f"slope {slope:.2f}", color=colour, ha=side, va="center")
    ax.set(xlabel="n, of n × n times n × n", ylabel="time (s)")
    ax.set_xticks(list(sizes), [f"{n:,}" for n in sizes])
    ax.minorticks_off()
    ax.set_title("On log-log axes the slope is the exponent")
    return fig


def roofline(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float], float, float]],
    inputs: Sequence[int],
) -> Any:
    """Draw rates over intensities for each dtype, with the roof of peak and bandwidth.

    Args:
        curves: by dtype: FLOPs per byte, FLOP/s, peak and bandwidth.
        inputs: the number of inputs of each point.
    """
    fig, ax = plt.subplots()
    for i, (name, (xs, rates, peak, bandwidth)) in enumerate(curves.items()):
        reach = np.geomspace(min(xs) / 1.5, max(xs) * 1.5, 200)
        roof = np.minimum(peak, reach * bandwidth) / 1e9
        ax.loglog(reach, roof, f"C{i}-", lw=1.5)
        ax.loglog(xs, [rate / 1e9 for rate in rates], f"C{i}o")
        ax.text(reach[-1], peak / 1e9 * 1.08, f"peak, {name}", color=f"C{i}", ha="right")
        for at in (0, 4, len(inputs) - 1):
            label = f"{inputs[at]:,} input{'s' if inputs[at] > 1 else ''}"
            if not i:
                ax.text(xs[at], rates[at] / 1.15e9, label, fontsize=9, va="top", ha="center")
    lowest = min(min(rates) for _, rates, _, _ in curves.values()) / 1e9
    highest = max(peak for _, _, peak, _ in curves.values()) / 1e9
    ax.set(xlabel="intensity (FLOPs per byte)", ylabel="GFLOP/s", ylim=(lowest / 3, highest * 2))
    ax.set_title("Few inputs are limited by bytes, many by FLOPs")
    return fig
