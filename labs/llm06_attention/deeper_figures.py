"""The drawings of LLM06+."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def entropies(rows: Sequence[Sequence[float]], soft: float) -> Figure:
    """Draw entropy over the width; rows are d, divided, undivided, theory."""
    fig, ax = plt.subplots(figsize=(7.2, 3.6))
    widths, divided, undivided, theory = zip(*rows, strict=True)
    ax.plot(widths, divided, "C0o-")
    ax.plot(widths, undivided, "C1o-")
    ax.plot(widths, theory, color="grey", ls=":")
    ax.axhline(soft, color="grey", ls="--", lw=1)
    ax.text(widths[1], soft - 0.45, "divided by √d: ln n − ½", color="C0")
    ax.text(widths[1], undivided[1] + 0.35, "undivided", color="C1")
    ax.text(widths[0], theory[0] + 0.2, "theory for large d", color="grey")
    ax.set_xscale("log")
    ax.set_xticks(widths, [f"{int(width):,}" for width in widths])
    ax.minorticks_off()
    ax.set(xlabel="width d", ylabel="entropy (nats)", ylim=(0, 6))
    ax.set_title("Only the division keeps attention soft")
    return fig


def costs(
    sizes: Sequence[int],
    times: Mapping[str, Sequence[float]],
    peaks: Mapping[str, Sequence[float]],
) -> Figure:
    """Draw time in ms and peak memory in MiB over the length, a line for each way."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.8))
    panels = ((times, "time (ms)"), (peaks, "peak memory (MiB)"))
    for ax, (values, label) in zip(axes, panels, strict=True):
        for name, line in values.items():
            ax.loglog(sizes, line, "o-", label=name)
        ax.set(xlabel="length T", ylabel=label)
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        ax.minorticks_off()
    axes[0].legend()
    axes[1].set_title("Tiles: memory linear in T", fontsize=10)
    return fig


def sinks(weights: Sequence[float], ratios: Sequence[float]) -> Figure:
    """Draw each head's weight on the first token, and the relative norm of the value there."""
    fig, ax = plt.subplots(figsize=(7.2, 3.8))
    ax.scatter(weights, ratios, s=14, alpha=0.7)
    ax.axhline(1, color="grey", ls=":")
    ax.text(0, 1.03, "like other tokens", color="grey", fontsize=9)
    ax.set(xlabel="weight on the first token", ylabel="norm of its value ÷ other values")
    ax.set_title("Sinks hand over little")
    return fig
