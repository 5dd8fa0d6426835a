"""The drawings of LLM04, each with its caption and a text for readers who can't see it."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from statistics import mean, stdev
from typing import Any

from labs.llm04_tokenization.smollm2_tasks import Completions
from labs.llm04_tokenization.vocabularies import Prices, Vocabulary

import matplotlib.pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

Drawn = tuple[Figure, str, str]  # the figure, its caption, its alt text
Pair = tuple[int, int]
GREY = "#8a929c"
MONO: dict[str, Any] = {"family": "monospace", "ha": "center", "va": "center"}


def show(run: Any, name: str, drawn: Drawn) -> None:
    """Add a drawing to the page of the run, under this name."""
    fig, caption, alt = drawn
    run.figure(fig, name, caption, alt=alt)


def utf8_bits(characters: str) -> Drawn:
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
    return (
        fig,
        "A, é, 漢 and 🙂 in UTF-8. Coloured bits are the code point; grey bits mark the bytes.",
        "Four rows of boxes with bits: A has one byte, é two, 漢 three and an emoji four.",
    )


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
) -> Drawn:
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
    return (
        fig,
        "Four merges on “low low lower”. A dot is a space. Of equally frequent pairs the smallest "
        "is merged.",
        "Five rows of coloured boxes: 13 bytes become fewer and longer tokens.",
    )


def injection(tokenizer: Any, typed: str) -> Drawn:
    """Draw what a user typed as the tokens of two calls, special tokens in another colour."""
    special = set(tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]))
    calls = {
        "tokenizer(text)": tokenizer(typed).input_ids,
        "tokenizer(text, split_special_tokens=True)": tokenizer(
            typed, split_special_tokens=True
        ).input_ids,
    }
    fig, ax = plt.subplots(figsize=(7.2, 2.2))
    for y, (call, ids) in enumerate(calls.items()):
        found = sum(i in special for i in ids)
        ax.text(0, -y + 0.36, f"{call}: {len(ids)} tokens, {found} special", size=9.5)
        x = 0.0
        for i in ids:
            text = tokenizer.decode([i]).replace(" ", "·").replace("\n", "↵")
            colour = "C1" if i in special else "C0"
            ax.barh(-y, len(text) + 0.6, 0.5, left=x, color=colour, alpha=0.3)
            ax.text(x + len(text) / 2 + 0.3, -y, text, size=8, **MONO)
            x += len(text) + 0.8
    ax.set(ylim=(-1.35, 0.55), title="Injected, one token ends the user's turn")
    ax.axis("off")
    return (
        fig,
        "What the user typed. Orange tokens are special; ↵ is a line end and a dot a space.",
        "Two rows of boxes, one for each token. In the first, <|im_end|> and <|im_start|> are one "
        "orange box each; in the second, each of them is several blue ones.",
    )


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
        "log scale: about 0.00003 with the mask, about 10 without.",
    )


def lengths(sizes: list[int], limit: int, beyond: float) -> Drawn:
    """Draw which share of the blocks, and of their tokens, is in blocks up to a length."""
    fig, ax = plt.subplots(figsize=(6.4, 3.6))
    tokens = sum(sizes)
    blocks = [(i + 1) / len(sizes) for i in range(len(sizes))]
    ax.step(sizes, blocks, where="post", color="C1")
    ax.step(sizes, [share / tokens for share in accumulate(sizes)], where="post", color="C0")
    ax.axvline(limit, color=GREY, ls="--")
    longer = sum(size for size in sizes if size > limit) / tokens
    note = f"longer than {limit}:\n{longer:.0%} of the tokens;\nbeyond the limit: {beyond:.0%}"
    ax.text(limit * 1.08, 0.04, note, size=8.5)
    ax.text(sizes[len(sizes) // 2] * 0.8, 0.56, "of blocks", color="C1", size=9, ha="right")
    ax.text(limit * 1.8, 0.66, "of tokens", color="C0", size=9)
    ax.set_xscale("log", base=2)
    ax.set_xticks([1, 4, 16, 64, 256, 1024], ["1", "4", "16", "64", "256", "1,024"])
    ax.set(xlabel="tokens in a block", ylabel="share in blocks up to this length", ylim=(0, 1.02))
    ax.set_title("A few long blocks hold much of the text")
    return (
        fig,
        f"Lengths of {len(sizes):,} blocks of the plays. The limit cuts the longest tenth.",
        "Two rising curves over the length on a log scale. At the dashed limit the curve of blocks "
        "has reached 0.9, that of tokens is well below.",
    )


def one_sentence(sentence: str, vocabularies: Sequence[Vocabulary]) -> Drawn:
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
    return (
        fig,
        "A dot is a space; Mistral 7B's adds one in front. Bytes that are no text by themselves "
        "are in hexadecimal.",
        f"“{sentence}” in six rows of coloured boxes, one box for each token.",
    )


def answers(spelled: dict[str, list[float]], completed: Completions) -> Drawn:
    """Draw the results with letters and with tokens, and what follows a space."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), width_ratios=[1, 1.6])
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
        f"SmolLM2 on {words} words and {len(completed.word)} sentences. Lines are standard errors.",
        "Bars. Left: words spelled right, given as letters and as tokens. Right: the probability "
        "of the expected word is high without the space; with it, that of a digit is near 1.",
    )


def languages(prices: Prices, order: list[str]) -> Drawn:
    """Draw the ratio to English by language, with its spread over paragraphs."""
    fig, ax = plt.subplots(figsize=(7.2, 5.2))
    shown = {"SmolLM2": "o", "DeepSeek": "s", "Tekken": "D", "UTF-8 bytes": "|"}
    for i, (name, marker) in enumerate(shown.items()):
        colour = f"C{i}" if marker != "|" else GREY
        costs = [[price for price, *_ in prices[name][language]] for language in order]
        x = [*map(mean, costs)]
        y = [place + 0.24 - 0.16 * i for place in range(len(order))]
        errors = [*map(stdev, costs)]
        ax.errorbar(x, y, xerr=errors, fmt=marker, color=colour, ms=9 if marker == "|" else 5, lw=1)
        ax.text(x[-1], len(order) - 0.42 + 0.42 * (i % 2), name, color=colour, ha="center", size=9)
    ax.set_yticks(range(len(order)), order)
    ax.set_xscale("log", base=2)
    ax.set_xticks([1, 2, 4, 8], ["1×", "2×", "4×", "8×"])
    ax.minorticks_off()
    ax.set(ylim=(-0.6, len(order) + 0.5), xlabel="tokens ÷ tokens of the English paragraph")
    ax.set_title("The price of the same meaning depends on language and vocabulary")
    return (
        fig,
        "Lines span one standard deviation over 16 paragraphs to each side.",
        "Dot plot with a row for each of twelve languages and a marker for each of three "
        "vocabularies and for UTF-8's bytes, with error bars.",
    )


def growth(times: dict[str, dict[int, float]]) -> Drawn:
    """Draw the time to encode one word over its length, on log scales."""
    fig, ax = plt.subplots(figsize=(6.4, 3.6))
    for i, (name, seconds) in enumerate(times.items()):
        lengths_ = [*seconds]
        ax.loglog(lengths_, [*seconds.values()], "o-", color=f"C{i}")
        ax.text(lengths_[-1] * 1.1, seconds[lengths_[-1]], name, color=f"C{i}", va="center", size=9)
    longest = max(max(seconds) for seconds in times.values())
    ax.set(xlim=(400, longest * 6), xlabel="letters in the word", ylabel="seconds of CPU time")
    ax.set_title("Buckets encode long words much faster")
    return (
        fig,
        "Time to encode a word of random letters.",
        "Two lines on log scales: round by round lies far above and rises more steeply.",
    )


def vocabulary_size(sizes: list[int], lengths_: dict[str, list[float]], bits: list[float]) -> Drawn:
    """Draw bytes per token and bits per byte over the size of the vocabulary."""
    fig, axes = plt.subplots(1, 2, figsize=(9.4, 3.6))
    for i, (name, values) in enumerate(lengths_.items()):
        axes[0].plot(sizes, values, "o-", color=f"C{i}", ms=4)
        place = values[-1] + (0.07 if name == "Python" else -0.07 if name == "German" else 0)
        axes[0].text(sizes[-1] * 1.12, place, name, color=f"C{i}", va="center", size=8.5)
    axes[1].plot(sizes, bits, "o-", color="C0", ms=4)
    axes[0].set_title("Tokens grow on unseen plays, not on Greek", size=11)
    axes[0].set(ylabel="bytes per token", xlim=(sizes[0] * 0.9, sizes[-1] * 7))
    axes[1].set_title("The frequency model gains from larger tokens", size=11)
    axes[1].set(ylabel="bits per byte")
    for ax in axes:
        ax.set_xscale("log", base=2)
        ax.set_xticks(sizes)
        ax.set(xlabel="ids in the vocabulary")
    return (
        fig,
        "Vocabularies learned from the plays. Fewer bits per byte are better.",
        "Two line plots over the size of the vocabulary: bytes per token for four kinds of text, "
        "and bits per byte of the frequency model.",
    )


def batches(pictures: dict[str, list[list[int]]]) -> Drawn:
    """Draw batches as grids: 0 is padding, 1 and 2 alternate between texts, 3 is an end."""
    fig, axes = plt.subplots(1, len(pictures), figsize=(8.6, 3.2), sharex=True, sharey=True)
    colours = ListedColormap(["#8a929c66", "#9ecae1", "#3182bd", "#08306b"])
    for ax, (title, rows) in zip(axes, pictures.items(), strict=True):
        width = max(map(len, rows))
        filled = [row + [0] * (width - len(row)) for row in rows]
        ax.imshow(filled, cmap=colours, vmin=0, vmax=3, aspect="auto", interpolation="none")
        ax.set(title=title, xlabel="tokens")
        ax.grid(False)
    longest = max(len(row) for rows in pictures.values() for row in rows)
    axes[0].set(ylabel="row of the batch", xlim=(0, longest))
    return (
        fig,
        "A batch of 32 rows in three ways; grey is padding. The batch from a bucket is one of the "
        "longer ones, with a share of padding near that of all. In the packed batch, neighbouring "
        "blocks have two blues, and the dark ids are the ends.",
        "Three pictures of a batch with a line for each row: in random order a few long rows make "
        "it wide and mostly grey, in a bucket all rows are long, packed it has no grey.",
    )
