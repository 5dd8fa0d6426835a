"""The figures of LLM10 and LLM10+."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

APART = 0.14  # nats between two labels beside a curve, so that they don't overlap


def first_losses(
    stds: Sequence[float], found: dict[str, list[list[float]]], uniform: float
) -> Figure:
    """Draw the first loss against σ, measured and by the formula.

    Args:
        stds: the values of σ.
        found: by kind of model one row for each σ: the loss, the formula's loss, the own logit.
        uniform: the loss of a uniform model, in nats.
    """
    fig, ax = plt.subplots()
    for i, (name, rows) in enumerate(found.items()):
        ax.plot(stds, [row[1] for row in rows], f"C{i}-", label=f"{name}, formula")
        ax.plot(stds, [row[0] for row in rows], f"C{i}o", label="" if i else "measured")
    ax.axhline(uniform, color="grey", ls=":", label="ln V")
    ax.set_title("The first loss of an untrained model, d = 96, V = 257")
    ax.set(xlabel="σ, standard deviation of the weights", ylabel="loss (nats per token)")
    ax.legend(fontsize=9)
    return fig


def descent(
    losses: Sequence[float], seen: dict[int, float], rungs: dict[str, float], each: int
) -> Figure:
    """Draw the loss against the number of tokens seen, with the baselines as dotted lines.

    Args:
        losses: the training loss before each step.
        seen: the validation loss, by the number of steps done.
        rungs: the baselines' losses by name.
        each: tokens per step.
    """
    fig, ax = plt.subplots(figsize=(7.2, 4.8))
    smooth = np.convolve(losses, np.full(5, 1 / 5), "valid")
    middle = np.arange(2, len(smooth) + 2)  # steps done before the middle one of each five
    ax.semilogx(middle * each, smooth, "C4", lw=1.5, label="training, mean of five steps")
    ax.plot([steps * each for steps in seen], list(seen.values()), "C0o", label="validation")
    first = min(min(seen), 2) * each
    last = len(losses) * each
    height = -np.inf
    for name, rung in sorted(rungs.items(), key=lambda item: item[1]):
        ax.hlines(rung, first, last, color="grey", ls=":", lw=1)
        height = max(rung, height + APART)
        ax.text(last * 1.08, height, name, va="center", fontsize=9)
    ax.set(xlabel="tokens seen", ylabel="loss (nats per token)", xlim=(first, last * 2.2))
    ax.set_title("Down the ladder: the model, and what counting can do", pad=26)
    # above the axes: with a short text, every corner has something in it
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, borderpad=0.2)
    return fig


def letters(places: np.ndarray, shown: bytes, orange: bytes) -> Figure:
    """Draw bytes in a plane: some in orange, other letters in blue, signs in the page's ink.

    Args:
        places: the coordinates, (letters, 2).
        shown: the byte at each place.
        orange: the bytes to draw in orange.
    """
    fig, ax = plt.subplots(figsize=(7.2, 5))
    ax.scatter(*places.T, s=0)  # sets the limits of the axes
    for (x, y), byte in zip(places.tolist(), shown, strict=True):
        other = "C0" if chr(byte).isalpha() else "C6"  # the page's ink
        color = "C1" if byte in orange else other
        ax.text(x, y, _name(byte), color=color, ha="center", va="center")
    ax.set_title("Letters' rows, first two principal axes")
    ax.set(xlabel="axis 1 (cosine)", ylabel="axis 2 (cosine)")
    return fig


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


def parts(costs: dict[str, float], spread: float) -> Figure:
    """Draw how much higher the loss is without each part, the largest cost on top.

    Args:
        costs: the additional loss by part, in nats.
        spread: the range of the complete model's loss over seeds, drawn in grey.
    """
    fig, ax = plt.subplots()
    order = sorted(costs, key=lambda name: costs[name])
    ax.barh(order, [costs[name] for name in order], color="C0")
    label = "range of three seeds, either way"
    ax.axvspan(-spread, spread, color="grey", alpha=0.3, zorder=0, label=label)
    ax.set_title("Each part, left out")
    ax.set(xlabel="loss minus the complete model's (nats per token)")
    ax.legend(loc="lower right")
    return fig


def speeds(lengths: Sequence[int], found: dict[str, Sequence[float]]) -> Figure:
    """Draw tokens per second against the number of new tokens, one line for each name."""
    fig, ax = plt.subplots()
    for name, values in found.items():
        ax.semilogx(lengths, values, "o-", label=name)
    ax.set_title("Writing, one text at a time")
    ax.set(xlabel="new tokens", ylabel="tokens per second")
    ax.set_ylim(bottom=0)
    ax.set_xticks(lengths, [str(n) for n in lengths])
    ax.minorticks_off()
    ax.legend()
    return fig


def flops(curves: dict[str, tuple[list[int], list[float]]]) -> Figure:
    """Draw a forward pass's FLOPs, relative to 2·N·T, against the length.

    Args:
        curves: by model, the lengths T and the ratios.
    """
    fig, ax = plt.subplots()
    for i, (name, (lengths, ratios)) in enumerate(curves.items()):
        ax.semilogx(lengths, ratios, f"C{i}o-", base=2, label=name)
    ax.axhline(1, color="grey", ls=":")
    ax.set(xlabel="tokens T in a sequence", ylabel="forward FLOPs ÷ 2·N·T", ylim=(0, None))
    ax.set_title("2N FLOPs a token is too little for long texts")
    ax.legend(fontsize=9)
    return fig
