"""The figures of LLM10+."""

from collections.abc import Mapping, Sequence
from typing import Any

from labs.kit import Run
from labs.llm10_llama.bugs import Row

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor


def bugs(run: Run, rows: Sequence[Row], sound: Sequence[float]) -> None:
    """Draw the two losses of each model with a bug.

    Args:
        run: the run.
        rows: the models.
        sound: the sound model's loss by seed.
    """
    fig, ax = plt.subplots(figsize=(8, 4.4))
    names = [row.planted for row in rows]
    places = range(len(rows))
    style: dict[str, Any] = {"ms": 11, "mew": 2, "mfc": "none"}
    ax.plot([row.loss for row in rows], places, "C0o", **style, label="text read at once")
    one_by_one = [row.one_by_one for row in rows]
    ax.plot(one_by_one, places, "C1x", ms=9, mew=2, label="one token at a time")
    ax.axvspan(min(sound), max(sound), color="grey", alpha=0.6, zorder=0)
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.set_title("The loss after training, read in two ways", pad=26)
    ax.set(xlabel="validation loss (nats per token), log axis", xscale="log")
    ticks = (0.1, 0.2, 0.5, 1, 2, 3, 5)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, borderpad=0.2)
    run.figure(
        fig,
        "bugs",
        "The loss after training, on text read at once and one token at a time. Grey: the range of "
        "three sound models.",
        alt="Two dots for each planted bug: the loss on a text read at once and token by token.",
    )


def muon(
    run: Run,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    coefficients: Sequence[float],
) -> None:
    """Draw Muon's polynomial, and singular values of gradients before and after it.

    Args:
        run: the run.
        before: the singular values of each matrix, relative to its norm.
        after: those of the orthogonalized matrix.
        coefficients: a, b and c.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
    a, b, c = coefficients
    start = np.geomspace(1e-3, 1, 400)
    s = start
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    left.semilogx(start, s, "C0")
    left.axhline(1, color="grey", ls=":")
    left.set_title("Five steps bring 0.003 to 1 near 1", fontsize=11)
    left.set(xlabel="singular value before", ylabel="after", ylim=(0, 1.4))
    for i, (name, values) in enumerate(before.items()):
        share = np.linspace(0, 1, len(values))
        right.semilogy(share, values.numpy(), f"C{i}:")
        right.semilogy(share, after[name].numpy(), f"C{i}", label=name)
    right.set_title("Four gradients: before (dotted), after", fontsize=11)
    right.set(
        xlabel="place in falling order ÷ their number", ylabel="singular value", ylim=(1e-4, 3)
    )
    right.legend(fontsize=9, loc="lower left")
    run.figure(
        fig,
        "muon",
        "Left: what five steps do to a singular value. Right: those of gradients of a first block, "
        "before (relative to the norm) and after. q_proj reads one vector for each different byte, "
        "so about two fifths of its values are 0.",
        alt="A curve that rises steeply from 0 and stays between 0.7 and 1.2; beside it falling "
        "lines of singular values before; lines after are nearly flat until they fall, one at 0.6.",
    )


def letters(run: Run, cosines: np.ndarray, shown: bytes, vowels: int) -> None:
    """Draw the cosines of letters' rows, with lines between groups of letters.

    Args:
        run: the run.
        cosines: of each letter's row and each other's, (letters, letters).
        shown: the letters: vowels, consonants, and the capitals of both.
        vowels: the number of vowels.
    """
    fig, ax = plt.subplots(figsize=(7.2, 6))
    others = np.where(np.eye(len(shown), dtype=bool), np.nan, cosines)
    bound = np.nanmax(np.abs(others))
    image = ax.imshow(others, cmap="RdBu_r", vmin=-bound, vmax=bound)
    ax.grid(visible=False)
    half = len(shown) // 2
    for place in (vowels, half, half + vowels):
        ax.axhline(place - 0.5, color="grey", lw=1)
        ax.axvline(place - 0.5, color="grey", lw=1)
    names = [_name(byte) for byte in shown]
    ax.set_xticks(range(len(names)), names, fontsize=9)
    ax.set_yticks(range(len(names)), names, fontsize=9)
    ax.set_title("Which letters have similar embedding rows?")
    fig.colorbar(image, label="cosine", shrink=0.8)
    run.figure(
        fig,
        "letters",
        "Cosines of the letters' rows. Lines separate vowels, the eight most frequent consonants, "
        "and the capitals of both. A letter's cosine with itself is left out.",
        alt="Heat map of the cosines of 26 letters' rows, with lines between four groups.",
    )


def attention(weights: np.ndarray, sentence: bytes, title: str) -> Figure:
    """Draw the attention weights of one head, (T, T), by query and key."""
    fig, ax = plt.subplots(figsize=(7.2, 6))
    image = ax.imshow(weights, vmin=0, vmax=1)
    ax.grid(visible=False)
    names = [_name(byte) for byte in sentence]
    ax.set_xticks(range(len(names)), names, fontsize=9)
    ax.set_yticks(range(len(names)), names, fontsize=9)
    ax.set(title=title, xlabel="key", ylabel="query")
    fig.colorbar(image, label="attention weight", shrink=0.8)
    return fig


def _name(byte: int) -> str:
    """Return a byte as a label."""
    return {10: "\\n", 32: "␣"}.get(byte, chr(byte))


def parts(costs: dict[str, float], bound: float) -> Figure:
    """Draw how much higher the loss of each arm is, the largest cost on top.

    Args:
        costs: the additional loss by arm, in nats.
        bound: nats, either way, that seeds may explain; drawn in grey.
    """
    fig, ax = plt.subplots()
    order = sorted(costs, key=lambda name: costs[name])
    ax.barh(order, [costs[name] for name in order], color="C0")
    label = "four ranges of three seeds"
    ax.axvspan(-bound, bound, color="grey", alpha=0.3, zorder=0, label=label)
    ax.set_title("What it costs to replace one part")
    ax.set(xlabel="loss minus the complete model's (nats per token)")
    ax.legend(loc="lower right")
    return fig


def gains(lengths: Sequence[int], found: Mapping[str, Sequence[float]]) -> Figure:
    """Draw without ÷ with a cache against the number of new tokens, one line for each name."""
    fig, ax = plt.subplots()
    for name, values in found.items():
        ax.loglog(lengths, values, "o-", label=name)
    ax.set_title("A cache saves far more FLOPs than time")
    ax.set(xlabel="new tokens", ylabel="without a cache ÷ with a cache")
    ax.set_xticks(lengths, [str(n) for n in lengths])
    ticks = (1, 2, 5, 10, 20, 50, 100, 200, 500)
    ax.set_yticks(ticks, [str(n) for n in ticks])
    ax.set_ylim(1, 2 * max(max(values) for values in found.values()))
    ax.minorticks_off()
    ax.legend()
    return fig


def flops(run: Run, curves: dict[str, tuple[list[int], list[float]]]) -> None:
    """Draw a forward pass's FLOPs, relative to 2·N·T, against the length.

    Args:
        run: the run.
        curves: by model, the lengths T and the ratios.
    """
    fig, ax = plt.subplots()
    height = -np.inf
    by_end = sorted(curves.items(), key=lambda item: item[1][1][-1])
    for i, (name, (lengths, ratios)) in enumerate(by_end):
        ax.semilogx(lengths, ratios, f"C{i}o-", base=2)
        if lengths[-1] > 2**12:  # the others end where they have room
            height = max(ratios[-1], height + 0.17)
        place = height if lengths[-1] > 2**12 else ratios[-1]
        ax.text(lengths[-1] * 1.1, place, name, color=f"C{i}", va="center", fontsize=10)
    ax.axhline(1, color="grey", ls=":")
    ax.set(xlabel="tokens T in a sequence", ylabel="forward FLOPs ÷ 2·N·T", xlim=(100, 40_000))
    ax.set_ylim(bottom=0)
    ax.set_title("2N FLOPs a token is too little for long texts")
    run.figure(
        fig,
        "flops",
        "The exact count ÷ the estimate. GPT-2's line ends at its 1,024 positions, the others at "
        "8,192 tokens, beyond Llama-2's 4,096. Dotted: equal.",
        alt="Lines of forward FLOPs divided by 2·N·T over the length of a sequence, one for each "
        "of four models; a dotted line marks 1.",
    )


def replies(kinds: Sequence[str], right: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the share of right replies by kind of question, a bar for each model.

    Args:
        kinds: the kinds of questions.
        right: by the name of a model, its shares, in the order of the kinds.
    """
    fig, ax = plt.subplots(figsize=(7.2, 4.2))
    width = 0.8 / len(right)
    places = np.arange(len(kinds))
    for i, (name, shares) in enumerate(right.items()):
        ax.barh(places + i * width, shares, width, color=f"C{i}", label=name)
    ax.set_yticks(places + 0.4 - width / 2, kinds)
    ax.invert_yaxis()
    ax.set(xlabel="share of right replies to held-out questions", xlim=(0, 1))
    ax.set_title("What it learns to reply, and what is only the form", pad=26)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, borderpad=0.2)
    return fig
