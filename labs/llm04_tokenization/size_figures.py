"""Drawings of LLM04+: what grows with a text, a vocabulary and a batch."""

from collections.abc import Callable

from labs.llm04_tokenization.figures import Drawn

import matplotlib.pyplot as plt
from matplotlib.colors import ListedColormap


def growth(times: dict[str, dict[int, float]]) -> Drawn:
    """Draw the time to encode one word over its length, on log scales."""
    fig, ax = plt.subplots(figsize=(6.4, 3.6))
    for i, (name, seconds) in enumerate(times.items()):
        lengths_ = [*seconds]
        ax.loglog(lengths_, [*seconds.values()], "o-", color=f"C{i}")
        middle = lengths_[len(lengths_) // 2]
        ax.text(middle * 0.9, seconds[middle] * 1.6, name, color=f"C{i}", ha="right", size=9)
    longest = max(max(seconds) for seconds in times.values())
    ax.set(xlim=(400, longest * 1.3), xlabel="letters in the word", ylabel="seconds of CPU time")
    ax.set_title("Buckets encode long words much faster")
    return (
        fig,
        "CPU time to encode a word of random letters: other programs' time isn't counted.",
        "Two lines on log scales: round by round lies far above and rises more steeply.",
    )


def vocabulary_size(sizes: list[int], lengths_: dict[str, list[float]], bits: list[float]) -> Drawn:
    """Draw bytes per token and bits per byte over the size of the vocabulary."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.6))
    for i, (name, values) in enumerate(lengths_.items()):
        axes[0].plot(sizes, values, "o-", color=f"C{i}", ms=4)
        place = values[-1] + (0.07 if name == "Python" else -0.07 if name == "German" else 0)
        axes[0].text(sizes[-1] * 1.12, place, name, color=f"C{i}", va="center", size=8.5)
    axes[1].plot(sizes, bits, "o-", color="C0", ms=4)
    axes[0].set_title("Tokens grow on unseen plays, not on Greek", size=11)
    axes[0].set(ylabel="bytes per token", xlim=(sizes[0] * 0.9, sizes[-1] * 7))
    axes[1].set_title("Larger tokens need fewer bits per byte", size=11)
    axes[1].set(ylabel="bits per byte")
    for ax in axes:
        ax.set_xscale("log", base=2)
        ax.set_xticks(sizes[::2], [f"{size:,}" for size in sizes[::2]])
        ax.set(xlabel="ids in the vocabulary")
    return (
        fig,
        "Vocabularies learned from the plays. Fewer bits per byte are better.",
        "Two line plots over the size of the vocabulary: bytes per token for four kinds of text, "
        "and bits per byte of the frequency model.",
    )


def batches(
    shuffled: list[int],
    grouped: list[int],
    steps: Callable[[list[int], int], int],
    pack: Callable[[list[list[int]], int, int], list[list[int]]],
) -> Drawn:
    """Draw batches of 32 rows: in random order, two from a length group, and packed.

    Args:
        shuffled: the lengths of the texts in random order.
        grouped: the same lengths, sorted in groups of 50 batches.
        steps: LLM04's function.
        pack: LLM04+'s function.
    """

    def padding(part: list[int]) -> float:
        return 1 - sum(part) / steps(part, 32)

    share = padding(shuffled)
    random_batches = [shuffled[i : i + 32] for i in range(0, len(shuffled) - 31, 32)]
    typical = min(random_batches, key=lambda part: abs(padding(part) - share))
    chosen = {
        "random": typical,
        "group, middle batch": grouped[32 * 25 : 32 * 26],
        "group, last batch": grouped[32 * 49 : 32 * 50],
    }
    pictures = {
        f"{name}:\n{padding(part):.0%} padding": [[2] * n for n in part]
        for name, part in chosen.items()
    }
    groups = [grouped[i : i + 32] for i in range(0, len(grouped), 32)]
    empty = [len(part) * max(part) - sum(part) for part in groups]  # places of padding
    last = sum(empty[49::50]) + (empty[-1] if len(empty) % 50 else 0)
    numbers = [[1 + i % 2] * n for i, n in enumerate(shuffled[:600])]
    pictures["packed:\nno padding"] = pack(numbers, 256, 3)[:32]  # 1 and 2 alternate, 3 is an end
    fig, axes = plt.subplots(1, len(pictures), figsize=(9.4, 3.4), sharex=True, sharey=True)
    colours = ListedColormap(["#8a929c66", "#9ecae1", "#3182bd", "#08306b"])
    for ax, (title, rows) in zip(axes, pictures.items(), strict=True):
        width = max(map(len, rows))
        filled = [row + [0] * (width - len(row)) for row in rows]
        ax.imshow(filled, cmap=colours, vmin=0, vmax=3, aspect="auto", interpolation="none")
        ax.set_title(title, size=11)
        ax.set_xlabel("tokens")
        ax.grid(False)
    longest = max(len(row) for rows in pictures.values() for row in rows)
    axes[0].set(ylabel="row of the batch", xlim=(0, longest))
    return (
        fig,
        "Batches of 32 rows; grey is padding. The random batch has about the average share of "
        "padding. Most of the 50 batches of a length group look like the middle one. The last one "
        f"has the longest texts; the last batches hold {last / sum(empty):.0%} of the padding of "
        "all groups. In a packed batch, neighbouring blocks have two blues, and dark ids are ends.",
        "Four pictures of a batch with a line for each row: "
        + ", ".join(title.replace("\n", " ") for title in pictures)
        + ". The last batch of a group is much wider than the middle one.",
    )
