"""The drawings of LLM04+, each with its caption and a text for readers who can't see it."""

from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any

from labs.llm04_tokenization.figures import GREY, MONO, Drawn
from labs.llm04_tokenization.patterns import Split
from labs.llm04_tokenization.vocabularies import visible

import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

MergeWord = Callable[[str, str, str], tuple[str, list[str], list[str]]]
CELL = 1.0  # width of a token's cell

# encode_long_word on `lower`, with the merges `lo` (256), `er` (257), `wer` (258), `low` (259):
# what happens, `ids`, `begin`, and the buckets that wait.
LOWER = b"lower"
LOWER_MERGES = [(108, 111), (101, 114), (119, 257), (256, 119)]
LOWER_STEPS: list[tuple[str, list[int], list[int], dict[int, list[int]]]] = [
    ("start", [108, 111, 119, 101, 114], [0, 1, 2, 3, 4], {256: [0], 257: [3]}),
    ("lo = 256", [256, -1, 119, 101, 114], [0, 0, 2, 3, 4], {257: [3], 259: [0]}),
    ("er = 257", [256, -1, 119, 257, -1], [0, 0, 2, 3, 3], {258: [2], 259: [0]}),
    ("wer = 258", [256, -1, 258, -1, -1], [0, 0, 2, 3, 2], {259: [0]}),
    ("low = 259?", [256, -1, 258, -1, -1], [0, 0, 2, 3, 2], {}),
]


def _cell(ax: Any, x: float, y: float, text: str, colour: str, alpha: float = 0.3) -> None:
    ax.add_patch(Rectangle((x + 0.04, y - 0.36), 0.92, 0.72, color=colour, alpha=alpha))
    ax.text(x + 0.5, y, text, size=9, **MONO)


def changed_pairs(merge_word: MergeWord, word: str, pair: str, new: str) -> Drawn:
    """Draw a word before and after a merge, and the pairs it loses and gains."""
    merged, lost, gained = merge_word(word, pair, new)
    fig, ax = plt.subplots(figsize=(7.2, 2.4))
    places: list[float] = []  # of the tokens after the merge, each in the middle of what it was
    x = 0
    for token in merged:
        width = len(pair) if token == new else 1
        places.append(x + (width - 1) / 2)
        x += width
    taken = {i for i in range(len(word)) if any(word[j : j + 2] == pair for j in (i, i - 1))}
    for i, token in enumerate(word):
        _cell(ax, i, 0, token, "C0" if i in taken else GREY)
    for place, token in zip(places, merged, strict=True):
        _cell(ax, place, -2, token, "C0" if token == new else GREY)
    before = [(i + 0.5, a + b) for i, (a, b) in enumerate(pairwise(word))]
    after = [((places[i] + places[i + 1]) / 2, a + b) for i, (a, b) in enumerate(pairwise(merged))]
    for middle, two in before:
        colour = GREY if two in lost else "C0" if two == pair else "black"
        ax.text(middle + 0.5, 0.62, two, size=9, color=colour, **MONO)
        if two in lost:
            ax.plot([middle + 0.25, middle + 0.75], [0.62, 0.62], color=GREY, lw=1)
    for middle, two in after:
        ax.text(middle + 0.5, -2.66, two, size=9, color="C2" if two in gained else GREY, **MONO)
    ax.text(-0.4, 0, "before", ha="right", va="center", size=9)
    ax.text(-0.4, -2, f"{pair} → {new}", ha="right", va="center", size=9)
    ax.text(len(word) + 0.4, 0.62, "lost pairs are struck out", va="center", size=9, color=GREY)
    ax.text(len(word) + 0.4, -2.66, "new pairs", va="center", size=9, color="C2")
    ax.set(xlim=(-1.8, len(word) + 4.2), ylim=(-3.1, 1.0))
    ax.set_title("A merge changes only the pairs beside it")
    ax.axis("off")
    return (
        fig,
        f"The pairs of neighbours in {word}, and in {merged} after the merge of ({pair[0]}, "
        f"{pair[1]}).",
        f"{word} becomes {merged}. It loses the pairs {', '.join(lost)} and gains "
        f"{', '.join(gained)}.",
    )


def long_word_steps(tokens: Sequence[bytes]) -> Drawn:
    """Draw the array and the buckets of `encode_long_word` after each step, for `lower`."""
    fig, ax = plt.subplots(figsize=(7.6, 4.4))
    shown = {i: tokens[i].decode() for i in chain(LOWER, range(256, 260))}
    for row, (name, ids, begin, buckets) in enumerate(LOWER_STEPS):
        y = -1.5 * row
        ax.text(-0.3, y, name, ha="right", va="center", size=9)
        for place, i in enumerate(ids):
            if i >= 0:
                _cell(ax, place, y, shown[i], "C0" if i >= 256 else GREY)
                continue
            _cell(ax, place, y, "", GREY, alpha=0.1)
            if begin[place] < place:  # a token ends here
                ax.annotate(
                    "",
                    (begin[place] + 0.75, y - 0.34),
                    (place + 0.5, y - 0.2),
                    arrowprops={
                        "arrowstyle": "->",
                        "color": "C0",
                        "connectionstyle": "arc3,rad=-0.45",
                    },
                )
        waiting = [f"{new} at {places[0]}" for new, places in buckets.items()]
        for k, text in enumerate(waiting or ["empty"]):
            ax.text(6.4 + 2.2 * k, y, text, ha="center", va="center", size=9)
            if waiting:
                box = Rectangle((5.45 + 2.2 * k, y - 0.36), 1.9, 0.72, fill=False, color="C1")
                ax.add_patch(box)
    for place in range(len(LOWER)):
        ax.text(place + 0.5, 0.62, str(place), ha="center", va="center", size=8, color=GREY)
    ax.text(5.45, 0.62, "buckets: new id and place; the smallest id is next", size=8, color="C1")
    ax.text(5.45, -6.6, "a bucket was out of date: place 2 is no longer w", size=8, color=GREY)
    ax.set(xlim=(-2.2, 11.6), ylim=(-7.0, 1.0))
    ax.set_title("Each step empties the bucket with the smallest id")
    ax.axis("off")
    return (
        fig,
        "encode_long_word on lower, with the tokens lo (256), er (257), wer (258) and low (259). "
        "A cell shows the token whose id is in `ids`; a pale cell has −1. An arrow is `begin`: it "
        "leads from a token's last place to its first one.",
        "Five rows. "
        + " ".join(
            f"{name}: {' '.join(shown.get(i, '·') for i in ids)}; buckets {buckets or 'none'}."
            for name, ids, _, buckets in LOWER_STEPS
        ),
    )


def families(word: str = "lower") -> Drawn:
    """Draw the ways that three families take through the tokens of a word."""
    fig, axes = plt.subplots(3, 1, figsize=(7.2, 5.2), sharex=True)
    places = {"lo": 0, "low": 0, "wer": 2, "er": 3}
    ways = {
        "BPE: merges in the order in which they were learned": (
            {"lo": "1st: lo", "er": "2nd: er", "wer": "3rd: wer", "low": "4th: low"},
            ["lo", "wer"],
        ),
        "WordPiece: the longest token that fits, from the left": (
            {"lo": "lo", "low": "low", "er": "##er", "wer": "##wer"},
            ["low", "er"],
        ),
        "Unigram: the largest product of probabilities": (
            {"lo": "lo 0.02", "low": "low 0.01", "er": "er 0.03", "wer": "wer 0.001"},
            ["low", "er"],
        ),
    }
    for ax, (title, (labels, chosen)) in zip(axes, ways.items(), strict=True):
        for i, letter in enumerate(word):
            ax.text(i + 0.5, 0, letter, size=10, **MONO)
        ax.plot(range(len(word) + 1), [0] * (len(word) + 1), "o", color=GREY, ms=4)
        for token, label in labels.items():
            start = places[token]
            end = start + len(token)
            up = token in ("lo", "wer")
            colour = "C0" if token in chosen else GREY
            style = {
                "arrowstyle": "->",
                "color": colour,
                "lw": 2.2 if token in chosen else 1,
                "connectionstyle": f"arc3,rad={-0.35 if up else 0.35}",
            }
            ax.annotate("", (end, 0.0), (start, 0.0), arrowprops=style)
            height = (0.4 + 0.35 * (len(token) - 2)) * (1 if up else -1)
            ax.text(
                (start + end) / 2, height, label, size=9, color=colour, ha="center", va="center"
            )
        taken = " · ".join(token for token in labels if token in chosen)
        taken = taken.replace("er", "##er") if title.startswith("WordPiece") else taken
        ax.set_title(f"{title} → {taken}", size=10, loc="left")
        ax.set(xlim=(-0.2, len(word) + 0.2), ylim=(-1.25, 1.25))
        ax.axis("off")
    return (
        fig,
        "lower as a graph: a way from the first dot to the last is one way to cut the word. Blue "
        "arrows are what each family takes.",
        "Three graphs with arrows lo, low, wer and er. BPE takes lo and wer, since wer was learned "
        "before low. WordPiece takes low and ##er. Unigram takes low and er, because 0.01 × 0.03 "
        "is more than 0.02 × 0.001.",
    )


def stream(chunks: Sequence[str], stretches: Callable[[str], list[str]]) -> Drawn:
    """Draw after each chunk what was encoded before, what is encoded now, and what is held."""
    fig, ax = plt.subplots(figsize=(7.2, 2.6))
    done = held = ""
    rows: list[tuple[str, str, str]] = []
    for chunk in chunks:
        *ready, rest = stretches(held + chunk)
        rows.append((done, "".join(ready), rest))
        done += "".join(ready)
        held = rest
    rows.append((done, held, ""))
    for row, (name, parts) in enumerate(zip([*chunks, "end"], rows, strict=True)):
        x = 0
        shown = name if name == "end" else f"+ {name.replace(' ', '·')}"
        ax.text(-0.6, -row, shown, ha="right", size=9, family="monospace", va="center")
        for part, colour in zip(parts, (GREY, "C0", "C1"), strict=True):
            for letter in part.replace(" ", "·"):
                _cell(ax, x, -row, letter, colour)
                x += 1
    bottom = -len(rows) - 0.2
    for place, (text, colour) in enumerate(
        (("encoded before", GREY), ("encoded now", "C0"), ("held back", "C1"))
    ):
        ax.text(6 * place, bottom, text, color=colour, size=9, va="center")
    ax.set(xlim=(-6, max(sum(map(len, row)) for row in rows) + 0.5), ylim=(bottom - 0.4, 0.6))
    ax.set_title("The last stretch waits, because later text may extend it")
    ax.axis("off")
    return (
        fig,
        "Four chunks arrive, cut anywhere. A dot is a space.",
        "A row for each chunk: "
        + "; ".join(f"“{now}” is encoded and “{rest}” held" for _, now, rest in rows)
        + ".",
    )


def stretches(splits: dict[str, Split], text: str) -> Drawn:
    """Draw the words and the stretches of a text under each split pattern."""
    fig, ax = plt.subplots(figsize=(7.2, 3.2))
    parts: list[str] = []
    for i, (name, split) in enumerate(splits.items()):
        for j, (kind, pattern) in enumerate((("words", split.word), ("stretches", split.stretch))):
            y = -2.3 * i - 0.85 * j
            ax.text(-0.5, y, f"{name}: {kind}", ha="right", va="center", size=9)
            x = 0.0
            shown = [visible(part) for part in pattern.findall(text)]
            for k, part in enumerate(shown):
                colour = f"C{k % 6}" if j == 0 else GREY
                box = Rectangle((x + 0.08, y - 0.34), len(part) - 0.16, 0.68)
                box.set(color=colour, alpha=0.3)
                ax.add_patch(box)
                for letter in part:
                    ax.text(x + 0.5, y, letter, size=9, **MONO)
                    x += 1
            parts.append(f"{name}, {kind}: {' | '.join(shown)}")
    ax.set(xlim=(-8.5, len(text) + 0.5), ylim=(-2.3 * len(splits) + 0.8, 0.7))
    ax.set_title("Each stretch holds complete words")
    ax.axis("off")
    return (
        fig,
        "One text under two patterns. A dot is a space and ↵ a line end. Each box of the upper row "
        "is a word, each of the lower row a stretch.",
        "Four rows of boxes. " + "; ".join(parts) + ".",
    )
