"""The drawings of LLM06+."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from labs.kit import Run
from labs.kit.report.figure_style import INK

import matplotlib.pyplot as plt
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle
from torch import Tensor


def show_entropies(
    run: Run, rows: Sequence[Sequence[float]], layer: Sequence[float], soft: float
) -> None:
    """Draw entropy over the width, and show all rows as a table.

    A row is d; the entropy divided, undivided and in theory; three ratios of gradients. `layer` has
    the entropies of an untrained layer with heads of width 64, divided and undivided. `soft` is the
    theory with the division.
    """
    title = "Entropy H (nats) of 256 keys. Gradient ratio: without √d ÷ the mean with it"
    columns = ["d", "H, divided", "H, undivided", "H, theory undivided"]
    columns += [f"gradient ratio: {part}" for part in ("10th percentile", "median", "mean")]
    run.table(title, columns, [*rows, ["64, untrained layer", *layer, "–", "–", "–", "–"]])
    fig, ax = plt.subplots(figsize=(7.2, 3.6))
    widths, divided, undivided, theory, *_ = zip(*rows, strict=True)
    ax.plot(widths, divided, "C0o-")
    ax.plot(widths, undivided, "C1o-")
    ax.plot(widths, theory, color="grey", ls=":")
    ax.axhline(soft, color="grey", ls="--", lw=1)
    ax.text(widths[1], soft - 0.45, "divided by √d: ln n − ½", color="C0")
    ax.text(widths[1], undivided[1] + 0.35, "undivided", color="C1")
    ax.text(widths[0], theory[0] - 0.95, "theory for large d and n", color="grey")
    ax.plot(64, layer[1], "C2s")
    ax.text(70, layer[1], "a layer's first weights, undivided", color="C2", va="center")
    ax.set_xscale("log")
    ax.set_xticks(widths, [f"{int(width):,}" for width in widths])
    ax.minorticks_off()
    ax.set(xlabel="width d", ylabel="entropy (nats)", ylim=(0, 6))
    ax.set_title("Entropy of untrained attention, with and without √d")
    run.figure(
        fig,
        "entropy",
        "Entropy of the weights of 256 keys. Lines: queries and keys of variance 1. Square: the "
        "weights that PyTorch starts with.",
        alt="Two lines over the width: one stays at 5.05, the other falls along the theory. A "
        "square lies between them.",
    )


def show_jacobians(run: Run, slopes: Mapping[str, Tensor]) -> None:
    """Draw the largest derivative (Tq, Tk) of each output over each input, by place of the mask."""
    fig, axes = plt.subplots(1, 2, figsize=(7.6, 3.6))
    norm = LogNorm(1e-4, 10, clip=True)
    for ax, (place, values) in zip(axes, slopes.items(), strict=True):
        nonzero = values.masked_fill(values == 0, math.nan)
        image = ax.imshow(nonzero, norm=norm)
        ax.set_title(f"mask {place} the softmax", fontsize=10)
        ax.set(xlabel="input token", ylabel="output token")
        ax.grid(False)
    fig.colorbar(image, ax=list(axes), label="largest derivative", extend="both")
    run.figure(
        fig,
        "jacobian",
        "The largest derivative of each output over each input. An empty cell is exactly 0.",
        alt="Two heat maps, output by input token. Masked before the softmax, the upper triangle "
        "is empty. Masked after it, every cell has a colour.",
    )


def show_online_softmax(run: Run, scores: Sequence[float], values: Sequence[float]) -> None:
    """Draw the sums ℓ and o after each tile of one key, in the parts that each key adds."""
    fig, axes = plt.subplots(1, 2, figsize=(8, 3.8))
    for tile in range(len(scores)):
        top = max(scores[: tile + 1])
        powers = [math.exp(score - top) for score in scores[: tile + 1]]
        weighted = [power * value for power, value in zip(powers, values, strict=False)]
        for ax, parts in zip(axes, (powers, weighted), strict=True):
            bottom = 0.0
            for key, part in enumerate(parts):
                ax.bar(tile, part, 0.6, bottom, color=f"C{key}", label=f"key {key + 1}")
                bottom += part
            ax.text(tile, bottom, f"{bottom:.2f}", ha="center", va="bottom")
    tops = [max(scores[: tile + 1]) for tile in range(len(scores))]
    ticks = [f"tile {tile + 1}\nm = {top}" for tile, top in enumerate(tops)]
    for ax, title in zip(
        axes, ("sum ℓ of the powers", "sum o of the weighted values"), strict=True
    ):
        ax.set_xticks(range(len(scores)), ticks)
        ax.set_title(title, fontsize=10)
        ax.grid(axis="x", visible=False)
        ax.margins(y=0.12)
    handles, labels = axes[0].get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    axes[1].legend(named.values(), named.keys())
    run.figure(
        fig,
        "online",
        "Scores 1, 3, 2 and values 4, 1, 2, one key a tile. When a tile raises m, the older parts "
        "of both sums shrink. The output is o ÷ ℓ after the last tile.",
        alt="Two groups of three stacked bars, the sums ℓ and o after each tile. The part of the "
        "first key is large at first and small after the second tile.",
    )


def show_cache(run: Run, tokens: int) -> None:
    """Draw the last step with a cache: its scores in the triangle of all, and the keys it needs."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.6), width_ratios=(1, 1.3))
    last = tokens - 1
    for query in range(tokens):
        for key in range(query + 1):
            colour = "C1" if query == last else "lightgrey"
            axes[0].add_patch(Rectangle((key, query), 1, 1, fc=colour, ec="white"))
    axes[0].set(xlim=(0, tokens), ylim=(tokens, 0), xlabel="key", ylabel="query")
    axes[0].set_title(f"step {tokens}: one new row of scores", fontsize=10)
    axes[0].set_xticks([i + 0.5 for i in range(tokens)], range(1, tokens + 1))
    axes[0].set_yticks([i + 0.5 for i in range(tokens)], range(1, tokens + 1))
    axes[0].set_aspect("equal")
    axes[0].grid(False)
    for i in range(tokens):
        for y, name in ((1.2, "k"), (2.2, "v")):
            colour = "C1" if i == last else "grey"
            axes[1].add_patch(Rectangle((i, y), 0.9, 0.8, fc=colour, ec="none"))
            axes[1].text(
                i + 0.45, y + 0.4, f"{name}{i + 1}", ha="center", va="center", color="white"
            )
        axes[1].plot([last + 0.45, i + 0.45], [0.85, 1.2], color="C1", lw=1)
        axes[1].plot([last + 0.45, i + 0.45], [3.35, 3.0], color="C1", lw=1)
    for y, name in ((0.05, f"q{tokens}"), (3.35, "out")):
        axes[1].add_patch(Rectangle((last, y), 0.9, 0.8, fc="C1", ec="none"))
        axes[1].text(last + 0.45, y + 0.4, name, ha="center", va="center", color="white")
    axes[1].text(last - 0.2, 0.4, f"scores: q{tokens} · k", ha="right", va="center")
    axes[1].text(last - 0.2, 3.85, "output: weights · values", ha="right", va="center")
    axes[1].set(xlim=(-0.1, tokens), ylim=(4.25, 0))
    axes[1].set_title("grey: from the cache; orange: new", fontsize=10)
    axes[1].axis("off")
    run.figure(
        fig,
        "cache",
        "A step with a cache computes one query, one key and one value. The earlier rows of scores "
        "aren't needed again, only the earlier keys, for the new scores, and the earlier values, "
        "for the new output.",
        alt="Left: a triangle of scores, its last row orange. Right: grey keys and values, an "
        "orange key and value, one orange query with lines to all keys, and one orange output "
        "with lines to all values.",
    )


class Silenced(NamedTuple):
    """A head of the small model, its score on the job of its layer, and the accuracy without it."""

    seed: int
    layer: int
    job: str
    head: int
    score: float
    accuracy: float
    complete: float  # the accuracy with all heads


def show_worth(run: Run, heads: Sequence[Silenced]) -> None:
    """Draw accuracy lost over score, and show all heads as a table."""
    columns = ["seed", "layer", "job", "head", "score", "accuracy without it", "with all"]
    run.table("Two heads in each layer, one silenced", columns, heads)
    fig, ax = plt.subplots(figsize=(7.2, 3.4))
    for job, colour in (("previous token", "C0"), ("induction", "C1")):
        chosen = [head for head in heads if head.job == job]
        scores = [head.score for head in chosen]
        lost = [head.complete - head.accuracy for head in chosen]
        ax.scatter(scores, lost, color=colour)
        label = f"layer {chosen[0].layer},\n{job}"
        height = sum(lost) / len(lost)
        ax.annotate(
            label, (1.02, height), xycoords=("axes fraction", "data"), color=colour, va="center"
        )
    ax.set(xlabel="score on the job of the layer", ylabel="accuracy lost without the head")
    ax.set_title("Score of a head, and what silencing it costs")
    run.figure(
        fig,
        "worth",
        "Each point is a head, silenced alone. Losses can be compared between the colours, scores "
        "only within one: the two jobs have no common scale.",
        alt="A scatter plot of accuracy lost over score, in a colour for each layer.",
    )


def show_added_losses(run: Run, losses: Mapping[str, Tensor]) -> None:
    """Draw a bar of mean added loss and its error for each case, and a dot for each text, (B,)."""
    fig, ax = plt.subplots(figsize=(7.2, 3.2))
    texts = len(next(iter(losses.values())))
    for place, (name, loss) in enumerate(losses.items()):
        mean = loss.mean().item()
        error = loss.std().item() / math.sqrt(len(loss))
        colour = "grey" if name.startswith("second") else "C1"
        ax.barh(name, mean, color=colour, xerr=error, ecolor=INK, capsize=3)
        ax.scatter(loss, [place + 0.3] * len(loss), s=9, color=INK, zorder=3)
        ax.text(max(mean + error, 0), place - 0.02, f"  {mean:.2f}", va="center")
    ax.invert_yaxis()
    ax.set(xlabel="added loss (nats)", title="Added loss without a token")
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.12)
    run.figure(
        fig,
        "hidden_sink",
        "What it costs SmolLM2 to do without its first token on Shakespeare's plays, and, as a "
        f"control, without the second. Bars: means of {texts} texts, with standard errors. "
        "Dots: single texts.",
        alt="Four bars of added loss, with a dot for each text.",
    )


def show_window(run: Run, tokens: int, width: int) -> None:
    """Draw the scores of a window as a masked square, and gathered as a table."""
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.2), width_ratios=(tokens, width))
    for query in range(tokens):
        for key in range(tokens):
            seen = 0 <= query - key < width
            colour = "C0" if seen else "none"
            axes[0].add_patch(Rectangle((key, query), 1, 1, fc=colour, ec="grey"))
        for place in range(width):
            key = query - width + 1 + place
            colour = "C0" if key >= 0 else "none"
            hatch = None if key >= 0 else "///"
            axes[1].add_patch(Rectangle((place, query), 1, 1, fc=colour, ec="grey", hatch=hatch))
            if key >= 0:
                axes[1].text(place + 0.5, query + 0.5, key, ha="center", va="center", color="white")
    titles = (f"masked: {tokens * tokens} scores", f"gathered: {tokens * width} scores")
    for ax, title, columns in zip(axes, titles, (tokens, width), strict=True):
        ax.set(xlim=(0, columns), ylim=(tokens, 0), aspect="equal", ylabel="query")
        ax.set_xticks([i + 0.5 for i in range(columns)], range(columns))
        ax.set_yticks([i + 0.5 for i in range(tokens)], range(tokens))
        ax.set_title(title, fontsize=10)
        ax.grid(False)
    axes[0].set_xlabel("key")
    axes[1].set_xlabel("place (number: key)")
    run.figure(
        fig,
        "window",
        "The same scores twice. Masked, T² scores are computed and most are hidden. Gathered, each "
        "query has w scores; hatched cells lie before the text.",
        alt="Left: a square of scores with a band along the diagonal. Right: the band as a table "
        "with a row for each query and three columns.",
    )


def show_costs(
    run: Run,
    sizes: Sequence[int],
    ratios: Mapping[str, Sequence[float]],
    peaks: Mapping[str, Sequence[float]],
) -> None:
    """Draw time ÷ time of the fused kernel, and memory in MiB, over the length, by way."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.8))
    for ax, values in zip(axes, (ratios, peaks), strict=True):
        for name, line in values.items():
            ax.plot(sizes, line, "o-", label=name)
        ax.set(xlabel="length T", xscale="log", xlim=(0.8 * sizes[0], 3 * sizes[-1]))
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        ax.minorticks_off()
    axes[0].axhline(1, color="grey", ls=":")
    axes[0].set(ylabel="time ÷ time of the fused kernel", ylim=(0, None))
    axes[1].set(ylabel="peak memory (MiB)", yscale="log")
    gap = 0.07 * axes[0].get_ylim()[1]
    height = -gap
    for name, line in sorted(ratios.items(), key=lambda item: item[1][-1]):
        height = max(line[-1], height + gap)  # no label covers another
        colour = f"C{list(ratios).index(name)}"
        axes[0].text(1.15 * sizes[-1], height, name, color=colour, va="center")
        axes[1].text(1.15 * sizes[-1], peaks[name][-1], name, color=colour, va="center")
    point = f"Time at T = {sizes[-1]:,}: tiles take {ratios['tiles'][-1]:.1f} × fused"
    axes[0].set_title(point, fontsize=10)
    axes[1].set_title("Memory at the peak", fontsize=10)
    run.figure(
        fig,
        "cost",
        "Three ways to the same output: 4 heads of 64, no mask, forward. Time on the run's device "
        "in its precision: the shortest of 15 calls, in turn with the fused kernel. Memory on the "
        "CPU in float32. "
        "“Fused” is this kernel against itself: its distance from the dotted 1 shows the error of "
        "the timing. On a busy machine a single point can be further off. "
        "By hand, the scores take 16T² bytes in float32: 16 MiB at T = 1,024, and 64 MiB at 2,048. "
        "When they no longer fit in the processor's cache, the time can jump.",
        alt="Two line plots over the length, of time and of memory, for attention by hand, "
        "in tiles and fused.",
    )


def show_sinks(run: Run, weights: Tensor, ratios: Tensor, layers: int, sharing: int) -> None:
    """Draw each head's weight on the first token and the norm of its value, both (L·H,).

    A colour is a layer; `sharing` query heads have the same value.
    """
    fig, ax = plt.subplots(figsize=(7.2, 3.8))
    layer = [1 + i * layers // len(weights) for i in range(len(weights))]
    points = ax.scatter(weights.tolist(), ratios.tolist(), s=14, c=layer)
    fig.colorbar(points, label="layer")
    ax.axhline(1, color="grey", ls=":")
    ax.text(0.6, 1.03, "like other tokens", color="grey", fontsize=9)
    ax.set(xlabel="weight on the first token", ylabel="norm of its value ÷ other values")
    ax.set_title("Weight on the first token, and the size of its value")
    run.figure(
        fig,
        "sinks",
        f"{len(weights)} query heads of the model, on random tokens. {sharing} query heads share a "
        f"value and have the same height, so there are {len(weights) // sharing} heights.",
        alt="A scatter plot. Heads with little weight on the first token are on the left, near a "
        "ratio of 1. Heads with most of their weight there are on the right, and far lower.",
    )
