"""More drawings of LLM04: what a vocabulary means for batches, answers and languages."""

from collections.abc import Sequence
from itertools import accumulate
from statistics import mean, stdev
from typing import Any

from labs.llm04_tokenization.figures import GREY, Drawn, boxes
from labs.llm04_tokenization.smollm2_tasks import Completions
from labs.llm04_tokenization.vocabularies import (
    Prices,
    Vocabulary,
    by_price,
    words_relative_to_english,
)

import matplotlib.pyplot as plt
import regex
from matplotlib.patches import Rectangle


def batch(
    texts: list[str], tokenizer: Any, rows: list[list[int]], changes: dict[str, list[float]]
) -> Drawn:
    """Draw a batch padded on the left, and how far each row's prediction moves."""
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(7.2, 5.6), height_ratios=[1.3, 1])
    width = max(map(len, rows))
    for y, row in enumerate(rows):
        missing = width - len(row)
        for x in range(width):
            real = x >= missing
            text = tokenizer.decode([row[x - missing]]).strip() if real else "pad"
            colour = "C0" if real else GREY
            top.add_patch(Rectangle((x + 0.04, -y - 0.42), 0.92, 0.84, color=colour, alpha=0.25))
            size = 8 if len(text) < 9 else 6.5
            top.text(x + 0.5, -y, text, ha="center", va="center", size=size)
    top.set(xlim=(0, width), ylim=(-len(texts) + 0.4, 0.6))
    top.set_title("Eight prompts, padded on the left", size=11)
    top.axis("off")
    for y, (name, values) in enumerate(changes.items()):
        bottom.plot(values, [-y - 0.15] * len(values), "o", color=f"C{y % 2}", alpha=0.7, ms=5)
        bottom.text(8e-6, -y + 0.2, name, va="center", size=9)
    bottom.set_xscale("log")
    bottom.set(yticks=[], xlim=(6e-6, 100), ylim=(-len(changes) + 0.5, 0.6))
    bottom.set(xlabel="largest change of a log-probability (nats)")
    bottom.set_title("Padding in front needs the mask", size=11)
    return (
        fig,
        "Eight prompts as a batch. A dot below is a prompt that is padded: by how much its "
        "prediction differs from that of the prompt alone.",
        "A grid of eight rows of tokens padded on the left with grey cells, and a dot plot on a "
        "log scale of the largest change, in nats: "
        + "; ".join(f"{name}: {min(v):.1g} to {max(v):.1g}" for name, v in changes.items())
        + ".",
    )


def lengths(sizes: list[int], costs: list[tuple[int, float, float, float]]) -> Drawn:
    """Draw the share of blocks and of tokens up to a length, and what each limit costs and saves.

    Args:
        sizes: the lengths of the blocks, in tokens.
        costs: limits, each with the share of tokens lost, of steps saved and of padding.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.6))
    sizes = sorted(sizes)
    tokens = sum(sizes)
    blocks = [(i + 1) / len(sizes) for i in range(len(sizes))]
    left.step(sizes, blocks, where="post", color="C1")
    left.step(sizes, [share / tokens for share in accumulate(sizes)], where="post", color="C0")
    middle = sizes[len(sizes) // 2]
    left.text(middle * 0.8, 0.56, "of blocks", color="C1", size=9, ha="right")
    left.text(middle * 6, 0.42, "of tokens", color="C0", size=9)
    left.set(xlabel="tokens in a block", ylabel="share in blocks up to this length")
    left.set_title("A few long blocks hold much of the text", size=11)
    limits, lost, saved, padding = zip(*costs, strict=True)
    right.plot(limits, padding, "o-", color="C2", ms=4)
    right.plot(limits, saved, "o-", color="C0", ms=4)
    right.plot(limits, lost, "o-", color="C3", ms=4)
    right.text(limits[-1], padding[-1] + 0.04, "padding", color="C2", size=9, ha="right")
    right.text(limits[2] * 1.2, saved[2] + 0.02, "steps saved", color="C0", size=9)
    right.text(limits[1] * 1.3, lost[1] - 0.02, "tokens lost", color="C3", size=9)
    right.set(xlabel="limit, in tokens", ylabel="share")
    right.set_title("A limit saves steps and loses text", size=11)
    for ax, ticks in ((left, [1, 4, 16, 64, 256]), (right, limits)):
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks, map(str, ticks))
        ax.set(ylim=(0, 1.02))
    return (
        fig,
        f"Left: {len(sizes):,} blocks of the plays in SmolLM2's tokens. Right, for batches of 32 "
        "blocks in random order: the tokens beyond the limit, the steps saved relative to no "
        "limit, and the share of padding in the remaining steps.",
        "Left, two rising curves over the length on a log scale: that of blocks rises long before "
        "that of tokens. Right, three curves over the limit: "
        + "; ".join(
            f"limit {n}: {a:.0%} of tokens lost, {b:.0%} of steps saved, {c:.0%} padding"
            for n, a, b, c in costs
        )
        + ".",
    )


def one_sentence(sentence: str, vocabularies: Sequence[Vocabulary]) -> Drawn:
    """Draw a sentence under each vocabulary."""
    fig, ax = plt.subplots(figsize=(7.2, 3.4))
    names: list[str] = []
    counts: list[int] = []
    for y, vocabulary in enumerate(vocabularies):
        pieces = vocabulary.pieces(sentence)
        boxes(ax, -y, pieces, size=7)
        counts.append(len(pieces))
        names.append(f"{vocabulary.name}: {len(pieces)}")
    ax.set_yticks(range(0, -len(names), -1), names)
    ax.set(xticks=[], title=f"One sentence takes {min(counts)} to {max(counts)} tokens")
    ax.tick_params(left=False)
    ax.set_xlim(left=-1)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.grid(False)
    return (
        fig,
        "A dot is a space; Mistral 7B's and J2's add one in front. Bytes that are no text by "
        "themselves are in hexadecimal.",
        f"“{sentence}” in six rows of coloured boxes, one box for each token.",
    )


def answers(spelled: dict[str, list[float]], completed: Completions) -> Drawn:
    """Draw the results with letters and with tokens, and what follows a space."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.8, 3.4), width_ratios=[1, 1.6])
    words = len(next(iter(spelled.values())))
    left.set_title("It spells better from letters", size=11)
    left.set_ylabel(f"share of {words} words spelled right")
    after = {
        "the word,\nno space": completed.word,
        "the word,\nafter a space": completed.word_after_space,
        "a digit,\nafter a space": completed.digit_after_space,
    }
    right.set_title("A space at the end makes SmolLM2 expect a digit", size=11)
    right.set_ylabel("probability")
    for ax, bars in ((left, {f"given as\n{k}": v for k, v in spelled.items()}), (right, after)):
        for x, values in enumerate(bars.values()):
            error = stdev(values) / len(values) ** 0.5
            ax.bar(x, mean(values), yerr=error, color=f"C{x}", alpha=0.7, width=0.6)
            shown = f"{mean(values):.2g}" if mean(values) else "0"
            ax.text(x, mean(values) + error + 0.03, shown, ha="center", size=9)
        ax.set(ylim=(0, 1.16))
        ax.set_xticks(range(len(bars)), list(bars), size=9)
        ax.grid(False, axis="x")
    return (
        fig,
        f"4-bit SmolLM2 on {words} words and {len(completed.word)} sentences. Lines are standard "
        "errors.",
        "Bars. Left: words spelled right, given as letters and as tokens. Right: the probability "
        "of the expected word is high without the space; with it, that of a digit is near 1.",
    )


def languages(prices: Prices, word: regex.Pattern[str]) -> Drawn:
    """Draw the price of each language with its spread, and the two factors of SmolLM2's price.

    Args:
        prices: by vocabulary and language, of each paragraph.
        word: the pattern whose words are counted.
    """
    order = by_price(prices["SmolLM2"])
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 5.6), sharey=True)
    markers = {"SmolLM2": "o", "Mistral 7B": "v", "AI21 J2": "^", "DeepSeek": "s", "Tekken": "D"}
    for i, (name, marker) in enumerate(markers.items()):
        costs = [prices[name][language] for language in order]
        y = [place + 0.3 - 0.15 * i for place in range(len(order))]
        style: dict[str, Any] = {"fmt": marker, "color": f"C{i}", "ms": 4.5, "lw": 1}
        left.errorbar([*map(mean, costs)], y, xerr=[*map(stdev, costs)], label=name, **style)
    left.set_yticks(range(len(order)), order)
    left.set(ylim=(-0.6, len(order) - 0.4), xlabel="tokens ÷ tokens of the English paragraph")
    left.legend(loc="lower right", fontsize=8.5)
    left.set_title("The price of the same meaning", size=11)
    words = {k: mean(v) for k, v in words_relative_to_english(word).items()}
    for place, language in enumerate(order):
        w = words[language]
        price = mean(prices["SmolLM2"][language])
        right.barh(place + 0.17, w - 1, 0.3, left=1, color=GREY, alpha=0.6)
        right.barh(place - 0.17, price - w, 0.3, left=w, color="C0", alpha=0.6)
        right.plot(price, place - 0.17, "o", color="C0", ms=5)
        if language == "Hindi":
            right.text(w * 1.06, place + 0.17, f"{w:.1f} × the words", size=9, va="center")
            tokens = f"× {price / w:.1f} for tokens per word"
            right.text(w / 1.06, place - 0.17, tokens, color="C0", size=9, ha="right", va="center")
    right.axvline(1, color=GREY, lw=0.8)
    right.set(xlabel="relative to English", xlim=(0.2, 9))
    right.set_title("SmolLM2's price: words × tokens per word", size=11)
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.minorticks_off()
    left.set_xticks([1, 2, 4, 8], ["1×", "2×", "4×", "8×"])
    right.set_xticks([1 / 4, 1 / 2, 1, 2, 4, 8], ["¼×", "½×", "1×", "2×", "4×", "8×"])
    shown = "; ".join(
        f"{k}: {words[k]:.2f} times the words of English, price "
        f"{mean(prices['SmolLM2'][k]):.1f} with SmolLM2 and {mean(prices['Tekken'][k]):.1f} with "
        "Tekken"
        for k in ("Hindi", "Thai", "Chinese")
    )
    return (
        fig,
        "Left: lines span one standard deviation over 16 paragraphs to each side. Right: the grey "
        "bar leads from 1 to the words ÷ English, the blue bar from there to the price. A grey bar "
        "to the left means fewer words than English.",
        "Left, a dot plot with a row for each of twelve languages and a marker for each of five "
        "vocabularies. Right, two bars for each language: from 1 to its words, and on to its "
        f"price. {shown}.",
    )
