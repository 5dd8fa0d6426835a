"""The figures of LLM05b."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import mean
from typing import Any

from labs.kit import Run
from labs.llm05b_depth_and_position import training
from labs.llm05b_depth_and_position.training import Arm, Outcome, Reading
from labs.shared.small_gpt import lr_at

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

COLOURS = {"Post-LN": "C1", "Pre-LN": "C0"}


def headline(held: bool, finding: str, otherwise: str) -> str:
    """Return a figure's title: the finding if this run shows it, or what is drawn."""
    return finding if held else otherwise


def label_ends(ax: Axes, ends: dict[str, tuple[float, float]], colours: dict[str, str]) -> None:
    """Write names beside the right ends of lines, moved apart where they would overlap.

    The horizontal grid ends with the lines, so that it doesn't strike a name through.
    """
    low, high = ax.get_ylim()
    end = ax.transData.transform((max(x for x, _ in ends.values()), low))
    share = ax.transAxes.inverted().transform(end)[0]
    for line in ax.get_ygridlines():
        line.set_xdata((0, share))
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


def show_stack(run: Run) -> None:
    """Draw a stack of two Pre-LN blocks with its shapes, and the weights of the worked example."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.8, 5.6), width_ratios=(3, 2))
    box: dict[str, Any] = {"boxstyle": "round,pad=0.35", "fc": "none", "lw": 1.4}
    arrow: dict[str, Any] = {"arrowstyle": "->", "lw": 1.4}
    place: dict[str, Any] = {"ha": "center", "va": "center"}
    for name, y in (("embedding", 0.7), ("last norm", 7.35), ("unembedding", 8.3)):
        left.text(0, y, name, bbox={**box, "ec": "C6"}, **place)
    for start, end in ((-0.05, 0.4), (1, 7.05), (7.65, 8), (8.6, 9.05)):  # not through a box
        left.annotate("", (0, end), (0, start), arrowprops={**arrow, "shrinkA": 0, "shrinkB": 0})
    for block in (0, 1):
        bottom = 1.35 + 2.9 * block
        for branch, name in enumerate(("attention", "FFN")):
            y = bottom + 0.35 + 1.3 * branch
            colour = f"C{2 * branch}"
            left.plot((0, 1), (y, y), color=colour, lw=1.4)
            left.annotate("", (1, y + 0.3), (1, y), arrowprops={**arrow, "color": colour})
            left.text(1, y + 0.47, f"norm, {name}", bbox={**box, "ec": colour}, **place)
            left.plot((1, 1), (y + 0.68, y + 0.9), color=colour, lw=1.4)
            left.annotate("", (0, y + 0.9), (1.03, y + 0.9), arrowprops={**arrow, "color": colour})
            left.text(-0.09, y + 0.9, "+", color=colour, ha="right", va="center", fontsize=14)
        frame: dict[str, Any] = {"fc": "none", "ec": "grey", "lw": 0.8, "ls": ":"}
        left.add_patch(Rectangle((-0.27, bottom + 0.15), 1.97, 2.6, **frame))
        left.text(2.05, bottom + 1.3, f"block {block + 1}", **place)
    for y, shape in ((-0.25, "tokens (B, T)"), (9.25, "logits (B, T, V)")):
        left.text(0, y, shape, **place)
    left.text(-0.35, 4.2, "stream x\n(B, T, d)", ha="right", va="center")
    left.set(xlim=(-1.3, 2.5), ylim=(-0.5, 9.5), title="Branches add to the stream")
    left.axis("off")
    keys = ("(1, 0)\nvalue 1", "(0, 1)\nvalue 5", "(1, 1)\nvalue 3")
    weights = (torch.tensor([2.0, 0.0, 2.0]) / math.sqrt(2)).softmax(0).tolist()
    right.bar(keys, weights, color="C0")
    for i, weight in enumerate(weights):
        right.text(i, weight + 0.01, f"{weight:.3f}", ha="center")
    right.set(xlabel="key", ylabel="weight", ylim=(0, 0.55), title="The query (2, 0) weighs keys")
    right.grid(False)
    run.figure(
        fig,
        "stack",
        "Left: two Pre-LN blocks; B texts of T tokens, d numbers each, V possible next tokens. "
        "Right: the worked example. The mean of the values with these weights is 2.325.",
        alt="Left, a vertical line for the stream, from the embedding through two blocks and a "
        "norm to the unembedding. In each block, a dotted frame, attention and FFN read the line "
        "through a norm and add to it. Right, three bars of the heights 0.446, 0.108 and 0.446.",
    )


def show_starts(
    run: Run,
    found: Mapping[tuple[str, int], list[training.End]],
    gradients: training.Ends,
    least: float,
) -> None:
    """Draw the stream's size and the last block's gradient against the number of blocks.

    `least` is the least mean square that a block adds on average; the most is larger by 1.
    """
    sizes = {key: [end.size for end in ends] for key, ends in found.items()}
    names = list(dict.fromkeys(name for name, _ in sizes))
    layers = sorted({n for _, n in sizes})
    fig, axes = plt.subplots(1, 2, figsize=(7.8, 4.2))
    most = math.sqrt(1 + (1 + least) * layers[-1])
    for ax, ends, limits in zip(axes, (sizes, gradients), ((0.8, 2 * most), (0.1, 4)), strict=True):
        labels = {}
        for name in names:
            values = torch.tensor([ends[name, n] for n in layers])  # (depths, seeds)
            ax.loglog(layers, values.mean(1), "o-", ms=4, color=COLOURS[name])
            low, high = values.amin(1), values.amax(1)
            ax.fill_between(layers, low, high, color=COLOURS[name], alpha=0.3, lw=0)
            labels[name] = (layers[-1], values.mean(1)[-1].item())
        ax.set(xlabel="blocks L", xlim=(layers[0], layers[-1] * 3), ylim=limits)
        ax.set_xticks(layers, layers)
        ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if limits[0] <= t <= limits[1]]
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        label_ends(ax, labels, COLOURS)
    band = [[math.sqrt(1 + c * n) for n in layers] for c in (least, 1 + least)]
    axes[0].fill_between(layers, *band, color=COLOURS["Pre-LN"], alpha=0.15, lw=0)
    few, many = (mean(gradients["Pre-LN", n]) for n in (layers[0], layers[-1]))

    def spans(ends: training.Ends) -> str:  # the means of the fewest and of the most blocks
        values = {name: [mean(ends[name, n]) for n in (layers[0], layers[-1])] for name in names}
        return ", ".join(f"{name} from {a:.2g} to {b:.2g}" for name, (a, b) in values.items())

    shrinks = headline(many < few, "… and its last block's gradient shrinks", "The last block")
    axes[0].set(title="Pre-LN's stream grows …", ylabel="size of the stream at its end")
    axes[1].set(title=shrinks, ylabel="norm of the last block's gradient")
    run.figure(
        fig,
        "starts",
        "Untrained stacks of L blocks, means of three seeds with their range. The wide shaded band "
        "on the left is the derived one.",
        alt="Two line plots over the number of blocks, from the fewest to the most. "
        f"Left, the size of the stream: {spans(sizes)}; a shaded band widens around Pre-LN. "
        f"Right, the norm of the last block's gradient: {spans(gradients)}.",
    )


def show_blocks(
    run: Run,
    gradients: Mapping[str, list[list[float]]],
    moves: Mapping[str, list[list[float]]],
    blocks: Sequence[int],
) -> None:
    """Draw each block's gradient, and how far a change of each block moves the logits."""
    fig, axes = plt.subplots(1, 2, figsize=(7.8, 4.2))
    layers = len(next(iter(gradients.values()))[0])
    places = (list(range(1, layers + 1)), [block + 1 for block in blocks])
    steps = (1.0, 1e-5)  # the units of the two axes
    for ax, x, rows, unit in zip(axes, places, (gradients, moves), steps, strict=True):
        ends = {}
        for name, seeds in rows.items():
            y = torch.tensor(seeds) / unit  # (seeds, blocks)
            ax.loglog(x, y.mean(0), "o-", ms=3, color=COLOURS[name])
            ax.fill_between(x, y.amin(0), y.amax(0), color=COLOURS[name], alpha=0.2, lw=0)
            ends[name] = (x[-1], y.mean(0)[-1].item())
        ax.set(xlabel="block", xlim=(1, layers * 3))
        ax.set_xticks(places[1], places[1])
        marks = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
        values = [value / unit for seeds in rows.values() for row in seeds for value in row]
        below = max(mark for mark in marks if mark < min(values))  # a label below the lines
        ticks = [mark for mark in marks if below <= mark <= max(values)]
        ax.set_ylim(bottom=below)
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        label_ends(ax, ends, COLOURS)
    falls = [
        mean(row[-1] for row in rows["Pre-LN"]) < mean(row[0] for row in rows["Pre-LN"])
        for rows in (gradients, moves)
    ]
    axes[0].set_title(
        headline(falls[0], "Late Pre-LN blocks get less gradient …", "Gradient by block")
    )
    axes[1].set_title(headline(falls[1], "… and move the logits less", "Moves by block"))
    axes[0].set_ylabel("norm of the block's gradient")
    axes[1].set_ylabel("the logits move (÷ the step)")

    def means(seeds: Sequence[list[float]], unit: float) -> list[float]:  # by block
        return [mean(block) / unit for block in zip(*seeds, strict=True)]

    def spans(rows: Mapping[str, list[list[float]]], unit: float) -> str:
        return "; ".join(
            f"{name} from {y[0]:.2g} in block 1 to {y[-1]:.2g} in block {layers}, with at least "
            f"{min(y):.2g} and at most {max(y):.2g}"
            for name, y in ((name, means(seeds, unit)) for name, seeds in rows.items())
        )

    post = means(moves["Post-LN"], 1)
    run.figure(
        fig,
        "blocks",
        f"Untrained stacks of {layers} blocks, three seeds: means and ranges. Right: the matrices "
        "of one block alone change by ±0.00001 at random; root mean square of all logits. "
        f"Post-LN's largest mean is {max(post) / min(post):.1f} times its smallest.",
        alt="Two line plots over the block's number. Left, the norm of the gradient: "
        f"{spans(gradients, steps[0])}. Right, how far the logits move, divided by the step: "
        f"{spans(moves, steps[1])}.",
    )


def show_rates(run: Run, losses: Mapping[Arm, list[float]], unigram: float, held: bool) -> None:
    """Draw the validation loss over the peak of the learning rate.

    `held` says whether only Pre-LN learns at the highest rate.
    """
    fig, ax = plt.subplots(figsize=(7.2, 4.2))
    rates = sorted({arm.rate for arm in losses})
    for placement, colour in COLOURS.items():
        arms = [arm for arm in losses if arm.placement == placement and not arm.warm]
        arms.sort(key=lambda arm: arm.rate)
        means = [mean(losses[arm]) for arm in arms]
        ax.plot([arm.rate for arm in arms], means, "o--", ms=8, color=colour)
        for arm in arms:
            ax.plot([arm.rate] * len(losses[arm]), losses[arm], ".", color=colour, alpha=0.6)
        below = placement == "Post-LN"
        place = (rates[-1] * 1.06, means[-1] - 0.02 if below else means[-1])
        ax.text(*place, f"{placement}, no warm-up", color=colour, va="top" if below else "center")
    (warm,) = (arm for arm in losses if arm.warm)
    beside = warm.rate * 1.09  # so that its seeds stand beside those without warm-up
    ax.plot([beside] * len(losses[warm]), losses[warm], ".", color="C3", alpha=0.8)
    ax.plot(beside, mean(losses[warm]), "D", ms=8, color="C3")
    ax.text(beside * 1.08, mean(losses[warm]), "Post-LN, with warm-up", color="C3", va="center")
    ax.axhline(unigram, color="grey", ls=":", lw=1)
    ax.text(rates[0] * 0.82, unigram, "unigram", va="bottom", color="grey", fontsize=10)
    ax.set(xscale="log", xlim=(rates[0] * 0.8, rates[-1] * 2.9), xlabel="peak of the learning rate")
    point = headline(held, "Pre-LN bears a rate that stops Post-LN", "Loss by placement and rate")
    ax.set(ylabel="validation loss (nats)", title=point)
    ax.set_ylim(
        min(min(each) for each in losses.values()) - 0.1,
        max(unigram, *(max(each) for each in losses.values())) + 0.1,
    )
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
    ax.minorticks_off()
    numbers = "; ".join(f"{arm} at {arm.rate:g}: {mean(losses[arm]):.2f}" for arm in losses)
    single = [f"{arm.placement} at {arm.rate:g}" for arm in losses if len(losses[arm]) == 1]
    run.figure(
        fig,
        "rates",
        "Each seed is a dot, their mean a large mark; dashed lines join means. The stacks with "
        f"warm-up have the rate {warm.rate:g}, too, and are drawn beside the others. "
        f"{' and '.join(single)} are one seed each; LLM05b+ trains three at {rates[-1]:g}.",
        alt="Points of the loss over the learning rate, joined by a line for each placement. Means "
        f"in nats: {numbers}; unigram: {unigram:.2f}.",
    )


def show_schedules(run: Run) -> None:
    """Draw the learning rate over the steps with and without a warm-up."""
    steps = training.deep_sizes(run).steps
    fig, ax = plt.subplots(figsize=(7.2, 2.8))
    for i, (name, warmup) in enumerate((("no warm-up", 0), ("with warm-up", steps // 5))):
        rates = [lr_at(step, steps, warmup) for step in range(steps)]
        ax.plot(rates, color=f"C{i}", label=name)
        ax.fill_between(range(steps), rates, color=f"C{i}", alpha=0.15, lw=0)
    ax.set(xlabel="step", ylabel="rate ÷ peak", xlim=(0, steps), ylim=(0, 1.05))
    ax.set_title("Warm-up: small first steps, larger later steps, the same sum")
    ax.legend()
    run.figure(
        fig,
        "schedules",
        f"The learning rate over {steps} steps. The two shaded areas are equal.",
        alt="Two lines of the learning rate over the step. Without warm-up it falls from the peak "
        f"to almost 0. With warm-up it rises to the peak at step {steps // 5}, then falls to "
        "almost 0, above the other line.",
    )


def show_training(run: Run, outcomes: Mapping[Arm, list[Outcome]], unigram: float) -> None:
    """Draw the loss above each block's gradient: Post-LN without and with warm-up, and Pre-LN.

    Args:
        run: the run.
        outcomes: by arm: Post-LN without warm-up, Post-LN with it, Pre-LN. The first two have the
            same seeds; drawn is a seed with about the median gain.
        unigram: the unigram's loss on the validation text.
    """
    without, warm, pre = outcomes.items()
    both = list(zip(without[1], warm[1], strict=True))
    both.sort(key=lambda pair: pair[0].loss - pair[1].loss)
    cold, warmed = both[(len(both) - 1) // 2]
    shown = ((without[0], cold), (warm[0], warmed), (pre[0], pre[1][0]))
    fig, axes = plt.subplots(2, len(shown), figsize=(8.2, 5.4), sharex=True, sharey="row")
    maps = [torch.tensor(o.gradients).clamp(min=1e-9).log10().T for _, o in shown]  # (L, steps)
    low = min(m.quantile(0.02).item() for m in maps)
    high = max(m.max().item() for m in maps)
    blocks, columns = maps[0].shape
    extent = (0, 8 * columns, 0.5, blocks + 0.5)
    for (above, below), (arm, outcome), heat in zip(axes.T, shown, maps, strict=True):
        curve = torch.tensor(outcome.curve).unfold(0, 10, 1).mean(-1)  # means of ten steps
        above.plot(range(5, 5 + len(curve)), curve, color=COLOURS[arm.placement])
        above.axhline(unigram, color="grey", ls=":", lw=1)
        above.set_title(str(arm).replace(", ", ",\n"))
        image = below.imshow(
            heat, aspect="auto", origin="lower", extent=extent, vmin=low, vmax=high
        )
        below.set(xlabel="step")
        below.grid(False)
    axes[0, 0].set(ylabel="training loss (nats)", ylim=(None, unigram + 0.5))
    axes[0, -1].text(8 * columns, unigram, "unigram ", ha="right", va="bottom", color="grey")
    axes[1, 0].set(ylabel="block", yticks=range(1, blocks + 1))
    fig.colorbar(image, ax=axes[1], label="log₁₀ of the\ngradient's norm")
    fig.colorbar(image, ax=axes[0]).ax.set_visible(False)  # the same width in both rows
    fig.suptitle("One Post-LN stack without and with warm-up, and a Pre-LN stack", fontsize=13)
    rates = ", ".join(f"{arm.rate:g}" for arm, _ in shown)
    ends = [f"{outcome.loss:.2f}" for _, outcome in shown]
    weak = [f"{training.weak_steps(outcome):.0%}" for _, outcome in shown]
    run.figure(
        fig,
        "training",
        f"Peak rates {rates}; for Post-LN, a seed with about the median gain. Above: the loss, a "
        "mean of ten steps; the dotted line is the unigram's loss on the validation text. Below: "
        "the norm of each block's gradient. The maps don't show what causes what. The validation "
        f"losses are {', '.join(ends)}.",
        alt="Three columns: a Post-LN stack without and with warm-up, and a Pre-LN stack. "
        "Above, the loss over the steps; below, a heat map of the gradient by block and "
        f"step. Block 1 gets less than a tenth of the last block's gradient in {', '.join(weak)} "
        "of the probed steps.",
    )


def show_distances(run: Run, scores: dict[str, Tensor]) -> None:
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
    widths = {
        name: max((row.max() - row.min()).item() for row in diagonals)
        for name, diagonals in rows.items()
    }
    held = max(widths["RoPE"], widths["ALiBi"]) < 1e-3 < min(widths["learned"], widths["sinusoids"])
    point = "With RoPE and ALiBi the score changes with distance, and with nothing else"
    fig.suptitle(headline(held, point, "The score of two tokens by distance"), fontsize=13)
    run.figure(
        fig,
        "distance",
        "The score of the same two tokens at different distances, in head 0 of an untrained layer. "
        "Bands: the range over all places. ALiBi's slope is 1/4, and its axis has another scale. "
        "The learned table is untrained and starts 50 times as small as the embeddings, so its "
        "band is narrow. This query and key are unrelated, so RoPE's score need not fall with "
        "distance.",
        alt="Five small plots of a score over the distance, with bands of these widths at most: "
        f"{', '.join(f'{name} {width:.2g}' for name, width in widths.items())}. NoPE's is flat, "
        "RoPE's a wave, ALiBi's a falling straight line.",
    )


def show_places(run: Run) -> None:
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
    ax.set(xlim=(-1, 9), ylim=(-0.9, 2.1), title="Positions enter at three points")
    ax.axis("off")
    run.figure(
        fig,
        "places",
        "Where a position can act: on the stream, on queries and keys, or on the scores.",
        alt="A chain of boxes from embeddings to stream, queries and keys, scores and weights. A "
        "learned table and sinusoids point at the stream, RoPE at queries and keys, ALiBi at the "
        "scores.",
    )


def show_lengths(
    run: Run, read: Mapping[str, Reading], length: int, bigram: Tensor, held: bool
) -> None:
    """Draw the loss by place in the text, of models that were trained on `length` characters.

    Args:
        run: the run.
        read: the losses, by encoding.
        length: the trained length, T.
        bigram: the bigram's loss at each place, (8 T,), which is subtracted.
        held: whether ALiBi extrapolates and RoPE does not.
    """
    fig, axes = plt.subplots(1, 2, figsize=(8, 4.4), sharey=True)
    total = len(read["RoPE"].by_place[0])
    edges = [2**i for i in range(2, total.bit_length())]  # 4, 8, … 8 T
    middle = [math.sqrt(a * b) for a, b in pairwise(edges)]
    colours = {name: f"C{i}" for i, name in enumerate(read)}
    panels = (("NoPE", "RoPE", "ALiBi"), ("learned", "sinusoids"))
    point = headline(held, "ALiBi extrapolates, RoPE fails past T", "Inside attention, or nowhere")
    titles = (point, "Added to the stream")
    ends: list[dict[str, tuple[float, float]]] = [{}, {}]
    for ax, names, title, end in zip(axes, panels, titles, ends, strict=True):
        for name in names:
            above = [row - bigram for row in read[name].by_place]
            rows = [[row[a:b].mean() for a, b in pairwise(edges)] for row in above]
            binned = torch.tensor(rows)  # (seeds, bins)
            ax.plot(middle, binned.mean(0), "o-", ms=4, color=colours[name])
            ax.fill_between(middle, binned.amin(0), binned.amax(0), color=colours[name], alpha=0.18)
            end[name] = (middle[-1], binned.mean(0)[-1].item())
        ax.axvline(length, color="grey", lw=1)
        ax.axhline(0, color="grey", lw=1, ls=":")
        ax.set_xscale("log", base=2)
        ax.set(xlabel="place in the text (characters)", title=title, xlim=(4, total * 2.6))
        ax.set_xticks(edges[::2], edges[::2])
        ax.minorticks_off()
    axes[0].set_ylabel("loss − bigram's loss (nats per character)")
    for ax, end in zip(axes, ends, strict=True):
        label_ends(ax, end, colours)
        grey: dict[str, Any] = {"ha": "right", "color": "grey", "fontsize": 9}
        ax.text(length * 0.95, ax.get_ylim()[1], "trained to here ", va="top", **grey)
        ax.text(total * 2.5, 0, "bigram", va="top", **grey)
    rises = ", ".join(f"{name} {mean(reading.cost):.2f}" for name, reading in read.items())
    run.figure(
        fig,
        "length",
        "Loss by place, minus that of a bigram on the same characters. A band is the range of the "
        "seeds; a line without a band is one seed. A line that isn't below the bigram at the "
        "trained length doesn't show whether its encoding extrapolates.",
        alt="Two line plots over the place in the text of how far the loss is above a bigram's, "
        "with a vertical line at the trained length. Left NoPE, RoPE and ALiBi, right the learned "
        f"table and the sinusoids. From T to 8 T the loss rises by: {rises} nats.",
    )


def show_layouts(run: Run, to_halves: Callable[[Tensor, int], Tensor]) -> None:
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
    run.figure(
        fig,
        "layouts",
        "How `to_halves` moves the rows of one head. A pair keeps its colour.",
        alt="Two rows of eight boxes with arrows between them: even rows move to the first half, "
        "odd rows to the second.",
    )
