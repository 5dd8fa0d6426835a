"""The figures of LLM10 and LLM10+."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from labs.kit import Run
from labs.llm10_llama.parts import Config

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

APART = 0.14  # nats between two labels beside a curve, so that they don't overlap


def model(run: Run, config: Config, counts: Mapping[str, int]) -> None:
    """Draw the model as a column of boxes, and the parameters of each part as bars.

    Args:
        run: the run.
        config: its shape.
        counts: the number of parameters of each part.
    """
    fig, (ax, bars) = plt.subplots(1, 2, figsize=(9, 5.6), width_ratios=(5, 3))
    _column(ax, config)
    names = list(counts)
    bars.barh(names, [counts[name] / 1e3 for name in names], color=_COLOURS)
    for i, name in enumerate(names):
        share = counts[name] / sum(counts.values())
        shown = f"{share:.0%}" if share > 0.01 else f"{share:.1%}"
        bars.text(counts[name] / 1e3, i, f" {shown}", va="center")
    bars.set(xlabel="thousands of parameters", xlim=(0, 1.25 * max(counts.values()) / 1e3))
    bars.set_title("Where the parameters are")
    bars.invert_yaxis()
    run.figure(
        fig,
        "model",
        "A token's vector goes up through all blocks; each branch adds something to it.",
        alt="A column from the embedding through a block to the output; bars of parameters.",
    )


_COLOURS = ("C0", "C1", "C2", "grey")  # embedding, attention, feed-forward, norms


def _column(ax: Axes, c: Config) -> None:
    """Draw the path of a token, from the bottom to the top."""
    shapes = f"{c.heads} heads, {c.kv_heads} of keys"
    ends = "E again, tied" if c.tied else "a separate matrix"
    boxes = (
        (0, "token", f"one of {c.vocabulary:,}", "grey"),
        (1, "embedding E", f"{c.vocabulary:,} × {c.d_model}", "C0"),
        (2.6, "norm, attention", shapes, "C1"),
        (4.2, "norm, SwiGLU", f"{c.d_model} → {c.d_ff} → {c.d_model}", "C2"),
        (5.8, "norm", f"{c.d_model} gains", "grey"),
        (6.8, "output", ends, "C0"),
        (7.8, "logits", f"{c.vocabulary:,} scores", "grey"),
    )
    heights = [box[0] for box in boxes]
    ax.plot([0, 0], [heights[0], heights[-1]], color="grey", lw=2, zorder=0)
    for height, name, note, colour in boxes:
        branch = colour in ("C1", "C2")
        x = 1.5 if branch else 0
        _box(ax, x, height, name, colour)
        if branch:
            _branch(ax, height)
            ax.text(x + 0.08, height - 0.45, note, va="center", fontsize=9)
        else:
            ax.text(0.85, height, note, va="center", fontsize=9)
    ax.add_patch(Rectangle((-0.95, 1.72), 3.9, 3.42, fill=False, ls=":", color="grey"))
    ax.text(3.05, 3.4, f"× {c.layers}\nblocks", va="center")
    ax.set(xlim=(-1.2, 4.0), ylim=(-0.4, 8.2))
    ax.set_title(f"A LLaMA with vectors of width {c.d_model}")
    ax.axis("off")


def _box(ax: Axes, x: float, y: float, text: str, colour: str) -> None:
    style = "round,pad=0.02,rounding_size=0.1"
    ax.add_patch(FancyBboxPatch((x - 0.75, y - 0.27), 1.5, 0.54, style, fc=colour, ec="none"))
    ax.text(x, y, text, ha="center", va="center", color="white", fontsize=10)


def _branch(ax: Axes, height: float) -> None:
    """Draw a branch that leaves the column below `height` and is added to it above."""
    below = height - 0.68
    above = height + 0.62
    ax.plot([0, 1.5, 1.5], [below, below, height], color="grey", lw=1.2, zorder=0)
    ax.plot([1.5, 1.5, 0.16], [height, above, above], color="grey", lw=1.2, zorder=0)
    ax.text(0, above, "+", ha="center", va="center", color="white", bbox=_PLUS, fontsize=11)


_PLUS = {"boxstyle": "circle,pad=0.15", "fc": "grey", "ec": "none"}


def slopes(run: Run, values: np.ndarray) -> None:
    """Draw how much each place's logits depend on each token's vector, (T, T); 0 stays blank."""
    fig, ax = plt.subplots(figsize=(6.4, 5))
    seen = np.where(values > 0, values, np.nan)
    image = ax.imshow(seen, norm=LogNorm())
    ax.set_xticks(range(0, len(values), 5))
    ax.set_yticks(range(0, len(values), 5))
    ax.set_title("No place depends on a later token")
    ax.set(xlabel="token that it may depend on", ylabel="place of the logits")
    ax.grid(visible=False)
    fig.colorbar(image, label="largest |∂ Σ logit² / ∂ vector|", shrink=0.8)
    run.figure(
        fig,
        "slopes",
        "How much the logits after each token depend on each token's vector. White: exactly 0.",
        alt="Heat map: a filled triangle of past tokens, and an empty triangle of future ones.",
    )


def first_losses(
    run: Run,
    losses: Mapping[str, Sequence[float]],
    stds: Sequence[float],
    formula: Callable[[float], float],
) -> None:
    """Draw the first loss against σ, measured and by the formula.

    Args:
        run: the run.
        losses: of each kind of model, in nats, one for each σ.
        stds: the values of σ.
        formula: returns the predicted loss for a σ.
    """
    fig, ax = plt.subplots()
    fine = np.linspace(0, stds[-1], 100)
    ax.plot(fine, [formula(std) for std in fine], "grey", label="ln V + dσ²/2")
    for i, (name, values) in enumerate(losses.items()):
        ax.plot(stds, values, f"C{i}{'ox'[i % 2]}", label=name, ms=8)
    ax.axhline(formula(0), color="grey", ls=":")
    ax.text(stds[-1], formula(0) + 0.01, "ln V", ha="right")
    ax.set_title("The first loss follows from V, d and σ")
    ax.set(xlabel="σ, standard deviation of the weights", ylabel="loss (nats per token)")
    ax.legend(loc="upper left")
    run.figure(
        fig,
        "first_loss",
        "The first loss of untrained models, d = 96, on random tokens; line: the formula.",
        alt="First loss over σ: measured points lie on a curve that rises from ln V.",
    )


def descent(
    losses: Sequence[float], seen: Mapping[int, float], rungs: Mapping[str, float], each: int
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
        ax.text(last * 1.15, height, name, va="center", fontsize=9)
    ax.set(xlabel="tokens seen", ylabel="loss (nats per token)", xlim=(first, last * 2.4))
    ax.set_title("Down the ladder: the model, and what counting can do", pad=26)
    # above the axes: with a short text, every corner has something in it
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, borderpad=0.2)
    return fig


def samples(run: Run, seen: Mapping[int, Sequence[Any]], shares: Mapping[int, float]) -> None:
    """Draw the texts that a model wrote on the way.

    Args:
        run: the run.
        seen: by the number of steps done, the validation loss and a text.
        shares: the share of known words in each text.
    """
    run.figure(
        page_of_samples(seen, shares),
        "samples",
        "What the model wrote on the way, after a newline, at temperature 0.8 within the top 0.95.",
        alt="Four texts: random signs at first, then letters and spaces, then words and speakers.",
    )


def page_of_samples(seen: Mapping[int, Sequence[Any]], shares: Mapping[int, float]) -> Figure:
    """Draw four texts that a model wrote during its training: the last, and every second before.

    Args:
        seen: by the number of steps done, the validation loss and a text.
        shares: the share of known words in each text.
    """
    fig, axes = plt.subplots(2, 2, figsize=(7.6, 6.6))
    shown = list(seen.items())[::-2][: axes.size][::-1]
    last_text = shown[-1][1][1]
    latin = sum(letter > LATIN for letter in last_text) < len(last_text) / 10
    for ax in axes.flat:
        ax.axis("off")
    for ax, (steps, (loss, text)) in zip(axes.flat, shown, strict=False):
        count = f"{steps:,} step{'s' if steps > 1 else ''}"
        title = f"{count}: {loss:.2f} nats, {shares[steps]:.0%} known words"
        ax.set_title(title, fontsize=10)
        page = "\n".join(lines_of(text, latin)[:LINES])
        ax.text(0, 1, page, va="top", family="monospace", fontsize=8, parse_math=False)
    fig.suptitle("Samples during training", x=0.01, ha="left")
    return fig


COLUMNS = 42  # letters in a line of a sample
LINES = 15
LATIN = "\u024f"  # the last Latin letter


def lines_of(text: str, latin: bool) -> list[str]:
    """Return a text in lines of at most COLUMNS letters; what can't be shown is a dot.

    In a Latin text, letters of other scripts are dots too: few fonts have all of them.
    """
    lines: list[str] = []
    for line in text.strip("\n").split("\n"):
        known = [letter.isprintable() and not (latin and letter > LATIN) for letter in line]
        shown = "".join(x if good else "·" for x, good in zip(line, known, strict=True))
        lines += textwrap.wrap(shown, COLUMNS, break_on_hyphens=False) or [""]
    return lines
