"""The figures of LLM05b+."""

from collections.abc import Sequence
from statistics import mean, median
from typing import Any

from labs.kit import Run
from labs.llm05b_depth_and_position.figures import label_ends

import matplotlib.pyplot as plt
import torch
from torch import Tensor


def show_depth_law(run: Run, attention: Tensor, ffn: Tensor, rows: list[Any]) -> None:
    """Draw what each branch adds, and the gradient with and without the size."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.8, 4))
    blocks = range(1, len(ffn) + 1)
    left.plot(blocks, attention, "o-", ms=3.5, color="C0")
    left.plot(blocks, ffn, "o-", ms=3.5, color="C2")
    for y, name in ((1.0, "attention's bound"), (0.233, "theory")):
        left.axhline(y, color="grey", ls=":", lw=1)
        left.text(len(ffn) * 1.05, y, name, va="bottom", color="grey", fontsize=9)
    left.text(len(ffn) * 0.5, 0.55, "attention", color="C0")
    left.text(len(ffn) * 0.5, 0.29, "FFN", color="C2")
    left.set(xlabel="block", ylabel="mean square that is added", xlim=(0, len(ffn) * 1.7))
    left.set(ylim=(0, 1.2), title="Attention adds more with depth")
    left.set_xticks([tick for tick in (1, 8, 16, 32, 64, 128) if tick <= len(ffn)])
    layers = [row[0] for row in rows]
    colours = {"gradient": "C1", "gradient · size": "C0"}
    ends = {}
    for name, column in (("gradient", 2), ("gradient · size", 3)):
        values = [row[column] / rows[0][column] for row in rows]
        right.loglog(layers, values, "o-", ms=4, color=colours[name])
        ends[name] = (layers[-1], values[-1])
    right.set(xlabel="blocks L", ylabel="relative to L = 2", xlim=(layers[0], layers[-1] * 4.2))
    right.set(ylim=(0.1, 2), title="Gradient · size is constant")
    right.set_xticks(layers, layers)
    right.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    right.minorticks_off()
    label_ends(right, ends, colours)
    run.figure(
        fig,
        "depth_law",
        "Untrained Pre-LN stacks, means of three seeds. Left: the deepest stack. Right: root mean "
        "squares over all tokens at the end of the stream.",
        alt="Two plots. Left: what attention adds rises with the block and stays below its bound "
        "of 1; what FFNs add stays at the theory's value. Right: the gradient falls with the "
        "number of blocks, and the gradient times the size stays at 1.",
    )


def show_steps(run: Run, layers: Sequence[int], found: dict[str, Tensor]) -> None:
    """Draw how far a step moves the output, relative to two blocks."""
    fig, axes = plt.subplots(1, 2, sharey=True, figsize=(7.8, 4.2))
    colours = {name: f"C{i}" for i, name in enumerate(found)}
    ticks = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
    for j, (ax, title) in enumerate(
        zip(axes, ("Gradient descent", "Adam's first step"), strict=True)
    ):
        ends = {}
        for name, x in found.items():
            relative = x[..., j] / x[:, :1, j]  # (seeds, depths)
            ax.loglog(layers, relative.median(0).values, "o-", ms=4, color=colours[name])
            low, high = relative.amin(0), relative.amax(0)
            ax.fill_between(layers, low, high, color=colours[name], alpha=0.15, lw=0)
            ends[name] = (layers[-1], relative.median(0).values[-1].item())
        ax.set(xlabel="blocks L", title=title, xlim=(layers[0], layers[-1] * 3.2))
        ax.set_xticks(layers, layers)
        low, high = ax.get_ylim()
        shown = [tick for tick in ticks if low < tick < high]
        ax.set_yticks(shown, [f"{tick:g}" for tick in shown])
        ax.minorticks_off()
        label_ends(ax, ends, colours)
    axes[0].set_ylabel("the output moves, relative to L = 2")
    fig.suptitle("Depth makes DeepNorm's output move least", fontsize=13)
    run.figure(
        fig,
        "one_step",
        "How far one small step of the matrices moves an untrained model's logits; medians and "
        "ranges of three seeds, on one scale.",
        alt="Two line plots on logarithmic axes over the number of blocks: Post-LN rises steeply "
        "in both, DeepNorm stays flat under gradient descent and rises slowly under Adam.",
    )


def show_rates(run: Run, losses: dict[tuple[str, float], list[float]], unigram: float) -> None:
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
        ax.set(title=f"Learning rate {lr:g}", xlim=(-0.6, len(names) - 0.4))
        ax.set_xticks(range(len(names)), [name.replace(", ", ",\n") for name in names])
        middle = (len(names) - 1) / 2
        ax.text(middle, unigram, "unigram", ha="center", va="bottom", color="grey")
    axes[0][0].set_ylabel("validation loss (nats)")
    axes[0][0].set_ylim(top=unigram + 0.12)
    fig.suptitle("Only Post-LN learns nothing at a high rate", fontsize=13)
    run.figure(
        fig,
        "rates",
        "Validation loss after training: three seeds, and their mean. Without warm-up, except the "
        "last.",
        alt="Points of the loss for Post-LN, DeepNorm, Pre-LN, sandwich and Post-LN with warm-up. "
        "Post-LN lies on the dotted line of the unigram both times, the others well below it.",
    )


def show_spikes(run: Run, norms: dict[str, list[list[float]]]) -> None:
    """Draw the gradient's norm in training relative to the run's median."""
    fig, ax = plt.subplots(figsize=(7.2, 4))
    for i, (name, runs) in enumerate(norms.items()):
        for row in runs:
            ax.semilogy([norm / median(row) for norm in row], color=f"C{i}", lw=0.9, alpha=0.8)
        start = max(row[0] / median(row) for row in runs)
        ax.text(*((0, 0.48 * start) if i else (4, start)), name, color=f"C{i}", va="top")
    ax.set(xlabel="step", ylabel="gradient's norm ÷ the run's median")
    ax.set_title("Without norms, training starts with a large gradient")
    ax.set_yticks((0.5, 1, 2, 5, 10, 20, 50), ("0.5", "1", "2", "5", "10", "20", "50"))
    ax.minorticks_off()
    run.figure(
        fig,
        "spikes",
        "The norm of all parameters' gradient in training at a peak rate of 0.01, three seeds.",
        alt="Line plot of the gradient's norm over steps on a logarithmic axis: without norms it "
        "starts far above the median and falls, with Pre-LN it starts closer.",
    )


def show_methods(
    run: Run, costs: dict[tuple[str, int, bool], list[float]], factors: tuple[int, ...]
) -> None:
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
    fig.suptitle("YaRN reads on at the least cost", fontsize=13)
    run.figure(
        fig,
        "methods",
        "What reading on costs RoPE. Bands: the range of three seeds; right: each seed.",
        alt="Left, a line plot of the cost over the length read for plain RoPE, interpolation, a "
        "larger base and YaRN. Right, points of their costs after some training at the length.",
    )
