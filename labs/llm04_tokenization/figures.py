"""The drawings of LLM04."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import mean, stdev
from typing import Any

from labs.llm04_tokenization.vocabularies import Vocabulary

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

Pair = tuple[int, int]
GREY = "#8a929c"
MONO: dict[str, Any] = {"family": "monospace", "ha": "center", "va": "center"}


def utf8_bits(characters: str) -> Figure:
    """Draw the bits of each character's UTF-8, the bits of the code point in colour."""
    fig, ax = plt.subplots(figsize=(7.2, 2.6))
    for row, character in enumerate(characters):
        data = character.encode()
        label = f"U+{ord(character):04X}, {len(data)} byte{'s' if len(data) > 1 else ''}"
        ax.text(-0.4, -row, label, ha="right", va="center", size=9)
        for i, byte in enumerate(data):
            bits = f"{byte:08b}"
            fixed = (1 if byte < 0x80 else len(data) + 1) if i == 0 else 2
            for j, bit in enumerate(bits):
                x = 8.6 * i + j
                colour = GREY if j < fixed else f"C{row}"
                ax.add_patch(Rectangle((x, -row - 0.38), 0.94, 0.76, color=colour, alpha=0.3))
                ax.text(x + 0.47, -row, bit, size=8, **MONO)
    ax.set(xlim=(-9.5, 34.5), ylim=(-len(characters) + 0.4, 0.6))
    ax.set_title("UTF-8: the first byte shows how many belong together")
    ax.axis("off")
    return fig


def boxes(ax: Any, y: float, tokens: Sequence[bytes], x: float = 0.0) -> float:
    """Draw tokens as a row of coloured boxes; return where the row ends."""
    for i, token in enumerate(tokens):
        text = token.decode("utf-8", "replace").replace(" ", "·")
        text = token.hex().upper() if "�" in text else text
        ax.barh(y, len(text) + 0.6, left=x, color=f"C{i % 6}", alpha=0.3, align="center")
        ax.text(x + len(text) / 2 + 0.3, y, text, size=8, **MONO)
        x += len(text) + 0.8
    return x


def merge_steps(
    words: dict[bytes, int],
    merges: list[Pair],
    merge: Callable[[list[int], Pair, int], list[int]],
) -> Figure:
    """Draw each word after each merge."""
    tokens = [bytes([byte]) for byte in range(256)]
    spelled = {word: list(word) for word in words}
    fig, ax = plt.subplots(figsize=(7.2, 3.2))
    note = "the bytes"
    for step in range(len(merges) + 1):
        x = 0.0
        for word, ids in spelled.items():
            x = boxes(ax, -step, [tokens[i] for i in ids], x) + 1.2
            if words[word] > 1:
                ax.text(x - 1.0, -step, f"×{words[word]}", size=8, color=GREY, va="center")
        ax.text(-0.8, -step, note, ha="right", va="center", size=9)
        if step == len(merges):
            break
        pair = merges[step]
        count = sum(words[w] for w, ids in spelled.items() for p in pairwise(ids) if p == pair)
        tokens.append(tokens[pair[0]] + tokens[pair[1]])
        new = len(tokens) - 1
        left, right, made = (tokens[i].decode().replace(" ", "·") for i in (*pair, new))
        note = f"{left} + {right} → {made}, {count} {'times' if count > 1 else 'time'}"
        spelled = {word: merge(ids, pair, new) for word, ids in spelled.items()}
    ax.set(xlim=(-15, 34), ylim=(-len(merges) - 0.6, 0.6))
    ax.set_title("Each merge joins the most frequent pair of neighbours")
    ax.axis("off")
    return fig


def batch(
    texts: list[str], tokenizer: Any, rows: list[list[int]], shifts: dict[str, Any]
) -> Figure:
    """Draw a batch padded on the left, and how far each row's prediction moves."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=[2.2, 1])
    width = max(map(len, rows))
    for y, row in enumerate(rows):
        missing = width - len(row)
        for x in range(width):
            real = x >= missing
            text = tokenizer.decode([row[x - missing]]).strip() if real else "pad"
            colour = "C0" if real else GREY
            left.add_patch(Rectangle((x + 0.04, -y - 0.42), 0.92, 0.84, color=colour, alpha=0.25))
            left.text(x + 0.5, -y, text, ha="center", va="center", size=7.5)
    left.set(xlim=(0, width), ylim=(-len(texts) + 0.4, 0.6))
    left.set_title("Eight prompts, padded on the left", size=11)
    left.axis("off")
    names = [*shifts]
    values = [mean(shifts[name]) for name in names]
    right.barh(range(0, -4, -1), values, color=["C2", "C1", "C2", "C1"], alpha=0.7, height=0.4)
    for y, (name, value) in enumerate(zip(names, values, strict=True)):
        shown = f"{value:.2f}" if value > 0.005 else "0"
        right.text(0, -y + 0.36, f"{name}: {shown}", va="center", size=7.5)
    right.set(yticks=[], ylim=(-3.5, 0.8), xlabel="mean shift (nats)")
    right.set_title("Padding before a text needs a mask", size=11)
    right.grid(False)
    return fig


def lengths(sizes: list[int], limit: int, lost: float) -> Figure:
    """Draw the histogram of lengths, by number of texts and by tokens."""
    fig, ax = plt.subplots(figsize=(6.4, 3.4))
    bins = [2 ** (i / 2) for i in range(2 * math.ceil(math.log2(sizes[-1])) + 1)]
    total = sum(sizes)
    ax.hist(sizes, bins, weights=[size / total for size in sizes], color="C0", alpha=0.5)
    each = [1 / len(sizes)] * len(sizes)
    ax.hist(sizes, bins, weights=each, histtype="step", color="C1", lw=2)
    top = ax.get_ylim()[1]
    ax.axvline(limit, color=GREY, ls="--")
    ax.text(
        limit * 1.08,
        top * 0.97,
        f"limit {limit}:\n{lost:.0%} of the\ntokens lost",
        va="top",
        size=9,
    )
    ax.text(4, top * 0.9, "share of\nblocks", color="C1", size=9, va="top", ha="center")
    ax.text(bins[-5], top * 0.35, "share of\ntokens", color="C0", size=9, va="top", ha="center")
    ax.set_xscale("log", base=2)
    ax.set(
        xlabel="tokens in a block", ylabel="share", title="A few long blocks hold much of the text"
    )
    return fig


def one_sentence(sentence: str, vocabularies: Sequence[Vocabulary]) -> Figure:
    """Draw a sentence under each vocabulary."""
    fig, ax = plt.subplots(figsize=(7.2, 3.4))
    names: list[str] = []
    counts: list[int] = []
    for y, vocabulary in enumerate(vocabularies):
        pieces = vocabulary.pieces(sentence)
        boxes(ax, -y, pieces)
        counts.append(len(pieces))
        names.append(f"{vocabulary.name}: {len(pieces)}")
    ax.set_yticks(range(0, -len(names), -1), names)
    ax.set(xticks=[], title=f"One sentence takes {min(counts)} to {max(counts)} tokens")
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.grid(False)
    return fig


def answers(results: dict[str, dict[str, list[float]]]) -> Figure:
    """Draw pairs of bars with standard errors, one pair for each task."""
    fig, axes = plt.subplots(1, 3, figsize=(8.6, 3.0))
    for ax, (title, pair) in zip(axes, results.items(), strict=True):
        for x, (colour, values) in enumerate(zip(("C0", "C1"), pair.values(), strict=True)):
            error = stdev(values) / len(values) ** 0.5
            ax.bar(x, mean(values), yerr=error, color=colour, alpha=0.7, width=0.6)
            shown = f"{mean(values):.2g}" if mean(values) else "0"
            ax.text(x, mean(values) + error + 0.03, shown, ha="center", size=9)
        count = len(next(iter(pair.values())))
        ax.set(ylim=(0, 1.08), title=f"{title}, of {count}")
        ax.set_xticks(range(2), list(pair), size=8.5)
        ax.grid(False, axis="x")
    axes[0].set_ylabel("share or probability")
    fig.suptitle("Small changes in the tokens, large changes in the results", size=12)
    return fig


def languages(ratios: dict[str, dict[str, list[float]]], order: list[str]) -> Figure:
    """Draw the ratio to English by language, with its spread over paragraphs."""
    fig, ax = plt.subplots(figsize=(7.2, 5.2))
    shown = {"SmolLM2": "o", "DeepSeek": "s", "Tekken": "D", "UTF-8 bytes": "|"}
    for i, (name, marker) in enumerate(shown.items()):
        colour = f"C{i}" if marker != "|" else GREY
        x = [mean(ratios[name][language]) for language in order]
        y = [place + 0.24 - 0.16 * i for place in range(len(order))]
        errors = [stdev(ratios[name][language]) for language in order]
        ax.errorbar(x, y, xerr=errors, fmt=marker, color=colour, ms=9 if marker == "|" else 5, lw=1)
        ax.text(x[-1], len(order) - 0.42 + 0.42 * (i % 2), name, color=colour, ha="center", size=9)
    ax.set_yticks(range(len(order)), order)
    ax.set_xscale("log", base=2)
    ax.set_xticks([1, 2, 4, 8], ["1×", "2×", "4×", "8×"])
    ax.minorticks_off()
    ax.set(ylim=(-0.6, len(order) + 0.5), xlabel="tokens ÷ tokens of the English paragraph")
    ax.set_title("The price of the same meaning depends on language and vocabulary")
    return fig


def growth(lengths_: list[int], times: dict[str, list[float]]) -> Figure:
    """Draw the time to encode one word over its length, on log scales."""
    fig, ax = plt.subplots(figsize=(6.4, 3.6))
    for i, (name, seconds) in enumerate(times.items()):
        x = lengths_[: len(seconds)]
        ax.loglog(x, seconds, "o-", color=f"C{i}")
        ax.text(x[-1] * 1.1, seconds[-1], name, color=f"C{i}", va="center", size=9)
    ax.set(xlim=(lengths_[0] * 0.8, lengths_[-1] * 6))
    ax.set(
        xlabel="letters in the word",
        ylabel="seconds",
        title="Buckets encode long words much faster",
    )
    return fig


def vocabulary_size(
    sizes: list[int], lengths_: dict[str, list[float]], bits: list[float]
) -> Figure:
    """Draw bytes per token and bits per byte over the size of the vocabulary."""
    fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.4))
    for i, (name, values) in enumerate(lengths_.items()):
        axes[0].plot(sizes, values, "o-", color=f"C{i}", ms=4)
        place = values[-1] + (0.07 if name == "Python" else -0.07 if name == "German" else 0)
        axes[0].text(sizes[-1] * 1.12, place, name, color=f"C{i}", va="center", size=8.5)
    axes[1].plot(sizes, bits, "o-", color="C0", ms=4)
    axes[0].set(title="Bytes per token", ylabel="bytes", xlim=(sizes[0] * 0.9, sizes[-1] * 7))
    axes[1].set(title="A unigram model's loss", ylabel="bits per byte")
    for ax in axes:
        ax.set_xscale("log", base=2)
        ax.set(xlabel="ids in the vocabulary")
    return fig


def batches(pictures: dict[str, list[list[int]]]) -> Figure:
    """Draw batches as grids: 0 is padding, other numbers alternate between texts."""
    fig, axes = plt.subplots(1, len(pictures), figsize=(8.6, 3.2), sharey=True)
    width = max(len(row) for rows in pictures.values() for row in rows)
    for ax, (title, rows) in zip(axes, pictures.items(), strict=True):
        filled = [row + [0] * (width - len(row)) for row in rows]
        ax.imshow(filled, cmap="Blues", vmin=0, vmax=3, aspect="auto", interpolation="none")
        ax.set(title=title, xlabel="tokens")
        ax.grid(False)
    axes[0].set_ylabel("row of the batch")
    return fig
