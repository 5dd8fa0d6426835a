"""The figures of LLM05b and LLM05b+."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

Arm = tuple[str, bool]  # a placement, and whether there is a warm-up


def label_ends(ax: Axes, ends: dict[str, tuple[float, float]], colours: dict[str, str]) -> None:
    """Write names beside the right ends of lines, moved apart where they would overlap."""
    low, high = ax.get_ylim()
    logarithmic = ax.get_yscale() == "log"

    def height(y: float) -> float:  # share of the axis
        if logarithmic:
            return math.log(y / low) / math.log(high / low)
        return (y - low) / (high - low)

    free = -math.inf
    for name, (x, y) in sorted(ends.items(), key=lambda item: item[1][1]):
        free = max(height(y), free + 0.075)
        place = low * (high / low) ** free if logarithmic else low + free * (high - low)
        ax.annotate(
            name,
            (x, place),
            (6, 0),
            textcoords="offset points",
            color=colours[name],
            va="center",
            fontsize=10,
            annotation_clip=False,
        )


def draw_blocks() -> Figure:
    """Draw a Post-LN and a Pre-LN block: where the norms stand."""
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 4.4))
    for ax, placement in zip(axes, ("Post-LN", "Pre-LN"), strict=True):
        ax.set(xlim=(-0.4, 3), ylim=(-0.4, 8.6), title=f"{placement}: {FORMULAS[placement]}")
        ax.axis("off")
        ax.annotate("", (0, 8.5), (0, -0.3), arrowprops={"arrowstyle": "->", "lw": 2.5})
        ax.text(0.12, -0.25, "x, the residual stream", va="center", fontsize=10)
        for bottom, branch, colour in ((0.4, "attention", "C0"), (4.4, "FFN", "C2")):
            draw_branch(ax, bottom, branch, colour, placement)
    return fig


FORMULAS = {"Post-LN": "norm(x + f(x))", "Pre-LN": "x + f(norm(x))"}


def draw_branch(ax: Axes, bottom: float, branch: str, colour: str, placement: str) -> None:
    """Draw a branch beside the stream, from `bottom` up, and the norm at its place."""
    box: dict[str, Any] = {"boxstyle": "round,pad=0.35", "fc": "none", "lw": 1.6}
    arrow: dict[str, Any] = {"arrowstyle": "->", "color": colour, "lw": 1.6}
    steps = ["norm", branch] if placement == "Pre-LN" else [branch]
    places = [bottom + 0.7, bottom + 1.7] if len(steps) == 2 else [bottom + 1.2]
    ax.plot([0, 1.7], [bottom, bottom], color=colour, lw=1.6)
    below = bottom
    for step, place in zip(steps, places, strict=True):
        ink = "C1" if step == "norm" else colour
        ax.annotate("", (1.7, place - 0.25), (1.7, below), arrowprops=arrow)
        ax.text(1.7, place, step, ha="center", va="center", bbox={**box, "ec": ink})
        below = place + 0.25
    top = bottom + 2.5
    ax.plot([1.7, 1.7], [below, top], color=colour, lw=1.6)
    ax.annotate("", (0.12, top), (1.7, top), arrowprops=arrow)
    ax.plot(0, top, "o", ms=13, mfc=colour, mec=colour, mew=1.6)
    ax.text(0, top, "+", ha="center", va="center", fontsize=12, color="white")
    if placement == "Post-LN":
        filled = {**box, "fc": "C1", "ec": "C1"}
        ax.text(0, top + 0.75, "norm", ha="center", va="center", bbox=filled, color="white")


def draw_starts(ends: dict[tuple[str, int], tuple[float, float]], least: float) -> Figure:
    """Draw the stream's size and the last block's gradient against the number of blocks.

    Args:
        ends: by placement and number of blocks, the size and the gradient.
        least: the least mean square that a block adds; the most is larger by 1.
    """
    names = list(dict.fromkeys(name for name, _ in ends))
    layers = sorted({n for _, n in ends})
    colours = {name: f"C{i}" for i, name in enumerate(names)}
    fig, axes = plt.subplots(1, 2, figsize=(7.8, 4.2))
    most = math.sqrt(1 + (1 + least) * layers[-1])
    limits = ((0.8, 2 * most), (0.1, 12))
    for i, (ax, (low, high)) in enumerate(zip(axes, limits, strict=True)):
        labels = {}
        for name in names:
            values = [ends[name, n][i] for n in layers]
            ax.loglog(layers, values, "o-", ms=4, color=colours[name])
            inside = [(n, v) for n, v in zip(layers, values, strict=True) if low < v < high * 0.8]
            labels[name] = inside[-1]
        ax.set(xlabel="blocks L", xlim=(layers[0], layers[-1] * 3), ylim=(low, high))
        ax.set_xticks(layers, layers)
        ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if low <= tick <= high]
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        label_ends(ax, labels, colours)
    band = [[math.sqrt(1 + c * n) for n in layers] for c in (least, 1 + least)]
    axes[0].fill_between(layers, *band, color=colours["Pre-LN"], alpha=0.15, lw=0)
    axes[0].set(title="Pre-LN's stream grows …", ylabel="size of the stream at its end")
    axes[1].set(title="… and its last gradient shrinks", ylabel="gradient of the last block")
    return fig


def smooth(curves: Sequence[Sequence[float]], steps: int = 10) -> Tensor:
    """Return the mean over seeds, and over `steps` neighbouring steps."""
    return torch.tensor(curves).mean(0).unfold(0, steps, 1).mean(-1)


def draw_warm_up(curves: dict[Arm, list[list[float]]], unigram: float) -> Figure:
    """Draw the training losses of the four arms."""
    fig, ax = plt.subplots(figsize=(7.2, 4.4))
    names = {arm: f"{arm[0]}, {'with' if arm[1] else 'no'} warm-up" for arm in curves}
    colours = {}
    ends = {}
    for arm, runs in curves.items():
        values = smooth(runs)
        colours[names[arm]] = "C1" if arm[0] == "Post-LN" else "C0"
        each = torch.stack([smooth([row]) for row in runs])  # (seeds, steps)
        ax.fill_between(
            range(len(values)),
            each.amin(0),
            each.amax(0),
            color=colours[names[arm]],
            alpha=0.12,
            lw=0,
        )
        ax.plot(values, color=colours[names[arm]], ls="-" if arm[1] else "--")
        ends[names[arm]] = (len(values), values[-1].item())
    ax.axhline(unigram, color="grey", ls=":", lw=1)
    steps = len(next(iter(curves.values()))[0])
    ax.text(steps * 1.42, unigram, "unigram", ha="right", va="bottom", color="grey", fontsize=10)
    ax.set(xlabel="step", ylabel="training loss (nats per character)", xlim=(0, steps * 1.42))
    ax.set_xticks(range(0, steps + 1, steps // 6))
    ax.set(
        ylim=(ax.get_ylim()[0], unigram + 0.6), title="Warm-up helps Post-LN; Pre-LN does without"
    )
    label_ends(ax, ends, colours)
    return fig


def draw_gradients(gradients: dict[Arm, list[list[float]]]) -> Figure:
    """Draw the norm of each block's gradient in training as heat maps with one scale."""
    fig, axes = plt.subplots(1, len(gradients), figsize=(7.6, 3.4), sharey=True)
    maps = {arm: torch.tensor(rows).T.clamp(min=1e-9).log10() for arm, rows in gradients.items()}
    low = min(m.quantile(0.02).item() for m in maps.values())
    high = max(m.max().item() for m in maps.values())
    for ax, (arm, picture) in zip(axes, maps.items(), strict=True):
        blocks, columns = picture.shape
        extent = (0, 8 * columns, 0.5, blocks + 0.5)
        image = ax.imshow(
            picture, aspect="auto", origin="lower", extent=extent, vmin=low, vmax=high
        )
        ax.set(title=f"{arm[0]},\n{'with' if arm[1] else 'no'} warm-up", xlabel="step")
        ax.grid(False)
    axes[0].set(ylabel="block", yticks=range(1, blocks + 1))
    fig.colorbar(image, ax=axes, label="log₁₀ of the gradient's norm")
    return fig


def draw_distances(scores: dict[str, Tensor]) -> Figure:
    """Draw the score of one pair of tokens against their distance, one panel for each encoding."""
    fig, axes = plt.subplots(1, len(scores), figsize=(8.4, 3.4), sharex=True)
    rows = {
        name: [matrix.diagonal(-n) for n in range(len(matrix) // 2)]
        for name, matrix in scores.items()
    }
    shared = torch.cat([torch.cat(rows[name]) for name in scores if name != "ALiBi"])
    margin = 0.1 * (shared.max() - shared.min()).item()
    limits = (shared.min().item() - margin, shared.max().item() + margin)
    for i, (ax, (name, diagonals)) in enumerate(zip(axes, rows.items(), strict=True)):
        low = [row.min().item() for row in diagonals]
        high = [row.max().item() for row in diagonals]
        ax.fill_between(range(len(low)), low, high, color=f"C{i}", alpha=0.25, lw=0)
        ax.plot([row.mean().item() for row in diagonals], color=f"C{i}")
        ax.set(title=name)
        if name != "ALiBi":
            ax.set(ylim=limits)
        if name not in ("ALiBi", next(iter(scores))):
            ax.set_yticklabels([])
        ax.tick_params(labelsize=9)
    axes[0].set_ylabel("score of the same two tokens")
    fig.supxlabel("distance (tokens)", fontsize=11)
    return fig


def draw_places() -> Figure:
    """Draw the three places at which a position can act."""
    fig, ax = plt.subplots(figsize=(7.8, 2.6))
    boxes = ("embeddings", "stream", "q and k", "scores", "weights")
    box: dict[str, Any] = {"boxstyle": "round,pad=0.45", "fc": "none", "ec": "C6", "lw": 1.4}
    for i, name in enumerate(boxes):
        ax.text(2 * i, 0, name, ha="center", va="center", bbox=box)
        if i:
            arrow = {"arrowstyle": "->", "lw": 1.4}
            ax.annotate("", (2 * i - 0.72, 0), (2 * i - 1.28, 0), arrowprops=arrow)
    for i, name, code, colour in (
        (1, "learned table, sinusoids", "embed", "C2"),
        (2, "RoPE", "turn", "C3"),
        (3, "ALiBi", "bias", "C4"),
    ):
        height = 1.75 if i == 1 else 1.25
        arrow = {"arrowstyle": "->", "color": colour, "lw": 1.8}
        ax.annotate("", (2 * i, 0.35), (2 * i, height - 0.2), arrowprops=arrow)
        ax.text(2 * i, height, name, ha="center", color=colour, fontweight="bold")
        ax.text(2 * i, -0.7, code, ha="center", color=colour, family="monospace")
    ax.set(xlim=(-1, 9), ylim=(-0.9, 2.1), title="Where a position can act")
    ax.axis("off")
    return fig


def draw_lengths(losses: dict[str, list[Tensor]], length: int, bigram: float) -> Figure:
    """Draw the loss by place in the text, of models that were trained on `length` characters."""
    fig, axes = plt.subplots(1, 2, figsize=(8, 4.4), sharey=True)
    total = len(losses["RoPE"][0])
    edges = [2**i for i in range(2, total.bit_length())]  # 4, 8, … 8 T
    middle = [math.sqrt(a * b) for a, b in pairwise(edges)]
    colours = {name: f"C{i}" for i, name in enumerate(losses)}
    panels = (("NoPE", "RoPE", "ALiBi"), ("learned", "sinusoids"))
    titles = ("None, or at the scores", "Added to the stream")
    for ax, names, title in zip(axes, panels, titles, strict=True):
        ends = {}
        for name in names:
            binned = torch.stack(
                [torch.stack([row[a:b].mean() for a, b in pairwise(edges)]) for row in losses[name]]
            )  # (seeds, bins)
            ax.plot(middle, binned.mean(0), "o-", ms=4, color=colours[name])
            ax.fill_between(middle, binned.amin(0), binned.amax(0), color=colours[name], alpha=0.18)
            ends[name] = (middle[-1], binned.mean(0)[-1].item())
        ax.axvline(length, color="grey", lw=1)
        ax.axhline(bigram, color="grey", lw=1, ls=":")
        ax.set_xscale("log", base=2)
        ax.set(xlabel="place in the text (characters)", title=title, xlim=(4, total * 2.6))
        ax.set_xticks(edges[::2], edges[::2])
        ax.minorticks_off()
    axes[0].set_ylabel("loss (nats per character)")
    for ax, names in zip(axes, panels, strict=True):
        label_ends(
            ax,
            {
                n: (middle[-1], torch.stack(losses[n]).mean(0)[edges[-2] :].mean().item())
                for n in names
            },
            colours,
        )
        ax.text(
            length * 0.95,
            ax.get_ylim()[1],
            "trained to here ",
            ha="right",
            va="top",
            color="grey",
            fontsize=9,
        )
        ax.text(total * 2.5, bigram, "bigram", ha="right", va="bottom", color="grey", fontsize=9)
    return fig


def draw_layouts(to_halves: Callable[[Tensor, int], Tensor]) -> Figure:
    """Draw which entries of a head of 8 form a pair, and how rows move between the layouts."""
    fig, ax = plt.subplots(figsize=(7.2, 3.4))
    order = to_halves(torch.arange(8), 8).tolist()
    for target, source in enumerate(order):
        colour = f"C{source // 2}"
        ax.annotate(
            "",
            (target, 0.55),
            (source, 1.45),
            arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.6},
        )
        for x, y, number in ((source, 2, source), (target, 0, source)):
            ax.add_patch(Rectangle((x - 0.42, y - 0.4), 0.84, 0.8, fc=colour, alpha=0.25))
            ax.text(x, y, f"row {number}", ha="center", va="center", fontsize=10)
    ax.text(-0.6, 2, "neighbours", ha="right", va="center")
    ax.text(-0.6, 0, "halves", ha="right", va="center")
    ax.set(xlim=(-2.4, 7.6), ylim=(-0.6, 2.6), title="One colour, one pair: rows of W_q for D = 8")
    ax.axis("off")
    return fig


# LLM05b+


def draw_depth_law(attention: Tensor, ffn: Tensor, rows: list[Any]) -> Figure:
    """Draw what each branch adds, and the gradient with and without the size."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.8, 4))
    blocks = range(1, len(ffn) + 1)
    left.plot(blocks, attention, "o-", ms=3.5, color="C0")
    left.plot(blocks, ffn, "o-", ms=3.5, color="C2")
    for y, name in ((1.0, "attention's bound"), (0.233, "theory")):
        left.axhline(y, color="grey", ls=":", lw=1)
        left.text(len(ffn) * 1.03, y, name, va="center", color="grey", fontsize=9)
    left.text(len(ffn) * 0.5, 0.72, "attention", color="C0")
    left.text(len(ffn) * 0.5, 0.3, "FFN", color="C2")
    left.set(xlabel="block", ylabel="mean square that is added", xlim=(0, len(ffn) * 1.55))
    left.set(ylim=(0, 1.45), title="What each block adds")
    left.set_xticks([tick for tick in (1, 8, 16, 32, 64, 128) if tick <= len(ffn)])
    layers = [row[0] for row in rows]
    colours = {"gradient": "C1", "gradient · size": "C0"}
    ends = {}
    for name, column in (("gradient", 2), ("gradient · size", 3)):
        values = [row[column] / rows[0][column] for row in rows]
        right.loglog(layers, values, "o-", ms=4, color=colours[name])
        ends[name] = (layers[-1], values[-1])
    right.set(xlabel="blocks L", ylabel="relative to L = 2", xlim=(layers[0], layers[-1] * 3.4))
    right.set(ylim=(0.1, 2), title="Gradient · size is constant")
    right.set_xticks(layers, layers)
    right.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    right.minorticks_off()
    label_ends(right, ends, colours)
    return fig


def draw_steps(layers: Sequence[int], found: dict[str, Tensor]) -> Figure:
    """Draw how far a step moves the output, relative to two blocks."""
    fig, axes = plt.subplots(1, 2, sharey=True, figsize=(7.8, 4.2))
    colours = {name: f"C{i}" for i, name in enumerate(found)}
    for j, (ax, title) in enumerate(
        zip(axes, ("Gradient descent", "Adam's first step"), strict=True)
    ):
        ends = {}
        for name, x in found.items():
            relative = x[..., j] / x[:, :1, j]  # (seeds, depths)
            ax.loglog(layers, relative.median(0).values, "o-", ms=4, color=colours[name])
            ends[name] = (layers[-1], relative.median(0).values[-1].item())
        ax.set(xlabel="blocks L", title=title, xlim=(layers[0], layers[-1] * 3.2))
        ax.set_xticks(layers, layers)
        ax.minorticks_off()
        label_ends(ax, ends, colours)
    axes[0].set_ylabel("the output moves, relative to L = 2")
    return fig


def draw_rates(losses: dict[tuple[str, float], list[float]], unigram: float) -> Figure:
    """Draw each seed's loss by placement, one panel for each learning rate."""
    rates = sorted({lr for _, lr in losses})
    names = list(dict.fromkeys(name for name, _ in losses))
    fig, axes = plt.subplots(1, len(rates), sharey=True, figsize=(7.2, 3.8), squeeze=False)
    for ax, lr in zip(axes[0], rates, strict=True):
        for i, name in enumerate(names):
            values = losses[name, lr]
            ax.plot([i] * len(values), values, "o", color=f"C{i}", alpha=0.7)
            ax.plot([i - 0.2, i + 0.2], [mean(values)] * 2, color=f"C{i}", lw=2)
        ax.axhline(unigram, color="grey", ls=":", lw=1)
        ax.set(title=f"Learning rate {lr:g}, no warm-up", xlim=(-0.6, len(names) - 0.4))
        ax.set_xticks(range(len(names)), names)
        ax.text(len(names) - 0.45, unigram, "unigram", ha="right", va="bottom", color="grey")
    axes[0][0].set_ylabel("validation loss (nats)")
    return fig


def draw_spikes(norms: dict[str, list[list[float]]]) -> Figure:
    """Draw the gradient's norm in training relative to the run's median."""
    fig, ax = plt.subplots(figsize=(7.2, 4))
    for i, (name, runs) in enumerate(norms.items()):
        for row in runs:
            middle = sorted(row)[len(row) // 2]
            ax.semilogy([norm / middle for norm in row], color=f"C{i}", lw=0.9, alpha=0.8)
        ax.plot([], [], color=f"C{i}", label=name)
    ax.set(xlabel="step", ylabel="gradient's norm ÷ the run's median")
    ax.set_title("Without norms, training starts with a large gradient")
    ax.legend()
    return fig


def draw_methods(
    costs: dict[tuple[str, int, bool], list[float]], factors: tuple[int, ...]
) -> Figure:
    """Draw the cost of length of four ways to read on."""
    names = list(dict.fromkeys(name for name, *_ in costs))
    colours = {name: f"C{i}" for i, name in enumerate(names)}
    fig, axes = plt.subplots(1, 2, figsize=(7.8, 4.2), width_ratios=(3, 2), sharey=True)
    ends = {}
    for name in names:
        y = torch.tensor([costs[name, n, False] for n in factors])  # (lengths, seeds)
        axes[0].plot(factors, y.mean(1), "o-", color=colours[name])
        axes[0].fill_between(factors, y.amin(1), y.amax(1), color=colours[name], alpha=0.15)
        ends[name] = (factors[-1], y.mean(1)[-1].item())
    axes[0].set_xscale("log", base=2)
    axes[0].set_xticks(factors, factors)
    axes[0].set(xlabel="length read ÷ length in training", title="Weights unchanged")
    axes[0].set(ylabel="cost of length (nats)", xlim=(factors[0], factors[-1] * 2.6))
    label_ends(axes[0], ends, colours)
    for i, name in enumerate(names):
        after = costs[name, factors[-1], True]
        axes[1].plot([i] * len(after), after, "o", color=colours[name], alpha=0.7)
    axes[1].axhline(0, color="grey", lw=1)
    axes[1].set_xticks(
        range(len(names)), [name.replace(" ", "\n", 1) for name in names], fontsize=9
    )
    axes[1].set(title=f"A few steps at {factors[-1]} times", xlim=(-0.5, len(names) - 0.5))
    return fig
