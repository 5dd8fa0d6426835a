"""LLM10's figures: what its experiments found, drawn; nothing is computed here but places."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

APART = 0.14  # nats from name to name beside a curve, so that they don't overlap


def first_losses(
    stds: Sequence[float], found: dict[str, list[list[float]]], uniform: float
) -> Figure:
    """By kind of model, for each σ: the loss (dots), and the formula's (lines)."""
    fig, ax = plt.subplots()
    for i, (name, rows) in enumerate(found.items()):
        ax.plot(stds, [row[1] for row in rows], f"C{i}-", label=f"{name}, formula")
        ax.plot(stds, [row[0] for row in rows], f"C{i}o", label="" if i else "measured")
    ax.axhline(uniform, color="grey", ls=":", label="ln V")
    ax.set(xlabel="σ, standard deviation of the weights", ylabel="loss (nats per token)",
           title="The first loss of an untrained model, d = 96, V = 257")  # fmt: skip
    ax.legend(fontsize=9)
    return fig


def descent(
    losses: Sequence[float], seen: dict[int, float], rungs: dict[str, float], each: int
) -> Figure:
    """The loss over the tokens seen, `each` a step: in training before a step, in validation after
    some; with the rungs as dotted lines."""
    fig, ax = plt.subplots(figsize=(7.2, 4.8))
    smooth = np.convolve(losses, np.full(5, 1 / 5), "valid")
    middle = np.arange(2, len(smooth) + 2)  # steps done before the middle one of each five
    ax.semilogx(middle * each, smooth, "C4", lw=1.5, label="training, mean of five steps")
    ax.plot([steps * each for steps in seen], list(seen.values()), "C0o", label="validation")
    first, last = min(min(seen), 2) * each, len(losses) * each
    beside = -np.inf
    for name, rung in sorted(rungs.items(), key=lambda item: item[1]):
        ax.hlines(rung, first, last, color="grey", ls=":", lw=1)
        beside = max(rung, beside + APART)
        ax.text(last * 1.08, beside, name, va="center", fontsize=9)
    ax.set(xlabel="tokens seen", ylabel="loss (nats per token)", xlim=(first, last * 2.2))
    ax.set_title("Down the ladder: the model, and what counting can do", pad=26)
    # above: on a short text there is something in each corner
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, borderpad=0.2)
    return fig


def letters(places: np.ndarray, shown: bytes, orange: bytes) -> Figure:
    """Bytes at their places in a plane, (letters, 2): `orange` ones, other letters, and signs."""
    fig, ax = plt.subplots(figsize=(7.2, 5))
    ax.scatter(*places.T, s=0)  # for the limits
    for (x, y), byte in zip(places.tolist(), shown, strict=True):
        kind = "C1" if byte in orange else "C0" if chr(byte).isalpha() else "k"
        ax.text(x, y, _name(byte), color=kind, ha="center", va="center")
    ax.set(title="Letters' rows, first two principal axes", xlabel="axis 1 (cosine)",
           ylabel="axis 2 (cosine)")  # fmt: skip
    return fig


def attention(weights: np.ndarray, sentence: bytes, title: str) -> Figure:
    """(T, T) weights of one head, over query and key."""
    fig, ax = plt.subplots(figsize=(7.2, 6))
    image = ax.imshow(weights, vmin=0, vmax=1)
    ax.grid(False)
    names = [_name(byte) for byte in sentence]
    ax.set_xticks(range(len(names)), names, fontsize=9)
    ax.set_yticks(range(len(names)), names, fontsize=9)
    ax.set(title=title, xlabel="key", ylabel="query")
    fig.colorbar(image, label="attention weight", shrink=0.8)
    return fig


def _name(byte: int) -> str:
    return {10: "\\n", 32: "␣"}.get(byte, chr(byte))


def parts(costs: dict[str, float], spread: float) -> Figure:
    """What the loss is more without each part; grey is what seeds do."""
    fig, ax = plt.subplots()
    order = sorted(costs, key=lambda name: costs[name])
    ax.barh(order, [costs[name] for name in order], color="C0")
    label = "range of three seeds, either way"
    ax.axvspan(-spread, spread, color="grey", alpha=0.3, zorder=0, label=label)
    ax.set(xlabel="loss more than the whole's (nats per token)", title="Each part, left out")
    ax.legend(loc="lower right")
    return fig


def speeds(lengths: Sequence[int], found: dict[str, Sequence[float]]) -> Figure:
    """Tokens per second, by name, over the new tokens."""
    fig, ax = plt.subplots()
    for name, values in found.items():
        ax.semilogx(lengths, values, "o-", label=name)
    ax.set(xlabel="new tokens", ylabel="tokens per second", title="Writing, one text at a time")
    ax.set_ylim(bottom=0)
    ax.set_xticks(lengths, [str(n) for n in lengths])
    ax.minorticks_off()
    ax.legend()
    return fig
