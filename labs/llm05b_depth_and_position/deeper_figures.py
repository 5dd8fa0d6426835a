"""The figures of LLM05b+."""

from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

from labs.kit import Run
from labs.llm05b_depth_and_position.figures import COLOURS as BOTH
from labs.llm05b_depth_and_position.figures import headline, label_ends

import matplotlib.pyplot as plt
import torch
from torch import Tensor

COLOURS = {  # of the placements, as in LLM05b's figures
    **BOTH,
    "Post-LN, warm-up": "C3",
    "DeepNorm": "C2",
    "sandwich": "C5",
    "no norm": "C6",
}


def show_depth_law(
    run: Run, attention: Tensor, ffn: Tensor, rows: list[Any], theory: float
) -> None:
    """Draw what each branch adds, and the gradient with and without the size.

    `theory` is what an FFN adds on average.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.8, 4))
    blocks = range(1, len(ffn) + 1)
    left.plot(blocks, attention, "o-", ms=3.5, color="C0")
    left.plot(blocks, ffn, "o-", ms=3.5, color="C2")
    for y, name in ((1.0, "attention's bound"), (theory, "theory")):
        left.axhline(y, color="grey", ls=":", lw=1)
        left.text(len(ffn) * 1.05, y, name, va="bottom", color="grey", fontsize=9)
    left.text(len(ffn) * 0.5, 0.55, "attention", color="C0")
    left.text(len(ffn) * 0.5, 0.29, "FFN", color="C2")
    left.set(xlabel="block", ylabel="mean square that is added", xlim=(0, len(ffn) * 1.7))
    rises = bool(attention[-1] > attention[0])
    left.set(ylim=(0, 1.2))
    left.set_title(headline(rises, "Attention adds more with depth", "What each branch adds"))
    left.set_xticks([tick for tick in (1, 8, 16, 32, 64, 128) if tick <= len(ffn)])
    layers = [row[0] for row in rows]
    colours = {"gradient": "C6", "gradient · size": "C0"}
    ends = {}
    for name, column in (("gradient", 2), ("gradient · size", 3)):
        values = [row[column] / rows[0][column] for row in rows]
        right.loglog(layers, values, "o-", ms=4, color=colours[name])
        ends[name] = (layers[-1], values[-1])
    right.set(xlabel="blocks L", ylabel="relative to L = 2", xlim=(layers[0], layers[-1] * 4.2))
    within = all(0.9 <= row[3] / rows[0][3] <= 1.1 for row in rows)
    right.set(ylim=(0.1, 2))
    right.set_title(headline(within, "Gradient · size is constant", "The gradient at the end"))
    right.set_xticks(layers, layers)
    right.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    right.minorticks_off()
    label_ends(right, ends, colours)
    run.figure(
        fig,
        "depth_law",
        "Untrained Pre-LN stacks, means of three seeds. Left: the deepest stack. Right: root mean "
        "squares over all tokens at the end of the stream.",
        alt="Two plots. Left, over the block: attention adds "
        f"{attention[0]:.2f} in the first and {attention[-1]:.2f} in the last, its bound is 1; "
        f"an FFN adds {ffn.min():.2f} to {ffn.max():.2f}, {theory:.2f} in theory. "
        f"Right, at {layers[-1]} blocks relative to {layers[0]}: the gradient is "
        f"{ends['gradient'][1]:.2f}, the gradient times the size {ends['gradient · size'][1]:.2f}.",
    )


def show_steps(run: Run, layers: Sequence[int], found: dict[str, Tensor]) -> None:
    """Draw how far a step moves the output, relative to two blocks."""
    fig, axes = plt.subplots(1, 2, sharey=True, figsize=(7.8, 4.2))
    ticks = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
    for j, (ax, title) in enumerate(
        zip(axes, ("Gradient descent", "Adam's first step"), strict=True)
    ):
        ends = {}
        for name, x in found.items():
            relative = x[..., j] / x[:, :1, j]  # (seeds, depths)
            ax.loglog(layers, relative.median(0).values, "o-", ms=4, color=COLOURS[name])
            low, high = relative.amin(0), relative.amax(0)
            ax.fill_between(layers, low, high, color=COLOURS[name], alpha=0.15, lw=0)
            ends[name] = (layers[-1], relative.median(0).values[-1].item())
        ax.set(xlabel="blocks L", title=title, xlim=(layers[0], layers[-1] * 3.2))
        ax.set_xticks(layers, layers)
        low, high = ax.get_ylim()
        shown = [tick for tick in ticks if low < tick < high]
        ax.set_yticks(shown, [f"{tick:g}" for tick in shown])
        ax.minorticks_off()
        label_ends(ax, ends, COLOURS)
    axes[0].set_ylabel("the output moves, relative to L = 2")
    last = {name: x[:, -1] / x[:, 0] for name, x in found.items()}  # (seeds, 2)
    held = bool((last["Post-LN"] > last["DeepNorm"].amax(0)).all())
    point = "With depth a step moves Post-LN's output much further than DeepNorm's"
    fig.suptitle(headline(held, point, "How far a step moves the output, by depth"), fontsize=13)
    factors = "; ".join(
        f"{name} {x[:, 0].median():.1f} and {x[:, 1].median():.1f}" for name, x in last.items()
    )
    run.figure(
        fig,
        "one_step",
        "How far one small step of the matrices moves an untrained model's logits; medians and "
        "ranges of three seeds. Each placement is divided by its own value at L = 2, so the lines "
        "don't compare placements at one depth.",
        alt="Two line plots on logarithmic axes over the number of blocks. From 2 blocks to "
        f"{layers[-1]} the output moves further by these factors under gradient descent and under "
        f"Adam: {factors}.",
    )


def show_rates(
    run: Run, losses: dict[tuple[str, float], list[float]], unigram: float, held: bool
) -> None:
    """Draw each seed's loss by placement, one panel for each learning rate.

    `held` says whether only Post-LN stays near the unigram's loss at the highest rate.
    """
    rates = sorted({lr for _, lr in losses})
    names = list(dict.fromkeys(name for name, _ in losses))
    fig, axes = plt.subplots(1, len(rates), sharey=True, figsize=(7.2, 3.8), squeeze=False)
    for ax, lr in zip(axes[0], rates, strict=True):
        for i, name in enumerate(names):
            values = losses[name, lr]
            ax.plot([i] * len(values), values, "o", color=COLOURS[name], alpha=0.7)
            ax.plot([i - 0.2, i + 0.2], [mean(values)] * 2, color=COLOURS[name], lw=2)
            number: dict[str, Any] = {"ha": "center", "va": "top", "color": COLOURS[name]}
            ax.text(i, min(values) - 0.03, f"{mean(values):.2f}", **number)
        ax.axhline(unigram, color="grey", ls=":", lw=1)
        ax.set(title=f"Learning rate {lr:g}", xlim=(-0.6, len(names) - 0.4))
        ax.set_xticks(range(len(names)), [name.replace(", ", ",\n") for name in names])
        middle = (len(names) - 1) / 2
        ax.text(middle, unigram, "unigram", ha="center", va="bottom", color="grey")
    axes[0][0].set_ylabel("validation loss (nats)")
    axes[0][0].set_ylim(min(map(min, losses.values())) - 0.15, unigram + 0.12)
    point = headline(held, "At a high rate Post-LN learns only frequencies", "Loss by placement")
    fig.suptitle(point, fontsize=13)
    means = ", ".join(f"{name} {mean(losses[name, rates[-1]]):.2f}" for name in names)
    run.figure(
        fig,
        "rates",
        "Validation loss after training: three seeds, and their mean as a line and a number. "
        "Without warm-up, except the last.",
        alt="Points of the loss by placement, with a dotted line for the unigram at "
        f"{unigram:.2f} nats. Means at a rate of {rates[-1]:g}: {means}.",
    )


def show_spikes(run: Run, norms: dict[str, list[list[float]]], held: bool) -> None:
    """Draw the gradient's norm in training relative to the run's median.

    `held` says whether the first gradient is larger without norms.
    """
    fig, ax = plt.subplots(figsize=(7.2, 4))
    for i, (name, runs) in enumerate(norms.items()):
        for row in runs:
            ax.semilogy(
                [norm / median(row) for norm in row], color=COLOURS[name], lw=0.9, alpha=0.8
            )
        start = max(row[0] / median(row) for row in runs)
        ax.text(*((0, 0.3 * start) if i else (4, start)), name, color=COLOURS[name], va="top")
    ax.set(xlabel="step", ylabel="gradient's norm ÷ the run's median")
    point = "Without norms, training starts with a large gradient"
    ax.set_title(headline(held, point, "The gradient's norm in training"))
    starts = {name: median(row[0] / median(row) for row in runs) for name, runs in norms.items()}
    firsts = ", ".join(f"{start:.1f} for {name}" for name, start in starts.items())
    ax.set_yticks((0.5, 1, 2, 5, 10, 20, 50), ("0.5", "1", "2", "5", "10", "20", "50"))
    ax.minorticks_off()
    run.figure(
        fig,
        "spikes",
        "The norm of all parameters' gradient in training at a peak rate of 0.01, three seeds.",
        alt="Line plot of the gradient's norm over steps on a logarithmic axis. At the first step "
        f"it is this many times the median: {firsts}.",
    )


def show_scores(
    run: Run,
    found: Mapping[str, tuple[list[list[float]], list[list[float]]]],
    root: float,
    held: bool,
) -> None:
    """Draw each block's largest score before and after training, without and with QK-norm.

    Args:
        run: the run.
        found: by name, the scores before and after, by seed and block.
        root: √D, the bound of QK-norm with gains of 1.
        held: whether the scores grow without QK-norm.
    """
    fig, ax = plt.subplots(figsize=(7.2, 4.2))
    colours = {"without": "C1", "with QK-norm": "C0"}
    lines: dict[str, list[float]] = {}
    for name, (start, end) in found.items():
        for when, style, seeds in (("before", "o--", start), ("after", "o-", end)):
            y = torch.tensor(seeds)  # (seeds, blocks)
            blocks = range(1, y.shape[1] + 1)
            ax.semilogy(blocks, y.mean(0), style, ms=4, color=colours[name])
            ax.fill_between(blocks, y.amin(0), y.amax(0), color=colours[name], alpha=0.15, lw=0)
            lines[f"{name}, {when}"] = y.mean(0).tolist()
    last = len(blocks)
    ax.plot((0.7, last), (root, root), color="grey", ls=":", lw=1)
    ax.text(1, root, "√D", color="grey", va="bottom", ha="right")
    ax.set(xlabel="block", ylabel="largest |score|", xlim=(0.7, last * 1.45))
    ax.set_xticks(blocks)
    ax.set_yticks((1, 2, 5, 10, 20, 50, 100), ("1", "2", "5", "10", "20", "50", "100"))
    ax.set_ylim(1, max(map(max, found["without"][1])) * 1.3)
    ax.minorticks_off()
    ends = {name: (float(last), y[-1]) for name, y in lines.items()}
    label_ends(ax, ends, {name: colours[name.split(", ")[0]] for name in lines})
    point = "QK-norm keeps the largest scores down in training"
    ax.set_title(headline(held, point, "The largest score of each block"))
    means = "; ".join(f"{name}: {', '.join(f'{y:.1f}' for y in ys)}" for name, ys in lines.items())
    run.figure(
        fig,
        "scores",
        "The largest |score| of each block before training (dashed) and after it (solid), means "
        "and ranges of three seeds at a rate of 0.03. √D is QK-norm's bound before training: "
        "learned gains raise it.",
        alt=f"Four lines over the block, on a logarithmic axis, and a dotted line at {root:.2f}. "
        f"Means by block: {means}.",
    )


def show_frequencies(run: Run, methods: Mapping[str, Any], length: int) -> None:
    """Draw by how much each method divides each pair's angle between neighbouring tokens.

    Args:
        run: the run.
        methods: positions by name; the first is plain RoPE.
        length: the number of tokens in a text.
    """
    fig, ax = plt.subplots(figsize=(7.2, 3.2))
    steps = [each.frequencies * each.positions(length)[1] for each in methods.values()]
    table = steps[0] / torch.stack(steps)  # (methods, pairs)
    ax.imshow(table.log2(), cmap="Blues", aspect="auto", vmin=0, vmax=5)
    for row, pairs in enumerate(table.tolist()):
        for pair, factor in enumerate(pairs):
            ax.text(pair, row, f"÷ {factor:.2g}", ha="center", va="center", color="#101010")
    ax.set_xticks(range(table.shape[1]))
    ax.set_yticks(range(len(methods)), list(methods))
    ax.set(xlabel="pair, from the fastest to the slowest")
    ax.set_title("YaRN decides pair by pair what to slow down")
    ax.grid(False)
    run.figure(
        fig,
        "frequencies",
        "By how much each method divides the angle between neighbouring tokens, for texts of 8 "
        "times the length. YaRN also scales the scores.",
        alt="A table of methods and pairs. "
        + ". ".join(
            f"{name} divides by {', '.join(f'{factor:.2g}' for factor in pairs)}"
            for name, pairs in zip(methods, table.tolist(), strict=True)
        )
        + ".",
    )


def show_methods(
    run: Run,
    costs: dict[tuple[str, int, bool], list[float]],
    factors: tuple[int, ...],
    names: Sequence[str],
    held: bool,
) -> None:
    """Draw the cost of length of each method, with unchanged weights and after some training.

    `held` says whether YaRN costs less than the other methods.
    """
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
    axes[0].set(ylabel="cost of length (nats)", xlim=(factors[0], factors[-1] * 3.4))
    label_ends(axes[0], ends, colours)
    for i, name in enumerate(names):
        after = costs[name, factors[-1], True]
        axes[1].plot([i] * len(after), after, "o", color=colours[name], alpha=0.7)
    axes[1].axhline(0, color="grey", lw=1)
    labels = [name.replace(" ", "\n", 1) for name in names]
    axes[1].set_xticks(range(len(names)), labels, fontsize=9)
    axes[1].set(title=f"A few steps at {factors[-1]} times", xlim=(-0.5, len(names) - 0.5))
    point = "YaRN costs less than plain RoPE, interpolation and a larger base"
    point = headline(held, point, "Methods to read longer texts")
    fig.suptitle(point, fontsize=13)
    means = ", ".join(f"{name} {mean(costs[name, factors[-1], False]):.2f}" for name in names)
    run.figure(
        fig,
        "methods",
        "What longer texts cost RoPE; 0 is a cut to the trained length. Bands: the range of five "
        "seeds; right: each of three seeds.",
        alt="Left, a line plot of the cost over the length read. Right, points of the costs after "
        f"some training at the length. At {factors[-1]} times, unchanged, in nats: {means}.",
    )
