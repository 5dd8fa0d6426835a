"""The figures of LLM01+."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from labs.llm01_inference.figures import GREY
from labs.llm01_inference.uncertainty import mean_and_error

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle


def entropies(
    curves: dict[str, tuple[list[float], list[float]]],
    tangents: Sequence[tuple[float, float, float]],
    highest: float,
) -> Figure:
    """Draw entropy over temperature for each prompt, and the entropy of a uniform choice.

    Args:
        curves: temperatures and entropies, by prompt.
        tangents: temperature, entropy and slope of points of the curves.
        highest: the entropy of a uniform choice.
    """
    fig, ax = plt.subplots()
    for i, (text, (t, h)) in enumerate(curves.items()):
        ax.plot(t, h, f"C{i}")
        ax.text(2.2, 5 - i, f"“{text}”", color=f"C{i}")
    for t, h, slope in tangents:
        ax.plot([t - 0.2, t + 0.2], [h - 0.2 * slope, h + 0.2 * slope], color=GREY, lw=2)
        ax.plot(t, h, "o", color=GREY, ms=4)
    ax.axhline(highest, color=GREY, ls=":")
    ax.text(0.1, highest + 0.15, "ln V: all tokens equally probable", color=GREY)
    ax.set(xlabel="temperature T", ylabel="entropy (nats)", ylim=(0, highest * 1.1))
    ax.set_title("Entropy rises with temperature, from 0 to ln V")
    return fig


def cache(prompt: int, new: int) -> Figure:
    """Draw which positions each call computes, without and with a cache."""
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.8), sharey=True)
    for ax, cached in zip(axes, (False, True), strict=True):
        count = 0
        for call in range(new):
            length = prompt + call
            for position in range(length):
                computed = not cached or call == 0 or position == length - 1
                count += computed
                face = "C1" if computed else "none"
                ax.add_patch(Rectangle((position, call), 0.9, 0.8, facecolor=face, edgecolor=GREY))
        title = "with a cache" if cached else "without"
        ax.set(title=f"{title}: {count} positions", xlim=(0, prompt + new), ylim=(new, -0.2))
        ax.set_xlabel("position in the text")
        ax.grid(visible=False)
        ax.set_yticks([i + 0.4 for i in range(new)], [f"call {i + 1}" for i in range(new)])
    return fig


BEAMS = {  # text: p of its last token; the numbers of LLM01+
    "A": 0.5,
    "B": 0.4,
    "C": 0.1,
    "A x": 0.4,
    "A y": 0.3,
    "A z": 0.3,
    "B x": 0.9,
    "B y": 0.1,
}


def beams(kept: int = 2) -> Figure:
    """Draw a beam search of two steps; the texts that each step keeps are coloured."""
    fig, ax = plt.subplots(figsize=(7.2, 3))
    texts = {"": 1.0}
    places = {"": (0.0, 3.2)}
    rows = {1: [5.0, 1.5, -0.5], 2: [6.0, 5.0, 4.0, 2.0, 1.0]}
    for step in (1, 2):
        at = iter(rows[step])
        longer = {text: p for text, p in BEAMS.items() if len(text.split()) == step}
        scores = {text: texts[text[:-1].strip()] * p for text, p in longer.items()}
        best = sorted(scores, key=lambda text: -scores[text])[:kept]
        for text, p in longer.items():
            colour = "C0" if text in best else GREY
            places[text] = (2.0 * step, next(at))
            (x0, y0), (x, y) = places[text[:-1].strip()], places[text]
            ax.plot([x0 + (0.35 if step == 1 else 0.1), x - 0.45], [y0, y], color=colour, lw=1)
            label = f"{text}: {p:g}"
            if step > 1:
                label = f"{text}: {texts[text[0]]:g} · {p:g} = {scores[text]:.2f}"
            ax.text(x - 0.4, y, label, color=colour, va="center")
        texts = scores
    ax.text(*places[""], "prompt", ha="center", va="center")
    ax.set(xlim=(-0.6, 5.4), ylim=(-1, 6.6), title="Greedy decoding takes A, and misses B x")
    ax.axis("off")
    return fig


def padding(mask: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]) -> Figure:
    """Draw the mask and the position of each place in a batch, (B, T) each."""
    fig, ax = plt.subplots(figsize=(5, 0.5 + 0.6 * len(mask)))
    for y, (row, numbers) in enumerate(zip(mask, positions, strict=True)):
        for x, (seen, position) in enumerate(zip(row, numbers, strict=True)):
            face = "C0" if seen else "none"
            ax.add_patch(Rectangle((x, y), 0.9, 0.8, facecolor=face, edgecolor=GREY, alpha=0.6))
            text = f"{position}" if seen else "pad"
            ax.text(x + 0.45, y + 0.4, text, ha="center", va="center")
    ax.set(xlim=(-0.1, len(mask[0])), ylim=(len(mask), -0.2), title="Positions in a padded batch")
    ax.axis("off")
    return fig


def next_token(rows: Sequence[Sequence[float]]) -> Figure:
    """Draw how many times as long the next token takes without a cache.

    Args:
        rows: length, ms with a cache, ms without, speed-up, and its least and largest repeat.
    """
    fig, ax = plt.subplots()
    lengths, _, _, gains, least, largest = zip(*rows, strict=True)
    below = [gain - low for gain, low in zip(gains, least, strict=True)]
    above = [high - gain for gain, high in zip(gains, largest, strict=True)]
    ax.errorbar(lengths, gains, [below, above], fmt="C0o-", capsize=4)
    ax.axhline(1, color=GREY, ls=":")
    ax.annotate(
        "1: no gain", (lengths[-1], 1), (0, 4), textcoords="offset points", color=GREY, ha="right"
    )
    ax.set(xscale="log", yscale="log", xlabel="tokens so far")
    ax.set_ylabel("time without a cache ÷ with one")
    title = f"After {lengths[-1]:,} tokens, a cache makes the next one {gains[-1]:.1f} times faster"
    # the repeats disagree too much for a number
    if least[-1] < 1.5 or largest[-1] > 1.5 * gains[-1]:
        between = f"{least[-1]:.1f} to {largest[-1]:.1f}"
        title = f"After {lengths[-1]:,} tokens, a cache speeds up {between} times"
    ax.set_title(title, fontsize=11)
    ax.set_xticks(lengths, [f"{t:,}" for t in lengths])
    ax.minorticks_off()
    _round_ticks(ax.yaxis)
    return fig


def _round_ticks(axis: Any) -> None:
    """Put ticks at 1, 2 and 5 times powers of ten on a logarithmic axis."""
    low, high = axis.get_view_interval()
    ticks = [10.0**e * m for e in range(-6, 6) for m in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    axis.set_ticks(inside, [f"{tick:,g}" for tick in inside])
    axis.set_ticks([], minor=True)


def likelihoods(points: dict[str, list[tuple[float, float]]]) -> Figure:
    """Draw mean ln p over distinct 2-grams: each text small, the medians large and labelled."""
    fig, ax = plt.subplots(figsize=(7.2, 4.4))
    middles = {
        name: (median(pair[0] for pair in pairs), median(pair[1] for pair in pairs))
        for name, pairs in points.items()
    }
    colours = {name: f"C{i}" for i, name in enumerate(points)}
    for name, pairs in points.items():
        x, y = zip(*pairs, strict=True)
        ax.plot(x, y, "o", color=colours[name], alpha=0.35, ms=4)
        ax.plot(*middles[name], "D", color=colours[name], ms=9)
    low, high = ax.get_ylim()
    label_y = high
    for name in sorted(points, key=lambda name: -middles[name][1]):  # from the top, none on another
        label_y = min(label_y - 0.065 * (high - low), middles[name][1])
        line = {"arrowstyle": "-", "color": colours[name], "lw": 0.7}
        ax.annotate(
            name, middles[name], (1.06, label_y), color=colours[name], va="center", arrowprops=line
        )
    ax.set(xlabel="diversity: share of distinct 2-grams", ylabel="mean ln p (nats): up is likelier")
    greedy, sampled = (f"{middles[name][0]:.0%}" for name in ("greedy", "T = 1"))
    ax.set(
        title=f"Distinct 2-grams: {greedy} in greedy text, {sampled} at T = 1", xlim=(None, 1.45)
    )
    ax.set_xticks([0.2, 0.4, 0.6, 0.8, 1])
    return fig


def bits(rows: dict[str, float]) -> Figure:
    """Draw bits per byte as bars."""
    fig, ax = plt.subplots(figsize=(7.2, 2.8))
    bars = ax.barh(list(rows), list(rows.values()))
    ax.bar_label(bars, [f" {value:.2f}" for value in rows.values()])
    ax.invert_yaxis()
    best = min(rows, key=rows.__getitem__)
    fig.suptitle(f"Fewest bits for the same text: {best}", ha="left", x=0.01, fontsize=12)
    ax.set_xlabel("bits per byte")
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.12)
    return fig


def rounding_costs(costs: dict[str, Any]) -> Figure:
    """Draw what roundings cost over ε², for each sign of the errors and as the mean of both.

    Args:
        costs: as costs_of_rounding returns them. Costs below two standard errors aren't drawn.
    """
    fig, ax = plt.subplots()
    means = {}  # of both signs, by rounding: ε² and cost
    for name, cost in costs.items():
        x = cost.error**2
        points = [("C1^", cost.rounded), ("C2v", cost.mirrored), ("C0o", cost.mean_of_both())]
        shown = [(style, *mean_and_error(each.tolist())) for style, each in points]
        shown = [(style, mean, error) for style, mean, error in shown if mean > 2 * error]
        for style, mean, error in shown:
            ax.errorbar(x, mean, 2 * error, fmt=style, capsize=3)
            if style == "C0o":
                means[name] = (x, mean)
        if shown:
            lowest = min(mean - 2 * error for _, mean, error in shown)
            ax.annotate(name, (x, lowest), (5, -10), textcoords="offset points", fontsize=9)
    if not {"8 bits", "4 bits"} <= means.keys():
        ax.set_title("At 8 or 4 bits, the mean of both signs is below two standard errors")
        return fig
    ax.set(xscale="log", yscale="log", xlabel="ε²", ylabel="cost (nats per token)")
    low, high = ax.get_xlim()
    line = np.array([low, 2 * high])
    x, mean = means["4 bits"]
    ax.plot(line, mean / x * line, color=GREY, ls=":", zorder=0)
    ax.set_xlim(low, 4 * high)
    legend = (("C1", "▲ as rounded"), ("C2", "▼ with the other sign"), ("C0", "● mean of both"))
    for i, (colour, label) in enumerate(legend):
        ax.text(0.03, 0.93 - 0.07 * i, label, color=colour, transform=ax.transAxes)
    ax.text(0.03, 0.72, "⋯ slope 1", color=GREY, transform=ax.transAxes)
    wider, dearer = (b / a for a, b in zip(means["8 bits"], means["4 bits"], strict=True))
    title = f"From 8 to 4 bits, ε² grows by a factor of {wider:.0f}, the mean cost by {dearer:.0f}"
    ax.set_title(title, fontsize=11)
    _round_ticks(ax.yaxis)
    return fig
