"""The drawings of LLM06."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from labs.kit import Run
from labs.kit.report.figure_style import INK
from labs.llm06_attention import recall

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from torch import Tensor

SENTENCE = ("the", "dog", "saw", "its", "tail")
SHADE = "Blues"  # light cells leave black numbers readable


def _numbers(
    ax: Axes, values: Tensor, title: str, columns: Sequence[str], top: float, framed: bool = True
) -> None:
    """Draw a table of numbers, its cells shaded by their value, and frame the row of "its"."""
    ax.imshow(values, cmap=SHADE, vmin=0, vmax=top, aspect="auto")
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            colour = "white" if value > 0.6 * top else "black"
            text = f"{value:.2f}".rstrip("0").rstrip(".")
            ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=10)
    ax.set_title(title, fontsize=10)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(SENTENCE)), SENTENCE)
    ax.tick_params(labelsize=9, length=0)
    ax.grid(False)
    if framed:
        row = SENTENCE.index("its")
        ax.add_patch(Rectangle((-0.5, row - 0.5), len(columns), 1, fc="none", ec="C1", lw=2))


def worked_example(
    q: Tensor, k: Tensor, scores: Tensor, weights: Tensor, v: Tensor, output: Tensor
) -> Figure:
    """Draw the six matrices of the example, T rows each.

    Frames mark what belongs to the query of "its". It meets all keys and values.
    """
    fig, axes = plt.subplot_mosaic("QQKKSSSSS;WWWWWVVOO", figsize=(8, 5.2))
    _numbers(axes["Q"], q, "queries Q", ("noun", "article"), 6)
    _numbers(axes["K"], k, "keys K", ("noun", "article"), 6, framed=False)
    _numbers(axes["S"], scores, "scores QKᵀ/√2", SENTENCE, 6)
    _numbers(axes["W"], weights, "weights: softmax of each row of scores", SENTENCE, 1.2)
    _numbers(axes["V"], v, "values V", ("animal", "action"), 2, framed=False)
    _numbers(axes["O"], output, "output: weights × V", ("animal", "action"), 2)
    fig.suptitle("“its” gives nearly half of its weight to “dog”, as much to “tail”", fontsize=11)
    return fig


def masks(causal: Tensor, cached: Tensor, padded: Tensor) -> Figure:
    """Draw a causal mask, (5, 5), one with a cache, (2, 5), and three sources, (3, 1, Tq, Tk)."""
    fig, axes = plt.subplots(1, 3, figsize=(9, 2.6))
    sources = padded[:, 0, 0]  # (3, Tk): all queries of a source see the same keys
    panels = (
        (causal, "Causal: keys up to the query", "position of the query", 0),
        (cached, "With a cache: the last queries", "query", 3),
        (sources, "Padding: only real keys", "source", 0),
    )
    for ax, (mask, title, label, first) in zip(axes, panels, strict=True):
        ax.pcolormesh(mask.float(), cmap=SHADE, vmin=0, vmax=1.4, edgecolors="grey", linewidth=0.8)
        ax.invert_yaxis()
        ax.set_title(title, fontsize=10)
        ax.set(xlabel="key", ylabel=label, aspect="equal")
        ax.set_xticks([i + 0.5 for i in range(mask.shape[1])], range(mask.shape[1]))
        rows = range(first, first + mask.shape[0])
        ax.set_yticks([i + 0.5 for i in range(mask.shape[0])], rows)
        ax.grid(False)
    return fig


def _box(ax: Axes, x: float, y: float, text: str, colour: str) -> None:
    style = "round,pad=0.02,rounding_size=0.12"
    patch = FancyBboxPatch((x - 0.38, y - 0.25), 0.76, 0.5, style, fc=colour, ec="none")
    ax.add_patch(patch)
    ax.text(x, y, text, ha="center", va="center", color="white")


def show_groups(run: Run) -> None:
    """Draw SmolLM2's 9 query heads on 3 key-value heads."""
    fig, ax = plt.subplots(figsize=(7.2, 2.4))
    for head in range(9):
        group = head // 3
        ax.plot([head, 3 * group + 1], [1.25, 0.25], color=f"C{group}", lw=1.5)
        _box(ax, head, 1.5, f"q{head + 1}", f"C{group}")
    for group in range(3):
        _box(ax, 3 * group + 1, 0, f"k{group + 1} v{group + 1}", f"C{group}")
    ax.text(-0.9, 1.5, "9 query heads", ha="right", va="center")
    ax.text(-0.9, 0, "3 key-value heads", ha="right", va="center")
    ax.set(xlim=(-3.2, 8.6), ylim=(-0.4, 1.9))
    ax.axis("off")
    run.figure(
        fig,
        "groups",
        "SmolLM2's 9 query heads share 3 key-value heads, three neighbours each.",
        alt="Two rows of boxes: nine query heads above, three key-value heads below, with lines.",
    )


def show_split_heads(run: Run) -> None:
    """Draw a projection of 4 tokens and 3 heads of width 2, its split, and a bare view of it."""
    tokens, heads, width = 4, 3, 2
    projection = torch.arange(tokens * heads * width).view(tokens, heads * width)
    split = projection.unflatten(-1, (heads, width)).transpose(0, 1)  # (H, T, D)
    panels = (
        ("projection (T, H·D)", 0.0, projection.view(1, tokens, heads * width)),
        ("split (H, T, D)", 8.6, split),
        ("a bare view, wrong", 17.6, projection.view(heads, tokens, width)),
    )
    fig, ax = plt.subplots(figsize=(9, 2.0))
    for title, left, tables in panels:
        ax.text(left, -0.5, title, fontsize=10)
        for i, table in enumerate(tables.tolist()):
            for row, numbers in enumerate(table):
                for column, number in enumerate(numbers):
                    x = left + i * (width + 0.5) + column
                    colour = f"C{number // width % heads}"
                    ax.add_patch(Rectangle((x, row), 1, 1, fc=colour, ec="white"))
                    token = number // (heads * width) + 1
                    ax.text(x + 0.5, row + 0.5, token, ha="center", va="center", color="white")
    for y, start, end, name in ((1.5, 6.3, 8.3, "split"), (3.2, 8.3, 6.3, "merge")):
        arrow = FancyArrowPatch((start, y), (end, y), arrowstyle="->", mutation_scale=14, color=INK)
        ax.add_patch(arrow)
        ax.text(7.3, y - 0.25, name, ha="center", fontsize=10)
    ax.set(xlim=(-0.2, 25), ylim=(4.2, -1.3), aspect="equal")
    ax.axis("off")
    run.figure(
        fig,
        "split_heads",
        "Four tokens and three heads of width 2. A colour is a head, a number a token.",
        alt="One table in three colours, a table for each colour, and three tables that mix them.",
    )


def show_alignments(run: Run, weights: Tensor, texts: Mapping[str, str]) -> None:
    """Draw the alignment (TARGET, SOURCE) of some dates, a source and what is written, in turn."""
    fig, axes = plt.subplots(1, len(texts), figsize=(9, 3.8))
    for ax, rows, (source, target) in zip(axes, weights, texts.items(), strict=True):
        image = ax.imshow(rows[:, : len(source)], vmin=0, vmax=1, aspect="auto")
        ax.set_title(f'Reading "{source}"', fontsize=10)
        ax.set_xticks(range(len(source)), source.replace(" ", "␣"))
        ax.set_yticks(range(len(target)), target)
        ax.set(xlabel="character of the source", ylabel="character to write")
        ax.grid(False)
    fig.colorbar(image, ax=list(axes), label="weight")
    fig.suptitle(
        "Weights of the cross-attention: from a written character to the source", fontsize=11
    )
    run.figure(
        fig,
        "alignment",
        "Where each written character looks, in the third model. A dash is the same in all dates, "
        "so its weights may lie anywhere. A month's name may have been copied to other places.",
        alt="Two heat maps, written by source characters: a bright diagonal for the year.",
    )


def show_date_reader(run: Run) -> None:
    """Draw how the query for the third digit of the year reads the encoded source."""
    fig, ax = plt.subplots(figsize=(9, 4.9))
    source = "3 march 1999".replace(" ", "␣")
    asks = 2  # the query for the third digit of the year
    finds = 10  # the place of this digit in the source
    query = (asks + 1, 4.6)
    for place, character in enumerate(source):
        colour = "C1" if place == finds else "C0"
        _box(ax, place, 0, character, "grey")
        _box(ax, place, 2, "k, v", colour)
        ax.plot([place, place], [0.3, 0.6], color="grey", lw=1)
        ax.plot([place, place], [1.4, 1.7], color="grey", lw=1)
        thick = 2.5 if place == finds else 0.8
        ax.plot([place, query[0]], [2.3, query[1] - 0.3], color=colour, lw=thick)
    for i in range(10):
        _box(ax, i + 1, query[1], f"q{i + 1}", "C1" if i == asks else "C2")
    ax.add_patch(Rectangle((-0.4, 0.6), len(source) - 0.2, 0.8, fc="none", ec="grey"))
    ax.text(5.5, 1, "encoder: one layer of self-attention", ha="center", va="center")
    ax.text(7.6, 3.5, "scores q · k, then the average of v", color="C1", va="center")
    start = (query[0], 4.9)
    end = (query[0], 5.7)
    arrow = FancyArrowPatch(start, end, arrowstyle="->", mutation_scale=14, color=INK)
    ax.add_patch(arrow)
    ax.text(query[0] + 0.25, 5.3, "output of q3, MLP", va="center")
    for i, character in enumerate("1999-03-03"):
        _box(ax, i + 1, 6, character, "C1" if i == asks else "grey")
    for y, name in ((0, "source"), (2, "its vectors"), (4.6, "learned queries"), (6, "written")):
        ax.text(-0.7, y, name, ha="right", va="center")
    ax.set(xlim=(-3, 11.6), ylim=(-0.4, 6.4))
    ax.axis("off")
    run.figure(
        fig,
        "date_reader",
        "The date reader. Each of ten learned queries looks at the encoded source, here the third. "
        "All ten characters are written at once.",
        alt="Rows of boxes: the source, its vectors, ten queries, ten written characters. Lines "
        "from the third query to all vectors; that to the third digit of the year is thick.",
    )


def _arrow(ax: Axes, start: float, end: float, y: float, colour: str) -> None:
    style = "arc3,rad=0.35" if y > 0 else "arc3,rad=-0.35"
    arrow = FancyArrowPatch(
        (start, y),
        (end, y),
        arrowstyle="->",
        mutation_scale=16,
        color=colour,
        lw=2,
        connectionstyle=style,
    )
    ax.add_patch(arrow)


def show_circuit(run: Run) -> None:
    """Draw the two arrows of the induction circuit."""
    fig, ax = plt.subplots(figsize=(7.2, 2.9))
    tokens = ("D", "B", "A", "F", "C", "…", "A")
    for i, token in enumerate(tokens):
        if token == "…":
            ax.text(i, 0, token, ha="center", va="center")
        else:
            _box(ax, i, 0, token, "C1" if token == "F" else "C0")
    ax.text(7.1, 0, "→ F", va="center", color="C1", fontsize=13)
    _arrow(ax, 3, 2, -0.3, "C2")
    ax.text(2.5, -0.95, "layer 1, previous token:\n“A came before me”", ha="center", va="center")
    _arrow(ax, 6, 3, 0.3, "C1")
    ax.text(4.5, 1.15, "layer 2, induction: “who has A before it?”", ha="center", va="center")
    ax.set(xlim=(-0.6, 8), ylim=(-1.4, 1.4))
    ax.axis("off")
    run.figure(
        fig,
        "circuit",
        "Layer 1 writes A at the place of F. Layer 2 compares the last token, A, with these notes.",
        alt="A row of tokens with two arrows: from F back to A, and from the last A to F.",
    )


def show_rise(run: Run, curves: Mapping[Any, Sequence[Sequence[float]]], guess: float) -> None:
    """Draw the accuracy over training steps, averaged over ten steps; a line for each seed."""
    fig, ax = plt.subplots()
    labels = {
        1: ("recall: one layer, two heads", "C0", 0.16),
        2: ("recall: two layers, one head each", "C1", 0.6),
        "control": ("token before the query: one layer, two heads", "C2", 0.95),
    }
    for name, runs in curves.items():
        label, colour, height = labels[name]
        for curve in runs:
            smooth = [sum(curve[i : i + 10]) / 10 for i in range(len(curve) - 9)]
            ax.plot(smooth, colour, lw=1.5)
        ax.text(0.99, height, label, color=colour, ha="right", transform=ax.transAxes)
    ax.axhline(guess, color="grey", ls=":")
    middle = 0.4 * max(map(len, curves[2]))
    ax.text(middle, guess + 0.02, "a guess among tokens to come", color="grey")
    ax.set(xlabel="training step", ylabel="accuracy", ylim=(0, 1.1))
    ax.set_title("Accuracy on recall, and of one layer on an easier task")
    run.figure(
        fig,
        "recall",
        "Mean of ten steps, three seeds each. Dotted: a guess among the tokens that can still "
        f"follow, {guess:.2f}. A blind guess among all 32 tokens has 0.03.",
        alt="Lines over training steps: two layers rise to 1, one layer only on the easier task.",
    )


def show_two_heads(run: Run, layers: Sequence[Tensor], circuit: Iterable[Tensor]) -> None:
    """Draw the weights (1, 1, T, T) of each layer's head, and dots on the pairs (B, T, T)."""
    fig, axes = plt.subplots(1, 2, figsize=(8, 3.8))
    titles = ("Layer 1, and the previous token", "Layer 2, and what followed last time")
    for ax, weights, pairs, title in zip(axes, layers, circuit, titles, strict=True):
        image = ax.imshow(weights[0, 0].cpu(), vmin=0, vmax=1)
        query, key = pairs[0].cpu().nonzero(as_tuple=True)
        ax.plot(key, query, "C1.", ms=5)
        ax.axhline(recall.FIRST - 0.5, color="white", lw=0.8)
        ax.axvline(recall.FIRST - 0.5, color="white", lw=0.8)
        ax.set_title(title, fontsize=10)
        ax.set(xlabel="key", ylabel="query")
        ax.grid(False)
    fig.colorbar(image, ax=list(axes), label="weight")
    run.figure(
        fig,
        "circuit_weights",
        "Both heads on one task. White lines: where the pairs start. Dots mark the circuit: in "
        "layer 1 queries 1 to 15, where F can stand, in layer 2 queries 16, 18, 20 … All weights "
        "without a dot can be hidden. A query without a dot then gets an output of 0.",
        alt="Two heat maps, query by key: a diagonal, and single bright cells.",
    )


def show_heads_on_a_sentence(run: Run, maps: Mapping[str, Any], words: Sequence[str]) -> None:
    """Draw the weights (T, T) of some heads, by title, with words on both axes."""
    fig, axes = plt.subplots(1, len(maps), figsize=(9, 3.9))
    for ax, (title, weights) in zip(axes, maps.items(), strict=True):
        image = ax.imshow(weights, vmin=0, vmax=1)
        ax.set_title(title, fontsize=10)
        ax.set_xticks(range(len(words)), words, rotation=90, fontsize=8)
        ax.set_yticks(range(len(words)), words if ax is axes[0] else [""] * len(words), fontsize=8)
        ax.set(xlabel="key")
        ax.grid(False)
    axes[0].set_ylabel("query")
    fig.colorbar(image, ax=list(axes), label="weight", shrink=0.8)
    fig.suptitle("Three heads, three patterns", fontsize=11)
    run.figure(
        fig,
        "smollm2_heads",
        "The best head for each pattern on random tokens, here on a sentence. SmolLM2's induction "
        "head looks at the first token where it finds no repetition, and on this sentence often "
        "also where there is one. A word can be several tokens (LLM04).",
        alt="Three heat maps of attention weights, query by key, with words on both axes.",
    )
