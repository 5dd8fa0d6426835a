"""The drawings of LLM04, each with its caption and a text for readers who can't see it."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import mean
from typing import Any

from labs.llm04_tokenization.smollm2_tasks import Attacks
from labs.llm04_tokenization.vocabularies import (
    visible,
)

import matplotlib.pyplot as plt
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


def table_of_bytes(texts: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: each text, its code points and its bytes."""
    rows: list[list[str]] = []
    for text in texts:
        points = " ".join(f"{ord(character):04X}" for character in text)
        rows.append([text, points, text.encode().hex(" ").upper()])
    return ["text", "code points", "bytes"], rows


def utf8_bits(characters: str) -> Drawn:
    """Draw the bits of each character's UTF-8, the bits of the code point in colour."""
    fig, ax = plt.subplots(figsize=(7.2, 2.6))
    for row, character in enumerate(characters):
        data = character.encode()
        label = f"U+{ord(character):04X}, {len(data)} byte{'s' if len(data) > 1 else ''}"
        ax.text(-0.4, -row, label, ha="right", va="center", size=9)
        ax.text(-10.6, -row, character, ha="center", va="center", size=13, color=f"C{row}")
        for i, byte in enumerate(data):
            bits = f"{byte:08b}"
            fixed = (1 if byte < 0x80 else len(data) + 1) if i == 0 else 2
            for j, bit in enumerate(bits):
                x = 8.6 * i + j
                colour = GREY if j < fixed else f"C{row}"
                ax.add_patch(Rectangle((x, -row - 0.38), 0.94, 0.76, color=colour, alpha=0.3))
                ax.text(x + 0.47, -row, bit, size=8, **MONO)
    ax.set(xlim=(-11.5, 34.5), ylim=(-len(characters) + 0.4, 0.6))
    ax.set_title("UTF-8: the first byte shows how many belong together")
    ax.axis("off")
    return (
        fig,
        f"{' '.join(characters)} in UTF-8. Coloured bits are the code point; grey bits mark the "
        "bytes.",
        "Four rows of boxes with bits: A has one byte, é two, the sign of the euro three and an "
        "emoji four.",
    )


def boxes(ax: Any, y: float, tokens: Sequence[bytes], x: float = 0.0, size: float = 8) -> float:
    """Draw tokens as a row of coloured boxes; return where the row ends."""
    for i, token in enumerate(tokens):
        text = token.decode("utf-8", "replace").replace(" ", "·")
        scale = 1.0
        width = float(len(text))
        if "�" in text:  # two digits of hexadecimal for a byte, in a box that holds them
            text = token.hex().upper()
            scale = 0.9
            width = 1.2 * len(text)
        ax.barh(y, width + 0.6, left=x, color=f"C{i % 6}", alpha=0.3, align="center")
        ax.text(x + width / 2 + 0.3, y, text, size=scale * size, **MONO)
        x += width + 0.8
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
        left, right, joined = (tokens[i].decode().replace(" ", "·") for i in (*pair, new))
        note = f"{left} + {right} → {joined}, {count} {'times' if count > 1 else 'time'}"
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


def merge_orders(merge: Callable[[list[int], Pair, int], list[int]]) -> Drawn:
    """Draw `abc` under the merges (a, b) and (b, c), in the order of training and in the other."""
    tokens = {97: "a", 98: "b", 99: "c", 256: "256 = ab", 257: "257 = bc"}
    learned: list[tuple[Pair, int]] = [((97, 98), 256), ((98, 99), 257)]
    fig, ax = plt.subplots(figsize=(7.2, 2.3))
    results: list[str] = []
    for column, (name, order) in enumerate(
        (("as learned: (a, b) first", learned), ("(b, c) first", learned[::-1]))
    ):
        left = 14.0 * column
        ids = [97, 98, 99]
        ax.text(left, 0.75, name, size=9.5, color="C2" if column == 0 else "C3")
        for step in range(3):
            x = left
            for i in ids:
                width = 2.4 * (2 if i >= 256 else 1)
                colour = "C0" if i >= 256 else GREY
                ax.add_patch(Rectangle((x, -step - 0.36), width, 0.72, color=colour, alpha=0.3))
                ax.text(x + width / 2, -step, tokens[i], size=9, **MONO)
                x += width + 0.2
            if step < 2:
                before = ids
                ids = merge(ids, *order[step])
                pair = ", ".join(tokens[i] for i in order[step][0])
                note = f"({pair})" if ids != before else f"({pair}): not there"
                ax.text(left + 8.0, -step - 0.5, f"↓ {note}", size=8.5, va="center", color=GREY)
        results.append(" ".join(tokens[i] for i in ids))
    ax.set(xlim=(-0.5, 27), ylim=(-2.6, 1.2))
    ax.set_title("The order of merges decides the ids")
    ax.axis("off")
    return (
        fig,
        "The word abc with the same two merges, applied in two orders.",
        f"Two columns of boxes. As learned, abc becomes {results[0]}; otherwise {results[1]}.",
    )


def attacks(attacks: Attacks) -> Drawn:
    """Draw the log-probability of BANANA for each typed turn, as text and injected."""
    fig, ax = plt.subplots(figsize=(7.2, 3.2))
    turns = [*dict.fromkeys(turn for turn, _ in attacks.scores)]
    for (turn, form), values in attacks.scores.items():
        y = -turns.index(turn) - (0.16 if form == "injected" else -0.16)
        colour = "C1" if form == "injected" else "C0"
        ax.plot(values, [y] * len(values), "o", color=colour, alpha=0.4, ms=4)
        ax.plot(mean(values), y, "|", color=colour, ms=18, mew=2.5)
        if turn == turns[0]:
            above = 0.24 if form == "as text" else -0.34
            ax.text(mean(values), y + above, form, color=colour, size=9, ha="center")
    ax.set_yticks(range(0, -len(turns), -1), turns)
    ax.set(ylim=(-len(turns) + 0.4, 0.6), xlabel="log-probability of BANANA (nats)")
    ax.set_title("BANANA after a typed turn, as text and injected", size=11)
    means = "; ".join(f"{a}, {b}: {mean(v):.1f}" for (a, b), v in attacks.scores.items())
    return (
        fig,
        "A dot for each question; lines are means. Further right, BANANA is likelier.",
        f"A dot plot with three rows and two colours. Means in nats: {means}.",
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
            text = visible(tokenizer.decode([i]))
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
