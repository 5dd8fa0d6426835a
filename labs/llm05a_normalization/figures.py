"""The figures of LLM05a, each with its caption and a text for readers who can't see it."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

BRANCH = "#0072B2"  # attention and the feed-forward layer
NORM = "#D55E00"
INK = "#1c2026"  # the page replaces it with its own ink
Norm = Callable[..., Tensor]
Drawn = tuple[Figure, str, str]  # the figure, its caption, its alt text
COLOURS = ("C0", "C1", "C2", "C3")


def show(run: Any, name: str, drawn: Drawn) -> None:
    """Add a figure to the page of the run, under this name."""
    fig, caption, alt = drawn
    run.figure(fig, name, caption, alt=alt)


def _box(ax: Any, x: float, y: float, text: str, color: str = INK, width: float = 1.7) -> None:
    """Draw a labelled box around (x, y)."""
    box = Rectangle((x - width / 2, y - 0.28), width, 0.56, fill=False, ec=color, lw=1.6)
    ax.add_patch(box)
    ax.text(x, y, text, ha="center", va="center", fontsize=10, color=color)


def _arrow(ax: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow from one point to another."""
    style = {"arrowstyle": "-|>", "color": INK, "lw": 1.3, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=style)


def _plus(ax: Any, x: float, y: float) -> None:
    """Draw the sum of a residual connection."""
    ax.plot(x, y, "o", ms=15, mfc="none", mec=INK, mew=1.3)
    ax.text(x, y, "+", ha="center", va="center", fontsize=13)


def _canvas(ax: Any, title: str, height: float) -> None:
    """Prepare axes for a diagram."""
    ax.set(xlim=(-0.9, 3.6), ylim=(-0.6, height + 0.5), aspect="equal")
    ax.text(-0.9, height + 0.5, title, va="top", fontsize=12)  # a title would be cut off
    ax.axis("off")


def _pre_branch(ax: Any, y: float, name: str) -> None:
    """Draw x + f(norm(x)): the stream at x = 0, the branch beside it."""
    _arrow(ax, (0, y), (0, y + 2.3))
    ax.plot([0, 2.2], [y + 0.25, y + 0.25], color=INK, lw=1.3)
    _arrow(ax, (2.2, y + 0.25), (2.2, y + 0.52))
    _box(ax, 2.2, y + 0.8, "norm", NORM)
    _arrow(ax, (2.2, y + 1.08), (2.2, y + 1.32))
    _box(ax, 2.2, y + 1.6, name, BRANCH)
    ax.plot([2.2, 2.2], [y + 1.88, y + 2.55], color=INK, lw=1.3)
    _arrow(ax, (2.2, y + 2.55), (0.25, y + 2.55))
    _plus(ax, 0, y + 2.55)


def _post_branch(ax: Any, y: float, name: str) -> None:
    """Draw norm(x + f(x)): the norm stands on the stream."""
    _arrow(ax, (0, y), (0, y + 1.3))
    ax.plot([0, 2.2], [y + 0.25, y + 0.25], color=INK, lw=1.3)
    _arrow(ax, (2.2, y + 0.25), (2.2, y + 0.52))
    _box(ax, 2.2, y + 0.8, name, BRANCH)
    ax.plot([2.2, 2.2], [y + 1.08, y + 1.55], color=INK, lw=1.3)
    _arrow(ax, (2.2, y + 1.55), (0.25, y + 1.55))
    _plus(ax, 0, y + 1.55)
    _arrow(ax, (0, y + 1.8), (0, y + 2.12))
    _box(ax, 0, y + 2.4, "norm", NORM, width=1.3)


def model_and_block() -> Drawn:
    """Draw a decoder as a stack, and one of its blocks in detail."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 5.6))
    _canvas(left, "The model: a stack of blocks", 6.2)
    parts = ["embedding", "+ position", "block", "block", "norm", "unembedding"]
    for i, part in enumerate(parts):
        y = 0.5 + 0.9 * i
        _arrow(left, (1.2, y - 0.62), (1.2, y - 0.28))
        _box(left, 1.2, y, part, {"block": BRANCH, "norm": NORM}.get(part, INK), width=2.4)
    _arrow(left, (1.2, 5.28), (1.2, 5.6))
    left.text(1.2, -0.25, "tokens", ha="center", va="center", fontsize=10)
    left.text(1.2, 5.8, "a score for each next token", ha="center", va="center", fontsize=10)
    _canvas(right, "A block adds to the stream twice", 6.2)
    _pre_branch(right, 0, "attention")
    _pre_branch(right, 2.75, "feed-forward")
    _arrow(right, (0, 5.5), (0, 5.9))
    right.text(-0.25, 1.2, "residual stream", rotation=90, ha="center", va="center", fontsize=10)
    caption = "For one token, read from below. Left: a decoder. Right: one of its blocks."
    alt = (
        "Left: the parts from tokens to scores. Right: from a vertical line, an arrow passes a "
        "norm and a branch, twice, and its end is added to the line."
    )
    return fig, caption, alt


def who_reads_whom(words: Sequence[str]) -> Drawn:
    """Draw which tokens each result of attention, and of a feed-forward layer, is made from."""
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.9), gridspec_kw={"wspace": 0.25})
    titles = ("Attention: earlier tokens, too", "Feed-forward layer: one token")
    for ax, title in zip(axes, titles, strict=True):
        for i, word in enumerate(words):
            _box(ax, 1.6 * i, 0, word, width=1.3)
            _box(ax, 1.6 * i, 2.4, "", BRANCH, width=1.3)
            ax.text(1.6 * i, 2.4, "result", ha="center", va="center", fontsize=9)
            for j in range(i + 1) if ax is axes[0] else (i,):
                _arrow(ax, (1.6 * j, 0.3), (1.6 * i, 2.1))
        ax.set(xlim=(-0.8, 1.6 * len(words) - 0.8), ylim=(-0.5, 2.8), title=title)
        ax.axis("off")
    caption = (
        "An arrow leads from what is read to the result. In a block, only attention has arrows "
        "between tokens."
    )
    alt = (
        "Two panels with four tokens. Attention: arrows from each token to itself and to every "
        "later one. Feed-forward layer: arrows straight up."
    )
    return fig, caption, alt


def placements() -> Drawn:
    """Draw a Pre-LN block and a Post-LN block side by side."""
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 5.4))
    for ax, title, branch in zip(
        axes,
        ("Pre-LN: no norm on the stream", "Post-LN: the stream passes norms"),
        (_pre_branch, _post_branch),
        strict=True,
    ):
        _canvas(ax, title, 6.2)
        ax.title.set_fontsize(10.5)
        branch(ax, 0, "attention")
        branch(ax, 2.75, "feed-forward")
        _arrow(ax, (0, 5.45), (0, 5.95))
    caption = "A block in both versions, read from below."
    alt = (
        "Left, Pre-LN: norms stand in the branches, the stream's line is unbroken. "
        "Right, Post-LN: two norms stand on the vertical line."
    )
    return fig, caption, alt


def feed_forward_layers() -> Drawn:
    """Draw a plain feed-forward layer, and a gated one with two numbers of the text in it."""
    fig, (plain, gated) = plt.subplots(1, 2, figsize=(7.2, 4.4))
    _canvas(plain, "Plain: two matrices of width 4d", 4.9)
    parts = ((0.9, "up: d → 4d", BRANCH), (2.4, "activation", INK), (3.9, "down: 4d → d", BRANCH))
    for y, text, color in parts:
        _arrow(plain, (1.2, y - 1.22), (1.2, y - 0.28))
        _box(plain, 1.2, y, text, color, width=2.2)
    _arrow(plain, (1.2, 4.18), (1.2, 4.6))
    _canvas(gated, "Gated: three matrices of width 8d/3", 4.9)
    gated.plot([1.3, 1.3], [-0.4, -0.1], color=INK, lw=1.3)
    gated.plot([0.2, 2.4], [-0.1, -0.1], color=INK, lw=1.3)
    for x, text in ((0.2, "gate"), (2.4, "up")):
        _arrow(gated, (x, -0.1), (x, 0.32))
        _box(gated, x, 0.6, text, BRANCH, width=1.5)
    _arrow(gated, (0.2, 0.88), (0.2, 1.72))
    _box(gated, 0.2, 2.0, "SiLU", width=1.5)
    gated.plot([0.2, 0.2], [2.28, 2.9], color=INK, lw=1.3)
    _arrow(gated, (0.2, 2.9), (2.15, 2.9))
    _arrow(gated, (2.4, 0.88), (2.4, 2.65))
    gated.plot(2.4, 2.9, "o", ms=15, mfc="none", mec=INK, mew=1.3)
    gated.plot(2.4, 2.9, "o", ms=4, color=INK)
    _arrow(gated, (2.4, 3.15), (2.4, 3.62))
    _box(gated, 2.4, 3.9, "down", BRANCH, width=1.5)
    _arrow(gated, (2.4, 4.18), (2.4, 4.6))
    for x, y, numbers, align in (
        (0.3, 1.3, "(2, −1)", "left"),
        (2.3, 1.9, "(3, 3)", "right"),
        (0.2, 3.1, "(1.76, −0.27)", "left"),
        (2.3, 3.45, "(5.28, −0.81)", "right"),
    ):
        gated.text(x, y, numbers, ha=align, va="center", fontsize=10, color=NORM)
    caption = (
        "Two feed-forward layers with about as many parameters, read from below. The circle with a "
        "dot multiplies entry by entry. Right: the numbers worked by hand in the text."
    )
    alt = (
        "Left, three boxes in a row: up, activation, down. Right, the input goes into two boxes, "
        "gate and up. SiLU follows the gate, both results are multiplied, and down follows."
    )
    return fig, caption, alt


def which_numbers() -> Drawn:
    """Draw two texts as grids, and shade the numbers over which each kind of norm takes a mean."""
    tokens = 4
    entries = 6
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 4.6))
    titles = ("BatchNorm: an entry, all tokens", "LayerNorm, RMSNorm: a token")
    for ax, title in zip(axes, titles, strict=True):
        for text in (0, 1):
            bottom = (1 - text) * (tokens + 1.2)
            for token in range(tokens):
                for entry in range(entries):
                    by_entry = entry == 2
                    by_token = text == 0 and token == 1
                    shaded = by_entry if ax is axes[0] else by_token
                    corner = (entry, bottom + tokens - 1 - token)
                    face = NORM if shaded else "none"
                    ax.add_patch(Rectangle(corner, 1, 1, fc=face, ec=INK, lw=1, alpha=0.75))
            ax.text(
                -0.3, bottom + tokens / 2, f"text {text + 1}", rotation=90, va="center", ha="right"
            )
        ax.text(entries / 2, -0.35, "d entries", ha="center", va="top")
        ax.text(entries + 0.3, tokens / 2, "T tokens", rotation=270, va="center")
        ax.set(xlim=(-1.2, entries + 1.2), ylim=(-1.2, 2 * tokens + 1.4), aspect="equal")
        ax.set_title(title, fontsize=11)
        ax.axis("off")
    caption = "Two texts of four tokens with six numbers each. Shaded: what one mean is taken over."
    alt = (
        "Two panels with two grids each. BatchNorm: one column is shaded in both texts. LayerNorm "
        "and RMSNorm: one row is shaded in one text."
    )
    return fig, caption, alt


def stream_sizes(sizes: Mapping[str, Sequence[float]]) -> Drawn:
    """Draw the size of the stream before the first block and after each, a line for each stack."""
    fig, ax = plt.subplots(figsize=(7.2, 3.8))
    count = len(next(iter(sizes.values())))
    for (name, row), color, mark in zip(sizes.items(), COLOURS, "osd", strict=False):
        ax.semilogy(row, mark + "-", color=color, lw=2, ms=5)
        ax.text(count - 0.7, row[-1], name, color=color, va="center")
    ax.set(xlim=(-0.3, count + 2), xlabel="after block", ylabel="size of the stream (RMS)")
    ax.set_xticks(range(0, count, 2))
    top = max(max(row) for row in sizes.values())
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500) if tick < 1.5 * top]
    ax.set_yticks(ticks, [f"{tick}" for tick in ticks])
    ax.minorticks_off()
    ax.set_ylim(0.7, 1.5 * top)
    ax.set_title("The size stays 1 in Post-LN, grows in Pre-LN, and most without norms")
    ax.title.set_fontsize(11)
    caption = "The size of the stream in stacks of 12 untrained blocks, on a log scale."
    alt = (
        "Three lines over the number of blocks: Post-LN flat at 1, Pre-LN rising and flattening, "
        "without norms rising most."
    )
    return fig, caption, alt


def norms_in_two_dimensions(layer_norm: Norm, rms_norm: Norm) -> Drawn:
    """Draw five vectors of two numbers before and after each norm."""
    x = torch.tensor([[3, 1.5], [2, -1], [-0.7, 0.5], [-3, -2], [-0.5, 2.5]])
    ones = torch.ones(2)
    fig, axes = plt.subplots(1, 2, sharex=True, sharey=True, figsize=(7.2, 4.0))
    angle = np.linspace(0, 2 * np.pi, 200)
    ways = (
        ("RMSNorm keeps the direction", x, rms_norm(x, ones, 0)),
        (
            "LayerNorm leaves two points",
            x - x.mean(-1, keepdim=True),
            layer_norm(x, ones, 0 * ones, 0),
        ),
    )
    for ax, (title, middle, after) in zip(axes, ways, strict=True):
        ax.plot(2**0.5 * np.cos(angle), 2**0.5 * np.sin(angle), color=INK, lw=0.8, alpha=0.5)
        ax.scatter(*x.T, marker="o", fc="none", ec="C0")
        for path in zip(x, middle, after, strict=True):
            ax.plot(*zip(*path, strict=True), color=INK, lw=0.8, ls=":")
        ax.scatter(*after.T, color="C1", zorder=3)
        ax.set(title=title, xlabel="first entry", aspect="equal", ylim=(-3.4, 3))
        ax.title.set_fontsize(11)
    axes[1].plot([-2.6, 2.6], [2.6, -2.6], color=INK, lw=0.6, alpha=0.5)
    axes[1].text(-2.5, 2.75, "mean 0", fontsize=10)
    axes[0].set_ylabel("second entry")
    axes[0].text(1.9, 1.8, "before", color="C0", fontsize=10)
    axes[0].text(-1.3, -2.9, "after: on the circle", color="C1", fontsize=10)
    axes[1].text(-3, -3.1, "after: one of two points", color="C1", fontsize=10)
    caption = "Vectors of two numbers before a norm (open) and after it (filled)."
    alt = (
        "Two panels with five vectors and a circle. With RMSNorm each vector moves along its "
        "ray to the circle; with LayerNorm all vectors land on one of two opposite points."
    )
    return fig, caption, alt


def epsilon(sizes: Tensor, curves: Mapping[str, Tensor], eps: float) -> Drawn:
    """Draw the size after RMSNorm against the size before, one curve for each place of ε."""
    fig, ax = plt.subplots(figsize=(7.2, 4.2))
    for (name, after), color, dy in zip(curves.items(), COLOURS, (150, 30), strict=False):
        ax.loglog(sizes, after.detach(), "--" if color == "C1" else "-", color=color, lw=2)
        ax.text(sizes[0].item() * 1.3, after[0].item() * dy, name, color=color, fontsize=10)
    for value, name in ((eps**0.5, "√ε"), (eps, "ε")):
        ax.axvline(value, color=INK, ls=":", lw=1)
        ax.text(value * 1.2, 1e-5, name, fontsize=11)
    ax.set(xlabel="size of the entries before the norm", ylabel="size after")
    ax.set_title("The threshold is √ε inside the root, and ε outside")
    caption = f"The size of a vector's entries after RMSNorm, with ε = {eps:.5f} at either place."
    alt = (
        "A line plot on log scales of the size after RMSNorm over the size before. Both curves "
        "reach 1 on the right. To the left, one falls from 0.003 on, the other from 0.00001 on."
    )
    return fig, caption, alt


def activations(
    functions: Mapping[str, Callable[[Tensor], Tensor]], titles: tuple[str, str], caption: str
) -> Drawn:
    """Draw activations and their slopes."""
    x = torch.linspace(-4, 3, 701)
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.8))
    for (name, f), style in zip(functions.items(), ("-", "--", "-.", ":"), strict=False):
        axes[0].plot(x, f(x), style, lw=2, label=name)
        axes[1].plot(x, torch.func.vmap(torch.func.grad(f))(x), style, lw=2)
    axes[0].set(xlim=(-4, 3), ylim=(-0.5, 3), xlabel="x", ylabel="f(x)")
    axes[1].set(xlim=(-4, 3), ylim=(-0.3, 1.3), xlabel="x", ylabel="slope f′(x)")
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
    axes[0].legend(loc="upper left")
    alt = (
        f"Two line plots of {', '.join(functions)}: the functions on the left, their slopes on the "
        "right, where ReLU's jumps at 0."
    )
    return fig, caption, alt


def sinusoids(table: Tensor, positions: Sequence[int], hands: Sequence[int]) -> Drawn:
    """Draw a table of positions, (T, d), and some of its clock hands at some positions."""
    widths = {"width_ratios": (1, 1.25)}
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 4.0), gridspec_kw=widths)
    image = left.imshow(table, cmap="cividis", aspect="auto", vmin=-1, vmax=1)
    left.grid(visible=False)
    left.set(xlabel="entry", ylabel="position t", title="Fast hands left, slow ones right")
    fig.colorbar(image, ax=left, ticks=[-1, 0, 1], label="value of the entry")
    angle = np.linspace(0, 2 * np.pi, 100)
    for row, t in enumerate(positions):
        right.text(-0.7, -row, f"t = {t}", ha="right", va="center", fontsize=10)
        for column, i in enumerate(hands):
            right.plot(column + 0.4 * np.cos(angle), -row + 0.4 * np.sin(angle), color=INK, lw=0.7)
            sine, cosine = 0.4 * table[t, 2 * i : 2 * i + 2]
            _arrow(right, (column, -row), (column + float(sine), -row + float(cosine)))
    for column, i in enumerate(hands):
        right.text(column, 0.55, f"hand {i}", ha="center", va="bottom", fontsize=9)
    right.set(xlim=(-1.9, len(hands) - 0.4), ylim=(0.6 - len(positions), 1.1), aspect="equal")
    right.axis("off")
    right.set_title("At t = 6, hand 0 alone is almost back")
    caption = (
        "Sinusoids for d = 64. Left: the table. Right: four of the 32 hands at four positions."
    )
    alt = (
        "Left, a heat map of positions by entries: quick stripes in the left columns, nearly "
        "constant ones on the right. Right, clock faces: fast hands turn, slow ones hardly move."
    )
    return fig, caption, alt


def rates_and_curves(
    outcomes: Mapping[str, Mapping[float, Sequence[Any]]],
    best: Mapping[str, float],
    known: float,
    width: int = 20,
) -> Drawn:
    """Draw the loss of each placement over the rate, and its training at its best rate.

    Args:
        outcomes: of the seeds, by placement and rate; each has a `loss` and a `curve`.
        best: the best rate of each placement.
        known: the loss of a model that knows only the frequencies.
        width: of the running mean, in steps.
    """
    fig, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(7.2, 4.2))
    rates = list(next(iter(outcomes.values())))
    lowest = min(best, key=lambda name: mean(one.loss for one in outcomes[name][best[name]]))
    for i, (name, by_rate) in enumerate(outcomes.items()):
        align = "center" if name == lowest else "bottom"
        seeds = np.array([[one.loss for one in row] for row in by_rate.values()])  # (rates, seeds)
        left.plot(rates, seeds.mean(1), "o-", color=COLOURS[i])
        left.fill_between(rates, seeds.min(1), seeds.max(1), color=COLOURS[i], alpha=0.25, lw=0)
        end = seeds[-1].mean()
        on_line = abs(end - known) < 0.08  # the label would stand on the dotted line
        place = {"y": known + 0.02, "va": "bottom"} if on_line else {"y": end, "va": "center"}
        left.text(rates[-1] * 1.15, s=name, color=COLOURS[i], **place)
        curves = torch.tensor([one.curve for one in by_rate[best[name]]])  # (seeds, steps)
        width = min(width, curves.shape[1])  # a short training has fewer steps
        smooth = curves.unfold(1, width, 1).mean(-1)  # (seeds, steps − width + 1)
        steps = np.arange(width, curves.shape[1] + 1)
        right.plot(steps, smooth.mean(0), color=COLOURS[i], lw=2)
        right.fill_between(steps, smooth.amin(0), smooth.amax(0), color=COLOURS[i], alpha=0.25)
        label = f"{name}\nat {best[name]:g}"
        right.text(steps[-1] * 1.03, smooth[:, -1].mean(), label, color=COLOURS[i], va=align)
        right.set_xlim(0, 1.4 * steps[-1])
        right.set_xticks(np.arange(0, steps[-1] + 1, max(1, steps[-1] // 3)))
    for ax in (left, right):
        ax.axhline(known, color=INK, ls=":", lw=1)
    left.text(rates[0] * 0.75, known + 0.02, "baseline", fontsize=9)
    left.set(xscale="log", xlim=(rates[0] * 0.7, rates[-1] * 4.5), xlabel="learning rate")
    left.set_xticks(rates, [f"{rate:g}" for rate in rates])
    left.minorticks_off()
    left.set(ylabel="loss (nats)")
    left.set_title(_who_fails(outcomes, best, known))
    right.set(xlabel="training step", title=f"At their best, {lowest} ends lower")
    for ax in (left, right):
        ax.title.set_fontsize(10.5)
    caption = (
        f"Four blocks, {steps[-1]} steps, no warm-up. Left: the loss on validation text at the "
        f"end. Right: the loss on training text, a mean over {width} steps. Bands: four seeds. "
        "Dotted in both: the baseline on validation text. A placement fails at a rate if its mean "
        "isn't below the baseline."
    )
    alt = "Loss over the learning rate, and over the steps at the best rate, for each placement."
    return fig, caption, alt


def _who_fails(
    outcomes: Mapping[str, Mapping[float, Sequence[Any]]], best: Mapping[str, float], known: float
) -> str:
    """Return which placement is not below the baseline at which rate, or the best rates."""
    failed = [
        f"{name} fails at {rate:g}"
        for name, by_rate in outcomes.items()
        for rate, row in by_rate.items()
        if not mean(one.loss for one in row) < known
    ]
    listed = ", ".join(f"{name} at {rate:g}" for name, rate in best.items())
    return "; ".join(failed) or f"Best: {listed}"
